//! Replicas of `cached` topics that come back without what they had acknowledged from the page cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, ConfigTarget, NewTopic, Partition};
use takhin_config::alter::{Change, Operation};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Machine, Op, Sim, SimNet, When};

use crate::nodes::{NAMES, Running, TOPIC, boot, boot_all, converge, leader, leader_of, until};
use crate::world::{Producer, batch};

const CACHED: (&str, &str) = ("takhin.durability", "cached");
const UNCLEAN: (&str, &str) = ("unclean.leader.election.enable", "true");

/// Many times as long as an election takes.
const LONG: Duration = Duration::from_secs(20);

/// Looks for unsynced bytes of cached topics.
const SYNCED: Duration = Duration::from_secs(12);

fn replica(running: &Running, place: usize) -> Option<Arc<Partition>> {
    let node = running.lock().get(&place).cloned()?;
    let topic = node.image().topic(TOPIC)?.id;
    node.partition(topic, 0)
}

fn leads(running: &Running, place: usize) -> bool {
    replica(running, place).is_some_and(|it| it.leadership().is_some())
}

fn in_doubt(running: &Running) -> usize {
    let nodes = running.lock();
    nodes.values().map(|node| node.stats().in_doubt).sum()
}

/// What came after is lost.
fn go_on_after(producer: &mut Producer, end: i64) {
    producer.next = u64::try_from(end).unwrap();
    producer.sequence = i32::try_from(end).unwrap();
}

/// Writes to whoever leads.
async fn write(env: &Env, running: &Running, producer: &mut Producer, count: u64) {
    producer.pending = Some(count);
    let written = async {
        loop {
            let led = leader(env, running).await;
            if let Ok(ticket) = led.produce(batch(1, producer, count), Acks::All)
                && ticket.await.is_ok()
            {
                return;
            }
            env.clock.sleep(Duration::from_millis(20)).await;
        }
    };
    env.clock.timeout(LONG, written).await.expect("somebody accepts");
    producer.answered(count);
}

/// Runs a story with several seeds: a disk that loses power may keep what was not synced. The story says whether it did not;
/// one of them has to.
fn with_losses<F: Future<Output = bool> + Send + 'static>(
    first: u64,
    story: impl Fn(Env, Vec<Machine>, SimNet) -> F,
) {
    let losses = (first..first + 6).filter(|seed| {
        let mut sim = Sim::new(*seed);
        let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
        let net = sim.net().clone();
        sim.run(|env| story(env, machines, net))
    });
    assert!(losses.count() > 0, "no disk lost anything");
}

/// A cluster with a topic of whose records, ten, the third replica has the first five; the first leads. The second has
/// synced these five, and acknowledged all.
async fn begin(
    env: &Env,
    machines: &[Machine],
    net: &SimNet,
    settings: &[(&str, &str)],
) -> (Running, Producer) {
    let running = boot_all(machines);
    drop(leader_of(env, &running, settings).await);
    converge(env, &running).await;
    until(env, "the first leads", || leads(&running, 0)).await;
    let mut producer = Producer::default();
    write(env, &running, &mut producer, 5).await;
    converge(env, &running).await;
    env.clock.sleep(SYNCED).await;
    net.isolate(NAMES[2]);
    for _ in 0..5 {
        write(env, &running, &mut producer, 1).await;
    }
    assert_eq!(end(&running, 1), 10, "its acknowledgements counted");
    (running, producer)
}

fn end(running: &Running, place: usize) -> i64 {
    replica(running, place).unwrap().offsets().log_end_offset
}

/// Waits until the replica has opened its log.
async fn back(env: &Env, running: &Running, place: usize) {
    until(env, "it is back", || {
        replica(running, place).is_some_and(|it| it.log().is_some())
    })
    .await;
}

fn lose_power(machines: &[Machine], running: &Running, place: usize) {
    running.lock().remove(&place);
    machines[place].crash(CrashMode::Power);
}

/// Every replica has all records in the end, and the partition goes on.
async fn all_there(env: &Env, running: &Running, producer: &mut Producer, records: usize) {
    let found = converge(env, running).await;
    assert!(found.iter().all(|replica| replica.len() == records), "{found:?}");
    until(env, "nobody is in doubt", || in_doubt(running) == 0).await;
    write(env, running, producer, 3).await;
}

/// The replica that lost its end would vote for the one that never had it.
#[test]
fn what_one_replica_lost_with_the_power_the_others_do_not_forget() {
    with_losses(71, async |env, machines, net| {
        let (running, mut producer) = begin(&env, &machines, &net, &[CACHED]).await;
        lose_power(&machines, &running, 1);
        net.heal_all();
        net.isolate(NAMES[0]);
        boot(&machines, 1, &running);
        back(&env, &running, 1).await;
        let has_lost = end(&running, 1) < 10;
        // Neither does it forget that it is in doubt.
        for _ in 0..2 {
            env.clock.sleep(LONG).await;
            assert!(![1, 2].into_iter().any(|place| leads(&running, place)));
            assert_eq!(in_doubt(&running), 1);
            running.lock().remove(&1);
            machines[1].crash(CrashMode::Process);
            boot(&machines, 1, &running);
            back(&env, &running, 1).await;
        }
        net.heal_all();
        all_there(&env, &running, &mut producer, 10).await;
        has_lost
    });
}

/// Killed between the two, it would come back as if it had everything.
#[test]
fn a_doubt_is_written_down_before_a_failed_log_is_cut() {
    let mut sim = Sim::new(131);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    sim.run(|env| async move {
        let (running, mut producer) = begin(&env, &machines, &net, &[CACHED]).await;
        let topic = running.lock()[&0].image().topic(TOPIC).unwrap().id;
        for (op, path) in [(Op::SyncData, topic.to_string()), (Op::Write, "journal".into())] {
            machines[1].disk().arm(FaultRule {
                op,
                path,
                when: When::Probability(1.0),
                fault: Fault::Eio,
            });
        }
        env.clock.sleep(SYNCED).await;
        // A failed log is noticed with the next record; it is to be opened anew then, and nothing can be written down.
        producer.pending = Some(1);
        drop(
            leader(&env, &running)
                .await
                .produce(batch(1, &producer, 1), Acks::All),
        );
        until(&env, "it has failed", || {
            replica(&running, 1).is_none_or(|it| it.offline_reason().is_some())
        })
        .await;
        env.clock.sleep(Duration::from_secs(2)).await;
        running.lock().remove(&1);
        machines[1].crash(CrashMode::Process);
        machines[1].disk().clear_faults();
        net.heal_all();
        net.isolate(NAMES[0]);
        boot(&machines, 1, &running);
        back(&env, &running, 1).await;
        assert!(end(&running, 1) < 10, "what was not synced is cut");
        env.clock.sleep(LONG).await;
        assert!(![1, 2].into_iter().any(|place| leads(&running, place)));
        net.heal_all();
        producer.answered(1);
        all_there(&env, &running, &mut producer, 11).await;
    });
}

/// A partition that nobody leads does not make each later kill a loss of power for the others.
#[test]
fn a_kill_is_only_a_kill_once_every_log_is_open() {
    let mut sim = Sim::new(141);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    sim.run(|env| async move {
        let (running, _) = begin(&env, &machines, &net, &[CACHED]).await;
        net.heal_all();
        let pair = NewTopic {
            name: "pair".into(),
            partitions: vec![vec![2, 3]],
            overrides: BTreeMap::from([(CACHED.0.to_owned(), CACHED.1.to_owned())]),
        };
        let first = Arc::clone(&running.lock()[&0]);
        first.create_topic(pair).await.unwrap();
        drop(first);
        (1..3).for_each(|place| lose_power(&machines, &running, place));
        boot(&machines, 1, &running);
        back(&env, &running, 1).await;
        until(&env, "it waits for the third with one replica", || {
            in_doubt(&running) == 1
        })
        .await;
        env.clock.sleep(LONG).await;
        running.lock().remove(&1);
        machines[1].crash(CrashMode::Process);
        boot(&machines, 1, &running);
        back(&env, &running, 1).await;
        assert_eq!(in_doubt(&running), 1, "it has lost nothing since");
    });
}

/// Nobody writes meanwhile: openraft alone would send it nothing.
#[test]
fn a_leader_sends_a_replica_what_it_has_lost() {
    with_losses(81, async |env, machines, net| {
        let (running, _) = begin(&env, &machines, &net, &[CACHED]).await;
        lose_power(&machines, &running, 1);
        boot(&machines, 1, &running);
        back(&env, &running, 1).await;
        let has_lost = end(&running, 1) < 10;
        let took = until(&env, "it has all again", || {
            let second = replica(&running, 1).unwrap().offsets();
            second.high_watermark == 10 && in_doubt(&running) == 0
        })
        .await;
        assert!(took < LONG, "{took:?}");
        // It votes again: without the first there are two, one of which it is.
        net.heal_all();
        converge(&env, &running).await;
        net.isolate(NAMES[0]);
        until(&env, "another leads", || {
            [1, 2].into_iter().any(|place| leads(&running, place))
        })
        .await;
        has_lost
    });
}

/// Nobody knows more than they do: the farthest of them leads.
#[test]
fn replicas_that_have_all_lost_power_go_on_with_the_farthest_log() {
    with_losses(91, async |env, machines, net| {
        let (running, mut producer) = begin(&env, &machines, &net, &[CACHED]).await;
        (0..NAMES.len()).for_each(|place| lose_power(&machines, &running, place));
        net.heal_all();
        (1..3).for_each(|place| boot(&machines, place, &running));
        for place in [1, 2] {
            back(&env, &running, place).await;
        }
        env.clock.sleep(LONG).await;
        assert!(
            ![1, 2].into_iter().any(|place| leads(&running, place)),
            "the first may have more"
        );
        boot(&machines, 0, &running);
        back(&env, &running, 0).await;
        let ends = [0, 1, 2].map(|place| end(&running, place));
        let farthest = ends.into_iter().max().unwrap();
        let found = converge(&env, &running).await;
        let held = usize::try_from(farthest).unwrap();
        assert!(found.iter().all(|replica| replica.len() == held), "{found:?}");
        until(&env, "nobody is in doubt", || in_doubt(&running) == 0).await;
        go_on_after(&mut producer, farthest);
        write(&env, &running, &mut producer, 3).await;
        // Both had all of them.
        ends[0].min(ends[1]) < 10
    });
}

/// As whoever sets `unclean.leader.election.enable` wants it.
#[test]
fn a_majority_that_has_lost_power_goes_on_without_the_missing_if_the_topic_says_so() {
    with_losses(101, async |env, machines, net| {
        let (running, mut producer) = begin(&env, &machines, &net, &[CACHED, UNCLEAN]).await;
        (0..NAMES.len()).for_each(|place| lose_power(&machines, &running, place));
        net.heal_all();
        for place in [1, 2] {
            boot(&machines, place, &running);
        }
        until(&env, "it is led", || {
            [1, 2].into_iter().any(|place| leads(&running, place))
        })
        .await;
        let led = leader(&env, &running).await;
        let kept = led.offsets().log_end_offset;
        go_on_after(&mut producer, kept);
        write(&env, &running, &mut producer, 3).await;
        boot(&machines, 0, &running);
        let found = converge(&env, &running).await;
        let held = usize::try_from(kept).unwrap() + 3;
        assert!(found.iter().all(|replica| replica.len() == held), "{found:?}");
        kept < 10
    });
}

/// The third has heard of a leader that is cut off now: that is no reason to wait for it.
#[test]
fn a_majority_goes_on_without_a_leader_that_is_not_there_if_the_topic_says_so() {
    with_losses(151, async |env, machines, net| {
        let (running, mut producer) = begin(&env, &machines, &net, &[CACHED, UNCLEAN]).await;
        lose_power(&machines, &running, 1);
        net.heal_all();
        net.isolate(NAMES[0]);
        boot(&machines, 1, &running);
        back(&env, &running, 1).await;
        let has_lost = end(&running, 1) < 10;
        until(&env, "it is led", || {
            [1, 2].into_iter().any(|place| leads(&running, place))
        })
        .await;
        running.lock().remove(&0);
        machines[0].crash(CrashMode::Process);
        let kept = leader(&env, &running).await.offsets().log_end_offset;
        go_on_after(&mut producer, kept);
        write(&env, &running, &mut producer, 3).await;
        has_lost
    });
}

/// A flushed topic has lost nothing that it has acknowledged.
#[test]
fn replicas_of_flushed_topics_vote_at_once() {
    let mut sim = Sim::new(111);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    sim.run(|env| async move {
        let (running, _) = begin(&env, &machines, &net, &[]).await;
        lose_power(&machines, &running, 1);
        net.heal_all();
        net.isolate(NAMES[0]);
        boot(&machines, 1, &running);
        until(&env, "the second leads", || leads(&running, 1)).await;
        assert_eq!(replica(&running, 1).unwrap().offsets().high_watermark, 10);
    });
}

/// What counts is how its records were acknowledged, not how the next ones are to be.
#[test]
fn a_topic_that_is_flushed_by_now_has_lost_what_it_had_cached() {
    with_losses(121, async |env, machines, net| {
        let (running, mut producer) = begin(&env, &machines, &net, &[CACHED]).await;
        lose_power(&machines, &running, 1);
        let first = Arc::clone(&running.lock()[&0]);
        // The third hears of the change, and goes on lacking what the second does.
        machines[2].disk().arm(FaultRule {
            op: Op::Write,
            path: first.image().topic(TOPIC).unwrap().id.to_string(),
            when: When::Probability(1.0),
            fault: Fault::Eio,
        });
        net.heal_all();
        let edit = (
            "takhin.durability".to_owned(),
            Operation::Set("flushed".to_owned()),
        );
        let target = ConfigTarget::Topic(TOPIC.to_owned());
        let change = Change::Edit(vec![edit]);
        first.alter_config(&target, &change, false).await.unwrap();
        env.clock.sleep(SYNCED).await;
        drop(first);
        net.isolate(NAMES[0]);
        machines[2].disk().clear_faults();
        until(&env, "the third is open", || end(&running, 2) == 5).await;
        boot(&machines, 1, &running);
        back(&env, &running, 1).await;
        let has_lost = end(&running, 1) < 10;
        env.clock.sleep(LONG).await;
        assert!(![1, 2].into_iter().any(|place| leads(&running, place)));
        net.heal_all();
        all_there(&env, &running, &mut producer, 10).await;
        has_lost
    });
}
