//! Groups on several simulated brokers, whose coordinators fail over.
//!
//! What must hold: a committed offset never goes back. Whatever a broker answers to OffsetFetch is no less than what was
//! acknowledged before it was asked, and no more than what was sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_broker::Node;
use takhin_config::{NodeConfig, Sources};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{FindCoordinatorRequest, Request};
use takhin_runtime::sim::{CrashMode, Machine, Sim, SimNet};
use takhin_runtime::{Env, Rng, Shutdown};

use crate::groups::{commit_request, fetch_request};
use crate::support::{Client, code, text};

pub(crate) const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// No consumer waits longer for an answer before it asks elsewhere.
const PATIENCE: Duration = Duration::from_secs(5);

/// Virtual time that healed brokers may take to serve all groups again.
const CONVERGENCE: Duration = Duration::from_secs(180);

/// Virtual time of a story, which ends far sooner.
const STORY: Duration = Duration::from_secs(1800);

/// Three brokers, each on its machine; clients are on a fourth that reaches all of them all the time.
#[derive(Clone)]
pub(crate) struct Brokers {
    pub env: Env,
    pub(crate) machines: Vec<Machine>,
    nodes: Arc<Mutex<BTreeMap<usize, Node>>>,
}

fn config(index: usize) -> NodeConfig {
    let name = NAMES[index];
    let sources = Sources {
        set: vec![
            format!("node.id={}", index + 1),
            "node.data_dir=/data".to_owned(),
            "cluster.name=sim".to_owned(),
            format!(
                "cluster.seeds=[{}]",
                NAMES.map(|seed| format!("{seed}:33145")).join(", ")
            ),
            "kafka.listeners.0.name=internal".to_owned(),
            "kafka.listeners.0.bind=0.0.0.0:9092".to_owned(),
            format!("kafka.listeners.0.advertise={name}:9092"),
            "kafka.allow_insecure=true".to_owned(),
            "rpc.allow_insecure=true".to_owned(),
            "kafka.groups.offsets_topic_partitions=2".to_owned(),
            "rpc.bind=0.0.0.0:33145".to_owned(),
            format!("rpc.advertise={name}:33145"),
            "admin.bind=127.0.0.1:9644".to_owned(),
        ],
        ..Sources::default()
    };
    takhin_config::load(&sources).unwrap().config
}

impl Brokers {
    /// Starts all of them; returns once they serve a topic `t`.
    async fn start(env: Env, machines: Vec<Machine>) -> Self {
        let brokers = Self {
            env,
            machines,
            nodes: Arc::default(),
        };
        (0..NAMES.len()).for_each(|index| brokers.boot(index));
        while brokers.nodes.lock().len() < NAMES.len() {
            brokers.env.clock.sleep(Duration::from_millis(20)).await;
        }
        let mut client = Client::connect(&brokers.env, "n1:9092").await;
        client.create("t", 1, &[]).await;
        brokers
    }

    /// Starts a broker; one whose disk fails meanwhile stays down until the next start.
    fn boot(&self, index: usize) {
        let (env, nodes) = (self.machines[index].env(), Arc::clone(&self.nodes));
        let life = async move {
            match Node::start(env, config(index)).await {
                Ok(node) => drop(nodes.lock().insert(index, node)),
                Err(error) => eprintln!("broker {} not started: {error:?}", index + 1),
            }
        };
        drop(self.machines[index].env().tasks.spawn("boot", life));
    }

    /// Starts those that do not run, or that have not got that far yet.
    fn boot_missing(&self) {
        for index in 0..NAMES.len() {
            self.machines[index].heal_clock();
            if !self.nodes.lock().contains_key(&index) {
                self.crash(index, CrashMode::Process);
                self.boot(index);
            }
        }
    }

    fn crash(&self, index: usize, mode: CrashMode) {
        let node = self.nodes.lock().remove(&index);
        self.machines[index].crash(mode);
        drop(node);
    }

    pub(crate) async fn ask<R: Request>(
        &self,
        index: usize,
        version: i16,
        request: &R,
    ) -> Option<R::Response> {
        let address = format!("{}:9092", NAMES[index]);
        let answer = async {
            let mut client = Client::try_connect(&self.env, &address).await.ok()?;
            client.try_call(version, request).await
        };
        self.env.clock.timeout(PATIENCE, answer).await.ok()?
    }

    /// The coordinator of `group`, as a broker knows it.
    async fn find(&self, asked: usize, group: &str) -> Option<usize> {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        let found = self.ask(asked, 4, &request).await?.coordinators.remove(0);
        let is_known = code(found.error_code) == ErrorCode::NoError;
        is_known.then(|| usize::try_from(found.node_id.0).unwrap() - 1)
    }

    async fn commit(&self, at: usize, group: &str, offset: i64) -> Option<ErrorCode> {
        let request = commit_request(group, ("", -1), 0, offset);
        let answer = self.ask(at, 8, &request).await?;
        Some(code(answer.topics[0].partitions[0].error_code))
    }

    /// What a broker says to be committed.
    async fn fetch(&self, at: usize, group: &str) -> Option<Result<i64, ErrorCode>> {
        let mut answer = self.ask(at, 8, &fetch_request(group)).await?.groups.remove(0);
        Some(match code(answer.error_code) {
            ErrorCode::NoError => Ok(answer.topics.remove(0).partitions.remove(0).committed_offset),
            other => Err(other),
        })
    }

    /// Commits where the coordinator is, as one of the brokers says; returns where that was once it is acknowledged.
    async fn commit_by(&self, asked: usize, group: &str, offset: i64) -> usize {
        loop {
            if let Some(at) = self.find(asked, group).await
                && self.commit(at, group, offset).await == Some(ErrorCode::NoError)
            {
                return at;
            }
            self.env.clock.sleep(Duration::from_millis(50)).await;
        }
    }
}

pub(crate) fn with_brokers<F: Future<Output = ()> + 'static>(
    seed: u64,
    story: impl FnOnce(Brokers, SimNet) -> F + 'static,
) {
    let mut sim = Sim::new(seed);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    net.set_default_delay(Duration::from_micros(100)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let brokers = env
            .clock
            .timeout(CONVERGENCE, Brokers::start(env.clone(), machines))
            .await;
        let told = env
            .clock
            .timeout(STORY, story(brokers.expect("the brokers form a cluster"), net))
            .await;
        told.expect("the story ends");
    });
}

/// A coordinator that others have replaced, and that nobody has told so, must not say that what it knows is current: a
/// consumer that begins there would read again what its group has done.
#[test]
fn a_coordinator_that_was_cut_off_tells_nobody_old_offsets() {
    with_brokers(51, |brokers, net| async move {
        let cut_off = brokers.commit_by(0, "g", 5).await;
        let other = (cut_off + 1) % NAMES.len();
        assert_eq!(brokers.fetch(cut_off, "g").await, Some(Ok(5)));
        for name in NAMES.iter().filter(|name| **name != NAMES[cut_off]) {
            net.partition(NAMES[cut_off], name);
        }
        // Nobody writes there any more: a commit that fails would have it look how things stand.
        while brokers.find(other, "g").await.is_none_or(|at| at == cut_off) {
            brokers.env.clock.sleep(Duration::from_millis(50)).await;
        }
        assert_ne!(brokers.commit_by(other, "g", 6).await, cut_off);
        for _ in 0..5 {
            let told = brokers.fetch(cut_off, "g").await;
            let refused = matches!(told, Some(Err(code)) if code.retriable());
            assert!(refused, "6 is committed, and who was cut off says {told:?}");
            brokers.env.clock.sleep(Duration::from_secs(1)).await;
        }
        net.heal_all();
        let now = async {
            let at = brokers.find(other, "g").await?;
            brokers.fetch(at, "g").await?.ok()
        };
        assert_eq!(now.await, Some(6));
    });
}

/// A group, as those who commit to it know it.
#[derive(Clone)]
struct Group {
    name: String,
    brokers: Brokers,
    rng: Rng,
    /// Last offset sent, last offset acknowledged.
    known: Arc<Mutex<(i64, i64)>>,
}

impl Group {
    fn any_broker(&self) -> usize {
        usize::try_from(self.rng.range(0..3)).unwrap()
    }

    /// Commits one offset after the other. What is not acknowledged may be committed all the same.
    async fn commit_upwards(self, stop: Shutdown) {
        while !stop.is_triggered() {
            let offset = {
                let mut known = self.known.lock();
                known.0 += 1;
                known.0
            };
            if let Some(at) = self.brokers.find(self.any_broker(), &self.name).await
                && self.brokers.commit(at, &self.name, offset).await == Some(ErrorCode::NoError)
            {
                self.known.lock().1 = offset;
            }
            self.pause().await;
        }
    }

    /// Asks any broker, whether it coordinates or not.
    async fn look(self, stop: Shutdown) {
        while !stop.is_triggered() {
            self.check(self.any_broker()).await;
            self.pause().await;
        }
    }

    /// Whether the broker told an offset. It is never an old one.
    async fn check(&self, at: usize) -> bool {
        let acknowledged = self.known.lock().1;
        let told = self.brokers.fetch(at, &self.name).await;
        let sent = self.known.lock().0;
        let name = &self.name;
        match told {
            Some(Ok(told)) => {
                let is_possible = (acknowledged..=sent).contains(&told);
                assert!(
                    is_possible,
                    "{name}: {acknowledged} <= {told} <= {sent}, says {at}"
                );
                true
            }
            Some(Err(code)) => {
                assert!(code.retriable(), "{name}: {code:?}, says {at}");
                false
            }
            None => false,
        }
    }

    async fn pause(&self) {
        let pause = Duration::from_millis(self.rng.range(1..100));
        self.brokers.env.clock.sleep(pause).await;
    }
}

/// One deed of the nemesis, and what comes after it.
async fn deed(brokers: &Brokers, rng: &Rng, net: &SimNet) {
    let [one, other] = [(); 2].map(|()| usize::try_from(rng.range(0..3)).unwrap());
    let others = NAMES.iter().filter(|name| **name != NAMES[one]);
    match rng.range(0..6) {
        0 | 1 => {
            brokers.crash(
                one,
                if rng.chance(0.5) {
                    CrashMode::Power
                } else {
                    CrashMode::Process
                },
            );
            brokers
                .env
                .clock
                .sleep(Duration::from_millis(rng.range(1..3000)))
                .await;
            brokers.boot(one);
        }
        2 => others.for_each(|name| net.partition(NAMES[one], name)),
        3 => net.block(NAMES[one], NAMES[other]),
        4 => net.kill_connections(NAMES[one], NAMES[other]),
        // Ten minutes, forwards or backwards.
        _ => brokers.machines[one].jump_clock(600_000 - i64::try_from(rng.range(0..2)).unwrap() * 1_200_000),
    }
    brokers
        .env
        .clock
        .sleep(Duration::from_millis(rng.range(1..8000)))
        .await;
    if rng.chance(0.6) {
        net.heal_all();
    }
}

/// `SIM_SEEDS` of them (3 if it is not set) from `SIM_FIRST` (1) on.
#[allow(
    clippy::disallowed_methods,
    reason = "the seeds to run come from the environment"
)]
fn seeds() -> std::ops::Range<u64> {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let first = number("SIM_FIRST", 1);
    first..first + number("SIM_SEEDS", 3)
}

/// Groups consistent: through crashes and cuts no broker tells an offset that is older than an acknowledged one, and in the
/// end all groups have a coordinator that tells theirs.
#[test]
fn committed_offsets_never_go_back_whoever_coordinates() {
    for seed in seeds() {
        eprintln!("seed {seed}");
        with_brokers(seed, move |brokers, net| async move {
            let rng = Rng::from_seed(seed ^ 0x6709);
            let stop = Shutdown::new();
            let (mut groups, mut tasks) = (Vec::new(), Vec::new());
            for name in ["a", "b", "c"] {
                let group = Group {
                    name: name.to_owned(),
                    brokers: brokers.clone(),
                    rng: rng.fork(),
                    known: Arc::new(Mutex::new((-1, -1))),
                };
                let spawn = &brokers.env.tasks;
                tasks.push(spawn.spawn("commits", group.clone().commit_upwards(stop.clone())));
                tasks.push(spawn.spawn("looks", group.clone().look(stop.clone())));
                groups.push(group);
            }
            for _ in 0..8 {
                deed(&brokers, &rng, &net).await;
            }
            net.heal_all();
            brokers.boot_missing();
            stop.trigger();
            for task in tasks {
                task.await.unwrap();
            }
            for group in groups {
                let told = async {
                    loop {
                        let found = brokers.find(group.any_broker(), &group.name).await;
                        if let Some(at) = found
                            && group.check(at).await
                        {
                            return;
                        }
                        group.pause().await;
                    }
                };
                let told = brokers.env.clock.timeout(CONVERGENCE, told).await;
                told.expect("healed brokers tell what is committed");
                assert!(
                    group.known.lock().1 > 0,
                    "seed {seed}: nothing was ever committed"
                );
            }
        });
    }
}
