//! Takhin: one node with its defaults, but for addresses, directory, and what both sides have alike: as many connections
//! as come, and rebalances without an initial delay.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Launcher, free_addr};

/// What starts it, its Kafka listener, its admin listener. The addresses are chosen anew each time.
pub(super) fn command(launcher: &Launcher, dir: &Path) -> Result<(Command, SocketAddr, Option<SocketAddr>)> {
    ensure!(
        launcher.takhin.exists(),
        "{} does not exist; build it with `cargo build --release`, or name it with --takhin",
        launcher.takhin.display()
    );
    let (kafka, admin) = (free_addr()?, free_addr()?);
    let config = dir.join("takhin.yaml");
    let rpc = rpc_addr(&config)?;
    let data = dir.join("data");
    let text = format!(
        "node: {{ id: 1, data_dir: {} }}\n\
         cluster: {{ name: bench, seeds: [\"{rpc}\"] }}\n\
         kafka:\n\
         \x20 listeners: [ {{ name: internal, bind: \"{kafka}\", advertise: \"{kafka}\" }} ]\n\
         \x20 limits: {{ max_connections: 1000000, max_connections_per_ip: 1000000 }}\n\
         \x20 groups: {{ initial_rebalance_delay: 0ms }}\n\
         rpc: {{ bind: \"{rpc}\", advertise: \"{rpc}\" }}\n\
         admin: {{ bind: \"{admin}\" }}\n",
        data.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new(&launcher.takhin);
    command.arg("start").arg("--config").arg(&config);
    Ok((command, kafka, Some(admin)))
}

/// The address at which the cluster knows this node: a restart keeps it.
fn rpc_addr(config: &Path) -> Result<SocketAddr> {
    let text = fs::read_to_string(config).unwrap_or_default();
    match text
        .split_once("seeds: [\"")
        .and_then(|(_, rest)| rest.split_once('"'))
    {
        Some((addr, _)) => Ok(addr.parse()?),
        None => free_addr(),
    }
}
