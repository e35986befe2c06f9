//! Which groups have series of their own in the metrics, and what these say.
//!
//! Series cost memory here and in whoever scrapes them, and clients name groups as they like. So there is a bound on
//! them all, `kafka.groups.metric_series`: groups with members come before those without, those that have series already
//! before others, then the order of ids decides. A group is left out whole if it does not fit, and counted.

use std::collections::{BTreeMap, BTreeSet};

use takhin_coordinator::{GroupView, Shard};

/// Series of a group, besides those of its topics.
const SERIES_PER_GROUP: usize = 4;
/// Series for each topic that a group has offsets for.
const SERIES_PER_TOPIC: usize = 2;

/// A group at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) id: String,
    pub(crate) members: usize,
    pub(crate) state: &'static str,
    /// In the life of the group.
    pub(crate) rebalances: u64,
    /// Offsets committed since its shard was loaded here.
    pub(crate) commits: u64,
    /// Of topics whose partitions are known here.
    pub(crate) lags: BTreeMap<String, Lag>,
}

/// Records of a topic that a group has not yet committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    /// Over all partitions with a committed offset.
    pub(crate) total: i64,
    /// Of the partition that is furthest behind.
    pub(crate) max: i64,
}

/// Groups at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Number of groups by the name of their state.
    pub(crate) states: BTreeMap<&'static str, usize>,
    /// Those that get series.
    pub(crate) samples: Vec<Sample>,
}

/// The groups of one shard. `listed` have series already, `series` is how many there may be. `end` is where a partition
/// ends for consumers, exclusive; `None` if that is not known here.
pub(super) fn take(
    shard: &Shard,
    listed: &BTreeSet<String>,
    series: usize,
    end: impl Fn(&str, i32) -> Option<i64>,
) -> Census {
    let mut states = BTreeMap::new();
    let mut groups: Vec<GroupView<'_>> = shard.groups().collect();
    for group in &groups {
        *states.entry(group.state()).or_default() += 1;
    }
    groups.sort_by_key(|group| rank(group.members(), listed.contains(group.id())));
    let samples = fitting(groups, series, |group| group.topics())
        .map(|group| sample(group, &end))
        .collect();
    Census { states, samples }
}

/// The groups of all shards.
pub(super) fn merge(parts: Vec<Census>, listed: &BTreeSet<String>, series: usize) -> Census {
    let (mut states, mut samples) = (BTreeMap::new(), Vec::new());
    for part in parts {
        for (state, count) in part.states {
            *states.entry(state).or_default() += count;
        }
        samples.extend(part.samples);
    }
    samples.sort_by(|a, b| {
        let rank = |sample: &Sample| rank(sample.members, listed.contains(&sample.id));
        rank(a).cmp(&rank(b)).then_with(|| a.id.cmp(&b.id))
    });
    let samples = fitting(samples, series, |sample| sample.lags.len()).collect();
    Census { states, samples }
}

impl Census {
    /// Groups that get no series.
    pub(crate) fn left_out(&self) -> usize {
        self.states
            .values()
            .sum::<usize>()
            .saturating_sub(self.samples.len())
    }
}

/// Lower ones come first.
fn rank(members: usize, is_listed: bool) -> (bool, bool) {
    (members == 0, !is_listed)
}

/// Those of `groups` that fit into `series`, as they come.
fn fitting<T>(groups: Vec<T>, series: usize, topics: impl Fn(&T) -> usize) -> impl Iterator<Item = T> {
    let mut room = series;
    groups.into_iter().filter(move |group| {
        let cost = SERIES_PER_GROUP + SERIES_PER_TOPIC * topics(group);
        let fits = cost <= room;
        if fits {
            room -= cost;
        }
        fits
    })
}

fn sample(group: GroupView<'_>, end: impl Fn(&str, i32) -> Option<i64>) -> Sample {
    let lags = group.offsets().filter_map(|(topic, partitions)| {
        let behind = partitions.filter_map(|(partition, offset)| {
            // Who has committed past the end, which a client may, is not behind.
            Some(end(topic, partition)?.saturating_sub(offset).max(0))
        });
        let lag = behind.fold(None, |lag: Option<Lag>, behind| {
            let lag = lag.unwrap_or_default();
            Some(Lag {
                total: lag.total.saturating_add(behind),
                max: lag.max.max(behind),
            })
        });
        Some((topic.to_owned(), lag?))
    });
    Sample {
        id: group.id().to_owned(),
        members: group.members(),
        state: group.state(),
        rebalances: group.rebalances(),
        commits: group.commits(),
        lags: lags.collect(),
    }
}

#[cfg(test)]
mod tests {
    use takhin_coordinator::{
        ClassicRecord, CommittedOffset, GroupConfig, GroupMetadata, MemberMetadata, OffsetRecord, Record,
    };
    use takhin_protocol::messages::StrBytes;

    use super::*;

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    fn group(id: &str, generation: i32, members: usize) -> Record {
        let members = (0..members).map(|i| MemberMetadata {
            member_id: text(&format!("m{i}")),
            group_instance_id: None,
            client_id: text("app"),
            client_host: text("/h"),
            rebalance_timeout: 1,
            session_timeout: 1,
            subscription: bytes::Bytes::new(),
            assignment: bytes::Bytes::new(),
        });
        let value = GroupMetadata {
            generation,
            members: members.collect(),
            ..GroupMetadata::default()
        };
        Record::Classic(ClassicRecord {
            group: text(id),
            value: Some(value),
        })
    }

    fn offset(id: &str, topic: &str, partition: i32, offset: i64) -> Record {
        let value = CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: StrBytes::new(),
            commit_timestamp: 0,
            expire_timestamp: None,
            topic_id: None,
        };
        Record::Offset(OffsetRecord {
            group: text(id),
            topic: text(topic),
            partition,
            value: Some(value),
        })
    }

    fn shard(records: &[Record]) -> Shard {
        let mut shard = Shard::new(GroupConfig::default());
        for record in records {
            shard.replay(record);
        }
        shard
    }

    /// Every partition ends at 100, but those of `gone`.
    fn end(topic: &str, _: i32) -> Option<i64> {
        (topic != "gone").then_some(100)
    }

    fn names(census: &Census) -> Vec<&str> {
        census.samples.iter().map(|sample| sample.id.as_str()).collect()
    }

    #[test]
    fn lag_is_summed_by_topic_and_never_negative() {
        let shard = shard(&[
            group("g", 7, 2),
            offset("g", "t", 0, 40),
            offset("g", "t", 1, 90),
            offset("g", "t", 2, 101),
            offset("g", "u", 0, 100),
            offset("g", "gone", 0, 1),
        ]);
        let census = take(&shard, &BTreeSet::new(), 100, end);
        let expected = Sample {
            id: "g".to_owned(),
            members: 2,
            state: "Stable",
            rebalances: 7,
            commits: 0,
            lags: BTreeMap::from([
                ("t".to_owned(), Lag { total: 70, max: 60 }),
                ("u".to_owned(), Lag::default()),
            ]),
        };
        assert_eq!(census.samples, [expected]);
    }

    #[test]
    fn the_bound_holds_over_all_shards_and_prefers_members_then_what_is_listed() {
        let one = shard(&[group("a", 1, 0), group("c", 1, 1), offset("c", "t", 0, 1)]);
        let two = shard(&[group("b", 1, 0), group("d", 1, 0), group("e", 1, 1)]);
        let listed = BTreeSet::from(["d".to_owned()]);
        let census = |series| {
            let parts = [&one, &two].map(|shard| take(shard, &listed, series, end));
            merge(parts.into(), &listed, series)
        };
        let all = census(22);
        assert_eq!(names(&all), ["c", "e", "d", "a", "b"]);
        assert_eq!(all.states, BTreeMap::from([("Empty", 3), ("Stable", 2)]));
        assert_eq!(all.left_out(), 0);
        assert_eq!(names(&census(21)), ["c", "e", "d", "a"]);
        assert_eq!(names(&census(14)), ["c", "e", "d"]);
        // A group with topics that does not fit makes room for one without.
        assert_eq!(names(&census(5)), ["e"]);
        assert_eq!((census(5).left_out(), names(&census(0)).len()), (4, 0));
    }
}
