//! Consumers that read a topic from its beginning to its end once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use super::Target;
use super::consume::Fetcher;
use crate::wire::Position;

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Fetch requests.
    pub(crate) requests: u64,
    /// Records received.
    pub(crate) records: u64,
}

/// Reads every partition of `target` from offset 0 to `end` (exclusive) with `connections` consumers, or until `stop`.
pub(crate) fn catch_up(target: &Target, end: i64, connections: i32, stop: &AtomicBool) -> Result<Read> {
    thread::scope(|scope| {
        let readers: Vec<_> = (0..connections)
            .map(|mine| {
                let partitions = (0..target.partitions).filter(move |p| p % connections == mine);
                scope.spawn(move || read(target, partitions.collect(), end, stop))
            })
            .collect();
        let mut sum = Read::default();
        for reader in readers {
            let read = reader.join().map_err(|_| anyhow!("a consumer panicked"))??;
            sum.requests += read.requests;
            sum.records += read.records;
        }
        Ok(sum)
    })
}

fn read(target: &Target, partitions: Vec<i32>, end: i64, stop: &AtomicBool) -> Result<Read> {
    let at = partitions
        .into_iter()
        .map(|partition| Position { partition, offset: 0 });
    let mut at: Vec<_> = at.collect();
    let mut fetcher = Fetcher::connect(target.addr)?;
    let mut read = Read::default();
    while !at.is_empty() && !stop.load(Ordering::Relaxed) {
        fetcher.fetch(&target.topic, &mut at, |_, header| {
            read.records += u64::try_from(header.records_count).unwrap_or(0);
        })?;
        read.requests += 1;
        // A partition that is read would make the broker wait for more.
        at.retain(|position| position.offset < end);
        if !at.is_empty() {
            at.rotate_left(1);
        }
    }
    Ok(read)
}
