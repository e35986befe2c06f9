//! A wall clock that is minutes off. The monotonic clock is not: what time outs are counted by.

use std::path::Path;

use anyhow::{Context as _, Result};
use takhin_e2e::rng::Rng;

use crate::stage::Stage;

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
    stage.settle()?;
    stage.brokers[victim].stop()?;
    stage.wrap(victim, &[]);
    stage.start(&[victim])
}

fn library() -> Result<String> {
    let names = ["x86_64", "aarch64"];
    let mut paths = names
        .map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter();
    let found = paths.find(|path| Path::new(path).exists());
    found.context("libfaketime.so.1 is missing: .ci/tools chaos")
}
