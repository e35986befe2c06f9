//! How long clients wait for another leader: `chaos failover`. A measurement, judged only where it is told by what.

mod measure;
mod rolling;
mod strike;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use takhin_e2e::kcat;
use takhin_e2e::pulse::{self, Pulse};
use takhin_e2e::wait;
use takhin_e2e::wire::Connection;

use self::measure::percentile;
use self::strike::Strikes;
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
    /// The file system of one partition fails on its leader, which lives on
    Failed,
    /// A leader is drained by the admin API
    Drained,
    /// All brokers are drained, stopped and started, one after the other: how long records take meanwhile
    Rolling,
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
        default_value = "killed,restarted,hung,frozen-disk,failed,drained"
    )]
    kinds: Vec<Kind>,
    /// Seconds that the 99th percentile of a kind may be at most, and with which none of the records may fail; what is above
    /// ends with exit code 1. Nothing is judged of `rolling`
    #[arg(long, value_name = "SECONDS")]
    at_most: Option<f64>,
    /// A setting of the client as librdkafka names it, `name=value`; may be given again
    #[arg(long)]
    client: Vec<String>,
}

/// Prints, for each kind, what a client of confluent-kafka saw: for each partition that was hit, the longest time without
/// an answer. A partition gets a record every [`PAUSE`], so that as much is no pause at all.
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
    wait_balanced(&stage)?;
    let before = strike::topics(&stage)?;
    stage.create(PULSE, PULSE_PARTITIONS)?;
    wait_balanced(&stage)?;
    let mut strikes = Strikes::default();
    if settings.kinds.contains(&Kind::Failed) {
        let topics = strike::topics(&stage)?;
        let new: Vec<&String> = topics.difference(&before).collect();
        let [directories] = new[..] else {
            bail!("the directories of {PULSE} are among {new:?}")
        };
        strikes.give_disks(&mut stage, directories)?;
    }
    crate::say(&format!(
        "{} partitions on {} brokers",
        settings.partitions, settings.brokers
    ));
    let mut pulse = Pulse::start(
        &stage.bootstrap(),
        PULSE,
        PULSE_PARTITIONS,
        PAUSE,
        &settings.client,
    )?;
    let mut above = Vec::new();
    for kind in &settings.kinds {
        if *kind == Kind::Rolling {
            rolling::measure(&mut stage, &mut pulse, settings.kills)?;
            continue;
        }
        let (p99, failed) = measure(&mut stage, &mut pulse, &mut strikes, *kind, settings.kills)?;
        if settings.at_most.is_some_and(|most| p99 > most || failed > 0) {
            above.push(*kind);
        }
    }
    ensure!(above.is_empty(), "above what is allowed: {above:?}");
    Ok(())
}

/// Returns the 99th percentile, in seconds, and how many records failed.
fn measure(
    stage: &mut Stage,
    pulse: &mut Pulse,
    strikes: &mut Strikes,
    kind: Kind,
    count: usize,
) -> Result<(f64, usize)> {
    let mut all = Vec::new();
    let mut failed = 0;
    for n in 0..count {
        let (pauses, failures) =
            one(stage, pulse, strikes, kind).with_context(|| format!("{kind:?}, {} of {count}", n + 1))?;
        let worst = pauses.iter().copied().fold(0.0, f64::max);
        crate::say(&format!(
            "  {kind:?} {} of {count}: {} partitions, at most {worst:.3} s",
            n + 1,
            pauses.len()
        ));
        all.extend(pauses);
        failed += failures;
    }
    all.sort_by(f64::total_cmp);
    let p99 = percentile(&all, 990);
    crate::say(&format!(
        "{kind:?}: p50 {:.3} s, p99 {p99:.3} s, max {:.3} s; {} partitions in {count} faults, {failed} records failed",
        percentile(&all, 500),
        percentile(&all, 1000),
        all.len(),
    ));
    Ok((p99, failed))
}

/// One fault: the pauses of the partitions that it hit, and how many records failed.
fn one(stage: &mut Stage, pulse: &mut Pulse, strikes: &mut Strikes, kind: Kind) -> Result<(Vec<f64>, usize)> {
    pulse.wait_all(pulse::now(), LIMIT)?;
    let target = strikes.target(stage, kind)?;
    let since = pulse::now();
    let undo = strikes.strike(stage, kind, &target)?;
    let beats = strike::wait_moved(stage, kind, &target).and_then(|()| pulse.wait_all(pulse::now(), LIMIT));
    let until = pulse::now();
    let taken_back = strikes.take_back(undo, stage, &target);
    let beats = beats?;
    taken_back?;
    wait_balanced(stage)?;
    let failed = beats.iter().filter(|beat| beat.acked.is_none()).count();
    let pauses = measure::longest_pauses(&beats, &target.partitions, since, until);
    Ok((pauses, failed))
}

/// Waits until leadership is where it belongs, so that no broker leads more than its share.
fn wait_balanced(stage: &Stage) -> Result<()> {
    let bootstrap = stage.bootstrap();
    let in_sync = wait::until("all replicas to be in sync", LIMIT * 3, || {
        let placements = kcat::every_placement(&bootstrap)?;
        Ok(placements.iter().all(|p| p.in_sync == p.replicas.len()))
    });
    in_sync?;
    // The cluster does so by itself, every ten seconds.
    let any = stage.brokers.first().context("there are no brokers")?;
    Connection::open(any.address())?.elect_preferred()?;
    let mut others = Vec::new();
    let balanced = wait::until(
        "all replicas to be in sync, and the preferred one to lead",
        LIMIT * 3,
        || {
            others = kcat::every_placement(&bootstrap)?;
            others.retain(|p| p.replicas.first() != Some(&p.leader) || p.in_sync < p.replicas.len());
            Ok(others.is_empty())
        },
    );
    balanced.with_context(|| format!("{} are not so, the first: {:?}", others.len(), others.first()))
}
