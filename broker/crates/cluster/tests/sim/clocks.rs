//! Wall clocks that jump.

use std::time::Duration;

use takhin_cluster::Acks;
use takhin_protocol::record::{Batch, BatchBuilder, Compression, NewRecord};
use takhin_runtime::sim::{Machine, Sim};

use crate::nodes::{NAMES, boot_all, converge, leader, leader_of, until};

/// `retention.ms` of the topic.
const RETENTION_MS: i64 = 3_600_000;

const JUMP_MS: i64 = 30 * 60_000;

/// Longer than the pause between two looks at what has expired.
const LOOK: Duration = Duration::from_secs(360);

/// The `n`th record, stamped by its producer.
fn stamped(n: u64, timestamp: i64) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None).producer(1, 0, i32::try_from(n).unwrap());
    let value = format!("1:{n}:{}", "x".repeat(2_000));
    builder.push(NewRecord {
        timestamp,
        key: None,
        value: Some(value.as_bytes()),
        headers: &[],
    });
    builder.build().unwrap()
}

/// Elections go by the time that passes, not by what a clock shows. What expires does go by the clock of the broker that
/// leads: half an hour too early with a clock that is half an hour ahead, and no sooner.
#[test]
fn clocks_that_jump_elect_nobody_and_delete_nothing_that_is_younger() {
    let mut sim = Sim::new(131);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(100)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let retention = RETENTION_MS.to_string();
        let settings = [("retention.ms", retention.as_str()), ("retention.bytes", "-1")];
        let led = leader_of(&env, &running, &settings).await;
        until(&env, "all run", || running.lock().len() == NAMES.len()).await;
        let epoch = led.leadership().unwrap();
        let begun = env.clock.now_ms();
        let mut next = 0;
        // The leader, and those who could become one: forwards, and back to before they were.
        for jump in [JUMP_MS, -2 * JUMP_MS] {
            for machine in &machines {
                machine.jump_clock(jump);
                for _ in 0..10 {
                    let produced = led.produce(stamped(next, env.clock.now_ms()), Acks::All);
                    let offset = produced.unwrap().await.unwrap().base_offset;
                    assert_eq!(offset.cast_unsigned(), next);
                    next += 1;
                    env.clock.sleep(Duration::from_millis(500)).await;
                }
            }
            env.clock.sleep(LOOK).await;
            assert_eq!(led.leadership(), Some(epoch), "somebody was elected");
            assert_eq!(led.offsets().log_start_offset, 0, "records expired early");
        }
        assert!(
            led.log().unwrap().stats().segments.len() > 2,
            "no segment could go"
        );
        let found = converge(&env, &running).await;
        assert!(found.iter().all(|replica| replica.len() as u64 == next));

        // Of who follows nobody's clock is asked; the leader's is, and all forget what it does.
        assert!(
            env.clock.now_ms() - begun < RETENTION_MS - JUMP_MS,
            "too late to tell"
        );
        let place = running.lock().values().position(|node| {
            node.partition(led.id().topic_id, 0)
                .unwrap()
                .leadership()
                .is_some()
        });
        let leads = place.unwrap();
        for (index, machine) in machines.iter().enumerate() {
            if index != leads {
                machine.jump_clock(2 * RETENTION_MS);
            }
        }
        env.clock.sleep(LOOK).await;
        assert_eq!(led.offsets().log_start_offset, 0, "a follower's clock counted");
        machines[leads].jump_clock(2 * RETENTION_MS);
        env.clock.sleep(LOOK).await;
        let start = led.offsets().log_start_offset;
        assert!(start > 0, "the leader's clock did not count");
        assert_eq!(leader(&env, &running).await.leadership(), Some(epoch));
        for replica in converge(&env, &running).await {
            assert_eq!(replica.first().map(|(offset, _)| *offset), Some(start));
        }
    });
}
