//! Apache Kafka: KRaft nodes, each broker and controller, with 1 GiB of heap and the settings of its own start script.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{Launcher, Member, free_addr};

/// `KAFKA_JVM_PERFORMANCE_OPTS` of `kafka-run-class.sh`.
const JVM: [&str; 8] = [
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

const LOGGING: &str = "\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
";

/// Writes the configuration of one member into `dir` and formats its data directory.
pub(super) fn format(launcher: &Launcher, dir: &Path, member: &Member<'_>) -> Result<()> {
    let (kafka, controller) = (free_addr()?, member.own());
    let voters = (1..)
        .zip(member.peers)
        .map(|(id, addr): (usize, _)| format!("{id}@{addr}"))
        .collect::<Vec<_>>()
        .join(",");
    let replicas = member.peers.len().min(3).to_string();
    let data = dir.join("data");
    let mut properties = String::new();
    for (key, value) in [
        ("process.roles", "broker,controller"),
        ("node.id", &member.id.to_string()),
        ("controller.quorum.voters", &voters),
        (
            "listeners",
            &format!("PLAINTEXT://{kafka},CONTROLLER://{controller}"),
        ),
        ("advertised.listeners", &format!("PLAINTEXT://{kafka}")),
        ("controller.listener.names", "CONTROLLER"),
        ("log.dirs", &data.display().to_string()),
        ("offsets.topic.replication.factor", &replicas),
        ("transaction.state.log.replication.factor", &replicas),
        ("transaction.state.log.min.isr", "1"),
        ("auto.create.topics.enable", "false"),
        // A rebalance takes what it takes; waiting for members that may come would hide it.
        ("group.initial.rebalance.delay.ms", "0"),
        // So that what one run wrote is gone before the next one begins.
        ("log.segment.delete.delay.ms", "0"),
    ] {
        writeln!(properties, "{key}={value}")?;
    }
    fs::write(dir.join("server.properties"), properties)?;
    fs::write(dir.join("log4j2.properties"), LOGGING)?;
    let mut command = java(launcher, dir)?;
    command.args([
        "kafka.tools.StorageTool",
        "format",
        "--cluster-id",
        "dGFraGluLWJlbmNoLWlkMQ",
        "--config",
    ]);
    let output = command
        .arg(dir.join("server.properties"))
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "formatting Kafka's directory failed: {said}"
    );
    Ok(())
}

/// Starts it on a formatted directory.
pub(super) fn command(launcher: &Launcher, dir: &Path) -> Result<Command> {
    let mut command = java(launcher, dir)?;
    command.arg("kafka.Kafka").arg(dir.join("server.properties"));
    Ok(command)
}

/// The address that `format` chose.
pub(super) fn listener(dir: &Path) -> Result<SocketAddr> {
    let properties = fs::read_to_string(dir.join("server.properties"))?;
    let listener = properties
        .lines()
        .find_map(|line| line.strip_prefix("advertised.listeners=PLAINTEXT://"));
    Ok(listener.context("Kafka's directory is not formatted")?.parse()?)
}

fn java(launcher: &Launcher, dir: &Path) -> Result<Command> {
    let jars = launcher
        .kafka_jars
        .as_ref()
        .context("Apache Kafka was not fetched")?;
    let mut command = Command::new("java");
    command.args(JVM).arg(format!(
        "-Dlog4j2.configurationFile={}",
        dir.join("log4j2.properties").display()
    ));
    command.arg("-cp").arg(jars.join("*"));
    Ok(command)
}
