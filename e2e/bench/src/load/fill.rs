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
    let led = target.by_leader();
    let mut conns = Conns::open(led.keys().copied())?;
    let requests = led.values().map(|partitions| {
        let requests = partitions
            .iter()
            .map(|p| batches.request(&target.topic, *p, records));
        requests.collect::<Result<Vec<_>>>()
    });
    let requests = requests.collect::<Result<Vec<_>>>()?;
    let mut left = requests.iter().map(|each| rounds * each.len()).sum::<usize>();
    let mut todo: Vec<_> = requests
        .iter()
        .map(|each| (0..rounds).flat_map(move |_| each))
        .collect();
    let mut last = Instant::now();
    while left > 0 {
        for (conn, todo) in conns.0.iter_mut().zip(&mut todo) {
            while conn.in_flight() < IN_FLIGHT
                && let Some(request) = todo.next()
            {
                conn.send(request.clone(), Sent::now(records))?;
            }
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
    let mut conns = Conns::open([target.leader(0)])?;
    let request = batches.request(&target.topic, 0, 1)?;
    conns.0[0].send(request, Sent::now(1))?;
    let give_up = Instant::now() + Duration::from_secs(60);
    while !conns.idle() {
        ensure!(Instant::now() < give_up, "no answer for a minute");
        conns.turn(Duration::from_millis(50), |_, _, _, _| ())?;
    }
    Ok(())
}
