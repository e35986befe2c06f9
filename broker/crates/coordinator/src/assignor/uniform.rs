//! `uniform`: members own as equally many partitions as their subscriptions allow, and keep what they had.
//!
//! With equal subscriptions, numbers of partitions differ by one at most, and only what is over a member's share moves.
//! With unequal ones, no partition can move to a subscriber that owns two or more fewer.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Subscriptions;
use crate::records::Partitions;

/// Index of a member in the order of ids.
type MemberIndex = usize;

/// A partition.
type Slot = (Uuid, i32);

pub(super) fn assign(group: &Subscriptions) -> BTreeMap<String, Partitions> {
    let mut table = Table::keeping_what_is_valid(group);
    if group.homogeneous() {
        table.trim_to_shares();
        table.fill();
    } else {
        table.fill();
        table.balance();
    }
    table.into_assignment(group)
}

/// Who owns what while it is being decided.
struct Table {
    owned: Vec<BTreeSet<Slot>>,
    /// What members own by the last target; these move last.
    previous: Vec<BTreeSet<Slot>>,
    subscribers: BTreeMap<Uuid, Vec<MemberIndex>>,
    free: BTreeSet<Slot>,
}

impl Table {
    fn keeping_what_is_valid(group: &Subscriptions) -> Self {
        let mut subscribers: BTreeMap<Uuid, Vec<MemberIndex>> = BTreeMap::new();
        for (index, member) in group.members.values().enumerate() {
            for topic in &member.topics {
                subscribers.entry(*topic).or_default().push(index);
            }
        }
        let mut free: BTreeSet<Slot> = subscribers
            .keys()
            .flat_map(|topic| (0..group.partitions(*topic)).map(move |partition| (*topic, partition)))
            .collect();
        let owned: Vec<BTreeSet<Slot>> = group
            .members
            .values()
            .map(|member| {
                let previous = member.previous.iter();
                previous
                    .filter(|(topic, _)| member.topics.contains(topic))
                    .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
                    .filter(|slot| free.remove(slot))
                    .collect()
            })
            .collect();
        Self {
            previous: owned.clone(),
            owned,
            subscribers,
            free,
        }
    }

    /// Takes from each member what is over its share. All subscribe to the same topics.
    fn trim_to_shares(&mut self) {
        let total = self.free.len() + self.owned.iter().map(BTreeSet::len).sum::<usize>();
        let share = total / self.owned.len().max(1);
        // This many members own one more; those that do already go first, so that fewer partitions move.
        let mut extra = total % self.owned.len().max(1);
        for owned in &mut self.owned {
            let mut quota = share;
            if owned.len() > share && extra > 0 {
                extra -= 1;
                quota += 1;
            }
            while owned.len() > quota {
                self.free.extend(owned.pop_last());
            }
        }
    }

    /// Gives each free partition to the subscriber that owns the fewest; topics with few subscribers first, since they
    /// have little choice.
    fn fill(&mut self) {
        let mut topics: Vec<(usize, Uuid)> = self
            .subscribers
            .iter()
            .map(|(topic, subscribers)| (subscribers.len(), *topic))
            .collect();
        topics.sort_unstable();
        for (_, topic) in topics {
            let free: Vec<Slot> = self.free.range((topic, 0)..=(topic, i32::MAX)).copied().collect();
            if free.is_empty() {
                continue;
            }
            let mut loads = self.loads(topic);
            for slot in free {
                let Some((load, member)) = loads.pop_first() else {
                    break;
                };
                self.owned[member].insert(slot);
                loads.insert((load + 1, member));
            }
        }
        self.free.clear();
    }

    /// Moves partitions to subscribers that own at least two fewer until there is none. Every move lowers the sum of
    /// the squares of the loads, so that it ends.
    fn balance(&mut self) {
        let topics: Vec<Uuid> = self.subscribers.keys().copied().collect();
        loop {
            let mut moved = false;
            for topic in &topics {
                moved |= self.balance_topic(*topic);
            }
            if !moved {
                return;
            }
        }
    }

    fn balance_topic(&mut self, topic: Uuid) -> bool {
        let mut loads = self.loads(topic);
        let mut moved = false;
        // Members whose partitions of this topic have all been seen are of no use as givers.
        let mut givers = loads.clone();
        while let Some(&(load, giver)) = givers.last() {
            let Some(&(least, taker)) = loads.first() else {
                break;
            };
            if load < least + 2 {
                break;
            }
            givers.remove(&(load, giver));
            let Some(slot) = self.to_give(giver, topic) else {
                continue;
            };
            self.owned[giver].remove(&slot);
            self.owned[taker].insert(slot);
            moved = true;
            loads.remove(&(load, giver));
            loads.insert((load - 1, giver));
            givers.insert((load - 1, giver));
            loads.remove(&(least, taker));
            loads.insert((least + 1, taker));
            if givers.remove(&(least, taker)) {
                givers.insert((least + 1, taker));
            }
        }
        moved
    }

    /// The partition of a topic that a member misses least: one that it did not have before, if there is one.
    fn to_give(&self, member: MemberIndex, topic: Uuid) -> Option<Slot> {
        let mut slots = self.owned[member].range((topic, 0)..=(topic, i32::MAX)).rev();
        let last = slots.clone().next();
        slots
            .find(|slot| !self.previous[member].contains(slot))
            .or(last)
            .copied()
    }

    /// A topic's subscribers in the order of how much they own in all.
    fn loads(&self, topic: Uuid) -> BTreeSet<(usize, MemberIndex)> {
        let subscribers = self.subscribers.get(&topic);
        subscribers
            .into_iter()
            .flatten()
            .map(|member| (self.owned[*member].len(), *member))
            .collect()
    }

    fn into_assignment(self, group: &Subscriptions) -> BTreeMap<String, Partitions> {
        group
            .members
            .keys()
            .zip(self.owned)
            .map(|(id, owned)| {
                let mut partitions = Partitions::new();
                for (topic, partition) in owned {
                    partitions.entry(topic).or_default().insert(partition);
                }
                (id.clone(), partitions)
            })
            .collect()
    }
}
