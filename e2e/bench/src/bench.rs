//! A session: two brokers side by side, scenarios on them in turn, a table at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::sync;

use crate::admin::Admin;
use crate::batches::Batches;
use crate::broker::{Broker, Durability, Kind, Launcher, Trio};
use crate::load::{Closed, Outcome, Span, Target};
use crate::points::{Load, Produce, Scenario};
use crate::probe::{self, Limits};
use crate::report::{Judged, Report};
use crate::sample::{self, Sample, median};
use crate::scenarios::SCENARIOS;
use crate::{note, proc};

/// Record size for every load that does not name one, in bytes.
pub(crate) const VALUE_LEN: usize = 1024;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Pairs of measured runs per scenario.
    pub(crate) pairs: usize,
    /// Length of a measured run.
    pub(crate) measured: Duration,
    /// The programs: A is the peer, B is judged.
    pub(crate) kinds: [Kind; 2],
    /// Names of scenarios and points; all if empty.
    pub(crate) only: Vec<String>,
    /// Bytes to touch before each run.
    pub(crate) pre_touch: u64,
    /// Bytes of data for start times and warm consumption.
    pub(crate) start_bytes: u64,
    /// Same for warm consumption.
    pub(crate) consume_bytes: u64,
    /// How long an idle broker is watched.
    pub(crate) idle: Duration,
    /// How many groups join beside a producer.
    pub(crate) groups: usize,
    /// Where raw results go.
    pub(crate) out: PathBuf,
}

/// A session under way.
#[derive(Debug)]
pub(crate) struct Bench {
    /// What was asked for.
    pub(crate) options: Options,
    /// How brokers are started.
    pub(crate) launcher: Launcher,
    sides: [Option<Broker>; 2],
    /// The clusters of the sides, where they run.
    pub(crate) trios: [Option<Trio>; 2],
    sink: Option<Broker>,
    topics: u32,
    /// Records per second of side A in W-1, once known.
    peer_max: Option<f64>,
    /// Directories filled for start times, by side.
    pub(crate) filled: BTreeMap<usize, PathBuf>,
}

/// One side of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// 0 is A, 1 is B.
    pub(crate) side: usize,
    /// Its durability.
    pub(crate) durability: Durability,
    /// Its duration.
    pub(crate) span: Span,
}

impl Bench {
    /// A session without running brokers.
    pub(crate) fn new(options: Options, launcher: Launcher) -> Self {
        Self {
            options,
            launcher,
            sides: [None, None],
            trios: [None, None],
            sink: None,
            topics: 0,
            peer_max: None,
            filled: BTreeMap::new(),
        }
    }

    /// Runs the scenarios asked for.
    pub(crate) fn run(&mut self) -> Result<Report> {
        let only = self.options.only.clone();
        let wanted = |scenario: &&Scenario| {
            let named = |name: &String| name == scenario.name || scenario.points.iter().any(|p| p.id == name);
            only.is_empty() || only.iter().any(named)
        };
        let mut report = Report::create(&self.options.out)?;
        for scenario in SCENARIOS.iter().filter(wanted) {
            note(&format!(
                "{} ({} vs {})",
                scenario.name,
                self.label(0, scenario),
                self.label(1, scenario)
            ));
            match self.scenario(scenario) {
                Ok(judged) => report.add(&judged)?,
                // The other scenarios still tell something; the failure is in the table.
                Err(e) => report.fail(scenario.name, &e),
            }
        }
        Ok(report)
    }

    fn label(&self, side: usize, scenario: &Scenario) -> String {
        format!(
            "{} {}",
            self.options.kinds[side].name(),
            scenario.modes[side].name()
        )
    }

    fn scenario(&mut self, scenario: &Scenario) -> Result<Judged> {
        let before = Limits::probe(&self.launcher.work_dir)?;
        let sink = if let (true, Load::Produce(load)) = (scenario.wants_sink(), scenario.load) {
            Some(self.sink(load)?)
        } else {
            None
        };
        let measured = self.options.measured;
        let run = |side: usize, measured: Duration| Run {
            side,
            durability: scenario.modes[side],
            span: Span {
                warm_up: measured / 5,
                measured,
            },
        };
        let pairs = if scenario.is_count() {
            1
        } else {
            self.options.pairs
        };
        if !scenario.is_count() {
            for side in [0, 1] {
                self.load(scenario.load, run(side, measured))
                    .with_context(|| self.label(side, scenario))?;
            }
        }
        let mut samples = Vec::new();
        for pair in 0..pairs {
            let order = if pair % 2 == 0 { [0, 1] } else { [1, 0] };
            let mut both = [Sample::new(), Sample::new()];
            for side in order {
                both[side] = self
                    .load(scenario.load, run(side, measured))
                    .with_context(|| self.label(side, scenario))?;
                note(&format!(
                    "  pair {} {}: {}",
                    pair + 1,
                    ["A", "B"][side],
                    brief(&both[side])
                ));
            }
            samples.push(both);
        }
        let after = Limits::probe(&self.launcher.work_dir)?;
        let labels = [self.label(0, scenario), self.label(1, scenario)];
        Ok(Judged {
            scenario: *scenario,
            labels,
            samples,
            before,
            after,
            sink,
        })
    }

    fn sink(&mut self, load: Produce) -> Result<Sample> {
        if self.sink.is_none() {
            self.sink = Some(self.launcher.start_new(Kind::Sink, "sink")?);
        }
        let sink = self.sink.as_ref().context("the sink")?;
        let target = Target::of(sink.addr, sink.pid(), "sink", load.partitions);
        let measured = self.options.measured / 2;
        let outcome = closed(
            load,
            Span {
                warm_up: measured / 5,
                measured,
            },
            &target,
        )?;
        Ok(sample::of_outcome(&outcome))
    }

    /// The broker of a side, started if it is not running.
    pub(crate) fn side(&mut self, side: usize) -> Result<&Broker> {
        if self.sides[side].is_none() {
            let name = ["a", "b"][side];
            self.sides[side] = Some(self.launcher.start_new(self.options.kinds[side], name)?);
        }
        self.sides[side].as_ref().context("the broker")
    }

    /// Records per second at which half of side A's W-1 throughput is offered.
    pub(crate) fn half_of_peer(&mut self) -> Result<f64> {
        if self.peer_max.is_none() {
            let measured = self.options.measured.min(Duration::from_secs(10));
            let run = Run {
                side: 0,
                durability: Durability::Cached,
                span: Span {
                    warm_up: measured / 2,
                    measured,
                },
            };
            let w1 = SCENARIOS[0].load;
            self.peer_max = self.load(w1, run)?.get("msg_s").copied();
        }
        Ok(self.peer_max.context("the peer's maximum")? / 2.0)
    }

    /// A name that no topic has had.
    pub(crate) fn next_topic(&mut self, kind: &str) -> String {
        self.topics += 1;
        format!("{kind}-{}", self.topics)
    }

    /// Waits until a side's broker has become quiet, and touches what the next run will need.
    pub(crate) fn quiet(&mut self, side: usize) -> Result<()> {
        wait_for_quiet(self.side(side)?)?;
        sync();
        probe::pre_touch(&self.launcher.work_dir, self.options.pre_touch)
    }

    /// Runs `work` on a new topic of a side that has become quiet, then checks that every record acknowledged is
    /// there, and deletes the topic.
    pub(crate) fn on_topic(
        &mut self,
        run: Run,
        partitions: i32,
        work: impl FnOnce(&Target) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let topic = self.next_topic("load");
        self.quiet(run.side)?;
        let broker = self.side(run.side)?;
        let mut admin = Admin::connect(broker.addr)?;
        admin.create(&topic, partitions, &broker.topic_configs(run.durability))?;
        let target = Target::of(broker.addr, broker.pid(), topic, partitions);
        let outcome = work(&target).and_then(|outcome| {
            let stored = admin.records(&target.topic, partitions)?;
            let acknowledged = outcome.total_records;
            ensure!(
                stored >= acknowledged,
                "{acknowledged} records were acknowledged and {stored} are there"
            );
            Ok(outcome)
        });
        // Also after a failure, so that the next run does not pay for what this one wrote.
        admin.delete(&target.topic)?;
        outcome
    }
}

/// Runs a closed loop.
pub(crate) fn closed(load: Produce, span: Span, target: &Target) -> Result<Outcome> {
    let Produce {
        connections,
        in_flight,
        records,
        value_len,
        ..
    } = load;
    let batches = Batches::new(value_len, records, now_ms())?;
    Closed {
        connections,
        in_flight,
        records,
        span,
    }
    .run(target, &batches)
}

/// Wall time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Waits until the broker has removed what the run before wrote, for a few seconds at most: a broker that keeps
/// deleted data for longer pays for it itself.
fn wait_for_quiet(broker: &Broker) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(10);
    let data = broker.dir.join("data");
    while proc::tree_bytes(&data) > 64 << 20 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(50));
    }
    proc::usage(broker.pid()).context("the broker has ended")?;
    Ok(())
}

fn brief(sample: &Sample) -> String {
    let figures: Vec<_> = sample
        .iter()
        .map(|(name, value)| format!("{name} {}", crate::report::short(*value)))
        .collect();
    figures.join(", ")
}

/// The medians of one figure on both sides.
pub(crate) fn medians(samples: &[[Sample; 2]], metric: &str) -> [Option<f64>; 2] {
    [0, 1].map(|side| {
        let values: Vec<_> = samples
            .iter()
            .filter_map(|both| both[side].get(metric).copied())
            .collect();
        (!values.is_empty()).then(|| median(&values))
    })
}
