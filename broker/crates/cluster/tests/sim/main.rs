//! One node, and several of them, simulated: the real storage, openraft and partition code under crashes, torn writes,
//! full, slow and failing disks, from one seed.
//!
//! `SIM_SEEDS=N` runs N seeds (default 24; a quarter of them with three nodes), `SIM_FIRST=S` begins with seed S,
//! `SIM_TELL=1` prints all that happens, `SIM_HASHES=1` a hash of it for each seed: two runs print the same, or a seed is
//! no whole story.

#![allow(clippy::unwrap_used, reason = "a broken scenario is a failed test")]
#![allow(
    clippy::disallowed_methods,
    reason = "the seeds to run come from the environment"
)]

mod acks;
mod changes;
mod clocks;
mod compaction;
mod copies;
mod doubt;
mod drain;
mod durability;
mod failover;
mod invariants;
mod named;
mod nodes;
mod oracle;
mod orphans;
mod parking;
mod producers;
mod quorum;
mod reader;
mod rebalance;
mod refusals;
mod retention;
mod returned;
mod scenarios;
mod stories;
mod throttle;
mod votes;
mod wiped;
mod world;

use nodes::Nodes;
use world::World;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{name}={text}: not a number"))
        })
    };
    let first = number("SIM_FIRST", 1);
    first..first + number("SIM_SEEDS", 24)
}

/// Says which seed it was when a run of it panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "simulation failed with seed {0}: SIM_FIRST={0} SIM_SEEDS=1 SIM_TELL=1 tells its story",
                self.0
            );
        }
    }
}

/// What was acknowledged is there once, in order, at the offset that was acknowledged: whatever crashes when, in
/// flushed mode also through power cuts.
#[test]
fn acknowledged_records_survive_crashes_and_disk_faults() {
    let mut acknowledged = 0;
    for seed in seeds() {
        let named = Named(seed);
        let mut world = World::new(seed);
        if std::env::var_os("SIM_TELL").is_some() {
            world.tell();
        }
        acknowledged += world.run();
        if std::env::var_os("SIM_HASHES").is_some() {
            let (hash, events) = world.trace();
            println!("seed {seed}: {events} events, hash {hash:016x}");
        }
        drop(named);
    }
    assert!(
        acknowledged > 0,
        "no record was ever acknowledged: the simulation tests nothing"
    );
}

/// The same with three nodes that crash, lose each other and find each other again; in the end every replica holds the
/// same.
#[test]
fn acknowledged_records_survive_the_loss_of_any_node() {
    // A story of three nodes takes as long as several of one.
    run_nodes(4, "three nodes", Nodes::new);
}

/// Records that are acknowledged from page caches survive as long as only one node loses what it has there, however often.
#[test]
fn acknowledged_records_survive_in_the_page_caches_of_the_others() {
    run_nodes(12, "cached records", Nodes::cached);
}

/// Nor do those that nobody deletes go with those that somebody does, also where replicas get copies of what is left.
#[test]
fn acknowledged_records_survive_the_deletion_of_others() {
    run_nodes(12, "deleted records", Nodes::deleting);
}

/// Runs the stories of three nodes with one in `share` of the seeds.
#[allow(clippy::print_stdout, reason = "SIM_HASHES asks for it")]
fn run_nodes(share: u64, what: &str, new: fn(u64) -> Nodes) {
    let mut acknowledged = 0;
    let seeds = seeds();
    for seed in seeds.start..seeds.start + (seeds.end - seeds.start).div_ceil(share) {
        let named = Named(seed);
        let mut nodes = new(seed);
        if std::env::var_os("SIM_TELL").is_some() {
            nodes.tell();
        }
        acknowledged += nodes.run();
        if std::env::var_os("SIM_HASHES").is_some() {
            let (hash, events) = nodes.trace();
            println!("seed {seed} of {what}: {events} events, hash {hash:016x}");
        }
        drop(named);
    }
    assert!(
        acknowledged > 0,
        "no record was ever acknowledged: the simulation tests nothing"
    );
}

/// Nor does it matter what else this machine does: here both runs go on at the same time.
#[test]
fn a_seed_of_three_nodes_replays_byte_for_byte() {
    let story = || {
        let mut nodes = Nodes::new(7);
        nodes.run();
        nodes.trace()
    };
    std::thread::scope(|threads| {
        let other = threads.spawn(story);
        assert_eq!(story(), other.join().unwrap());
    });
}

/// A seed is a whole story: two runs of it do the same things to the disk in the same order.
#[test]
fn a_seed_replays_byte_for_byte() {
    let story = |seed| {
        let mut world = World::new(seed);
        world.run();
        world.trace()
    };
    assert_eq!(story(7), story(7));
    assert_ne!(story(7), story(8));
}
