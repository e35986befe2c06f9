//! A rolling restart as an operator does it: every broker is drained before it is stopped.

use anyhow::{Context as _, Result};
use takhin_e2e::pulse::{self, Beat, Pulse};
use takhin_e2e::{kcat, wait};

use super::measure::percentile;
use crate::stage::{LIMIT, Stage};

/// Prints how long records took, from when they were sent to when they were acknowledged, over `rounds` rolling restarts.
pub(super) fn measure(stage: &mut Stage, pulse: &mut Pulse, rounds: usize) -> Result<()> {
    let mut all = Vec::new();
    for round in 1..=rounds {
        pulse.wait_all(pulse::now(), LIMIT)?;
        for broker in 0..stage.brokers.len() {
            let id = stage.brokers[broker].node_id();
            for (step, name) in STEPS {
                step(stage, broker).with_context(|| format!("{round} of {rounds}, broker {id}, {name}"))?;
                let beats = pulse.wait_all(pulse::now(), LIMIT)?;
                crate::say(&format!(
                    "  {round} of {rounds}, broker {id}, {name}: {}",
                    summary(&beats)
                ));
                all.extend(beats);
            }
        }
    }
    crate::say(&format!("Rolling: {}", summary(&all)));
    Ok(())
}

/// What is done to a broker. The next step is taken when this one has had its effect.
type Step = fn(&mut Stage, usize) -> Result<()>;

const STEPS: [(Step, &str); 4] = [
    (drain, "drained"),
    (stop, "stopped"),
    (start, "started"),
    (undrain, "undrained"),
];

fn drain(stage: &mut Stage, broker: usize) -> Result<()> {
    let id = stage.brokers[broker].node_id();
    let drain = format!("/v1/brokers/{id}/drain");
    stage.ask(broker, "POST", &drain)?;
    wait::until("the broker to be drained", LIMIT, || {
        Ok(stage.ask(broker, "GET", &drain)?["done"] == true)
    })?;
    let safety = format!("/v1/brokers/{id}/restart-safety");
    wait::until("the broker to be safe to stop", LIMIT, || {
        Ok(stage.ask(broker, "GET", &safety)?["safe"] == true)
    })
}

fn stop(stage: &mut Stage, broker: usize) -> Result<()> {
    stage.brokers[broker].stop()
}

fn start(stage: &mut Stage, broker: usize) -> Result<()> {
    stage.start(&[broker])?;
    let bootstrap = stage.bootstrap();
    wait::until("all replicas to be in sync", LIMIT, || {
        let placements = kcat::every_placement(&bootstrap)?;
        Ok(placements.iter().all(|p| p.in_sync == p.replicas.len()))
    })
}

fn undrain(stage: &mut Stage, broker: usize) -> Result<()> {
    let id = stage.brokers[broker].node_id();
    stage.ask(broker, "POST", &format!("/v1/brokers/{id}/undrain"))?;
    super::wait_balanced(stage)
}

fn summary(beats: &[Beat]) -> String {
    let taken = beats.iter().filter_map(|beat| Some(beat.acked? - beat.sent));
    let mut taken: Vec<f64> = taken.collect();
    taken.sort_by(f64::total_cmp);
    format!(
        "{} records acknowledged, {} failed; p50 {:.3} s, p99 {:.3} s, p99.9 {:.3} s, max {:.3} s",
        taken.len(),
        beats.len() - taken.len(),
        percentile(&taken, 500),
        percentile(&taken, 990),
        percentile(&taken, 999),
        percentile(&taken, 1000),
    )
}
