//! Replicas that are moved under a throttle (KIP-73), in virtual time.

use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Cluster, ConfigTarget, NewTopic, Partition, ReplicaChange};
use takhin_config::alter::{Change, Operation};
use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
use takhin_runtime::Env;
use takhin_runtime::sim::{Machine, Sim};

use crate::nodes::{CONVERGENCE, NAMES, Running, boot};

const TOPIC: &str = "moved";
const RATE: &str = "replication.throttled.rate";
const LISTS: [&str; 2] = [
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
];

/// Records that the partition holds before it is moved, one an entry: more than a request holds.
const RECORDS: u32 = 600;

const VALUE: usize = 1000;

/// How long a commit takes when nothing stands in its way.
const COMMIT: Duration = Duration::from_secs(1);

async fn until(env: &Env, what: &str, patience: Duration, so: impl Fn() -> bool) {
    let held = async {
        while !so() {
            env.clock.sleep(Duration::from_millis(20)).await;
        }
    };
    env.clock.timeout(patience, held).await.expect(what);
}

async fn set(cluster: &Cluster, target: &ConfigTarget, key: &str, value: Option<&str>) {
    let operation = value.map_or(Operation::Delete, |value| Operation::Set(value.to_owned()));
    let change = Change::Edit(vec![(key.to_owned(), operation)]);
    cluster.alter_config(target, &change, false).await.unwrap();
}

/// Three nodes, of which the first asks for everything.
struct Story {
    env: Env,
    running: Running,
}

impl Story {
    async fn begin(env: Env, machines: &[Machine], replicas: &[i32], settings: &[(&str, &str)]) -> Self {
        let running = Running::default();
        for index in 0..machines.len() {
            boot(machines, index, &running);
        }
        let formed = || {
            let nodes = running.lock();
            nodes.len() == NAMES.len()
                && nodes
                    .values()
                    .all(|node| node.image().brokers.len() == NAMES.len())
        };
        until(&env, "the nodes find each other", CONVERGENCE, formed).await;
        let overrides = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let new = NewTopic {
            name: TOPIC.into(),
            partitions: vec![replicas.to_vec()],
            overrides: overrides.collect(),
        };
        let story = Self { env, running };
        story.node(1).create_topic(new).await.unwrap();
        story
    }

    fn node(&self, id: usize) -> Arc<Cluster> {
        self.running.lock()[&(id - 1)].clone()
    }

    async fn leader(&self) -> Arc<Partition> {
        let topic = self.node(1).image().topic(TOPIC).unwrap().id;
        let led = || {
            let nodes = self.running.lock();
            let mut partitions = nodes.values().filter_map(|node| node.partition(topic, 0));
            partitions.find(|partition| partition.leadership().is_some())
        };
        until(&self.env, "somebody leads", CONVERGENCE, || led().is_some()).await;
        led().unwrap()
    }

    async fn write(&self, key: u32) {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(NewRecord {
            timestamp: self.env.clock.now_ms(),
            key: Some(&key.to_be_bytes()),
            value: Some(&[7; VALUE]),
            headers: &[],
        });
        let partition = self.leader().await;
        let batch = builder.build().unwrap();
        partition.produce(batch, Acks::All).unwrap().await.unwrap();
    }

    async fn throttle(&self, side: &str, rate: Option<&str>) {
        let name = format!("{side}.{RATE}");
        set(&self.node(1), &ConfigTarget::Broker(None), &name, rate).await;
    }

    async fn list(&self, side: &str, replicas: Option<&str>) {
        let name = LISTS.into_iter().find(|list| list.starts_with(side)).unwrap();
        set(
            &self.node(1),
            &ConfigTarget::Topic(TOPIC.to_owned()),
            name,
            replicas,
        )
        .await;
    }

    async fn reassign(&self, replicas: Option<&[i32]>) {
        let change = ReplicaChange {
            topic_id: self.node(1).image().topic(TOPIC).unwrap().id,
            index: 0,
            replicas: replicas.map(<[i32]>::to_vec),
            may_resize: true,
        };
        let begun = self.node(1).reassign(vec![change]).await.unwrap();
        assert_eq!(begun, [Ok(())]);
    }

    fn is_moved(&self) -> bool {
        let nodes = self.running.lock();
        nodes.values().all(|node| node.image().reassigning.is_empty())
    }

    fn replicas(&self) -> Vec<i32> {
        let image = self.node(1).image();
        image.topic(TOPIC).unwrap().partitions[0].replicas.clone()
    }

    /// Bytes that the third node's replica lacks, as the leader says; `None` while nobody says.
    fn lag(&self) -> Option<u64> {
        let nodes = self.running.lock();
        let moves = nodes.values().flat_map(|node| node.moves(10));
        let mut lags = moves
            .flat_map(|moving| moving.adding)
            .filter_map(|added| added.lag_bytes);
        lags.next()
    }
}

fn simulated(seed: u64, story: impl AsyncFnOnce(Env, Vec<Machine>) + 'static) {
    let mut sim = Sim::new(seed);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(500)..=Duration::from_millis(2));
    sim.run(|env| async move { story(env, machines).await });
}

/// One move: which side throttles which replicas, at how many bytes a second.
struct Throttled {
    side: &'static str,
    list: &'static str,
    rate: u32,
    /// Whether segments are copied, since the entries are purged.
    is_copied: bool,
    records: u32,
    /// Those in the largest request: the last one's need not be made up for.
    last: u32,
}

async fn takes_its_time(env: Env, machines: Vec<Machine>, case: Throttled) {
    let compacted = [("cleanup.policy", "compact"), ("max.compaction.lag.ms", "30000")];
    let settings = if case.is_copied { &compacted[..] } else { &[] };
    let story = Story::begin(env.clone(), &machines, &[1, 2], settings).await;
    for key in 0..case.records {
        story.write(key).await;
    }
    if case.is_copied {
        // The lag closes the last segment, and all keys stay.
        env.clock.sleep(Duration::from_secs(60)).await;
        assert!(story.leader().await.log().unwrap().end().purged.is_some());
    }
    story.list(case.side, Some(case.list)).await;
    story.throttle(case.side, Some(&case.rate.to_string())).await;
    story.reassign(Some(&[1, 2, 3])).await;
    let begun = env.clock.instant();
    let (mut writes, mut lags) = (0, Vec::new());
    while !story.is_moved() {
        let before = env.clock.instant();
        story.write(case.records + writes).await;
        assert!(
            before.elapsed() < COMMIT,
            "a commit waited {:?}",
            before.elapsed()
        );
        writes += 1;
        // Less than the throttle lets pass.
        for _ in 0..4 {
            lags.extend(story.lag());
            env.clock.sleep(Duration::from_secs(1)).await;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(7200),
            "never moved: {lags:?}"
        );
    }
    let least = u64::from(case.records - case.last) * VALUE as u64 / u64::from(case.rate);
    // A second's worth may be saved up.
    assert!(begun.elapsed().as_secs() + 1 >= least, "{:?}", begun.elapsed());
    let halfway = u64::from(case.records) * VALUE as u64 / 2;
    let (first, last) = (lags[0], lags[lags.len() - 1]);
    assert!(first > halfway && last < halfway, "no progress: {lags:?}");
    assert_eq!(story.replicas(), [1, 2, 3]);
}

#[test]
fn a_throttled_move_takes_its_time_and_commits_do_not() {
    for (seed, side, list) in [(51, "leader", "0:1,0:2"), (52, "follower", "1:3,0:3")] {
        for is_copied in [false, true] {
            // A part of a copy waits for longer than its receiver may hear nothing of it.
            let (rate, records, last) = if is_copied {
                (700, 80, 16)
            } else {
                (20_000, RECORDS, 256)
            };
            let case = Throttled {
                side,
                list,
                rate,
                is_copied,
                records,
                last,
            };
            simulated(seed, |env, machines| takes_its_time(env, machines, case));
        }
    }
}

/// At 0 nothing moves, until somebody lets it, or takes it back.
#[test]
fn who_waits_goes_on_when_rate_list_or_target_change() {
    simulated(53, async |env: Env, machines: Vec<Machine>| {
        let story = Story::begin(env.clone(), &machines, &[1, 2], &[]).await;
        for key in 0..RECORDS {
            story.write(key).await;
        }
        let long = Duration::from_secs(60);
        for (round, side) in ["leader", "follower"].into_iter().cycle().take(6).enumerate() {
            story.list(side, Some("*")).await;
            story.throttle(side, Some("0")).await;
            story.reassign(Some(&[1, 2, 3])).await;
            env.clock.sleep(long).await;
            let (is_moved, lag) = (story.is_moved(), story.lag());
            assert!(
                !is_moved && lag > Some(0),
                "round {round}, {side}: {is_moved}, {lag:?}"
            );
            let expected = match round / 2 {
                0 => {
                    story.throttle(side, Some("1000000")).await;
                    vec![1, 2, 3]
                }
                1 => {
                    story.list(side, None).await;
                    vec![1, 2, 3]
                }
                _ => {
                    story.reassign(None).await;
                    vec![1, 2]
                }
            };
            let soon = Duration::from_secs(15);
            until(&env, "it goes on", soon, || story.is_moved()).await;
            assert_eq!(story.replicas(), expected);
            story.throttle(side, None).await;
            story.list(side, None).await;
            if expected.len() > 2 {
                story.reassign(Some(&[1, 2])).await;
                until(&env, "it goes back", CONVERGENCE, || story.is_moved()).await;
            }
        }
    });
}

/// A voter that lags is throttled as long as there is a majority without it.
#[test]
fn a_replica_that_commits_wait_for_is_not_throttled() {
    let mut sim = Sim::new(54);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    sim.run(|env| async move {
        let story = Story::begin(env.clone(), &machines, &[1, 2, 3], &[]).await;
        let id = story.leader().await.id();
        for side in ["leader", "follower"] {
            story.list(side, Some("*")).await;
            story.throttle(side, Some("0")).await;
        }
        net.isolate(NAMES[2]);
        for key in 0..RECORDS {
            story.write(key).await;
        }
        // Until it is in sync no longer.
        env.clock.sleep(Duration::from_secs(15)).await;
        net.heal_all();
        env.clock.sleep(Duration::from_secs(60)).await;
        let end = |node: usize| {
            let partition = story.node(node).partition(id.topic_id, id.index).unwrap();
            partition.log().unwrap().end().log_end_offset
        };
        assert!(end(3) < end(1), "throttled to nothing it catches up");
        let leads = |node: usize| story.node(node).partition(id.topic_id, 0).unwrap().leadership();
        let other = if leads(1).is_some() { 2 } else { 1 };
        net.isolate(NAMES[other - 1]);
        until(&env, "it catches up", CONVERGENCE, || end(3) == end(3 - other)).await;
        story.write(RECORDS).await;
    });
}
