//! All replicas where they are to be, what brokers carry so, and trying out what changes.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::fitness::{Fitness, Fitnesses};
use super::planner::View;
use crate::metadata::{Image, PartitionInfo, is_internal};

/// A partition, with the replicas that it has or is getting.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) topic_id: Uuid,
    pub(super) index: i32,
    pub(super) is_internal: bool,
    /// Preferred leader first.
    pub(super) replicas: Vec<i32>,
    /// Whether its replicas may be changed: nobody moves them, and it has a leader to do it.
    pub(super) can_move: bool,
    /// Whether they may be changed for evenness, too: nobody has chosen them since brokers came or were to go.
    pub(super) is_old: bool,
}

impl Part {
    pub(super) fn is_free(&self) -> bool {
        self.can_move && self.is_old
    }
}

/// All partitions with what brokers carry.
#[derive(Debug)]
pub(super) struct Board<'a> {
    pub(super) fitness: &'a Fitnesses,
    racks: BTreeMap<i32, Option<&'a str>>,
    pub(super) parts: Vec<Part>,
    /// Partitions with a replica on each broker, by their place in `parts`.
    on: BTreeMap<i32, BTreeSet<usize>>,
    leads: BTreeMap<i32, usize>,
    /// Replicas by topic and broker.
    in_topic: BTreeMap<(Uuid, i32), usize>,
    /// What was changed.
    pub(super) changed: BTreeSet<usize>,
    /// Changes of the cluster that are under way and go on.
    pub(super) under_way: usize,
}

impl<'a> Board<'a> {
    pub(super) fn new(view: &View<'a>) -> Self {
        let image = view.image;
        let racks = image.brokers.values();
        let mut board = Self {
            fitness: view.fitness,
            racks: racks.map(|broker| (broker.id, broker.rack.as_deref())).collect(),
            parts: Vec::new(),
            on: image.brokers.keys().map(|id| (*id, BTreeSet::new())).collect(),
            leads: BTreeMap::new(),
            in_topic: BTreeMap::new(),
            changed: BTreeSet::new(),
            under_way: 0,
        };
        for topic in image.topics.values() {
            let is_internal = is_internal(&topic.name);
            for (index, placement) in (0..).zip(&topic.partitions) {
                let has_leader = (view.has_leader)(topic.id, index);
                board.add(image, (topic.id, index, is_internal), placement, has_leader);
            }
        }
        board
    }

    fn add(
        &mut self,
        image: &Image,
        (topic_id, index, is_internal): (Uuid, i32, bool),
        placement: &PartitionInfo,
        has_leader: bool,
    ) {
        let moving = placement.reassignment.as_ref();
        // The cluster takes back what it has begun itself if it cannot end.
        let is_lost = |id: &i32| self.fitness_of(*id) >= Fitness::Gone;
        let fails =
            placement.is_automatic && moving.is_some_and(|moving| moving.adding().iter().any(is_lost));
        let replicas = match moving {
            Some(moving) if fails => &moving.original,
            Some(moving) => &moving.target,
            None => &placement.replicas,
        };
        let part = Part {
            topic_id,
            index,
            is_internal,
            replicas: replicas.clone(),
            can_move: has_leader && (moving.is_none() || fails),
            is_old: image.rebalance_due.is_some_and(|due| placement.placed <= due),
        };
        if moving.is_some() && placement.is_automatic && !fails && has_leader {
            self.under_way += 1;
        }
        if fails {
            self.changed.insert(self.parts.len());
        }
        self.parts.push(part);
        self.count(self.parts.len() - 1, true);
    }

    /// Counts a partition in, or out.
    fn count(&mut self, place: usize, is_in: bool) {
        let part = &self.parts[place];
        let add = |count: &mut usize| match is_in {
            true => *count += 1,
            false => *count = count.saturating_sub(1),
        };
        for id in &part.replicas {
            add(self.in_topic.entry((part.topic_id, *id)).or_default());
            // One whose broker has gone weighs on nobody.
            if let Some(on) = self.on.get_mut(id) {
                match is_in {
                    true => on.insert(place),
                    false => on.remove(&place),
                };
            }
        }
        if let Some(leader) = part.replicas.first() {
            add(self.leads.entry(*leader).or_default());
        }
    }

    /// Gives a partition these replicas.
    pub(super) fn set(&mut self, place: usize, replicas: Vec<i32>) {
        self.count(place, false);
        self.parts[place].replicas = replicas;
        self.count(place, true);
        self.changed.insert(place);
    }

    pub(super) fn fitness_of(&self, id: i32) -> Fitness {
        // Who is not registered is to lose its replicas, too.
        self.fitness.get(&id).copied().unwrap_or(Fitness::Leaving)
    }

    /// The partitions with a replica on a broker, by their place.
    pub(super) fn on(&self, id: i32) -> impl Iterator<Item = usize> + '_ {
        self.on.get(&id).into_iter().flatten().copied()
    }

    pub(super) fn load(&self, id: i32) -> usize {
        self.on.get(&id).map_or(0, BTreeSet::len)
    }

    pub(super) fn leads(&self, id: i32) -> usize {
        self.leads.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn topic_load(&self, topic: Uuid, id: i32) -> usize {
        self.in_topic.get(&(topic, id)).copied().unwrap_or(0)
    }

    pub(super) fn brokers(&self) -> impl Iterator<Item = i32> + '_ {
        self.on.keys().copied()
    }

    /// How many of the `others` are in the rack of broker `id`. Brokers without a rack are each in one of their own.
    pub(super) fn beside(&self, id: i32, others: &[i32]) -> usize {
        let rack_of = |id: i32| self.racks.get(&id).copied().flatten();
        let rack = rack_of(id);
        let is_beside = |other: &&i32| **other != id && rack.is_some() && rack_of(**other) == rack;
        others.iter().filter(is_beside).count()
    }

    /// How many pairs of these replicas share a rack, each pair counted twice.
    pub(super) fn crowding(&self, replicas: &[i32]) -> usize {
        replicas.iter().map(|id| self.beside(*id, replicas)).sum()
    }

    /// The best broker for one more replica of a partition that keeps these: fit, in a rack of its own, with little to
    /// carry. `None` if none of those that are there is left.
    pub(super) fn taker(&self, topic: Uuid, kept: &[i32]) -> Option<i32> {
        let can_take = |id: &i32| self.fitness_of(*id).is_there() && !kept.contains(id);
        let weight = |id: &i32| {
            (
                self.fitness_of(*id),
                self.beside(*id, kept),
                self.topic_load(topic, *id),
                self.load(*id),
                *id,
            )
        };
        self.brokers().filter(can_take).min_by_key(weight)
    }
}
