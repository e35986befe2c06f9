//! The broker of this repository, by its own command line.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Broker;
use crate::tools;

pub(super) fn command(broker: &Broker) -> Result<Command> {
    let binary = broker.binary.clone().map_or_else(binary, Ok)?;
    let mut command = Command::new(binary);
    command.arg("dev").arg("--data-dir").arg(&broker.data);
    command.arg("--kafka").arg(broker.kafka.to_string());
    command.arg("--admin").arg(broker.admin.to_string());
    // As for Apache Kafka: a test's members join when they come, and are not waited for long.
    for setting in [
        "initial_rebalance_delay=0s",
        "consumer_session_timeout=6s",
        "consumer_heartbeat_interval=500ms",
    ] {
        command.arg("--set").arg(format!("kafka.groups.{setting}"));
    }
    command.arg("--set").arg(format!("node.id={}", broker.node_id));
    for (key, value) in &broker.settings {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    Ok(command)
}

/// `TAKHIN_BIN`, else the newer one of the release and the debug build of this checkout.
pub(super) fn binary() -> Result<PathBuf> {
    tools::built("TAKHIN_BIN", "takhin", "cargo build -p takhin-broker")
}

/// Whether `GET /readyz` answers 200.
pub(crate) fn is_ready(admin: SocketAddr) -> bool {
    http_get(admin, "/readyz").is_ok_and(|answer| {
        let mut words = answer.split_ascii_whitespace();
        words.nth(1) == Some("200")
    })
}

/// The whole answer to one HTTP/1.0 request, status line and head included.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> Result<String> {
    http(address, "GET", path, "")
}

/// The value of one series of `/metrics`, named with its labels as it is printed; 0 where there is none yet.
pub(crate) fn metric(admin: SocketAddr, series: &str) -> Result<f64> {
    let answer = http_get(admin, "/metrics")?;
    let value = answer
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(value.map_or(Ok(0.0), str::parse)?)
}

/// The whole answer to one HTTP/1.0 request without a body; `headers` are whole lines.
pub(super) fn http(address: SocketAddr, method: &str, path: &str, headers: &str) -> Result<String> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
