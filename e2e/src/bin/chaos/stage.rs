//! The cluster under test with its load: brokers on hosts and disks of their own, clients on this one.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use takhin_e2e::checker::{self, Event};
use takhin_e2e::committer::{Commits, Committer};
use takhin_e2e::disk::Mount;
use takhin_e2e::kcat::{self, Placement};
use takhin_e2e::reader::{Reader, Readings};
use takhin_e2e::rng::Rng;
use takhin_e2e::wire::Connection;
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Broker, Kind, process, replicas, wait};
use tempfile::NamedTempFile;

use crate::network::Network;
use crate::say;

pub(crate) const TOPIC: &str = "chaos";
pub(crate) const PARTITIONS: i32 = 6;
/// Replicas of each partition.
pub(crate) const REPLICAS: usize = 3;
/// The topic that consumer groups live in.
pub(crate) const OFFSETS: &str = "__consumer_offsets";
/// Until everything works again after a fault, on a machine with two cores that does other things too.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// Until records are acknowledged again where a majority of the replicas is left, or has come back: three times what is promised
/// of a disk that hangs, for the sake of the machine.
const LIVE: Duration = Duration::from_secs(30);
/// More than the producers have in flight in one partition: the last of as many answers is for a record sent later.
const NEW: usize = 150;
/// Records a second: enough for some to be on their way at any moment, and few enough for two cores.
const RATE: u32 = 600;
const DISK: u64 = 1 << 30;
const TOKEN: &str = "the-token-of-the-operator";
/// Groups with members: of the classic protocol and of KIP-848.
const WITH_MEMBERS: [&str; 2] = ["members", "consumers"];

/// Which takhin a broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// That of an earlier commit.
    Old,
    /// The one under test.
    New,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "old",
            Self::New => "new",
        })
    }
}

/// An older takhin, and the first broker that runs it.
#[derive(Debug)]
pub(crate) struct Old {
    pub(crate) binary: PathBuf,
    pub(crate) broker: usize,
}

/// Everything that one seed works on.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) network: Network,
    pub(crate) disks: Vec<Mount>,
    pub(crate) brokers: Vec<Broker>,
    /// The next node id that no broker has had.
    pub(crate) next_id: u32,
    /// What is going on.
    pub(crate) label: String,
    /// What the admin API is asked with: brokers that others reach want one.
    token: NamedTempFile,
    /// A takhin of an earlier commit, which some of the brokers run.
    old: Option<PathBuf>,
    load: Option<Load>,
    begin: Instant,
}

/// The clients.
#[derive(Debug)]
struct Load {
    writer: Writer,
    committer: Committer,
    reader: Reader,
}

impl Stage {
    /// Brokers that serve clients, without load; with an older takhin one of them runs that.
    pub(crate) fn set_up(count: u8, old: Option<Old>) -> Result<Self> {
        let network = Network::new(count)?;
        let disks: Result<Vec<_>> = network.hosts.iter().map(|_| Mount::xfs(DISK)).collect();
        let mut stage = Self {
            network,
            disks: disks?,
            brokers: Vec::new(),
            next_id: u32::from(count) + 1,
            label: String::new(),
            token: NamedTempFile::new()?,
            old: None,
            load: None,
            begin: Instant::now(),
        };
        fs::write(&stage.token, TOKEN)?;
        let token = stage.token.path().to_string_lossy().into_owned();
        let seeds = stage
            .network
            .hosts
            .iter()
            .map(|host| format!("\"{}:33145\"", host.ip));
        let seeds = format!("[{}]", seeds.collect::<Vec<_>>().join(","));
        for (id, (host, disk)) in (1..).zip(stage.network.hosts.iter().zip(&stage.disks)) {
            let mut broker = Broker::with_data_dir(Kind::Takhin, &disk.path().join("data"))?;
            broker.place(host.ip.into());
            broker.identify(id, broker.address());
            broker.set("rpc.bind", &broker.peer_address().to_string());
            broker.set("cluster.seeds", &seeds);
            for (key, value) in [
                ("kafka.allow_insecure", "true"),
                ("rpc.allow_insecure", "true"),
                ("admin.allow_insecure", "true"),
                ("admin.token_file", &token),
                ("kafka.groups.offsets_topic_partitions", "6"),
                ("storage.min_free_space", "64MiB"),
                ("storage.segment_size", "4MiB"),
            ] {
                broker.set(key, value);
            }
            stage.brokers.push(broker);
        }
        if let Some(Old { binary, broker }) = old {
            stage.old = Some(binary);
            stage.give_build(broker, Build::Old);
        }
        let all: Vec<usize> = (0..stage.brokers.len()).collect();
        for broker in &all {
            stage.wrap(*broker, &[]);
        }
        stage.start(&all)?;
        Ok(stage)
    }

    /// Has a broker run this build from its next start on.
    pub(crate) fn give_build(&mut self, broker: usize, build: Build) {
        let binary = match build {
            Build::Old => self.old.as_deref(),
            Build::New => None,
        };
        self.brokers[broker].use_binary(binary);
        let id = self.brokers[broker].node_id();
        self.say(&format!("broker {id} runs the {build} build"));
    }

    /// The brokers that run this build.
    pub(crate) fn with_build(&self, build: Build) -> Vec<usize> {
        let has = |broker: &usize| self.brokers[*broker].has_other_binary() == (build == Build::Old);
        (0..self.brokers.len()).filter(has).collect()
    }

    /// Has a broker run on its host from its next start on, with these words before it.
    pub(crate) fn wrap(&mut self, broker: usize, words: &[&str]) {
        let host = self.network.hosts[broker].words();
        let all: Vec<&str> = host
            .iter()
            .map(String::as_str)
            .chain(words.iter().copied())
            .collect();
        self.brokers[broker].wrap(&all);
    }

    /// Starts brokers together and waits until they serve.
    pub(crate) fn start(&mut self, brokers: &[usize]) -> Result<()> {
        for broker in brokers {
            self.brokers[*broker].start_process()?;
        }
        for broker in brokers {
            self.brokers[*broker].wait_ready()?;
        }
        Ok(())
    }

    /// Creates a topic.
    pub(crate) fn create(&self, topic: &str, partitions: i32) -> Result<()> {
        let error = self.ask_to_create(0, topic, partitions)?;
        ensure!(error == 0, "CreateTopics {topic}: error {error}");
        Ok(())
    }

    /// Asks the admin API of the broker at this place of the list; anything but 200 is an error.
    pub(crate) fn ask(&self, broker: usize, method: &str, path: &str) -> Result<serde_json::Value> {
        let (status, json) = self.brokers[broker].ask_admin(method, path, Some(TOKEN))?;
        ensure!(status == 200, "{method} {path}: {status} {json}");
        Ok(json)
    }

    /// Asks one broker to create a topic; returns the error code.
    pub(crate) fn ask_to_create(&self, broker: usize, topic: &str, partitions: i32) -> Result<i16> {
        let mut connection = Connection::open(self.brokers[broker].address())?;
        connection.create_replicated_topic(topic, partitions, 3, &[])
    }

    /// Starts the clients and waits until they get answers.
    pub(crate) fn load(&mut self) -> Result<()> {
        self.create(TOPIC, PARTITIONS)?;
        let bootstrap = self.bootstrap();
        self.load = Some(Load {
            reader: Reader::start(TOPIC, std::slice::from_ref(&bootstrap), LIMIT)?,
            committer: Committer::start(&bootstrap, TOPIC, PARTITIONS)?,
            writer: Writer::start_at(RATE, &bootstrap, TOPIC, PARTITIONS)?,
        });
        self.goes_on()
    }

    /// Addresses of all brokers, with commas between them.
    pub(crate) fn bootstrap(&self) -> String {
        let all: Vec<String> = self.brokers.iter().map(Broker::bootstrap).collect();
        all.join(",")
    }

    /// Waits until records that are sent from now on are acknowledged in every partition.
    pub(crate) fn goes_on(&mut self) -> Result<()> {
        self.goes_on_in(|_| true)
    }

    /// The same of some partitions.
    pub(crate) fn goes_on_in(&mut self, which: impl Fn(usize) -> bool) -> Result<()> {
        let load = self.load.as_mut().context("there is no load")?;
        load.writer.wait_in(which, NEW, LIVE)
    }

    /// Waits for a moment of the load that nobody has chosen.
    pub(crate) fn some_load(&mut self, rng: &mut Rng) -> Result<()> {
        let load = self.load.as_mut().context("there is no load")?;
        load.writer
            .wait_acked(usize::try_from(rng.within(1..3_000))?, LIMIT)
    }

    /// Keeps a fault up for as long as the seed says.
    pub(crate) fn hold(&mut self, rng: &mut Rng, milliseconds: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(rng.within(milliseconds)));
    }

    /// Waits until all that was hurt works: brokers run and serve, every replica is in sync, records are acknowledged
    /// and so are commits, and no commit that was acknowledged is undone.
    ///
    /// Returns how long each of these took.
    pub(crate) fn settle(&mut self) -> Result<String> {
        let begin = Instant::now();
        for broker in &mut self.brokers {
            ensure!(
                broker.is_running()?,
                "broker {} has ended\n{}",
                broker.node_id(),
                broker.log_tail()
            );
        }
        self.goes_on()?;
        let records = begin.elapsed().as_secs_f64();
        let bootstrap = self.bootstrap();
        for topic in [TOPIC, OFFSETS] {
            wait::until(
                format_args!("all replicas of {topic} to be in sync"),
                LIMIT,
                || {
                    let placements = kcat::placements(&bootstrap, topic)?;
                    Ok(placements
                        .iter()
                        .all(|p| p.leader >= 0 && p.in_sync == p.replicas.len()))
                },
            )?;
        }
        let replicas = begin.elapsed().as_secs_f64();
        let committer = &mut self.load.as_mut().context("there is no load")?.committer;
        for group in WITH_MEMBERS {
            let goal = committer.commits()?.total(group) + 10;
            committer.wait(&format!("commits of {group}"), LIMIT, |commits| {
                commits.total(group) >= goal
            })?;
        }
        let before = committer.commits()?;
        self.commits_are_kept(&before, None)?;
        let commits = begin.elapsed().as_secs_f64();
        Ok(format!(
            "records after {records:.1} s, replicas in sync after {replicas:.1} s, commits after {commits:.1} s"
        ))
    }

    /// Stops the clients, reads everything back with another one, and judges it.
    pub(crate) fn judge(&mut self) -> Result<String> {
        let Load {
            writer,
            committer,
            reader,
        } = self.load.take().context("there is no load")?;
        let log = writer.finish()?;
        let commits = committer.finish()?;
        self.commits_are_kept(&commits, Some(&commits))?;
        let report = writer::check(&self.bootstrap(), TOPIC, &log)?;
        ensure!(
            report.faults.is_empty(),
            "{} faults in {} acknowledged records, the first: {:#?}",
            report.faults.len(),
            report.acked,
            &report.faults[..report.faults.len().min(5)]
        );
        ensure!(report.acked > 0, "nothing was acknowledged");
        for readings in reader.finish()? {
            judge_reader(&log, &readings)?;
        }
        let total: i64 = commits.acked.values().sum();
        let compared = replicas::wait_identical(&self.brokers, REPLICAS, LIMIT)?;
        Ok(format!(
            "{} records and {total} commits acknowledged, none lost; {compared} batches the same on all replicas",
            report.acked
        ))
    }

    /// What is committed is no less than what was acknowledged before, and no more than was sent.
    fn commits_are_kept(&self, acked: &Commits, sent: Option<&Commits>) -> Result<()> {
        for ((group, partition), offset) in &acked.acked {
            let found = self.committed(group, *partition)?;
            ensure!(
                found >= *offset,
                "group {group}, partition {partition}: {offset} was acknowledged, {found} is committed"
            );
            let place = (group.clone(), *partition);
            let most = sent
                .and_then(|commits| commits.sent.get(&place))
                .unwrap_or(&i64::MAX);
            ensure!(
                found <= *most,
                "group {group}, partition {partition}: nobody committed {found}"
            );
        }
        Ok(())
    }

    /// The committed offset, from whoever coordinates the group.
    fn committed(&self, group: &str, partition: i32) -> Result<i64> {
        wait::value(format_args!("the coordinator of {group}"), LIMIT, || {
            for broker in &self.brokers {
                match Connection::open(broker.address())?.offset_fetch(group, TOPIC, partition)? {
                    (0, offset) => return Ok(Some(offset)),
                    // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR
                    (14..=16, _) => {}
                    (error, _) => bail!("OffsetFetch of {group}: error {error}"),
                }
            }
            Ok(None)
        })
    }

    /// The partitions of a topic.
    pub(crate) fn placements(&self, topic: &str) -> Result<Vec<Placement>> {
        kcat::placements(&self.bootstrap(), topic)
    }

    /// Which broker has a node id.
    pub(crate) fn index_of(&self, id: i32) -> Result<usize> {
        let id = u32::try_from(id)?;
        let found = self.brokers.iter().position(|broker| broker.node_id() == id);
        found.with_context(|| format!("no broker has id {id}"))
    }

    /// A broker that leads some partition of the topic.
    pub(crate) fn some_leader(&self, rng: &mut Rng) -> Result<usize> {
        let placements = self.placements(TOPIC)?;
        let leaders: BTreeSet<i32> = placements
            .iter()
            .map(|p| p.leader)
            .filter(|id| *id >= 0)
            .collect();
        let leaders: Vec<i32> = leaders.into_iter().collect();
        ensure!(!leaders.is_empty(), "no partition has a leader");
        self.index_of(pick(rng, &leaders))
    }

    /// The controller.
    pub(crate) fn controller(&self) -> Result<usize> {
        let bootstrap = self.bootstrap();
        let id = wait::value("a controller", LIMIT, || kcat::controller(&bootstrap))?;
        self.index_of(id)
    }

    /// `count` different brokers.
    pub(crate) fn some_brokers(&self, rng: &mut Rng, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.brokers.len()).collect();
        shuffle(rng, &mut all);
        all.truncate(count);
        all
    }

    /// More than half of the brokers.
    pub(crate) fn majority(&self) -> usize {
        self.brokers.len() / 2 + 1
    }

    /// Prints a line about what is going on.
    pub(crate) fn say(&self, what: &str) {
        say(&format!(
            "{:6.1} s  {}: {what}",
            self.begin.elapsed().as_secs_f64(),
            self.label
        ));
    }

    /// No broker has panicked.
    pub(crate) fn no_panics(&self) -> Result<()> {
        for broker in &self.brokers {
            let log = fs::read(broker.log_path())?;
            let log = String::from_utf8_lossy(&log);
            let panic = log.lines().find(|line| line.contains("panicked at"));
            ensure!(
                panic.is_none(),
                "broker {}: {}",
                broker.node_id(),
                panic.unwrap_or_default()
            );
        }
        Ok(())
    }

    /// Ends the brokers and copies what they and the clients wrote, logs and data, but not the images of disks.
    pub(crate) fn keep(&mut self, from: &Path, to: &Path) -> Result<()> {
        for broker in &mut self.brokers {
            broker.kill();
        }
        copy(from, to)?;
        for broker in &self.brokers {
            let named = |what: &str| to.join(format!("broker-{}-{what}", broker.node_id()));
            let log = broker.log_path().strip_prefix(from)?.to_owned();
            symlink(log, named("log"))?;
            symlink(broker.data_dir().strip_prefix(from)?, named("data"))?;
        }
        Ok(())
    }
}

/// A consumer that reads all the while gets what one gets afterwards: nothing that was not committed, nothing twice.
fn judge_reader(log: &[Event], readings: &Readings) -> Result<()> {
    let report = checker::check(log, &readings.found);
    let faults = report.faults;
    ensure!(
        faults.is_empty() && readings.resets.is_empty(),
        "a consumer meanwhile: {} faults, the first: {:#?}; positions that it lost: {:?}",
        faults.len(),
        &faults[..faults.len().min(5)],
        readings.resets
    );
    Ok(())
}

/// Everything below `from` but images of disks; what an earlier run left there is removed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "tar -C \"$0\" --exclude=image -cf - . | tar -C \"$1\" -xf -",
    ]);
    process::run(command.arg(from).arg(to), LIMIT)?;
    Ok(())
}

/// One of several; there must be one.
pub(crate) fn pick<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[below(rng, all.len())]
}

/// A number below `end`.
pub(crate) fn below(rng: &mut Rng, end: usize) -> usize {
    let end = u64::try_from(end).unwrap_or(u64::MAX);
    usize::try_from(rng.within(0..end)).unwrap_or_default()
}

/// Fisher and Yates.
pub(crate) fn shuffle<T>(rng: &mut Rng, all: &mut [T]) {
    for last in (1..all.len()).rev() {
        all.swap(last, below(rng, last + 1));
    }
}
