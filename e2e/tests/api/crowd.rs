//! Thousands of topics: how soon they are there, what they cost, and that nothing is written when nothing happens.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{ControlPlane, Operator, audit, condition};
use takhin_e2e::{wait, wire};

use crate::room::{Room, SOON};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("crowd: 2,000 topics in 60 s, small, and then silent", crowd);
}

const TOPICS: usize = 2_000;
const CONVERGED: Duration = Duration::from_secs(60);
const PEAK: u64 = 150 << 20;
const STEADY: u64 = 100 << 20;
const IDLE: Duration = Duration::from_secs(60);
/// Of a processor.
const SHARE: f64 = 0.05;

fn crowd(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "crowd")?;
    // In a minute everything is looked at again more than twice.
    let operator = room.operator("operator", &["--topic-resync-seconds", "20"])?;
    wait::until("it to lead", SOON, || Ok(operator.leads()))?;
    room.small_cluster("prod")?;
    let broker = room.broker("prod").with_context(|| operator.tail())?;
    let spec = json!({
        "clusterRef": { "name": "prod" },
        "source": { "host": "pika", "port": 9221 },
        "sink": { "topic": "profiles" },
    });
    room.kube().apply(&room.ours("PikaSource", "profiles", spec))?;
    let topic = |number: usize| {
        let spec = json!({ "clusterRef": { "name": "prod" }, "partitions": 1, "config": { "retention.ms": "3600000" } });
        room.ours("Topic", &format!("topic-{number}"), spec)
    };
    let wishes: Vec<Value> = (0..TOPICS).map(topic).collect();
    let begun = Instant::now();
    room.kube().apply_all(&wishes)?;
    let applied = begun.elapsed();
    // One after the other: whoever asked for all of them again and again would take half of the machine from the API server.
    let mut ready = 0;
    wait::until("all topics to be Synced", CONVERGED * 3, || {
        while ready < TOPICS && is_synced(&room, ready)? {
            ready += 1;
        }
        Ok(ready == TOPICS)
    })
    .with_context(|| format!("{ready} are\n{}", operator.tail()))?;
    let took = begun.elapsed();
    let all = room.kube().list("Topic", &room.name)?;
    let left = all.iter().filter(|topic| !says_synced(topic)).count();
    ensure!(all.len() == TOPICS && left == 0, "{left} are not Synced any more");
    let peak = operator.memory("VmHWM")?;
    eprintln!(
        "        {TOPICS} topics applied in {:.1} s, synced after {:.1} s, peak {} MiB",
        applied.as_secs_f64(),
        took.as_secs_f64(),
        peak >> 20
    );
    let mut client = wire::Connection::open(broker.address())?;
    ensure!(client.partitions("topic-0")? == 1 && client.partitions(&format!("topic-{}", TOPICS - 1))? == 1);
    ensure!(took < CONVERGED, "it took {took:?}");
    ensure!(peak < PEAK, "peak of {} MiB", peak >> 20);
    // The cluster is looked at every half a minute, and its status tells how many partitions a broker leads.
    wait::until("the cluster's status to tell of all of them", CONVERGED, || {
        let prod = room.kube().get("TakhinCluster", &room.name, "prod")?;
        let led = prod.and_then(|prod| prod["status"]["brokers"][0]["leaders"].as_u64());
        Ok(led.is_some_and(|led| led >= TOPICS as u64))
    })?;
    idle(&room, &operator)
}

fn is_synced(room: &Room<'_>, number: usize) -> Result<bool> {
    let topic = room.kube().get("Topic", &room.name, &format!("topic-{number}"))?;
    Ok(topic.as_ref().is_some_and(says_synced))
}

fn says_synced(topic: &Value) -> bool {
    condition(topic, "Ready").is_some_and(|(status, ..)| status == "True")
}

fn idle(room: &Room<'_>, operator: &Operator) -> Result<()> {
    let passes =
        || operator.metric("takhin_operator_reconcile_total{controller=\"topic\",result=\"success\"}");
    // What was written last makes one more pass.
    let mut log = room.audit()?;
    let mut since = Instant::now();
    wait::until("the last write", SOON, || {
        if room
            .asked(&log)?
            .iter()
            .any(|entry| entry.is_write() && !entry.is_lease())
        {
            log = room.audit()?;
            since = Instant::now();
        }
        Ok(since.elapsed() > Duration::from_secs(5))
    })?;
    let (log, used, before, begun) = (
        room.audit()?,
        operator.processor_time()?,
        passes()?,
        Instant::now(),
    );
    wait::until("a minute to pass", IDLE * 2, || Ok(begun.elapsed() >= IDLE))?;
    let used = (operator.processor_time()? - used).as_secs_f64() / begun.elapsed().as_secs_f64();
    let resident = operator.memory("VmRSS")?;
    let looked = passes()? - before;
    eprintln!(
        "        idle: {used:.3} of a processor, {} MiB, {looked} passes over all topics",
        resident >> 20
    );
    let writes: Vec<_> = room
        .asked(&log)?
        .into_iter()
        .filter(|entry| entry.is_write() && !entry.is_lease())
        .collect();
    ensure!(
        writes.is_empty(),
        "writes while nothing happens:\n{}",
        audit::summary(&writes)
    );
    ensure!(looked >= 2.0, "{looked} passes over all topics");
    ensure!(resident < STEADY, "{} MiB", resident >> 20);
    ensure!(used < SHARE, "{used} of a processor");
    Ok(())
}
