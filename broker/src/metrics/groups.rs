//! Metrics of consumer groups: how many there are, and series of those that `coordinators::census` picks.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use takhin_runtime::telemetry::metrics::{self, Counter, Family, Gauge};

use crate::coordinators::census::{Census, Sample};

/// Names of states; the place is the value of `takhin_group_state`.
const STATES: [&str; 6] = [
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "Stable",
];

/// Gauges and counters of the groups coordinated here.
#[derive(Debug)]
pub(crate) struct GroupMetrics {
    by_state: [Gauge; STATES.len()],
    left_out: Gauge,
    members: Family<Gauge, 1>,
    state: Family<Gauge, 1>,
    rebalances: Family<Counter, 1>,
    commits: Family<Counter, 1>,
    lag: Family<Gauge, 2>,
    max_lag: Family<Gauge, 2>,
    listed: Mutex<BTreeMap<String, Listed>>,
}

/// A group with series, and what they have counted of.
#[derive(Debug, Default)]
struct Listed {
    rebalances: u64,
    commits: u64,
    topics: BTreeSet<String>,
}

impl GroupMetrics {
    pub(super) fn new() -> Self {
        let by_state = metrics::gauges(
            "takhin_groups",
            "Groups coordinated here, by state (Kafka: NumGroups and its kin)",
            ["state"],
        );
        Self {
            by_state: STATES.map(|state| by_state.with([state])),
            left_out: metrics::gauge(
                "takhin_groups_without_series",
                "Groups coordinated here that have no series of their own, for the bound kafka.groups.metric_series",
            ),
            members: metrics::gauges("takhin_group_members", "Members of the group", ["group"]),
            state: metrics::gauges(
                "takhin_group_state",
                "State of the group: 0 Empty, 1 PreparingRebalance, 2 CompletingRebalance, 3 Assigning, \
                 4 Reconciling, 5 Stable",
                ["group"],
            ),
            rebalances: metrics::counters(
                "takhin_group_rebalances_total",
                "Rebalances in the life of the group: its generation, or its group epoch",
                ["group"],
            ),
            commits: metrics::counters(
                "takhin_group_commits_total",
                "Offsets that the group has committed while it was coordinated here",
                ["group"],
            ),
            lag: metrics::gauges(
                "takhin_group_lag_records",
                "Offsets between what the group has committed and the high watermark, over all partitions of the \
                 topic that it has committed for",
                ["group", "topic"],
            ),
            max_lag: metrics::gauges(
                "takhin_group_lag_max_records",
                "The same of the partition that is furthest behind",
                ["group", "topic"],
            ),
            listed: Mutex::default(),
        }
    }

    /// Ids of the groups that have series.
    pub(crate) fn listed(&self) -> BTreeSet<String> {
        self.listed.lock().keys().cloned().collect()
    }

    /// Sets everything to what the census says. Series of groups and topics that are not in it go.
    pub(crate) fn refresh(&self, census: &Census) {
        for (state, gauge) in STATES.iter().zip(&self.by_state) {
            gauge.set(as_gauge(census.states.get(state).copied().unwrap_or(0)));
        }
        self.left_out.set(as_gauge(census.left_out()));
        let mut listed = self.listed.lock();
        let mut before = std::mem::take(&mut *listed);
        for sample in &census.samples {
            let known = before.remove(&sample.id).unwrap_or_default();
            listed.insert(sample.id.clone(), self.show(sample, &known));
        }
        for (id, gone) in before {
            self.forget(&id, &gone);
        }
    }

    fn show(&self, sample: &Sample, known: &Listed) -> Listed {
        let id = [sample.id.as_str()];
        self.members.with(id).set(as_gauge(sample.members));
        let state = STATES.iter().position(|name| *name == sample.state);
        self.state.with(id).set(as_gauge(state.unwrap_or(0)));
        self.rebalances
            .with(id)
            .add(growth(known.rebalances, sample.rebalances));
        self.commits.with(id).add(growth(known.commits, sample.commits));
        for (topic, lag) in &sample.lags {
            let labels = [sample.id.as_str(), topic.as_str()];
            self.lag.with(labels).set(lag.total);
            self.max_lag.with(labels).set(lag.max);
        }
        let topics: BTreeSet<String> = sample.lags.keys().cloned().collect();
        self.forget_topics(&sample.id, known.topics.difference(&topics));
        Listed {
            rebalances: sample.rebalances,
            commits: sample.commits,
            topics,
        }
    }

    fn forget(&self, id: &str, gone: &Listed) {
        self.members.remove([id]);
        self.state.remove([id]);
        self.rebalances.remove([id]);
        self.commits.remove([id]);
        self.forget_topics(id, gone.topics.iter());
    }

    fn forget_topics<'a>(&self, id: &str, topics: impl Iterator<Item = &'a String>) {
        for topic in topics {
            self.lag.remove([id, topic]);
            self.max_lag.remove([id, topic]);
        }
    }
}

/// How much a count has grown; one that is less than before has begun again at 0.
fn growth(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinators::census::Lag;

    /// The series of groups whose id begins with `shown-`, without their names' common beginning.
    fn series() -> Vec<String> {
        let text = metrics::encode();
        let lines = text.lines().filter(|line| line.contains("group=\"shown-"));
        let mut lines: Vec<String> = lines
            .filter_map(|line| line.strip_prefix("takhin_group_").map(str::to_owned))
            .collect();
        lines.sort();
        lines
    }

    /// A group: id, rebalances, commits, lag by topic.
    type Shown<'a> = (&'a str, u64, u64, &'a [(&'a str, i64)]);

    fn census(samples: &[Shown<'_>]) -> Census {
        let samples = samples.iter().map(|(id, rebalances, commits, lags)| Sample {
            id: (*id).to_owned(),
            members: 2,
            state: "Stable",
            rebalances: *rebalances,
            commits: *commits,
            lags: lags
                .iter()
                .map(|(topic, total)| {
                    (
                        (*topic).to_owned(),
                        Lag {
                            total: *total,
                            max: 1,
                        },
                    )
                })
                .collect(),
        });
        Census {
            states: BTreeMap::from([("Stable", 9)]),
            samples: samples.collect(),
        }
    }

    #[test]
    fn series_follow_the_census_and_counters_never_fall() {
        let metrics = GroupMetrics::new();
        metrics.refresh(&census(&[("shown-a", 3, 5, &[("t", 7), ("u", 0)])]));
        assert_eq!(
            series(),
            [
                "commits_total{group=\"shown-a\"} 5",
                "lag_max_records{group=\"shown-a\",topic=\"t\"} 1",
                "lag_max_records{group=\"shown-a\",topic=\"u\"} 1",
                "lag_records{group=\"shown-a\",topic=\"t\"} 7",
                "lag_records{group=\"shown-a\",topic=\"u\"} 0",
                "members{group=\"shown-a\"} 2",
                "rebalances_total{group=\"shown-a\"} 3",
                "state{group=\"shown-a\"} 5",
            ]
        );
        assert_eq!((metrics.left_out.get(), metrics.by_state[5].get()), (8, 9));
        assert_eq!(metrics.listed(), BTreeSet::from(["shown-a".to_owned()]));
        // One topic less; the shard was loaded again and the group made again.
        metrics.refresh(&census(&[("shown-a", 1, 2, &[("t", 8)])]));
        assert_eq!(
            series(),
            [
                "commits_total{group=\"shown-a\"} 7",
                "lag_max_records{group=\"shown-a\",topic=\"t\"} 1",
                "lag_records{group=\"shown-a\",topic=\"t\"} 8",
                "members{group=\"shown-a\"} 2",
                "rebalances_total{group=\"shown-a\"} 4",
                "state{group=\"shown-a\"} 5",
            ]
        );
        metrics.refresh(&census(&[]));
        assert_eq!(series(), [""; 0]);
    }
}
