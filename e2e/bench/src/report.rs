//! One line of a table and one JSON line per point.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use crate::bench::{medians, now_ms};
use crate::points::{Limit, Point, Scenario};
use crate::probe::Limits;
use crate::sample::{Sample, median};

/// Drift of the probes above which a timed scenario is void.
const DRIFT: f64 = 0.2;

/// Part of the sink's throughput above which a comparison says nothing about brokers.
const CLIENT_BOUND: f64 = 0.8;

/// A scenario with all its runs.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Which.
    pub(crate) scenario: Scenario,
    /// Program and mode of both sides.
    pub(crate) labels: [String; 2],
    /// The pairs of runs.
    pub(crate) samples: Vec<[Sample; 2]>,
    /// Limits before the first run.
    pub(crate) before: Limits,
    /// Limits after the last.
    pub(crate) after: Limits,
    /// The same load on the sink.
    pub(crate) sink: Option<Sample>,
}

/// The results of a session.
#[derive(Debug)]
pub(crate) struct Report {
    raw: File,
    commit: String,
    rows: Vec<[String; 10]>,
    failed: bool,
}

/// B ÷ A over all pairs.
#[derive(Debug, Clone, PartialEq)]
struct Ratio {
    median: f64,
    min: f64,
    max: f64,
    all: Vec<f64>,
}

impl Report {
    /// Results go to a new file in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let raw = File::create(dir.join(format!("{}.jsonl", now_ms() / 1000)))?;
        let commit = Command::new("git")
            .args(["rev-parse", "--short", "HEAD"])
            .output();
        let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Ok(Self {
            raw,
            commit: commit.unwrap_or_default(),
            rows: Vec::new(),
            failed: false,
        })
    }

    /// Whether a scenario could not be run.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Records that a scenario failed.
    pub(crate) fn fail(&mut self, scenario: &str, error: &anyhow::Error) {
        crate::note(&format!("  failed: {error:#}"));
        let mut row = [const { String::new() }; 10];
        row[1] = scenario.into();
        row[9] = "FAILED".into();
        self.rows.push(row);
        self.failed = true;
    }

    /// Judges a scenario's points.
    pub(crate) fn add(&mut self, judged: &Judged) -> Result<()> {
        let drift = judged.before.drift(&judged.after, judged.scenario.bears());
        for point in judged.scenario.points {
            let [a, b] = medians(&judged.samples, point.metric);
            let ratio = ratios(&judged.samples, point.metric);
            let limit = limit(point, judged, b);
            let void = drift > DRIFT && judged.scenario.is_timed();
            let mut verdict = verdict(point, ratio.as_ref(), limit.map(|(_, met)| met), void);
            if is_client_bound(judged, point) {
                verdict.push_str(", client-bound");
            }
            crate::note(&format!(
                "  {} {}: {} -> {verdict}",
                point.id,
                point.metric,
                ratio_text(ratio.as_ref())
            ));
            writeln!(
                self.raw,
                "{}",
                self.line(
                    judged,
                    point,
                    drift,
                    limit.map(|(quotient, _)| quotient),
                    &verdict
                )
            )?;
            let number = |value: Option<f64>| value.map_or_else(|| "-".into(), short);
            self.rows.push([
                point.id.into(),
                judged.scenario.name.into(),
                format!("{} | {}", judged.labels[0], judged.labels[1]),
                point.metric.into(),
                number(a),
                number(b),
                ratio_text(ratio.as_ref()),
                format!("{} / {}", number(point.floor), number(point.goal)),
                limit.map_or_else(
                    || "-".into(),
                    |(quotient, _)| format!("{} {}", short(quotient), limit_text(point.limit)),
                ),
                verdict,
            ]);
        }
        Ok(())
    }

    fn line(&self, judged: &Judged, point: &Point, drift: f64, r_limit: Option<f64>, verdict: &str) -> Value {
        let ratio = ratios(&judged.samples, point.metric);
        let sink = judged
            .sink
            .as_ref()
            .and_then(|sink| sink.get(point.metric).copied());
        let b = medians(&judged.samples, point.metric)[1];
        json!({
            "commit": self.commit, "time_ms": now_ms(), "load_average": crate::proc::load(),
            "point": point.id, "scenario": judged.scenario.name, "a": judged.labels[0], "b": judged.labels[1],
            "metric": point.metric, "floor": point.floor, "goal": point.goal,
            "ratios": ratio.as_ref().map(|r| &r.all), "r_peer": ratio.map(|r| r.median), "r_limit": r_limit,
            "r_sink": sink.zip(b).map(|(sink, b)| b / sink), "sink": judged.sink, "verdict": verdict,
            "drift": drift, "before": judged.before.to_json(), "after": judged.after.to_json(),
            "pairs": judged.samples,
        })
    }

    /// The table as Markdown.
    pub(crate) fn table(&self) -> String {
        let head = [
            "point",
            "scenario",
            "A | B",
            "figure",
            "A",
            "B",
            "B ÷ A (min..max)",
            "floor / goal",
            "limit",
            "verdict",
        ];
        let head = head.map(str::to_owned);
        let cell = |text: &String| text.replace(" | ", " vs ");
        let widths: Vec<_> = (0..head.len())
            .map(|i| {
                self.rows
                    .iter()
                    .chain([&head])
                    .map(|row| cell(&row[i]).chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let line = |row: &[String; 10]| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(text, width)| format!("{:<width$}", cell(text)));
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let rows: String = self.rows.iter().map(line).collect();
        format!("{}| {} |\n{rows}", line(&head), rule.join(" | "))
    }
}

fn ratios(samples: &[[Sample; 2]], metric: &str) -> Option<Ratio> {
    let quotient =
        |both: &[Sample; 2]| Some(both[1].get(metric)? / both[0].get(metric).filter(|a| **a > 0.0)?);
    let all: Vec<f64> = samples.iter().filter_map(quotient).collect();
    let min = all.iter().copied().reduce(f64::min)?;
    let max = all.iter().copied().reduce(f64::max)?;
    Some(Ratio {
        median: median(&all),
        min,
        max,
        all,
    })
}

fn ratio_text(ratio: Option<&Ratio>) -> String {
    let text = |r: &Ratio| format!("{} ({}..{})", short(r.median), short(r.min), short(r.max));
    ratio.map_or_else(|| "-".into(), text)
}

/// Whether a side reaches more than four fifths of the sink: then the load generator is what is measured.
fn is_client_bound(judged: &Judged, point: &Point) -> bool {
    let sink = judged
        .sink
        .as_ref()
        .and_then(|sink| sink.get(point.metric))
        .filter(|_| point.more);
    let sides = medians(&judged.samples, point.metric);
    sink.is_some_and(|sink| sides.iter().flatten().any(|side| *side > CLIENT_BOUND * sink))
}

/// B ÷ limit, and whether that meets its goal.
fn limit(point: &Point, judged: &Judged, b: Option<f64>) -> Option<(f64, bool)> {
    let b = b?;
    let both = |of: fn(&Limits) -> f64| f64::midpoint(of(&judged.before), of(&judged.after));
    let at_least = |limit: f64, part: f64| (b / limit, b / limit >= part);
    match point.limit {
        Limit::No => None,
        Limit::Sink(part) => Some(at_least(*judged.sink.as_ref()?.get(point.metric)?, part)),
        Limit::Send(part) => Some(at_least(both(|l| l.send), part)),
        Limit::Cold(part) => Some(at_least(both(|l| l.cold), part)),
        Limit::SyncRpc(times) => {
            let limit = both(|l| l.sync) + both(|l| l.rpc);
            Some((b / limit, b <= limit * times))
        }
        Limit::AtMost(most) => Some((b, b <= most)),
        Limit::AtLeast(least) => Some((b, b >= least)),
    }
}

fn limit_text(limit: Limit) -> String {
    match limit {
        Limit::No => String::new(),
        Limit::Sink(part) => format!("of sink, ≥ {part}"),
        Limit::Send(part) => format!("of L-SEND, ≥ {part}"),
        Limit::Cold(part) => format!("of L-COLD, ≥ {part}"),
        Limit::SyncRpc(times) => format!("× (L-SYNC + L-RPC), ≤ {times}"),
        Limit::AtMost(most) => format!("≤ {}", short(most)),
        Limit::AtLeast(least) => format!("≥ {}", short(least)),
    }
}

/// `goal`, `floor` or `below` for the ratio to the peer, then the limit's verdict.
///
/// A bound is met when the median meets it and at least four fifths of the pairs are on its side of 1, or of the
/// bound where that asks for less.
fn verdict(point: &Point, ratio: Option<&Ratio>, limit_met: Option<bool>, void: bool) -> String {
    if void {
        return "void".into();
    }
    let met = |bound: Option<f64>| -> Option<bool> {
        let (bound, ratio) = (bound?, ratio?);
        let side = |value: f64, bound: f64| {
            if point.more {
                value >= bound
            } else {
                value <= bound
            }
        };
        let lenient = if point.more {
            bound.min(1.0)
        } else {
            bound.max(1.0)
        };
        let on_side = ratio.all.iter().filter(|value| side(**value, lenient)).count();
        Some(side(ratio.median, bound) && on_side * 5 >= ratio.all.len() * 4)
    };
    let peer = match (met(point.floor), met(point.goal)) {
        (_, Some(true)) => "goal",
        (Some(true), _) => "floor",
        (Some(false), _) => "below",
        (None, _) => "-",
    };
    match limit_met {
        None => peer.into(),
        Some(true) => format!("{peer}, limit met"),
        Some(false) => format!("{peer}, limit missed"),
    }
}

/// Three significant digits, or all digits before the point.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(more: bool, floor: f64, goal: f64) -> Point {
        Point {
            id: "PG-0",
            metric: "x",
            more,
            floor: Some(floor),
            goal: Some(goal),
            limit: Limit::No,
        }
    }

    fn ratio(all: &[f64]) -> Ratio {
        let samples: Vec<_> = all
            .iter()
            .map(|b| [Sample::from([("x", 1.0)]), Sample::from([("x", *b)])])
            .collect();
        ratios(&samples, "x").unwrap()
    }

    #[test]
    fn a_goal_needs_its_median_and_four_of_five_pairs() {
        let judge = |point: &Point, all: &[f64]| verdict(point, Some(&ratio(all)), None, false);
        let faster = point(true, 1.0, 1.5);
        assert_eq!(judge(&faster, &[1.6, 1.6, 1.6, 1.6, 0.9]), "goal");
        assert_eq!(judge(&faster, &[1.6, 1.6, 1.6, 0.9, 0.9]), "below");
        assert_eq!(judge(&faster, &[1.1, 1.2, 1.3, 1.4, 1.6]), "floor");
        let cheaper = point(false, 0.6, 0.35);
        assert_eq!(judge(&cheaper, &[0.3, 0.3, 0.4]), "goal");
        assert_eq!(judge(&cheaper, &[0.5, 0.5, 0.5]), "floor");
        assert_eq!(judge(&cheaper, &[0.7, 0.7, 0.3]), "below");
        assert_eq!(verdict(&cheaper, Some(&ratio(&[0.1])), Some(true), true), "void");
        assert_eq!(verdict(&cheaper, None, Some(false), false), "-, limit missed");
    }
}
