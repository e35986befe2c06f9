use std::path::Path;
use std::sync::Arc;

use takhin_protocol::record::Attributes;
use takhin_runtime::Rng;
use takhin_runtime::sim::{CrashMode, SimDisk};

use super::*;
use crate::entry::{NewEntry, PreviousStop};
use crate::testing::{data_batch, sealed};

const DIR: &str = "/log";

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 900,
        head_ring: 4,
        max_producers: 6,
        ..LogOptions::default()
    }
}

fn open(disk: &SimDisk, checkpoint: Option<Checkpoint>, previous: PreviousStop) -> Log {
    let cx = StorageContext::new(Arc::new(disk.incarnation()));
    Log::open(&cx, Path::new(DIR), options(), checkpoint, previous)
        .unwrap()
        .0
}

fn random_entry(rng: &Rng, log: &Log) -> NewEntry {
    let end = log.end();
    let raft_index = end.last.map_or(0, |l| l.index + 1);
    let term = end.last.map_or(1, |l| l.term) + u32::from(rng.chance(0.1));
    let mut batch = data_batch(
        end.log_end_offset,
        i32::try_from(term).unwrap(),
        2,
        1000 + i64::from(term),
    );
    if rng.chance(0.7) {
        let h = &mut batch.header;
        h.producer_id = i64::try_from(rng.range(0..4)).unwrap();
        h.producer_epoch = i16::try_from(term).unwrap();
        h.base_sequence = i32::try_from(raft_index).unwrap();
        h.attributes.0 |= Attributes::TRANSACTIONAL;
        if rng.chance(0.3) {
            h.attributes.0 |= Attributes::CONTROL;
        }
        batch = sealed(batch);
    }
    NewEntry {
        term,
        raft_index,
        batch,
    }
}

/// Epochs and producers, from all entries.
fn derived(log: &Log) -> Derived {
    let mut derived = Derived::default();
    let end = log.end();
    for entry in log
        .entries(0..end.last.map_or(0, |l| l.index + 1), usize::MAX)
        .unwrap()
    {
        derived.note(
            entry.term,
            entry.index,
            &entry.batch.header,
            options().max_producers,
        );
    }
    derived
}

#[test]
fn epochs_and_producers_are_those_of_the_entries_after_any_history() {
    for seed in 0..60 {
        let rng = Rng::from_seed(seed);
        let disk = SimDisk::new(seed);
        let mut log = open(&disk, None, PreviousStop::Clean);
        for _ in 0..60 {
            let next = log.end().last.map_or(0, |l| l.index + 1);
            match rng.range(0..12) {
                0 => log
                    .truncate_after((next / 2 + rng.range(0..next / 2 + 1)).checked_sub(1))
                    .unwrap(),
                1 => {
                    let end = log.close().unwrap();
                    log = open(&disk, Some(end), PreviousStop::Clean);
                }
                2 => {
                    let stored = log.checkpoint();
                    disk.crash(CrashMode::Process);
                    log = open(&disk, Some(stored), PreviousStop::Killed);
                }
                3 => {
                    log.flush().unwrap();
                    let stored = log.checkpoint();
                    disk.crash(CrashMode::Power);
                    log = open(&disk, Some(stored), PreviousStop::PowerLoss);
                }
                _ => drop(log.append(&[random_entry(&rng, &log)]).unwrap()),
            }
            let expected = derived(&log);
            assert_eq!(log.producers(), expected.producers, "seed {seed}");
            assert_eq!(log.epochs(), expected.epochs.starts(), "seed {seed}");
        }
    }
}
