//! Three nodes under a nemesis: crashes, cuts, slow disks; idempotent producers that follow the leader, consumers that do, and
//! a reader at the end who compares what every replica holds.

mod nemesis;
mod sender;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use takhin_cluster::{Cluster, NewTopic, Partition, ReplicaChange, TopicError};
use takhin_runtime::clock::Instant;
use takhin_runtime::sim::{CrashMode, Machine, Op, Sim, SimNet};
use takhin_runtime::{Env, Rng, Shutdown};

pub(crate) use self::nemesis::delete_soon;
use self::nemesis::{Fate, deed};
use self::sender::{Sender, Window};
use crate::invariants;
use crate::oracle::{Oracle, Value};
use crate::reader::Readers;
use crate::world::{PARK_AFTER, read_up_to, start_node};

pub(crate) const TOPIC: &str = "events";
pub(crate) const NAMES: [&str; 3] = ["n1", "n2", "n3"];
pub(crate) const SEEDS: [&str; 3] = ["n1:33145", "n2:33145", "n3:33145"];
const PRODUCERS: u64 = 3;
pub(crate) const SEGMENT_BYTES: u32 = 1 << 14;

/// Deeds of the nemesis in one story.
const DEEDS: u64 = 8;

/// Virtual time that healed nodes may take until all replicas hold the same.
pub(crate) const CONVERGENCE: Duration = Duration::from_secs(180);

/// The nodes that run now, by index.
pub(crate) type Running = Arc<Mutex<BTreeMap<usize, Arc<Cluster>>>>;

pub(crate) struct Nodes {
    sim: Sim,
    rng: Rng,
    machines: Vec<Machine>,
    oracle: Arc<Mutex<Oracle>>,
    producers: Arc<Mutex<BTreeMap<u64, Window>>>,
    weak: Option<usize>,
    deletes: bool,
}

impl Nodes {
    /// The same with a cached topic; all but one node keep what is in their page caches, whatever happens.
    pub(crate) fn cached(seed: u64) -> Self {
        let mut nodes = Self::new(seed);
        nodes.weak = usize::try_from(seed % 3).ok();
        nodes
    }

    /// The same with records that are deleted, and segments that go soon after: replicas that are added get copies.
    pub(crate) fn deleting(seed: u64) -> Self {
        let mut nodes = Self::new(seed);
        nodes.deletes = true;
        nodes
    }

    pub(crate) fn new(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let machines = NAMES.map(|name| sim.add_machine(name)).into();
        Self {
            sim,
            rng: Rng::from_seed(seed ^ 0x51d3),
            machines,
            oracle: Arc::default(),
            producers: Arc::new(Mutex::new(
                (0..PRODUCERS).map(|id| (id, Window::default())).collect(),
            )),
            weak: None,
            deletes: false,
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
        let (machines, rng, net) = (self.machines.clone(), self.rng.fork(), self.sim.net().clone());
        let (weak, deletes) = (self.weak, self.deletes);
        let (oracle, producers) = (Arc::clone(&self.oracle), Arc::clone(&self.producers));
        net.set_default_delay(NEAR);
        let found = self.sim.run(|env| async move {
            let running = boot_all(&machines);
            if weak.is_some() {
                leader_of(&env, &running, &[("takhin.durability", "cached")]).await;
            }
            if deletes {
                delete_soon(&env, &running).await;
            }
            let fate = Fate {
                net: net.clone(),
                machines: machines.clone(),
                running: Arc::clone(&running),
                weak,
                deletes: deletes.then(|| Arc::clone(&oracle)),
            };
            let watched = Shutdown::new();
            let watching = invariants::watch(
                env.clone(),
                Arc::clone(&running),
                Arc::clone(&oracle),
                watched.clone(),
            );
            let watching = env.tasks.spawn("invariants", watching);
            let (stop, silence) = (Shutdown::new(), Arc::new(AtomicBool::new(false)));
            let mut tasks = Vec::new();
            for id in 0..PRODUCERS {
                let producer = Sender {
                    env: env.clone(),
                    rng: rng.fork(),
                    id,
                    running: Arc::clone(&running),
                    oracle: Arc::clone(&oracle),
                    producers: Arc::clone(&producers),
                    silence: Arc::clone(&silence),
                };
                tasks.push(env.tasks.spawn("producer", producer.run(stop.clone())));
            }
            let readers = Readers::begin(&env, &rng, &running, &watched);
            env.clock.sleep(Duration::from_secs(3)).await;
            for _ in 0..DEEDS {
                // Long enough to be parked; the next deed finds it so, or only just awake again.
                silence.store(rng.chance(0.3), Ordering::Relaxed);
                if silence.load(Ordering::Relaxed) {
                    env.clock.sleep(PARK_AFTER * 3).await;
                    silence.store(rng.chance(0.5), Ordering::Relaxed);
                }
                deed(&env, &rng, &fate).await;
            }
            heal(&net, &machines, &running);
            stop.trigger();
            for task in tasks {
                task.await.unwrap();
            }
            let back = env.clock.timeout(CONVERGENCE, move_back(&env, &running)).await;
            back.expect("replicas can be moved back once all is healed");
            let found = converge(&env, &running).await;
            watched.trigger();
            assert!(watching.await.unwrap() > 0, "nobody was seen to lead");
            readers.end(&found[0]).await;
            found
        });
        let oracle = self.oracle.lock();
        found.iter().for_each(|replica| oracle.check(replica));
        oracle.acknowledgements()
    }
}

/// How long messages take on a network that is well.
const NEAR: std::ops::RangeInclusive<Duration> = Duration::from_micros(100)..=Duration::from_millis(2);

/// Waits for a condition, at most for as long as a cluster may take to converge; how long it took, in virtual time.
pub(crate) async fn until(env: &Env, what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let begun = env.clock.instant();
    let waiting = async {
        while !so() {
            env.clock.sleep(Duration::from_millis(10)).await;
        }
    };
    env.clock.timeout(CONVERGENCE, waiting).await.expect(what);
    begun.elapsed()
}

/// Starts all nodes.
pub(crate) fn boot_all(machines: &[Machine]) -> Running {
    let running = Running::default();
    for index in 0..machines.len() {
        boot(machines, index, &running);
    }
    running
}

/// Starts a node, and again for as long as it fails to.
pub(crate) fn boot(machines: &[Machine], index: usize, running: &Running) {
    let (env, running) = (machines[index].env(), Arc::clone(running));
    let life = async move {
        let id = i32::try_from(index).unwrap() + 1;
        match start_node(&env, id, SEEDS[index], &SEEDS, SEGMENT_BYTES).await {
            Ok(cluster) => drop(running.lock().insert(index, cluster)),
            // A disk that is being healed; the node's supervisor would start it again.
            Err(error) => tracing::info!(id, error, "node not started"),
        }
    };
    drop(machines[index].env().tasks.spawn("boot", life));
}

/// Asks for other replicas of the partition, or for those that it had.
pub(crate) async fn reassign(cluster: &Cluster, replicas: Option<Vec<i32>>) {
    let Some(topic) = cluster.image().topic(TOPIC).cloned() else {
        return;
    };
    let change = ReplicaChange {
        topic_id: topic.id,
        index: 0,
        replicas,
        may_resize: true,
    };
    // It may not reach the controller, or there may be nothing to take back.
    let _ = cluster.reassign(vec![change]).await;
}

/// Longer than anybody tries to have a change decided.
const SETTLED: Duration = Duration::from_secs(10);

/// Has every node hold a replica again, and go on holding it: a change that nobody waits for any more may still be decided
/// once those who decide are heard again.
async fn move_back(env: &Env, running: &Running) {
    let mut since = None;
    loop {
        let nodes: Vec<Arc<Cluster>> = running.lock().values().cloned().collect();
        let is_there = |cluster: &Arc<Cluster>| {
            let image = cluster.image();
            let topic = image.topic(TOPIC);
            topic.is_none_or(|topic| topic.partitions[0].replicas == [1, 2, 3])
                && image.reassigning.is_empty()
        };
        if nodes.len() == NAMES.len() && nodes.iter().all(is_there) {
            let since: Instant = *since.get_or_insert_with(|| env.clock.instant());
            if since.elapsed() >= SETTLED {
                return;
            }
        } else if let Some(cluster) = nodes.first() {
            since = None;
            reassign(cluster, Some(vec![1, 2, 3])).await;
        }
        env.clock.sleep(Duration::from_millis(200)).await;
    }
}

fn heal(net: &SimNet, machines: &[Machine], running: &Running) {
    net.heal_all();
    net.set_default_delay(NEAR);
    for (index, machine) in machines.iter().enumerate() {
        machine.heal_clock();
        machine.disk().clear_faults();
        machine
            .disk()
            .set_latency(Op::SyncData, Duration::ZERO..=Duration::ZERO);
        if !running.lock().contains_key(&index) {
            machine.crash(CrashMode::Process);
            boot(machines, index, running);
        }
    }
}

/// The topic's partition where it is led, created if nobody has yet.
pub(crate) async fn leader(env: &Env, running: &Running) -> Arc<Partition> {
    leader_of(env, running, &[]).await
}

pub(crate) async fn leader_of(env: &Env, running: &Running, settings: &[(&str, &str)]) -> Arc<Partition> {
    loop {
        let nodes: Vec<Arc<Cluster>> = running.lock().values().cloned().collect();
        for cluster in &nodes {
            let image = cluster.image();
            let Some(topic) = image.topic(TOPIC) else { continue };
            if let Some(partition) = cluster.partition(topic.id, 0)
                && partition.leadership().is_some()
            {
                return partition;
            }
        }
        if let Some(cluster) = nodes.first()
            && cluster.image().topic(TOPIC).is_none()
            && cluster.image().brokers.len() == 3
        {
            let new = NewTopic {
                name: TOPIC.into(),
                partitions: vec![vec![1, 2, 3]],
                overrides: settings
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            };
            match cluster.create_topic(new).await {
                Ok(_) | Err(TopicError::Exists { .. } | TopicError::Timeout | TopicError::NotController) => {}
                Err(error) => panic!("the topic cannot be created: {error}"),
            }
        }
        env.clock.sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until all replicas hold the same and a leader serves; returns what each of them holds.
pub(crate) async fn converge(env: &Env, running: &Running) -> Vec<Vec<(i64, Value)>> {
    let same = async {
        loop {
            let partition = leader(env, running).await;
            let end = partition.offsets().high_watermark;
            let nodes: Vec<Arc<Cluster>> = running.lock().values().cloned().collect();
            let replicas: Vec<Arc<Partition>> = nodes
                .iter()
                .filter_map(|cluster| cluster.partition(cluster.image().topic(TOPIC)?.id, 0))
                .collect();
            let there = |replica: &Arc<Partition>| replica.offsets().high_watermark >= end;
            if replicas.len() == NAMES.len() && replicas.iter().all(there) {
                let logs: Vec<_> = replicas.iter().map(|replica| replica.log().unwrap()).collect();
                invariants::log_matching::check(&logs, end);
                return replicas
                    .iter()
                    .map(|replica| {
                        let log = replica.log().unwrap();
                        let start = replica.offsets().log_start_offset;
                        read_up_to(start, end, |next| {
                            log.read(next, end, 1 << 16, true).unwrap().read_all().unwrap()
                        })
                    })
                    .collect();
            }
            env.clock.sleep(Duration::from_millis(100)).await;
        }
    };
    let found = env.clock.timeout(CONVERGENCE, same).await;
    found.unwrap_or_else(|_| {
        panic!(
            "healed nodes do not serve, or their replicas stay different: {}",
            tell(running)
        )
    })
}

/// What each node says of its replica.
fn tell(running: &Running) -> String {
    let nodes = running.lock();
    let told = nodes.values().map(|cluster| {
        let topic = cluster.image().topic(TOPIC)?.id;
        let replica = cluster.partition(topic, 0)?;
        Some((
            replica.offsets(),
            replica.leadership(),
            replica.leader_epoch(),
            replica.offline_reason(),
        ))
    });
    format!("{:?}", told.collect::<Vec<_>>())
}
