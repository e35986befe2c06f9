//! Brokers that cannot be of one cluster: each is told why, ends, and changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Machine, Op, Sim};

use crate::nodes::{CONVERGENCE, NAMES, Running, SEEDS, SEGMENT_BYTES, boot, boot_all, leader};
use crate::world::{start_named, start_node};

/// Three brokers that form a cluster, and a machine for another one.
fn with_cluster<F: Future<Output = ()> + 'static>(
    seed: u64,
    story: impl FnOnce(Env, Vec<Machine>, Machine, Running) -> F + 'static,
) {
    let mut sim = Sim::new(seed);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let newcomer = sim.add_machine("n4");
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader(&env, &running).await);
        while running.lock().len() < NAMES.len() {
            env.clock.sleep(Duration::from_millis(20)).await;
        }
        story(env, machines, newcomer, running).await;
    });
}

/// Why a broker that is started here, with this id and name of the cluster, is not taken in.
async fn refusal(env: &Env, on: &Machine, id: i32, rpc: &str, cluster: &str, seeds: &[&str]) -> String {
    let own = on.env();
    let started = start_named(&own, cluster, id, rpc, seeds, SEGMENT_BYTES);
    let started = env.clock.timeout(CONVERGENCE, started).await;
    let reason = started.expect("it ends by itself").expect_err("it is refused");
    let left = own.disk.read_dir(Path::new("data")).unwrap();
    let left: Vec<_> = left.into_iter().map(|entry| entry.name).collect();
    assert!(left.is_empty(), "it left {left:?}");
    reason
}

#[test]
fn a_used_id_with_an_empty_directory_is_refused() {
    with_cluster(41, |env, machines, newcomer, running| async move {
        running.lock().remove(&2);
        machines[2].crash(CrashMode::Process);
        let known = running.lock()[&0].image().brokers[&3].clone();
        let reason = refusal(&env, &newcomer, 3, "n4:33145", "sim", &SEEDS).await;
        assert!(
            reason.contains("node id 3 belongs to a broker with another data directory"),
            "{reason}"
        );
        assert_eq!(
            running.lock()[&0].image().brokers[&3],
            known,
            "it changed what is known of 3"
        );
        // Its own directory is welcome.
        boot(&machines, 2, &running);
        while running.lock().len() < NAMES.len() {
            env.clock.sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn the_id_of_a_live_broker_is_refused() {
    with_cluster(42, |env, _machines, newcomer, running| async move {
        let known = running.lock()[&0].image().brokers.clone();
        let reason = refusal(&env, &newcomer, 2, "n4:33145", "sim", &SEEDS).await;
        assert!(reason.contains("n2:33145 has node id 2 too"), "{reason}");
        assert_eq!(running.lock()[&0].image().brokers, known);
    });
}

#[test]
fn another_name_of_the_cluster_is_refused() {
    with_cluster(43, |env, _machines, newcomer, running| async move {
        let reason = refusal(&env, &newcomer, 4, "n4:33145", "other", &SEEDS).await;
        assert!(
            reason.contains("belongs to cluster sim, this broker to other"),
            "{reason}"
        );
        assert_eq!(running.lock()[&0].image().brokers.len(), NAMES.len());
    });
}

/// A clock that is minutes off: a broker that is not of the cluster yet is not taken in, one that is goes on.
#[test]
fn a_clock_that_is_minutes_off_is_refused() {
    with_cluster(46, |env, machines, newcomer, running| async move {
        for (milliseconds, expected) in [(300_000, " s behind this"), (-600_000, " s ahead of this")] {
            newcomer.jump_clock(milliseconds);
            let reason = refusal(&env, &newcomer, 4, "n4:33145", "sim", &SEEDS).await;
            assert!(reason.contains(expected), "{reason}");
        }
        assert_eq!(running.lock()[&0].image().brokers.len(), NAMES.len());
        newcomer.jump_clock(300_000);
        let own = newcomer.env();
        let joined = start_node(&own, 4, "n4:33145", &SEEDS, SEGMENT_BYTES).await;
        drop(joined.unwrap());

        machines[1].jump_clock(120_000);
        let asked = Arc::clone(&running.lock()[&0]);
        let findings = asked.survey().await.health();
        let told: Vec<_> = findings
            .concerns()
            .filter(|concern| concern.kind.name() == "clock_skew")
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].broker, Some(2));
        assert!(told[0].message.contains(" s ahead of"), "{}", told[0].message);
    });
}

/// Its disk takes seconds to open what it has: it is a member all the same, whose clock nobody asks about.
#[test]
fn a_member_whose_log_opens_slowly_is_not_judged_as_a_new_broker() {
    with_cluster(47, |env, machines, _newcomer, running| async move {
        running.lock().remove(&2);
        machines[2].crash(CrashMode::Process);
        machines[2].jump_clock(300_000);
        for op in [Op::Open, Op::Read] {
            let slow = Duration::from_millis(500);
            machines[2].disk().set_latency(op, slow..=slow);
        }
        let own = machines[2].env();
        let started = start_node(&own, 3, SEEDS[2], &SEEDS, SEGMENT_BYTES);
        let started = env.clock.timeout(CONVERGENCE, started).await;
        drop(started.expect("it starts").expect("it is taken in"));
    });
}

/// Both clusters have the name that it was given, so that it could be of either.
#[test]
fn seeds_of_two_clusters_are_refused() {
    let mut sim = Sim::new(44);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.run(|env| async move {
        let (one, two) = (machines[0].env(), machines[1].env());
        let one = start_node(&one, 1, "n1:33145", &["n1:33145"], SEGMENT_BYTES).await;
        let two = start_node(&two, 2, "n2:33145", &["n2:33145"], SEGMENT_BYTES).await;
        let (one, two) = (one.unwrap(), two.unwrap());
        let reason = refusal(&env, &machines[2], 3, "n3:33145", "sim", &SEEDS).await;
        for part in [
            "n1:33145",
            "n2:33145",
            &one.image().cluster_id,
            &two.image().cluster_id,
        ] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        for image in [one.image(), two.image()] {
            assert_eq!(image.brokers.len(), 1, "it was taken in");
        }
    });
}

/// Two brokers that would found a cluster with other lists of seeds, or with one id: neither founds one, and both are told.
#[test]
fn founders_that_disagree_are_refused() {
    let both = ["n1:33145", "n2:33145"];
    for (id, seeds, expected) in [
        (2, &SEEDS[..], "has the seeds"),
        (1, &both[..], "has node id 1 too"),
    ] {
        let mut sim = Sim::new(45);
        let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
        sim.run(|env| async move {
            let one = Box::pin(refusal(&env, &machines[0], 1, "n1:33145", "sim", &both));
            let other = Box::pin(refusal(&env, &machines[1], id, "n2:33145", "sim", seeds));
            let told = futures_util::future::join(one, other).await;
            assert!(told.0.contains(expected), "{}", told.0);
            assert!(told.1.contains(expected), "{}", told.1);
        });
    }
}
