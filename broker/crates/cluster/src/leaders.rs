//! Who leads which partition, as the leaders themselves say.
//!
//! Leadership is decided within each partition's group and is not written to the metadata log. Every broker tells every
//! other what it leads, and what it no longer leads, as soon as that changes; a broker that begins anew is told
//! everything. A reader keeps for each partition the word of the highest leader epoch, and never goes back to a lower one
//! (KIP-320: a client that has seen an epoch refuses older metadata).

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use takhin_runtime::Published;
use takhin_runtime::clock::{Clock, Instant};
use uuid::Uuid;

use crate::metrics::ISR;
use crate::partition::PartitionId;

/// What a leader says of its partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leadership {
    /// Broker id of the leader; -1 if that broker leads no longer and nobody else is known to.
    pub(crate) leader: i32,
    /// Its epoch.
    pub(crate) epoch: i32,
    /// Replicas that have all committed records, by broker id.
    pub(crate) in_sync: Vec<i32>,
}

/// One broker's word on some of the partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) partitions: Vec<(Uuid, i32, Leadership)>,
}

#[derive(Debug)]
struct Own {
    leadership: Leadership,
    /// Number of the change that made it so.
    change: u64,
}

#[derive(Debug, Default)]
struct Table {
    /// What this broker says.
    own: BTreeMap<PartitionId, Own>,
    /// What others say.
    others: BTreeMap<PartitionId, Leadership>,
    /// Brokers that are gone.
    gone: BTreeSet<i32>,
    /// When some partition was last found to have no leader any more.
    lost_at: Option<Instant>,
    changes: u64,
}

impl Table {
    fn of(&self, id: PartitionId) -> Option<&Leadership> {
        let own = self.own.get(&id).map(|own| &own.leadership);
        let other = self.others.get(&id);
        match (own, other) {
            (Some(own), Some(other)) if other.epoch > own.epoch => Some(other),
            (Some(own), _) => Some(own),
            (None, other) => other,
        }
    }
}

/// Who leads which partition.
#[derive(Debug)]
pub(crate) struct Leaders {
    node: i32,
    clock: Clock,
    table: RwLock<Table>,
    /// Number of this broker's last change.
    changed: Published<u64>,
    /// Grows with every change seen, own or not.
    seen: Published<u64>,
}

impl Leaders {
    pub(crate) fn new(node: i32, clock: Clock) -> Self {
        Self {
            node,
            clock,
            table: RwLock::default(),
            changed: Published::new(0),
            seen: Published::new(0),
        }
    }

    /// This broker leads the partition in this epoch, with these replicas in sync.
    pub(crate) fn lead(&self, id: PartitionId, epoch: i32, in_sync: Vec<i32>) {
        let leadership = Leadership {
            leader: self.node,
            epoch,
            in_sync,
        };
        self.say(id, Some(leadership));
    }

    /// These replicas are in sync now, if this broker still leads in this epoch.
    pub(crate) fn set_in_sync(&self, id: PartitionId, epoch: i32, in_sync: Vec<i32>) {
        let table = self.table.read();
        let own = table.own.get(&id).map(|own| &own.leadership);
        let is_news =
            |own: &&Leadership| own.leader == self.node && own.epoch == epoch && own.in_sync != in_sync;
        let lacks = |one: &[i32], other: &[i32]| other.iter().any(|replica| !one.contains(replica));
        let change = own
            .filter(is_news)
            .map(|own| (lacks(&in_sync, &own.in_sync), lacks(&own.in_sync, &in_sync)));
        drop(table);
        // Only the task that gains and loses leadership, and the one that calls this, speak for a partition. Should
        // leadership end right here, the next leader has a higher epoch and is believed.
        let Some((shrinks, expands)) = change else {
            return;
        };
        if shrinks {
            ISR.shrinks.inc();
        }
        if expands {
            ISR.expands.inc();
        }
        self.lead(id, epoch, in_sync);
    }

    /// This broker leads the partition no longer, if it did.
    pub(crate) fn give_up(&self, id: PartitionId) {
        self.say(id, None);
    }

    fn say(&self, id: PartitionId, leadership: Option<Leadership>) {
        let mut table = self.table.write();
        let before = table.own.get(&id).map(|own| own.leadership.clone());
        let leadership = match (leadership, before.clone()) {
            (Some(leadership), _) => leadership,
            (None, Some(before)) => Leadership { leader: -1, ..before },
            (None, None) => return,
        };
        if before.as_ref() == Some(&leadership) {
            return;
        }
        table.changes += 1;
        let change = table.changes;
        if leadership.leader == -1 {
            table.lost_at = Some(self.clock.instant());
        }
        table.own.insert(id, Own { leadership, change });
        drop(table);
        self.changed.update(|last| *last = change);
        self.seen.update(|seen| *seen += 1);
    }

    /// Forgets a partition that is no longer here, or nowhere.
    pub(crate) fn forget(&self, id: PartitionId) {
        self.table.write().own.remove(&id);
    }

    /// Forgets what others said of partitions that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&PartitionId) -> bool) {
        self.table.write().others.retain(|id, _| exists(id));
    }

    /// Takes in what broker `from` says; whether it gives a partition up.
    pub(crate) fn hear(&self, from: i32, announcement: Announcement) -> bool {
        let mut table = self.table.write();
        let (mut news, mut gives_up) = (false, false);
        for (topic_id, index, word) in announcement.partitions {
            let id = PartitionId { topic_id, index };
            if word.leader != from && word.leader != -1 {
                continue;
            }
            let known = table.others.get(&id);
            let is_newer = known.is_none_or(|known| {
                // Within an epoch there is one leader, and what it says last counts.
                word.epoch > known.epoch || (word.epoch == known.epoch && word != *known)
            });
            if is_newer {
                gives_up |= word.leader == -1;
                table.others.insert(id, word);
                news = true;
            }
        }
        if gives_up {
            table.lost_at = Some(self.clock.instant());
        }
        drop(table);
        if news {
            self.seen.update(|seen| *seen += 1);
        }
        gives_up
    }

    /// A broker's process has begun anew: whatever it led before, it leads no longer, as it resumes no term.
    pub(crate) fn begun_anew(&self, node: i32) {
        let mut table = self.table.write();
        for word in table.others.values_mut().filter(|word| word.leader == node) {
            word.leader = -1;
        }
        table.lost_at = Some(self.clock.instant());
        drop(table);
        self.seen.update(|seen| *seen += 1);
    }

    /// These brokers are gone; all others may be there. What one of them led has no leader until another one says so, or
    /// it is there again.
    pub(crate) fn set_gone(&self, gone: BTreeSet<i32>) {
        let mut table = self.table.write();
        if table.gone != gone {
            if !gone.is_subset(&table.gone) {
                table.lost_at = Some(self.clock.instant());
            }
            table.gone = gone;
            drop(table);
            self.seen.update(|seen| *seen += 1);
        }
    }

    /// The word of the highest epoch on a partition.
    pub(crate) fn of(&self, id: PartitionId) -> Option<Leadership> {
        self.table.read().of(id).cloned()
    }

    /// That word on every partition that there is one on.
    pub(crate) fn words(&self) -> BTreeMap<PartitionId, Leadership> {
        let table = self.table.read();
        let ids = table.own.keys().chain(table.others.keys());
        ids.filter_map(|id| Some((*id, table.of(*id)?.clone()))).collect()
    }

    /// Leader and epoch of that word; -1 for a leader that is gone, so that clients ask again soon instead of trying it.
    pub(crate) fn leader_of(&self, id: PartitionId) -> Option<(i32, i32)> {
        let table = self.table.read();
        let word = table.of(id)?;
        let leader = if table.gone.contains(&word.leader) {
            -1
        } else {
            word.leader
        };
        Some((leader, word.epoch))
    }

    /// Whether the leader of `epoch` has said that it leads the partition no longer.
    pub(crate) fn has_given_up(&self, id: PartitionId, epoch: i32) -> bool {
        let table = self.table.read();
        let word = table.others.get(&id);
        word.is_some_and(|word| word.leader == -1 && word.epoch == epoch)
    }

    /// What has changed after `change`, and the number of the last change.
    pub(crate) fn since(&self, change: u64) -> (Vec<(Uuid, i32, Leadership)>, u64) {
        let table = self.table.read();
        let later = table.own.iter().filter(|(_, own)| own.change > change);
        let words = later.map(|(id, own)| (id.topic_id, id.index, own.leadership.clone()));
        (words.collect(), table.changes)
    }

    /// Returns once there is a change after `change`.
    pub(crate) async fn change_after(&self, change: u64) {
        self.changed.wait_for(|last| *last > change).await;
    }

    /// When some partition, whichever, was last found to have no leader any more.
    pub(crate) fn lost_at(&self) -> Option<Instant> {
        self.table.read().lost_at
    }

    /// How many changes have been seen, own or not.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.get()
    }

    /// Returns once more changes have been seen than `seen`.
    pub(crate) async fn seen_after(&self, seen: u64) {
        self.seen.wait_for(|now| *now > seen).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId {
        topic_id: Uuid::from_u128(1),
        index: 0,
    };

    fn word(leader: i32, epoch: i32) -> Leadership {
        Leadership {
            leader,
            epoch,
            in_sync: vec![leader],
        }
    }

    fn hear(leaders: &Leaders, from: i32, word: Leadership) -> bool {
        let announcement = Announcement {
            partitions: vec![(P.topic_id, P.index, word)],
        };
        leaders.hear(from, announcement)
    }

    #[test]
    fn the_highest_epoch_counts_whoever_speaks_last() {
        let leaders = Leaders::new(1, Clock::real());
        leaders.lead(P, 3, vec![1]);
        hear(&leaders, 2, word(2, 5));
        hear(&leaders, 3, word(3, 4));
        assert_eq!(leaders.of(P).map(|of| (of.leader, of.epoch)), Some((2, 5)));
        leaders.lead(P, 6, vec![1]);
        assert_eq!(leaders.of(P).map(|of| (of.leader, of.epoch)), Some((1, 6)));
    }

    #[test]
    fn nobody_speaks_for_another() {
        let leaders = Leaders::new(1, Clock::real());
        hear(&leaders, 2, word(3, 5));
        assert_eq!(leaders.of(P), None);
    }

    #[test]
    fn a_broker_that_is_gone_leads_nothing_and_one_that_begins_anew_nothing_it_led() {
        let leaders = Leaders::new(1, Clock::real());
        hear(&leaders, 2, word(2, 5));
        leaders.set_gone([2].into());
        assert_eq!(leaders.leader_of(P), Some((-1, 5)));
        // It was not gone after all.
        leaders.set_gone(BTreeSet::new());
        assert_eq!(leaders.leader_of(P), Some((2, 5)));
        leaders.begun_anew(3);
        assert_eq!(leaders.leader_of(P), Some((2, 5)));
        leaders.begun_anew(2);
        assert_eq!(leaders.leader_of(P), Some((-1, 5)));
        assert!(leaders.has_given_up(P, 5));
        hear(&leaders, 2, word(2, 6));
        assert_eq!(leaders.leader_of(P), Some((2, 6)));
    }

    #[test]
    fn a_leader_that_gives_up_keeps_its_epoch_until_the_next_leads() {
        let leaders = Leaders::new(1, Clock::real());
        leaders.lead(P, 3, vec![1, 2]);
        let (_, change) = leaders.since(0);
        leaders.give_up(P);
        let (words, _) = leaders.since(change);
        assert_eq!(words.len(), 1);
        assert_eq!((words[0].2.leader, words[0].2.epoch), (-1, 3));
        assert_eq!(leaders.since(change + 1).0, []);
        assert!(!hear(&leaders, 2, word(2, 4)));
        assert!(hear(&leaders, 2, word(-1, 4)));
        assert!(leaders.has_given_up(P, 4));
        assert!(!leaders.has_given_up(P, 5));
    }
}
