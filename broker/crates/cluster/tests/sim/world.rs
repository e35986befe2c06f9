//! A node that crashes again and again under idempotent producers, and a reader at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_cluster::{
    Acks, BrokerInfo, Cluster, ClusterOptions, Interconnect, Isolation, NewTopic, Partition, ServedBy,
    TopicError,
};
use takhin_config::live::Settings;
use takhin_config::topic::TopicConfig;
use takhin_config::{ByteSize, NodeConfig};
use takhin_protocol::record::{
    Batch, BatchBuilder, BatchHeader, Compression, HEADER_LEN, NewRecord, Records,
};
use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Op, Sim, When};
use takhin_runtime::{Env, Rng};

use crate::oracle::{Oracle, Value};

const TOPIC: &str = "events";
const PRODUCERS: u64 = 3;
const INCARNATIONS: u64 = 6;

/// Virtual time that a node on healed disks may take to serve again: a few of its longest pauses.
const RECOVERY: Duration = Duration::from_secs(120);

/// A producer's memory, which outlives the node: the batch without an answer is sent again, unchanged.
#[derive(Debug, Default, Clone)]
pub(crate) struct Producer {
    pub(crate) next: u64,
    pub(crate) sequence: i32,
    pub(crate) pending: Option<u64>,
}

impl Producer {
    pub(crate) fn answered(&mut self, count: u64) {
        self.pending = None;
        self.next += count;
        self.sequence += i32::try_from(count).unwrap();
    }
}

pub(crate) struct World {
    sim: Sim,
    rng: Rng,
    flushed: bool,
    segment_bytes: u32,
    oracle: Arc<Mutex<Oracle>>,
    producers: Arc<Mutex<BTreeMap<u64, Producer>>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = Rng::from_seed(seed ^ 0x7a6b);
        Self {
            sim: Sim::new(seed),
            flushed: rng.chance(0.75),
            segment_bytes: u32::try_from(rng.range(1 << 12..1 << 16)).unwrap(),
            rng,
            oracle: Arc::default(),
            producers: Arc::new(Mutex::new(
                (0..PRODUCERS).map(|id| (id, Producer::default())).collect(),
            )),
        }
    }

    /// Prints everything that happens, log lines included.
    pub(crate) fn tell(&mut self) {
        self.sim.record_logs();
        self.sim.trace().print_lines();
    }

    pub(crate) fn trace(&self) -> (u64, u64) {
        (self.sim.trace().hash(), self.sim.trace().events())
    }

    /// Runs the story; returns how many records were acknowledged.
    pub(crate) fn run(&mut self) -> u64 {
        for _ in 0..INCARNATIONS {
            self.arm_faults();
            self.live();
            let power = self.flushed && self.rng.chance(0.5);
            self.sim.crash(if power {
                CrashMode::Power
            } else {
                CrashMode::Process
            });
        }
        self.heal();
        let found = self.read_all();
        let oracle = self.oracle.lock();
        oracle.check(&found);
        oracle.acknowledgements()
    }

    fn arm_faults(&mut self) {
        self.heal();
        let disk = self.sim.disk();
        if self.rng.chance(0.3) {
            let slow = Duration::from_millis(self.rng.range(1..400));
            disk.set_latency(Op::SyncData, Duration::ZERO..=slow);
        }
        if !self.flushed {
            // A disk that fails may take what a cached topic acknowledged; only crashes of the process must not.
            return;
        }
        let fault = match self.rng.range(0..6) {
            0 => (Op::SyncData, Fault::Eio),
            1 => (Op::Write, Fault::Eio),
            2 => (Op::Write, Fault::Enospc),
            _ => return,
        };
        let nth = self.rng.range(20..400);
        disk.arm(FaultRule {
            op: fault.0,
            path: "partitions".into(),
            when: When::Nth(nth),
            fault: fault.1,
        });
    }

    fn heal(&self) {
        let disk = self.sim.disk();
        disk.clear_faults();
        disk.set_capacity(None);
        for op in [Op::SyncData, Op::Write] {
            disk.set_latency(op, Duration::ZERO..=Duration::ZERO);
        }
    }

    /// One life of the node, cut off at a random moment.
    fn live(&mut self) {
        let lifetime = Duration::from_millis(self.rng.range(1..600));
        let (oracle, producers) = (Arc::clone(&self.oracle), Arc::clone(&self.producers));
        let (flushed, segment_bytes) = (self.flushed, self.segment_bytes);
        let rng = self.rng.fork();
        self.sim.run(|env| async move {
            let until = env.clock.instant() + lifetime;
            let story = serve(env.clone(), rng, flushed, segment_bytes, oracle, producers);
            let _ = tokio::time::timeout_at(until, story).await;
        });
    }

    fn read_all(&mut self) -> Vec<(i64, Value)> {
        let (flushed, segment_bytes) = (self.flushed, self.segment_bytes);
        self.sim.run(|env| async move {
            let cluster = start(&env, segment_bytes).await.expect("a healed node starts");
            let serving = partition(&env, &cluster, flushed);
            let partition = env
                .clock
                .timeout(RECOVERY, serving)
                .await
                .expect("a healed node serves its partition");
            let found = read(&partition);
            cluster.stop().await;
            found
        })
    }
}

/// Where a node keeps the logs of its partitions.
pub(crate) const PARTITIONS_DIR: &str = "data/partitions";

/// Long for who writes, short for who rests: stories contain both.
pub(crate) const PARK_AFTER: Duration = Duration::from_secs(2);

pub(crate) async fn start(env: &Env, segment_bytes: u32) -> Result<Arc<Cluster>, String> {
    start_node(env, 1, "main:33145", &["main:33145"], segment_bytes).await
}

/// Starts node `id`, which others reach at `rpc`.
pub(crate) async fn start_node(
    env: &Env,
    id: i32,
    rpc: &str,
    seeds: &[&str],
    segment_bytes: u32,
) -> Result<Arc<Cluster>, String> {
    start_named(env, "sim", id, rpc, seeds, segment_bytes).await
}

/// The same, of a cluster with another name.
pub(crate) async fn start_named(
    env: &Env,
    cluster: &str,
    id: i32,
    rpc: &str,
    seeds: &[&str],
    segment_bytes: u32,
) -> Result<Arc<Cluster>, String> {
    let interconnect = Interconnect::start(env, "0.0.0.0:33145", "rpc.bind", id)
        .await
        .map_err(|e| e.to_string())?;
    let mut node = NodeConfig::default();
    node.storage.cleaner_memory = ByteSize::kib(64);
    let options = ClusterOptions {
        broker: BrokerInfo {
            id,
            rack: None,
            endpoints: Vec::new(),
            rpc: rpc.to_owned(),
            directory: uuid::Uuid::nil(),
        },
        seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
        data_dir: "data".into(),
        cluster_name: cluster.into(),
        // Far below what a user may set, so that a short life rolls many segments.
        settings: Arc::new(Settings {
            topic_defaults: TopicConfig {
                segment_bytes,
                ..TopicConfig::default()
            },
            node,
        }),
        checkpoint_interval: Duration::from_millis(100),
        max_open_segments: 4,
        flush_parallelism: 1,
        park_after: PARK_AFTER,
        min_free_bytes: 0,
    };
    Cluster::start(env.clone(), options, interconnect)
        .await
        .map_err(|e| e.to_string())
}

/// The topic's only partition, created if an earlier life did not get that far, once it is led.
async fn partition(env: &Env, cluster: &Arc<Cluster>, flushed: bool) -> Arc<Partition> {
    let durability = if flushed { "flushed" } else { "cached" };
    let overrides = BTreeMap::from([("takhin.durability".to_owned(), durability.to_owned())]);
    loop {
        if let Some(topic) = cluster.image().topic(TOPIC) {
            if let Some(partition) = cluster
                .partition(topic.id, 0)
                .filter(|p| p.leadership().is_some())
            {
                return partition;
            }
        } else {
            let new = NewTopic {
                name: TOPIC.into(),
                partitions: vec![vec![1]],
                overrides: overrides.clone(),
            };
            match cluster.create_topic(new).await {
                Ok(_) | Err(TopicError::Exists { .. } | TopicError::Timeout | TopicError::NotController) => {}
                Err(error) => panic!("the topic cannot be created: {error}"),
            }
        }
        env.clock.sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(
    env: Env,
    rng: Rng,
    flushed: bool,
    segment_bytes: u32,
    oracle: Arc<Mutex<Oracle>>,
    producers: Arc<Mutex<BTreeMap<u64, Producer>>>,
) {
    // A disk that fails while starting is an end too.
    let Ok(cluster) = start(&env, segment_bytes).await else {
        return;
    };
    let partition = partition(&env, &cluster, flushed).await;
    let mut tasks = Vec::new();
    for id in 0..PRODUCERS {
        let (partition, oracle, producers) = (
            Arc::clone(&partition),
            Arc::clone(&oracle),
            Arc::clone(&producers),
        );
        let (env2, rng) = (env.clone(), rng.fork());
        tasks.push(env.tasks.spawn("producer", async move {
            loop {
                produce_one(&env2, &rng, id, &partition, &oracle, &producers).await;
            }
        }));
    }
    for task in tasks {
        let _ = task.await;
    }
}

/// Sends the pending batch, or the next one, and remembers what came of it.
async fn produce_one(
    env: &Env,
    rng: &Rng,
    id: u64,
    partition: &Arc<Partition>,
    oracle: &Mutex<Oracle>,
    producers: &Mutex<BTreeMap<u64, Producer>>,
) {
    let (count, batch, next) = {
        let mut all = producers.lock();
        let producer = all.get_mut(&id).expect("every producer has a memory");
        let count = *producer.pending.get_or_insert_with(|| rng.range(1..20));
        oracle.lock().sent((0..count).map(|i| (id, producer.next + i)));
        (count, batch(id, producer, count), producer.next)
    };
    let outcome = match partition.produce(batch, Acks::All) {
        Ok(ticket) => ticket.await,
        Err(error) => Err(error),
    };
    let Ok(produced) = outcome else {
        return env.clock.sleep(Duration::from_millis(20)).await;
    };
    oracle
        .lock()
        .acknowledged((id, next), count, produced.base_offset);
    producers
        .lock()
        .get_mut(&id)
        .expect("every producer has a memory")
        .answered(count);
    // Virtual time stands still while anything can run: a producer that never rests would never be crashed.
    env.clock.sleep(Duration::from_micros(rng.range(10..3000))).await;
}

pub(crate) fn batch(id: u64, producer: &Producer, count: u64) -> Batch {
    let mut builder =
        BatchBuilder::new(Compression::None).producer(i64::try_from(id).unwrap(), 0, producer.sequence);
    for i in 0..count {
        let value = format!(
            "{id}:{}:{}",
            producer.next + i,
            "x".repeat(usize::try_from((producer.next + i) % 200).unwrap())
        );
        builder.push(NewRecord {
            timestamp: 1,
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        });
    }
    builder.build().unwrap()
}

fn read(partition: &Partition) -> Vec<(i64, Value)> {
    let offsets = partition.offsets();
    read_up_to(offsets.log_start_offset, offsets.high_watermark, |next| {
        let isolation = Isolation::ReadUncommitted;
        let fetched = partition.fetch(next, 1 << 16, true, isolation, ServedBy::Leader);
        fetched.unwrap().ranges.read_all().unwrap()
    })
}

/// The records in `[next, end)`, where `fetch` gives whole batches from an offset on.
pub(crate) fn read_up_to(mut next: i64, end: i64, fetch: impl Fn(i64) -> Vec<u8>) -> Vec<(i64, Value)> {
    let mut found = Vec::new();
    while next < end {
        next = records_of(&fetch(next), &mut found).unwrap_or(next);
    }
    found
}

/// Adds the records of whole batches to `found`; the offset after them, if there is any batch.
pub(crate) fn records_of(mut bytes: &[u8], found: &mut Vec<(i64, Value)>) -> Option<i64> {
    let mut next = None;
    while !bytes.is_empty() {
        let header = BatchHeader::parse(bytes[..HEADER_LEN].try_into().unwrap());
        assert!(!header.is_hidden(), "a reader saw a hidden entry");
        for record in Records::new(&bytes[HEADER_LEN..header.total_len()], header.records_count) {
            let record = record.unwrap();
            let text = std::str::from_utf8(record.value.unwrap()).unwrap();
            let mut parts = text.split(':');
            let mut number = || parts.next().unwrap().parse().unwrap();
            found.push((
                header.base_offset + i64::from(record.offset_delta),
                (number(), number()),
            ));
        }
        next = Some(header.next_offset());
        bytes = &bytes[header.total_len()..];
    }
    next
}
