//! Apache Kafka as one KRaft node, set up to resemble a single takhin.

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Broker, write_file};
use crate::{process, tools};

const CLUSTER_ID: &str = "TakhinE2ETakhinE2E1234";
const HEAP: &str = "-Xmx512m";

/// The broker's command; formats the data directory first if it is new.
pub(super) fn command(broker: &Broker) -> Result<Command> {
    let config = broker.work.path().join("server.properties");
    write_file(&config, &properties(broker)?)?;
    if !broker.data.join("meta.properties").exists() {
        fs::create_dir_all(&broker.data)?;
        let mut format = tools::java("-Xmx128m", "kafka.tools.StorageTool")?;
        format.args(["format", "-t", CLUSTER_ID, "-c"]).arg(&config);
        process::run(&mut format, Duration::from_secs(60))?;
    }
    let mut command = tools::java(HEAP, "kafka.Kafka")?;
    // Native codecs are unpacked there, and stay there when the broker is killed.
    command.env(
        "JAVA_TOOL_OPTIONS",
        format!("-Djava.io.tmpdir={}", broker.work.path().display()),
    );
    command.arg(&config);
    Ok(command)
}

fn properties(broker: &Broker) -> Result<String> {
    let (kafka, controller, data) = (broker.kafka, broker.controller, broker.data.display());
    let node_id = broker.node_id;
    let mut text = format!(
        "process.roles=broker,controller
node.id={node_id}
listeners=PLAINTEXT://{kafka},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{kafka}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.quorum.voters={node_id}@{controller}
log.dirs={data}
num.partitions=4
auto.create.topics.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=8388608
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=1000
controller.quorum.election.timeout.ms=200
controller.quorum.fetch.timeout.ms=500
"
    );
    for (key, value) in &broker.settings {
        writeln!(text, "{key}={value}")?;
    }
    Ok(text)
}
