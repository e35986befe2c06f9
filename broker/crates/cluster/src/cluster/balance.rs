//! Moving leadership deliberately: to the preferred replica when it is there, and away from a broker that stops (from one
//! that is being drained: `drain.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use uuid::Uuid;

use super::{Cluster, node_number};
use crate::leaders::Leadership;
use crate::links::{Class, Kind};
use crate::partition::PartitionId;
use crate::raft::{Group, encode_pass};

/// Pause between two looks for partitions that another broker ought to lead.
const ROUND: Duration = Duration::from_secs(10);

/// Leaderships that are passed on at a time. Each stops its partition for as long as a few syncs take, and for longer the more
/// of them there are at once.
const AT_A_TIME: usize = 4;

/// How long an election that was asked for may take.
const ELECTION: Duration = Duration::from_secs(5);

/// Pause before a leader is asked again to pass leadership on, unless there is news before.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How long a stopping broker tries to have others lead.
const GIVE_AWAY: Duration = Duration::from_secs(10);

/// Why the preferred replica was not elected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoElection {
    /// It leads already.
    #[error("the preferred replica leads already")]
    NotNeeded,
    /// The preferred replica is away or behind, or did not take over in time.
    #[error("the preferred replica, broker {0}, cannot lead at the moment")]
    NotAvailable(i32),
    /// The preferred replica's broker is to lead nothing.
    #[error(
        "the preferred replica, broker {0}, is being drained or decommissioned and leads nothing until that is taken back"
    )]
    Draining(i32),
    /// Nobody leads; the replicas elect one as soon as a majority is there.
    #[error("the partition has no leader that could pass leadership on")]
    NoLeader,
}

impl Cluster {
    /// Has the preferred replica of a partition lead it; returns once it does.
    ///
    /// # Errors
    /// [`NoElection`].
    ///
    /// # Cancel safety
    /// The election may still be held.
    pub async fn elect_preferred(&self, topic_id: Uuid, index: i32) -> Result<(), NoElection> {
        let id = PartitionId { topic_id, index };
        let image = self.image();
        let placement = image.partition(topic_id, index);
        let preferred = placement.and_then(|placement| placement.replicas.first().copied());
        let (Some(preferred), Some(now)) = (preferred, self.exchange.leaders.of(id)) else {
            return Err(NoElection::NoLeader);
        };
        if now.leader == preferred {
            return Err(NoElection::NotNeeded);
        }
        if now.leader < 0 {
            return Err(NoElection::NoLeader);
        }
        if image.is_to_lead_nothing(preferred) {
            return Err(NoElection::Draining(preferred));
        }
        if !now.in_sync.contains(&preferred) {
            return Err(NoElection::NotAvailable(preferred));
        }
        let passed = self.until_led_by(id, preferred);
        let passed = self.env.clock.timeout(ELECTION, passed).await;
        passed.map_err(|_| NoElection::NotAvailable(preferred))
    }

    /// Asks whoever leads, again and again: it may pass leadership on already, or the replica may be a little behind.
    async fn until_led_by(&self, id: PartitionId, preferred: i32) {
        let is_led = || self.leadership(id.topic_id, id.index).map(|(leader, _)| leader) == Some(preferred);
        loop {
            let word = self.exchange.leaders.of(id);
            if is_led() {
                return;
            }
            let leader = word.as_ref().map(|word| word.leader);
            if let Some(leader) = leader.filter(|leader| *leader >= 0)
                && let Err(reason) = self.ask_to_pass(leader, id, preferred).await
            {
                tracing::debug!(partition = %id, reason, "preferred replica not elected yet");
            }
            // Without news in time: what was told may have been lost.
            let news = self.another_word(id, word.as_ref());
            let _ = self.env.clock.timeout(ASK_AGAIN, news).await;
        }
    }

    /// Waits until something else is said of a partition. There may be news of thousands of others.
    async fn another_word(&self, id: PartitionId, word: Option<&Leadership>) {
        let leaders = &self.exchange.leaders;
        loop {
            let seen = leaders.seen();
            if leaders.of(id).as_ref() != word {
                return;
            }
            leaders.seen_after(seen).await;
        }
    }

    async fn ask_to_pass(&self, leader: i32, id: PartitionId, to: i32) -> Result<(), String> {
        if leader == self.node_id() {
            let group = self.exchange.groups.read().get(&id).cloned();
            let group = group.ok_or("no replica is here")?;
            return group.pass_to(&self.host, node_number(to)).await;
        }
        let body = encode_pass(id, node_number(to));
        let asked = self.host.links.call(
            leader.unsigned_abs(),
            Class::Control,
            0,
            Kind::Pass,
            body,
            ELECTION,
        );
        asked.await.map(drop).map_err(|e| e.to_string())
    }

    /// What another broker asks: that this one pass a partition's leadership on.
    pub(crate) async fn pass(&self, group: &Group, to: u64) -> Result<(), String> {
        group.pass_to(&self.host, to).await
    }

    /// Has other replicas lead what this broker leads, as far as there are any; takes ten seconds at most. From now on it
    /// looks for no partition that another one ought to lead. Called before a stop, so that clients find the new leaders
    /// while this broker still answers.
    ///
    /// # Cancel safety
    /// Safe; what was begun goes on.
    pub async fn give_leadership_away(&self) {
        self.is_leaving.store(true, Ordering::Release);
        let away = async {
            // Twice: another broker may have passed one here meanwhile.
            for _ in 0..2 {
                let led: Vec<_> = self
                    .exchange
                    .all_groups()
                    .into_iter()
                    .filter_map(|group| Some((self.successor(&group)?, group)))
                    .collect();
                self.pass_on(led).await;
            }
        };
        if self.env.clock.timeout(GIVE_AWAY, away).await.is_err() {
            tracing::warn!("some partitions are still led here; they get leaders once this broker is missed");
        }
    }

    /// Who is to lead a group that is led here: the first of the other replicas that is in sync.
    pub(super) fn successor(&self, group: &Group) -> Option<u64> {
        group.spec.partition.leadership()?;
        group.successor(&self.host)
    }

    pub(super) async fn pass_on(&self, led: Vec<(u64, Arc<Group>)>) {
        stream::iter(led)
            .for_each_concurrent(AT_A_TIME, async |(to, group)| {
                if let Err(reason) = group.pass_to(&self.host, to).await {
                    tracing::info!(partition = %group.spec.id, reason, "leadership not passed on");
                }
            })
            .await;
    }

    /// Partitions led here whose preferred replica is another one, which is in sync.
    fn strays(&self) -> Vec<(u64, Arc<Group>)> {
        let groups: Vec<Arc<Group>> = self.exchange.groups.read().values().cloned().collect();
        let draining = self.host.draining();
        let stray = |group: Arc<Group>| {
            let preferred = group.preferred()?;
            let id = group.spec.id;
            let word = self.exchange.leaders.of(id)?;
            let broker = i32::try_from(preferred).ok()?;
            let is_due = word.leader == self.node_id()
                && broker != self.node_id()
                && !draining.contains(&preferred)
                && word.in_sync.contains(&broker)
                && self.host.is_present(preferred);
            is_due.then_some((preferred, group))
        };
        groups.into_iter().filter_map(stray).collect()
    }
}

/// Passes leadership back to preferred replicas that have been in sync for a while, until the node stops.
pub(super) async fn keep(cluster: Arc<Cluster>) {
    let mut before: BTreeSet<PartitionId> = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(ROUND) => {}
        }
        if cluster.is_leaving.load(Ordering::Acquire) {
            return;
        }
        let strays = cluster.strays();
        let now: BTreeSet<PartitionId> = strays.iter().map(|(_, group)| group.spec.id).collect();
        // Only what was so at the last look too: a broker that has just come back has enough to do.
        let due = strays
            .into_iter()
            .filter(|(_, group)| before.contains(&group.spec.id));
        let due = due.collect();
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.pass_on(due) => {}
        }
        before = now;
    }
}
