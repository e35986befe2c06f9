//! Consumers that name their rack (KIP-392): stock clients read from the follower in it, and from the leader when it dies.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kcat::placements;
use takhin_e2e::process::{self, Running};
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Broker, Cluster, tools, wait, wire};

use crate::crash::{LIMIT, sound};
use crate::suite::{Context, Suites};

const TOPIC: &str = "near";

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("racks::consumers_read_from_the_follower_in_their_rack", near);
}

fn rack(id: u32) -> String {
    format!("rack-{id}")
}

/// confluent-kafka in a rack, printing the offset of each record into a file as it comes.
///
/// Not kcat: librdkafka 2.0.2 clings to a dead follower for five minutes, whatever the leader says.
fn read_on(bootstrap: &str, rack: &str, output: &Path) -> Result<Running> {
    let mut command = tools::python("rack_reader.py")?;
    command.args([bootstrap, TOPIC, rack]);
    command
        .stdin(Stdio::null())
        .stdout(File::create(output)?)
        .stderr(Stdio::null());
    Running::start(&mut command)
}

/// The offsets in `output` so far.
fn offsets(output: &Path) -> Result<Vec<i64>> {
    let text = fs::read_to_string(output)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let offsets = whole.lines().map(str::parse);
    offsets
        .collect::<Result<_, _>>()
        .context("an offset on each line")
}

/// Java's console consumer in a rack reads the first records.
fn java_reads(bootstrap: &str, rack: &str, count: usize) -> Result<()> {
    let mut tool = tools::java("-Xmx128m", "org.apache.kafka.tools.consumer.ConsoleConsumer")?;
    tool.args(["--bootstrap-server", bootstrap, "--topic", TOPIC]);
    tool.args(["--partition", "0", "--offset", "earliest"]);
    tool.args(["--max-messages", &count.to_string(), "--timeout-ms", "60000"]);
    tool.args(["--command-property", &format!("client.rack={rack}")]);
    for property in ["print.offset=true", "print.value=false"] {
        tool.args(["--formatter-property", property]);
    }
    let output = process::run(&mut tool, LIMIT)?.text();
    let wanted = (0..count).map(|offset| format!("Offset:{offset}"));
    ensure!(output.lines().map(str::trim).eq(wanted), "Java read {output}");
    Ok(())
}

fn bytes_out(broker: &Broker) -> Result<f64> {
    broker.metric(&format!("takhin_topic_bytes_out_total{{topic=\"{TOPIC}\"}}"))
}

fn near(_: &Context) -> Result<()> {
    let mut cluster = Cluster::start_with(3, 3, |id, broker| {
        broker.set("node.rack", &rack(id));
    })?;
    let bootstrap = cluster.bootstrap();
    let mut connection = wire::Connection::open(cluster.brokers[0].address())?;
    let error = connection.create_replicated_topic(TOPIC, 1, 3, &[])?;
    ensure!(error == 0, "CreateTopics {TOPIC}: error {error}");
    let placement = wait::value("all replicas to be in sync", LIMIT, || {
        let found = placements(&bootstrap, TOPIC)?.pop();
        // Leadership comes back to the first replica by itself, and stays there.
        Ok(found.filter(|found| found.in_sync == 3 && found.replicas.first() == Some(&found.leader)))
    })?;
    let leader = u32::try_from(placement.leader)?;
    let near = (1..=3).find(|id| *id != leader).context("a follower")?;
    let index = |id: u32| usize::try_from(id - 1);
    let (leader, follower) = (index(leader)?, index(near)?);

    let mut writer = Writer::start(&bootstrap, TOPIC, 1)?;
    writer.wait_acked(1_000, LIMIT)?;
    let dir = tempfile::tempdir()?;
    let output = dir.path().join("offsets");
    let mut reader = read_on(&bootstrap, &rack(near), &output)?;
    java_reads(&bootstrap, &rack(near), 1_000)?;
    wait::until("librdkafka to read", LIMIT, || {
        Ok(offsets(&output)?.len() >= 1_000)
    })?;
    let (near_bytes, leader_bytes) = (
        bytes_out(&cluster.brokers[follower])?,
        bytes_out(&cluster.brokers[leader])?,
    );
    ensure!(
        near_bytes > 0.0 && leader_bytes == 0.0,
        "the follower sent {near_bytes} bytes, the leader {leader_bytes}"
    );

    cluster.brokers[follower].kill();
    writer.wait_acked(1_000, LIMIT)?;
    let log = writer.finish()?;
    let mut connection = wire::Connection::open(cluster.brokers[leader].address())?;
    let end = connection.list_offset(TOPIC, 0, -1)?;
    wait::until("librdkafka to read all", Duration::from_secs(60), || {
        ensure!(reader.ended()?.is_none(), "librdkafka has ended");
        Ok(offsets(&output)?.len() >= usize::try_from(end)?)
    })?;
    let read = offsets(&output)?;
    ensure!(read.into_iter().eq(0..end), "offsets are lost or come twice");
    sound(&writer::check(&bootstrap, TOPIC, &log)?)
}
