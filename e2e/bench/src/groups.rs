//! What groups cost: rebalances, and ten thousand members beside a producer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::admin::Admin;
use crate::bench::{Bench, Run, closed};
use crate::idle::may_open;
use crate::load::{Commits, Groups, Outcome, Span, Target, Wanted};
use crate::proc;
use crate::run::FILL;
use crate::sample::{self, Sample, median};

/// Fewest rounds whose median is worth something.
const ROUNDS: usize = 5;

/// `heartbeat.interval.ms` of Kafka's consumer.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Members of each of many groups.
const MEMBERS: usize = 10;

impl Bench {
    /// One group whose members all join anew, round after round.
    pub(crate) fn rebalance(&mut self, members: usize, run: Run) -> Result<Sample> {
        let (topic, partitions) = (self.next_topic("rebalance"), i32::try_from(members)?);
        self.quiet(run.side)?;
        let broker = self.side(run.side)?;
        let (addr, configs) = (broker.addr, broker.topic_configs(run.durability));
        let mut admin = Admin::connect(addr)?;
        admin.create(&topic, partitions, &configs)?;
        let wanted = Wanted {
            prefix: topic.clone(),
            topic: topic.clone(),
            groups: 1,
            members,
            // Only how fast the first generation is found depends on it.
            heartbeat: Duration::from_millis(500),
        };
        admin.wait_for_coordinator(&topic)?;
        let rounds = rounds(addr, wanted, run.span);
        admin.delete(&topic)?;
        Ok(sample_of_rounds(&rounds?))
    }

    /// W-1 alone, and then beside groups whose members heartbeat and commit.
    pub(crate) fn groups(&mut self, run: Run) -> Result<Sample> {
        let groups = self.options.groups;
        ensure!(
            may_open(groups * MEMBERS),
            "{} connections are more than `ulimit -n` permits",
            groups * MEMBERS
        );
        let mut sample = Sample::new();
        self.on_topic(run, FILL.partitions, |target| {
            let alone = closed(FILL, run.span, target)?;
            let topic = format!("{}-groups", target.topic);
            let mut admin = Admin::connect(target.addr)?;
            admin.create(&topic, i32::try_from(MEMBERS)?, &[])?;
            admin.wait_for_coordinator(&topic)?;
            let before = proc::rss(target.pids[0])?;
            let begin = Instant::now();
            let wanted = Wanted {
                prefix: topic.clone(),
                topic: topic.clone(),
                groups,
                members: MEMBERS,
                heartbeat: HEARTBEAT,
            };
            let mut joined = Groups::join(target.addr, wanted)?;
            sample.insert("join_s", begin.elapsed().as_secs_f64());
            let (beside, commits) = produce_and_commit(run.span, target, &mut joined)?;
            let after = proc::rss(target.pids[0])?;
            ensure!(joined.all_joined(), "members were lost while they committed");
            joined.leave()?;
            admin.delete(&topic)?;
            sample.extend(sample_of_groups(&alone, &beside, &commits, run.span));
            sample.insert("rss_mb", after as f64 / 1e6);
            sample.insert("rss_groups_mb", (after as f64 - before as f64) / 1e6);
            Ok(Outcome {
                total_records: alone.total_records + beside.total_records,
                ..beside
            })
        })?;
        Ok(sample)
    }
}

/// Rounds for as long as `span` says, after some that are not measured, in milliseconds.
fn rounds(addr: std::net::SocketAddr, wanted: Wanted, span: Span) -> Result<Vec<f64>> {
    let mut group = Groups::join(addr, wanted)?;
    let begin = Instant::now();
    while begin.elapsed() < span.warm_up {
        group.rebalance()?;
    }
    let (begin, mut rounds) = (Instant::now(), Vec::new());
    while begin.elapsed() < span.measured || rounds.len() < ROUNDS {
        rounds.push(group.rebalance()?.as_secs_f64() * 1e3);
    }
    group.leave()?;
    Ok(rounds)
}

fn produce_and_commit(span: Span, target: &Target, groups: &mut Groups) -> Result<(Outcome, Commits)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let committing = scope.spawn(|| groups.commit(span, &stop));
        let produced = closed(FILL, span, target);
        // First of all, or a failure would leave the members running and this scope waiting.
        stop.store(true, Ordering::Relaxed);
        let commits = committing.join().ok().context("the members panicked")??;
        Ok((produced?, commits))
    })
}

fn sample_of_rounds(rounds: &[f64]) -> Sample {
    Sample::from([
        ("rebalance_ms", median(rounds)),
        ("rebalance_max_ms", rounds.iter().copied().fold(0.0, f64::max)),
        ("rounds", rounds.len() as f64),
    ])
}

fn sample_of_groups(alone: &Outcome, beside: &Outcome, commits: &Commits, span: Span) -> Sample {
    let mb_s = |outcome: &Outcome| sample::of_outcome(outcome)["mb_s"];
    let us = |percentile: f64| commits.latency.value_at_percentile(percentile) as f64 / 1e3;
    Sample::from([
        ("mb_s", mb_s(beside)),
        ("mb_s_alone", mb_s(alone)),
        ("mb_s_factor", mb_s(beside) / mb_s(alone).max(1e-9)),
        (
            "commits_s",
            commits.answered as f64 / span.measured.as_secs_f64().max(1e-9),
        ),
        ("commit_p50_us", us(50.0)),
        ("commit_p99_us", us(99.0)),
        ("rejoined", commits.rejoined as f64),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::histogram;

    #[test]
    fn groups_are_judged_by_what_they_leave_of_the_throughput() {
        let outcome = |bytes: u64| Outcome {
            requests: 1,
            records: 1,
            bytes,
            elapsed: Duration::from_secs(2),
            latency: histogram().unwrap(),
            broker: proc::Usage::default(),
            total_records: 1,
        };
        let mut latency = histogram().unwrap();
        latency.record_n(1_000_000, 98).unwrap();
        latency.record_n(9_000_000, 2).unwrap();
        let commits = Commits {
            answered: 600,
            latency,
            rejoined: 0,
        };
        let span = Span {
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(3),
        };
        let sample = sample_of_groups(&outcome(8_000_000), &outcome(6_000_000), &commits, span);
        let rounded = |name: &str| (sample[name] * 100.0).round() / 100.0;
        assert_eq!(
            ["mb_s_alone", "mb_s", "mb_s_factor", "commits_s"].map(rounded),
            [4.0, 3.0, 0.75, 200.0]
        );
        assert_eq!((sample["commit_p99_us"] / 1e3).round(), 9.0);
    }

    #[test]
    fn rounds_count_by_their_median() {
        let sample = sample_of_rounds(&[10.0, 90.0, 20.0]);
        assert_eq!((sample["rebalance_ms"], sample["rebalance_max_ms"]), (20.0, 90.0));
    }
}
