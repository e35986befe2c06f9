//! A fixed amount of data, as fast as it goes; nothing is measured.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Target;
use super::conn::{Conns, Sent};
use crate::batches::Batches;

const IN_FLIGHT: usize = 5;

/// Writes `rounds` full batches into each partition of `target`.
pub(crate) fn fill(target: &Target, batches: &Batches, rounds: usize) -> Result<()> {
    let records = batches.max();
    let requests = (0..target.partitions).map(|p| batches.request(&target.topic, p, records));
    let requests = requests.collect::<Result<Vec<_>>>()?;
    let mut conns = Conns::open(target.addr, 1)?;
    let mut todo = (0..rounds).flat_map(|_| &requests);
    let mut last = Instant::now();
    let mut left = rounds * requests.len();
    while left > 0 {
        while conns.0[0].in_flight() < IN_FLIGHT
            && let Some(request) = todo.next()
        {
            conns.0[0].send(
                request.clone(),
                Sent {
                    at: Instant::now(),
                    first: 0,
                    records,
                },
            )?;
        }
        conns.turn(Duration::from_millis(50), |_, _, _, now| {
            left -= 1;
            last = now;
        })?;
        ensure!(
            last.elapsed() < Duration::from_secs(60),
            "no answer for a minute while filling"
        );
    }
    Ok(())
}

/// Writes one record into partition 0.
pub(crate) fn one(target: &Target, batches: &Batches) -> Result<()> {
    let mut conns = Conns::open(target.addr, 1)?;
    let request = batches.request(&target.topic, 0, 1)?;
    conns.0[0].send(
        request,
        Sent {
            at: Instant::now(),
            first: 0,
            records: 1,
        },
    )?;
    let give_up = Instant::now() + Duration::from_secs(60);
    while !conns.idle() {
        ensure!(Instant::now() < give_up, "no answer for a minute");
        conns.turn(Duration::from_millis(50), |_, _, _, _| ())?;
    }
    Ok(())
}
