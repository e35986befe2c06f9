//! `range`: each topic is cut into ranges, as even as can be, in the order of its subscribers.
//!
//! Static members come first, in the order of their instance ids, so that they keep their ranges through a restart. When
//! all members subscribe to the same topics and these have equally many partitions, a member gets the same partitions of
//! each: they are co-partitioned.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Subscriber, Subscriptions};
use crate::records::Partitions;

/// What is left of a topic.
struct Remainder {
    next: i32,
    quota: i32,
    /// Members that still get one more than the quota.
    extra: i32,
}

pub(super) fn assign(group: &Subscriptions) -> BTreeMap<String, Partitions> {
    let mut members: Vec<(&String, &Subscriber)> = group.members.iter().collect();
    members.sort_by_key(|(id, member)| (member.instance_id.is_none(), member.instance_id.as_deref(), *id));

    let mut subscribers: BTreeMap<Uuid, i32> = BTreeMap::new();
    for topic in members.iter().flat_map(|(_, member)| &member.topics) {
        *subscribers.entry(*topic).or_default() += 1;
    }
    let mut topics: BTreeMap<Uuid, Remainder> = subscribers
        .into_iter()
        .map(|(topic, subscribers)| {
            let partitions = group.partitions(topic);
            let remainder = Remainder {
                next: 0,
                quota: partitions / subscribers,
                extra: partitions % subscribers,
            };
            (topic, remainder)
        })
        .collect();

    let mut assignment = BTreeMap::new();
    for (id, member) in members {
        let mut owned = Partitions::new();
        for topic in &member.topics {
            let Some(left) = topics.get_mut(topic) else {
                continue;
            };
            let end = left.next + left.quota + i32::from(left.extra > 0);
            left.extra = (left.extra - 1).max(0);
            if left.next < end {
                owned.insert(*topic, (left.next..end).collect());
            }
            left.next = end;
        }
        assignment.insert(id.clone(), owned);
    }
    assignment
}
