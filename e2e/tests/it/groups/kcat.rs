//! kcat's balanced consumers (`-G`), which commit by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::process::{self, Running};
use takhin_e2e::session::{LIMIT, Session};
use takhin_e2e::{Broker, tools, wait};
use tempfile::TempDir;

use super::{all_at, fill, partitions};
use crate::suite::create_topic;

const TOPIC: &str = "kcat-group";
const GROUP: &str = "kcats";
const PARTITIONS: i32 = 4;

/// A running kcat in the group.
struct Kcat {
    process: Running,
    dir: TempDir,
}

impl Kcat {
    fn start(bootstrap: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = tools::kcat();
        command.args(["-b", bootstrap, "-G", GROUP, "-u", "-f", "%p %o\n"]);
        for setting in [
            "session.timeout.ms=6000",
            "heartbeat.interval.ms=500",
            "auto.offset.reset=earliest",
            "auto.commit.interval.ms=100",
        ] {
            command.args(["-X", setting]);
        }
        command
            .arg(TOPIC)
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("out"))?)
            .stderr(File::create(dir.path().join("err"))?);
        Ok(Self {
            process: Running::start(&mut command)?,
            dir,
        })
    }

    /// Partition and offset of each record so far.
    fn read(&mut self) -> Result<Vec<(i32, i64)>> {
        let text = fs::read_to_string(self.dir.path().join("out"))?;
        // The last line may still be growing.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| {
                let (partition, offset) = line.split_once(' ').context("kcat: half a line")?;
                Ok((partition.parse()?, offset.parse()?))
            })
            .collect()
    }

    fn wait_read(&mut self, count: usize) -> Result<()> {
        let waited = wait::until(format_args!("{count} records of kcat"), LIMIT, || {
            Ok(self.read()?.len() >= count)
        });
        waited.with_context(|| fs::read_to_string(self.dir.path().join("err")).unwrap_or_default())
    }
}

pub(super) fn handover(broker: &Broker) -> Result<()> {
    create_topic(broker, TOPIC, PARTITIONS, &[])?;
    fill(broker, TOPIC, PARTITIONS, 0..10)?;
    let bootstrap = broker.bootstrap();
    let mut admin = Session::confluent(&bootstrap)?;
    let mut first = Kcat::start(&bootstrap)?;
    first.wait_read(40)?;
    wait_committed(&mut admin, 10)?;
    let mut second = Kcat::start(&bootstrap)?;
    wait::until("two members", LIMIT, || Ok(shares(&mut admin)? == [2, 2]))?;

    fill(broker, TOPIC, PARTITIONS, 10..15)?;
    first.wait_read(50)?;
    second.wait_read(10)?;
    wait_committed(&mut admin, 15)?;
    second.process.kill();
    fill(broker, TOPIC, PARTITIONS, 15..20)?;
    first.wait_read(70)?;
    ensure!(shares(&mut admin)? == [4], "the one that is left has everything");

    let mut times: BTreeMap<_, usize> = BTreeMap::new();
    for record in [first.read()?, second.read()?].concat() {
        *times.entry(record).or_default() += 1;
    }
    let all: BTreeSet<_> = (0..PARTITIONS)
        .flat_map(|partition| (0..20).map(move |offset| (partition, offset)))
        .collect();
    ensure!(
        times.keys().copied().eq(all) && times.values().all(|&n| n == 1),
        "{times:?}"
    );

    first.process.terminate()?;
    let status = first.process.wait(LIMIT)?;
    ensure!(status.success(), "kcat {}", process::ending(status));
    let described = admin.answer(&format!("describe {GROUP}"))?;
    ensure!(described["state"] == "Empty", "after the end: {described}");
    wait_committed(&mut admin, 20)
}

/// Waits until the group has committed this offset for each partition.
fn wait_committed(admin: &mut Session, offset: i64) -> Result<()> {
    let expected = json!(all_at(&partitions(TOPIC, PARTITIONS), offset));
    wait::until(format_args!("commits of {offset}"), LIMIT, || {
        Ok(admin.answer(&format!("committed {GROUP}"))? == expected)
    })
}

/// How many partitions each member has, when the group is stable.
fn shares(admin: &mut Session) -> Result<Vec<usize>> {
    let described = admin.answer(&format!("describe {GROUP}"))?;
    if described["state"] != "Stable" {
        return Ok(Vec::new());
    }
    let members = described["members"].as_array().context("no members")?;
    Ok(members
        .iter()
        .map(|member| member["partitions"].as_array().map_or(0, Vec::len))
        .collect())
}
