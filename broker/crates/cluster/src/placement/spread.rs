//! Spreading replicas: over racks first, then evenly over brokers, in the topic and in the cluster, leaders for themselves.
//!
//! Each partition takes, one after the other, the broker that is best by the first of these that tells two apart:
//!
//! | leader | other replicas |
//! |---|---|
//! | fittest | fittest |
//! | fewest partitions of the topic to lead | rack with the fewest replicas of this partition |
//! | fewest partitions of all to lead | fewest replicas of the topic |
//! | fewest replicas of all | seldom together with this leader in the topic |
//! | | fewest replicas of all |
//! | lowest id | next id after the leader's, and around |
//!
//! Fitter is who is there, has room and is to stay ([`Fitness`]); a broker that is being decommissioned gets none.
//!
//! Leaders come first and need not look at racks: with any of them the others can be spread as well. When brokers of one
//! rack are many and those of another few, the few carry more: that is what spreading over racks costs.

use std::collections::BTreeMap;

use super::fitness::{Fitness, Fitnesses};
use crate::metadata::{Image, PartitionInfo};

/// What a broker carries.
#[derive(Debug, Clone, Default)]
struct Load {
    leads: usize,
    replicas: usize,
    topic_leads: usize,
    topic_replicas: usize,
    /// Replicas of the topic by leader.
    beside: BTreeMap<i32, usize>,
}

/// The brokers with what they carry; grows with each partition placed.
#[derive(Debug, Clone)]
pub struct Spread<'a> {
    racks: BTreeMap<i32, Option<&'a str>>,
    fitness: &'a Fitnesses,
    loads: BTreeMap<i32, Load>,
}

impl<'a> Spread<'a> {
    /// `topic` is what the topic has already. A broker of unknown fitness is fit.
    pub fn new(image: &'a Image, fitness: &'a Fitnesses, topic: &[PartitionInfo]) -> Self {
        let brokers = image.brokers.values();
        let mut spread = Self {
            racks: brokers
                .map(|broker| (broker.id, broker.rack.as_deref()))
                .collect(),
            fitness,
            loads: image.brokers.keys().map(|id| (*id, Load::default())).collect(),
        };
        for partition in image.topics.values().flat_map(|topic| &topic.partitions) {
            spread.count(&partition.replicas, false);
        }
        for partition in topic {
            spread.count(&partition.replicas, true);
        }
        spread
    }

    /// Places one more partition of the topic with `width` replicas, at most as many as there are usable brokers.
    pub fn place(&mut self, width: usize) -> Vec<i32> {
        let Some(leader) = self.leader() else {
            return Vec::new();
        };
        let mut replicas = vec![leader];
        while replicas.len() < width
            && let Some(next) = self.next(&replicas)
        {
            replicas.push(next);
        }
        self.count(&replicas, false);
        self.count(&replicas, true);
        replicas
    }

    fn leader(&self) -> Option<i32> {
        let weight = |(id, load): &(&i32, &Load)| {
            let fitness = self.fitness_of(**id);
            (fitness, load.topic_leads, load.leads, load.replicas, **id)
        };
        self.usable().min_by_key(weight).map(|(id, _)| *id)
    }

    fn fitness_of(&self, id: i32) -> Fitness {
        self.fitness.get(&id).copied().unwrap_or(Fitness::Fit)
    }

    fn usable(&self) -> impl Iterator<Item = (&i32, &Load)> {
        let is_usable = |(id, _): &(&i32, &Load)| self.fitness_of(**id).is_usable();
        self.loads.iter().filter(is_usable)
    }

    fn next(&self, chosen: &[i32]) -> Option<i32> {
        let leader = *chosen.first()?;
        let rack_of = |id: &i32| self.racks.get(id).copied().flatten();
        let weight = |(id, load): &(&i32, &Load)| {
            // Brokers without a rack are each in one of their own.
            let rack = rack_of(id);
            let in_rack = chosen
                .iter()
                .filter(|other| rack.is_some() && rack_of(other) == rack);
            let beside = load.beside.get(&leader).copied().unwrap_or(0);
            let place = (**id <= leader, **id);
            (
                self.fitness_of(**id),
                in_rack.count(),
                load.topic_replicas,
                beside,
                load.replicas,
                place,
            )
        };
        let free = self.usable().filter(|(id, _)| !chosen.contains(id));
        free.min_by_key(weight).map(|(id, _)| *id)
    }

    /// Counts a partition as carried: in the topic, or in the cluster.
    fn count(&mut self, replicas: &[i32], in_topic: bool) {
        for (i, id) in replicas.iter().enumerate() {
            // One whose broker has gone weighs on nobody.
            let Some(load) = self.loads.get_mut(id) else {
                continue;
            };
            let leads = usize::from(i == 0);
            if in_topic {
                load.topic_leads += leads;
                load.topic_replicas += 1;
                *load.beside.entry(replicas[0]).or_default() += 1;
            } else {
                load.leads += leads;
                load.replicas += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::metadata::{BrokerInfo, TopicInfo};

    /// Brokers 0, 1, ... in these racks; rack 0 is none.
    fn image(racks: &[usize]) -> Image {
        let broker = |(id, rack): (i32, &usize)| BrokerInfo {
            id,
            rack: (*rack > 0).then(|| format!("rack-{rack}")),
            endpoints: Vec::new(),
            rpc: String::new(),
            directory: uuid::Uuid::nil(),
        };
        let brokers = (0..).zip(racks).map(broker);
        Image {
            brokers: brokers.map(|broker| (broker.id, broker)).collect(),
            ..Image::default()
        }
    }

    fn place(image: &Image, count: usize, width: usize) -> Vec<Vec<i32>> {
        let fitness = Fitnesses::new();
        let mut spread = Spread::new(image, &fitness, &[]);
        (0..count).map(|_| spread.place(width)).collect()
    }

    fn counts(ids: impl Iterator<Item = i32>, brokers: usize) -> Vec<usize> {
        let mut counts = vec![0; brokers];
        for id in ids {
            counts[usize::try_from(id).unwrap()] += 1;
        }
        counts
    }

    fn differ_by_one(counts: &[usize]) -> bool {
        counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1
    }

    #[test]
    fn who_follows_a_leader_changes() {
        let placed = place(&image(&[0, 0, 0]), 6, 2);
        assert_eq!(placed, [[0, 1], [2, 0], [1, 2], [0, 2], [1, 0], [2, 1]]);
    }

    #[test]
    fn what_brokers_carry_already_counts() {
        let mut image = image(&[0, 0, 0]);
        let partition = PartitionInfo {
            replicas: vec![0, 1],
            ..PartitionInfo::default()
        };
        let topic = TopicInfo {
            name: "old".into(),
            id: uuid::Uuid::from_u128(1),
            partitions: vec![partition; 4],
            overrides: BTreeMap::new(),
            config: Arc::default(),
        };
        image.topics.insert("old".into(), Arc::new(topic));
        assert_eq!(place(&image, 1, 2), [[2, 0]]);
    }

    proptest! {
        #[test]
        fn replicas_are_spread_over_racks_and_evenly(
            racks in proptest::collection::vec(0_usize..4, 1..9), count in 1_usize..60, width in 1_usize..5
        ) {
            let image = image(&racks);
            let width = width.min(racks.len());
            let placed = place(&image, count, width);
            let unlike: BTreeSet<_> = racks.iter().filter(|rack| **rack > 0).collect();
            let groups = unlike.len() + racks.iter().filter(|rack| **rack == 0).count();
            for replicas in &placed {
                let mut distinct = replicas.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), width);
                let name = |id: &i32| match racks[usize::try_from(*id).unwrap()] {
                    0 => format!("own-{id}"),
                    rack => rack.to_string(),
                };
                let used: BTreeSet<String> = replicas.iter().map(name).collect();
                prop_assert_eq!(used.len(), width.min(groups), "{:?} in {:?}", replicas, racks);
            }
            let leads = counts(placed.iter().map(|replicas| replicas[0]), racks.len());
            prop_assert!(differ_by_one(&leads), "leads {:?}", leads);
            if racks.iter().all(|rack| *rack == 0) {
                let all = counts(placed.iter().flatten().copied(), racks.len());
                prop_assert!(differ_by_one(&all), "replicas {:?}", all);
            }
        }
    }
}
