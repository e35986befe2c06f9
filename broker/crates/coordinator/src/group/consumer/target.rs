//! The group epoch, and the target assignment that is made for it.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{Consumer, Member};
use crate::assignor::{self, Assignor, Subscriber, Subscriptions};
use crate::group::Effects;
use crate::records::{ConsumerRecord, Partitions};
use crate::topics::{TopicInfo, Topics};

impl Consumer {
    /// Raises the group epoch if a subscription or one of the group's topics has changed, then makes a target
    /// assignment if there is none for the epoch.
    pub(super) fn refresh_target(&mut self, effects: &mut Effects<'_>, topics: &dyn Topics, bump: bool) {
        if bump || self.checked != Some(topics.version()) {
            self.refresh_regexes(effects, topics);
            let hash = hash(self.subscribed_topics().iter().map(String::as_str), topics);
            // While no target was made for the epoch, nobody has seen it and it will do for the new topics too.
            let behind = self.epoch > self.target_epoch;
            if bump || (hash != self.metadata_hash && !behind) {
                self.write_epoch(effects, self.next_epoch(), hash);
            } else if hash != self.metadata_hash {
                self.write_epoch(effects, self.epoch, hash);
            }
            self.checked = Some(topics.version());
        }
        if self.epoch > self.target_epoch {
            self.make_target(effects, topics);
        }
    }

    fn make_target(&mut self, effects: &mut Effects<'_>, topics: &dyn Topics) {
        let assignment = self.assignor().assign(&self.subscriptions(topics));
        for (member_id, partitions) in assignment {
            if self.target.get(&member_id) != Some(&partitions) {
                let record = ConsumerRecord::Target {
                    group_id: self.key(),
                    member_id,
                    value: Some(partitions),
                };
                self.write(effects, record);
            }
        }
        let record = ConsumerRecord::TargetEpoch {
            group_id: self.key(),
            value: Some(self.epoch),
        };
        self.write(effects, record);
    }

    /// The assignor that most members ask for; who asks for none has no vote.
    pub(super) fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for member in self.members.values() {
            let wish = member.metadata.assignor.as_deref();
            if let Some(assignor) = wish.and_then(Assignor::from_name) {
                *votes.entry(assignor).or_default() += 1;
            }
        }
        let most = votes.values().max().copied();
        votes
            .into_iter()
            .find(|(_, votes)| Some(*votes) == most)
            .map_or(assignor::DEFAULT, |(assignor, _)| assignor)
    }

    fn subscriptions(&self, topics: &dyn Topics) -> Subscriptions {
        let mut subscriptions = Subscriptions::default();
        let mut known: BTreeMap<&str, Option<TopicInfo>> = BTreeMap::new();
        for (id, member) in &self.members {
            let mut subscribed: BTreeSet<Uuid> = BTreeSet::new();
            for name in self.names_of(member) {
                let topic = known.entry(name).or_insert_with(|| topics.by_name(name));
                if let Some(topic) = topic {
                    subscribed.insert(topic.id);
                    subscriptions.topics.insert(topic.id, topic.partitions);
                }
            }
            let subscriber = Subscriber {
                instance_id: member.metadata.instance_id.clone(),
                topics: subscribed,
                previous: self.target.get(id).cloned().unwrap_or_else(Partitions::new),
            };
            subscriptions.members.insert(id.clone(), subscriber);
        }
        subscriptions
    }

    /// Names that a member subscribes to, by name or expression.
    fn names_of<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a str> {
        let resolved = member.regex().and_then(|regex| self.regexes.get(regex));
        let matching = resolved.into_iter().flat_map(|resolved| &resolved.topics);
        member.metadata.topics.iter().chain(matching).map(String::as_str)
    }

    fn subscribed_topics(&self) -> BTreeSet<String> {
        self.members
            .values()
            .flat_map(|member| self.names_of(member))
            .map(str::to_owned)
            .collect()
    }
}

/// FNV-1a over those topics that exist; 0 if there are none. Kafka compares its hash with its own only, so that another
/// function does no harm but a rebalance.
pub(super) fn hash<'a>(names: impl Iterator<Item = &'a str>, topics: &dyn Topics) -> i64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut any = false;
    let mut hash = OFFSET_BASIS;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    };
    for name in names {
        if let Some(topic) = topics.by_name(name) {
            any = true;
            mix(topic.id.as_bytes());
            mix(name.as_bytes());
            mix(&topic.partitions.to_be_bytes());
        }
    }
    if any { hash.cast_signed() } else { 0 }
}
