//! A disk that answers nothing at all: the process lives, but its writes do not return. It has to withdraw, so that clients
//! go on elsewhere, and to come back.

use std::fs;

use anyhow::Result;
use takhin_e2e::rng::Rng;
use takhin_e2e::{Broker, wait};

use crate::stage::{LIMIT, Stage};

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victim = stage.some_leader(rng)?;
    stage.say(&format!("broker {}", stage.brokers[victim].node_id()));
    let withdrawn = count(&stage.brokers[victim], "the broker withdraws")?;
    let back = count(&stage.brokers[victim], "the broker is back")?;
    let frozen = stage.disks[victim].freeze()?;
    let others = wait::until("the broker to withdraw", LIMIT, || {
        Ok(count(&stage.brokers[victim], "the broker withdraws")? > withdrawn)
    })
    .and_then(|()| stage.goes_on());
    stage.hold(rng, 0..5_000);
    drop(frozen);
    others?;
    if !stage.brokers[victim].is_running()? {
        stage.brokers[victim].kill();
        return stage.start(&[victim]);
    }
    wait::until("the broker to be back", LIMIT, || {
        Ok(count(&stage.brokers[victim], "the broker is back")? > back)
    })
}

/// How often a broker has said something.
fn count(broker: &Broker, words: &str) -> Result<usize> {
    let log = fs::read(broker.log_path())?;
    Ok(String::from_utf8_lossy(&log).matches(words).count())
}
