//! A wall clock that is minutes off. The monotonic clock is not: what time outs are counted by.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::rng::Rng;

use crate::stage::Stage;

/// In minutes.
const DAY: u64 = 24 * 60;

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victim = stage.some_leader(rng)?;
    let minutes = rng.within(2..30);
    let sign = if rng.within(0..2) == 0 { '+' } else { '-' };
    stage.say(&format!(
        "broker {}, {sign}{minutes} minutes",
        stage.brokers[victim].node_id()
    ));
    stage.brokers[victim].kill();
    // Not by the program `faketime`, which would leave the broker under another process id.
    let preload = format!("LD_PRELOAD={}", library()?);
    let time = format!("FAKETIME={sign}{minutes}m");
    stage.wrap(
        victim,
        &["env", &preload, &time, "FAKETIME_DONT_FAKE_MONOTONIC=1"],
    );
    stage.start(&[victim])?;
    let off = clock_is_off(&stage.brokers[victim].log_path())?;
    ensure!(
        off.abs_diff(minutes) <= 1,
        "the broker's clock is {off} minutes off, not {minutes}"
    );
    stage.settle()?;
    stage.brokers[victim].stop()?;
    stage.wrap(victim, &[]);
    stage.start(&[victim])
}

/// By how many minutes the last line of a broker's log is off.
fn clock_is_off(log: &Path) -> Result<u64> {
    let text = fs::read_to_string(log)?;
    let said = text.lines().rev().find_map(minute_of_day);
    let said = said.context("no line of the log has a time")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 60 % DAY;
    let off = said.abs_diff(now);
    Ok(off.min(DAY - off))
}

/// Of `2026-11-24T02:08:54.901Z ...`.
fn minute_of_day(line: &str) -> Option<u64> {
    let (_, time) = line.split_whitespace().next()?.split_once('T')?;
    let mut parts = time.split(':');
    let (hour, minute): (u64, u64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(hour * 60 + minute)
}

fn library() -> Result<String> {
    let names = ["x86_64", "aarch64"];
    let mut paths = names
        .map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter();
    let found = paths.find(|path| Path::new(path).exists());
    found.context("libfaketime.so.1 is missing: .ci/tools chaos")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_is_read() {
        let line = "2026-11-24T02:08:54.901296Z broker_id=1  INFO takhin: x";
        assert_eq!(minute_of_day(line), Some(128));
        assert_eq!(minute_of_day("thread 'main' panicked at"), None);
    }
}
