//! How long clients wait for another leader: `chaos failover`. A measurement, not a test: it judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use takhin_e2e::kcat;
use takhin_e2e::pulse::{self, Beat, Pulse};
use takhin_e2e::wait;

use crate::stage::{LIMIT, Stage};

/// The topic that is measured.
const PULSE: &str = "pulse";
const PULSE_PARTITIONS: i32 = 12;
const PAUSE: Duration = Duration::from_millis(20);
/// The rest of the partitions, which only have to be led.
const IDLE: &str = "idle";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// kill -9 of a leader; it comes back after the measurement
    Killed,
    /// kill -9, and started again at once
    Restarted,
    /// SIGSTOP of a leader
    Hung,
    /// The file system of a leader is frozen
    FrozenDisk,
    /// A leader is drained by the admin API: what is measured is the longest pause between two answers
    Drained,
}

#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// How often each kind strikes
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// Partitions in the cluster, three replicas each
    #[arg(long, default_value_t = 1_000)]
    partitions: i32,
    /// Brokers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
    brokers: u8,
    /// Only these kinds, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "killed,restarted,hung,frozen-disk,drained"
    )]
    kinds: Vec<Kind>,
}

/// Prints, for each kind, what a client of confluent-kafka saw: for each partition that the victim led, the time from
/// the fault to the first answer to a record sent after it.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    ensure!(
        settings.partitions > PULSE_PARTITIONS,
        "at least {} partitions",
        PULSE_PARTITIONS + 1
    );
    let mut stage = Stage::set_up(settings.brokers, None)?;
    // A request that creates all at once is refused where it is larger than a broker allows.
    let mut left = settings.partitions - PULSE_PARTITIONS;
    for n in 0.. {
        let count = left.min(200);
        if count == 0 {
            break;
        }
        stage.create(&format!("{IDLE}-{n}"), count)?;
        left -= count;
    }
    stage.create(PULSE, PULSE_PARTITIONS)?;
    wait_balanced(&stage)?;
    crate::say(&format!(
        "{} partitions on {} brokers",
        settings.partitions, settings.brokers
    ));
    let mut pulse = Pulse::start(&stage.bootstrap(), PULSE, PULSE_PARTITIONS, PAUSE)?;
    for kind in &settings.kinds {
        let mut all = Vec::new();
        let mut failed = 0;
        for n in 0..settings.kills {
            let (gaps, failures) = one(&mut stage, &mut pulse, *kind)
                .with_context(|| format!("{kind:?}, {} of {}", n + 1, settings.kills))?;
            let worst = gaps.iter().copied().fold(0.0, f64::max);
            crate::say(&format!(
                "  {kind:?} {} of {}: {} partitions, at most {worst:.2} s",
                n + 1,
                settings.kills,
                gaps.len()
            ));
            all.extend(gaps);
            failed += failures;
        }
        all.sort_by(f64::total_cmp);
        crate::say(&format!(
            "{kind:?}: p50 {:.3} s, p99 {:.3} s, max {:.3} s; {} partitions in {} faults, {failed} records failed",
            percentile(&all, 50),
            percentile(&all, 99),
            percentile(&all, 100),
            all.len(),
            settings.kills,
        ));
    }
    Ok(())
}

/// One fault: the pauses of the partitions that the victim led, and how many records failed.
fn one(stage: &mut Stage, pulse: &mut Pulse, kind: Kind) -> Result<(Vec<f64>, usize)> {
    pulse.wait_all(pulse::now(), LIMIT)?;
    let (victim, led) = busiest(stage)?;
    let since = pulse::now();
    let (beats, gaps) = if kind == Kind::Drained {
        let beats = drained(stage, pulse, victim)?;
        let gaps = longest_pauses(&beats);
        (beats, gaps)
    } else {
        let undo = strike(stage, kind, victim)?;
        let beats = pulse.wait_all(since, LIMIT);
        undo.take_back(stage, victim)?;
        let beats = beats?;
        let gaps = first_answers(&beats, since);
        (beats, gaps)
    };
    wait_balanced(stage)?;
    let failed = beats.iter().filter(|beat| beat.acked.is_none()).count();
    let of_led = gaps.into_iter().filter(|(partition, _)| led.contains(partition));
    Ok((of_led.map(|(_, gap)| gap).collect(), failed))
}

/// From `since` to the first answer to a record that was sent after it.
fn first_answers(beats: &[Beat], since: f64) -> BTreeMap<usize, f64> {
    let mut first = BTreeMap::new();
    for beat in beats.iter().filter(|beat| beat.sent >= since) {
        if let Some(acked) = beat.acked {
            first.entry(beat.partition).or_insert(acked - since);
        }
    }
    first
}

/// The longest time between two answers.
fn longest_pauses(beats: &[Beat]) -> BTreeMap<usize, f64> {
    let mut last = BTreeMap::new();
    let mut longest = BTreeMap::new();
    for beat in beats {
        let Some(acked) = beat.acked else { continue };
        if let Some(last) = last.insert(beat.partition, acked) {
            let longest: &mut f64 = longest.entry(beat.partition).or_default();
            *longest = longest.max(acked - last);
        }
    }
    longest
}

/// What has to be done after a fault.
enum Undo {
    Start,
    Thaw,
    Melt(takhin_e2e::disk::Frozen),
    Ready,
}

impl Undo {
    fn take_back(self, stage: &mut Stage, victim: usize) -> Result<()> {
        match self {
            Self::Start => stage.start(&[victim]),
            Self::Thaw => stage.brokers[victim].thaw(),
            Self::Melt(frozen) => {
                drop(frozen);
                Ok(())
            }
            Self::Ready => stage.brokers[victim].wait_ready(),
        }
    }
}

fn strike(stage: &mut Stage, kind: Kind, victim: usize) -> Result<Undo> {
    let broker = &mut stage.brokers[victim];
    Ok(match kind {
        Kind::Killed => {
            broker.kill();
            Undo::Start
        }
        Kind::Restarted => {
            broker.kill();
            broker.start_process()?;
            Undo::Ready
        }
        Kind::Hung => {
            broker.freeze()?;
            Undo::Thaw
        }
        Kind::FrozenDisk | Kind::Drained => Undo::Melt(stage.disks[victim].freeze()?),
    })
}

/// Drains a broker, which is undrained afterwards; returns what was answered meanwhile.
fn drained(stage: &Stage, pulse: &mut Pulse, victim: usize) -> Result<Vec<Beat>> {
    let id = stage.brokers[victim].node_id();
    ask(stage, victim, &format!("/v1/brokers/{id}/drain"))?;
    let bootstrap = stage.bootstrap();
    wait::until("the broker to lead nothing", LIMIT, || {
        let mut placements = kcat::placements(&bootstrap, PULSE)?.into_iter();
        Ok(placements.all(|placement| u32::try_from(placement.leader) != Ok(id)))
    })?;
    let beats = pulse.wait_all(pulse::now(), LIMIT)?;
    ask(stage, victim, &format!("/v1/brokers/{id}/undrain"))?;
    Ok(beats)
}

fn ask(stage: &Stage, broker: usize, path: &str) -> Result<()> {
    let (status, answer) = stage.brokers[broker].ask_admin("POST", path, None)?;
    ensure!(status < 300, "POST {path}: {status} {answer}");
    Ok(())
}

/// The broker that leads most of the partitions that are measured, and which these are.
fn busiest(stage: &Stage) -> Result<(usize, Vec<usize>)> {
    let placements = stage.placements(PULSE)?;
    let mut best = (0, Vec::new());
    for broker in 0..stage.brokers.len() {
        let id = i32::try_from(stage.brokers[broker].node_id())?;
        let led = placements
            .iter()
            .enumerate()
            .filter(|(_, placement)| placement.leader == id);
        let led: Vec<usize> = led.map(|(partition, _)| partition).collect();
        if led.len() > best.1.len() {
            best = (broker, led);
        }
    }
    ensure!(!best.1.is_empty(), "nobody leads a partition");
    Ok(best)
}

/// Waits until leadership is where it belongs, so that no broker leads more than its share.
fn wait_balanced(stage: &Stage) -> Result<()> {
    let bootstrap = stage.bootstrap();
    wait::until(
        "all replicas to be in sync, and the preferred one to lead",
        LIMIT * 3,
        || {
            let placements = kcat::every_placement(&bootstrap)?;
            Ok(placements
                .iter()
                .all(|p| p.replicas.first() == Some(&p.leader) && p.in_sync == p.replicas.len()))
        },
    )
}

/// The smallest value that `percent` of all are not above; of sorted values.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
