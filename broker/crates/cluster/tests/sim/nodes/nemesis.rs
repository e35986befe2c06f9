//! What the nemesis does, one deed after the other.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_cluster::ConfigTarget;
use takhin_config::alter::{Change, Operation};
use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Machine, Op, SimNet, When};
use takhin_runtime::{Env, Rng};

use super::{NAMES, NEAR, Running, TOPIC, boot, leader, leader_of, reassign};
use crate::oracle::Oracle;
use crate::world::PARTITIONS_DIR;

/// What may happen to whom.
pub(super) struct Fate {
    pub(super) net: SimNet,
    pub(super) machines: Vec<Machine>,
    pub(super) running: Running,
    /// The only one of which what was not synced is lost. Records are acknowledged from the page cache then.
    pub(super) weak: Option<usize>,
    /// Told of records that are to be deleted, if any are.
    pub(super) deletes: Option<Arc<Mutex<Oracle>>>,
}

/// Partitions of a node fail one by one, and are opened again once their disk is sound.
async fn fail_partitions(env: &Env, rng: &Rng, machine: &Machine) {
    machine.disk().arm(FaultRule {
        op: if rng.chance(0.5) { Op::Write } else { Op::SyncData },
        path: PARTITIONS_DIR.to_owned(),
        when: When::Probability(0.2),
        fault: if rng.chance(0.5) { Fault::Eio } else { Fault::Short },
    });
    env.clock.sleep(Duration::from_millis(rng.range(1..4000))).await;
    machine.disk().clear_faults();
}

/// Others lead, then the node stops in order; whatever else happens meanwhile.
async fn leave(env: &Env, running: &Running, one: usize) {
    let cluster = running.lock().remove(&one);
    let Some(cluster) = cluster else { return };
    let leaving = async {
        cluster.give_leadership_away().await;
        cluster.stop().await;
    };
    let _ = env.clock.timeout(Duration::from_secs(20), leaving).await;
}

/// Asks a node for any replicas, in any order, or to take back what it was asked for.
async fn move_replicas(env: &Env, rng: &Rng, fate: &Fate, asked: usize) {
    let (running, weak) = (
        &fate.running,
        fate.weak.and_then(|weak| i32::try_from(weak + 1).ok()),
    );
    let mut replicas: Vec<i32> = (1..4).filter(|_| rng.chance(0.6)).collect();
    // It would be the only one that has them.
    if weak.is_some_and(|weak| replicas == [weak]) {
        replicas = vec![1, 2, 3];
    }
    if rng.chance(0.5) {
        replicas.reverse();
    }
    let replicas = (!replicas.is_empty()).then_some(replicas);
    let cluster = running.lock().get(&asked).cloned();
    if let Some(cluster) = cluster {
        let asking = reassign(&cluster, replicas);
        let _ = env.clock.timeout(Duration::from_secs(2), asking).await;
    }
}

/// How often segments without records are deleted, where records are.
const DELETED: Duration = Duration::from_secs(2);

/// Has segments without records go within seconds.
pub(crate) async fn delete_soon(env: &Env, running: &Running) {
    // What is written is as old as can be.
    drop(leader_of(env, running, &[("retention.ms", "-1")]).await);
    let cluster = running.lock().values().next().cloned().unwrap();
    let interval = Operation::Set(DELETED.as_millis().to_string());
    let change = Change::Edit(vec![("log.retention.check.interval.ms".to_owned(), interval)]);
    let changed = cluster.alter_config(&ConfigTarget::Broker(None), &change, false);
    changed.await.unwrap();
}

/// Has the leader delete some of the records that it has, whatever else happens meanwhile.
async fn delete_records(env: &Env, rng: &Rng, fate: &Fate) {
    let deleting = async {
        let led = leader(env, &fate.running).await;
        let offsets = led.offsets();
        let ends = offsets.log_start_offset..offsets.high_watermark + 1;
        let before = rng
            .range(ends.start.unsigned_abs()..ends.end.unsigned_abs())
            .cast_signed();
        if let Some(oracle) = &fate.deletes {
            oracle.lock().deletes(before);
        }
        // It may lead no longer.
        if let Ok(start) = led.delete_records(Some(before)).await {
            assert!(start >= before);
        }
    };
    let _ = env.clock.timeout(Duration::from_secs(2), deleting).await;
}

/// Asks a node to have the preferred replica lead: it may lead already, be behind or away.
async fn elect_preferred(running: &Running, asked: usize) {
    let cluster = running.lock().get(&asked).cloned();
    if let Some(cluster) = cluster
        && let Some(topic) = cluster.image().topic(TOPIC).cloned()
    {
        let _ = cluster.elect_preferred(topic.id, 0).await;
    }
}

/// All nodes lose power at once, or as many as may, while the others are killed.
async fn cut_power(env: &Env, rng: &Rng, fate: &Fate) {
    let Fate {
        machines, running, ..
    } = fate;
    for (index, machine) in machines.iter().enumerate() {
        running.lock().remove(&index);
        machine.crash(match fate.may_lose(index) {
            true => CrashMode::Power,
            false => CrashMode::Process,
        });
    }
    env.clock.sleep(Duration::from_millis(rng.range(1..1000))).await;
    (0..machines.len()).for_each(|index| boot(machines, index, running));
}

impl Fate {
    /// Whether this node may lose what it has not synced.
    fn may_lose(&self, index: usize) -> bool {
        self.weak.is_none_or(|weak| weak == index)
    }
}

/// One deed of the nemesis, and what comes after it.
pub(super) async fn deed(env: &Env, rng: &Rng, fate: &Fate) {
    let Fate {
        net,
        machines,
        running,
        ..
    } = fate;
    let [one, other] = [(); 2].map(|()| usize::try_from(rng.range(0..3)).unwrap());
    let kinds = if fate.deletes.is_some() { 22 } else { 16 };
    match rng.range(0..kinds) {
        0 | 1 => {
            let mode = match rng.chance(0.5) && fate.may_lose(one) {
                true => CrashMode::Power,
                false => CrashMode::Process,
            };
            running.lock().remove(&one);
            machines[one].crash(mode);
            env.clock.sleep(Duration::from_millis(rng.range(1..3000))).await;
            boot(machines, one, running);
        }
        2 => net.isolate(NAMES[one]),
        3 => net.block(NAMES[one], NAMES[other]),
        4 => net.partition(NAMES[one], NAMES[other]),
        5 => {
            let slow = Duration::from_millis(rng.range(1..300));
            machines[one]
                .disk()
                .set_latency(Op::SyncData, Duration::ZERO..=slow);
        }
        6 => net.kill_connections(NAMES[one], NAMES[other]),
        7 => {
            leave(env, running, one).await;
            machines[one].crash(CrashMode::Process);
            boot(machines, one, running);
        }
        // Ten minutes, forwards or backwards.
        13 => {
            let minutes = if rng.chance(0.5) { 10 } else { -10 };
            machines[one].jump_clock(minutes * 60_000);
        }
        12 if fate.may_lose(one) => fail_partitions(env, rng, &machines[one]).await,
        // Some of what is under way arrives when elections have been held over it.
        14 => net.set_default_delay(Duration::ZERO..=Duration::from_millis(rng.range(10..1500))),
        15 => cut_power(env, rng, fate).await,
        8 | 9 => move_replicas(env, rng, fate, one).await,
        16..20 => delete_records(env, rng, fate).await,
        // Who is given a replica now may not find its beginning.
        20.. => {
            delete_records(env, rng, fate).await;
            env.clock.sleep(DELETED).await;
            move_replicas(env, rng, fate, one).await;
        }
        _ => elect_preferred(running, one).await,
    }
    env.clock.sleep(Duration::from_millis(rng.range(1..4000))).await;
    if rng.chance(0.6) {
        net.heal_all();
        net.set_default_delay(NEAR);
        machines[one]
            .disk()
            .set_latency(Op::SyncData, Duration::ZERO..=Duration::ZERO);
    }
}
