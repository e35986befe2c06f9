//! Server-side assignors of consumer groups (KIP-848): who is to own which partition.
//!
//! They are functions of the members' subscriptions, the topics' sizes and the last target assignment. None looks at
//! racks, as Kafka's have not since 4.0. Ties are broken by order of ids, so that every broker decides alike.

mod range;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::records::Partitions;

/// A server-side assignor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assignor {
    /// Balanced over all topics, and moves as little as it can.
    Uniform,
    /// Ranges of each topic; the same ranges of topics that are alike.
    Range,
}

/// Chosen if no member asks for one: the first of Kafka's `group.consumer.assignors`.
pub(crate) const DEFAULT: Assignor = Assignor::Uniform;

impl Assignor {
    /// All of them, the default first.
    pub(crate) const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    /// Kafka's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The assignor of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// Gives every partition of every subscribed topic to exactly one of its subscribers. Members that get nothing
    /// have an empty entry.
    pub(crate) fn assign(self, group: &Subscriptions) -> BTreeMap<String, Partitions> {
        match self {
            Self::Uniform => uniform::assign(group),
            Self::Range => range::assign(group),
        }
    }
}

/// What an assignor decides from.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    /// Members by id.
    pub(crate) members: BTreeMap<String, Subscriber>,
    /// Number of partitions of each topic that somebody subscribes to.
    pub(crate) topics: BTreeMap<Uuid, i32>,
}

/// A member, as far as assignors need to know it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Subscriber {
    /// `group.instance.id` of a static member.
    pub(crate) instance_id: Option<String>,
    /// Topics it subscribes to, all of them in [`Subscriptions::topics`].
    pub(crate) topics: BTreeSet<Uuid>,
    /// What the last target assignment gave it. May name topics and partitions that are no more.
    pub(crate) previous: Partitions,
}

impl Subscriptions {
    /// Whether all members subscribe to the same topics.
    fn homogeneous(&self) -> bool {
        let mut members = self.members.values();
        let first = members.next();
        members.all(|member| Some(&member.topics) == first.map(|first| &first.topics))
    }

    fn partitions(&self, topic: Uuid) -> i32 {
        self.topics.get(&topic).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
