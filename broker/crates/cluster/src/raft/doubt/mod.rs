//! Replicas that may have lost what they have answered for.
//!
//! Records of `cached` topics are acknowledged from the page cache. Where the power has failed, or a sync, a replica comes
//! back without the end of its log, and cannot know how much it lacks: the others count on what it said. So it is *in
//! doubt*, and gives no vote and takes no leadership.
//!
//! ```text
//! in doubt ── a leader that a majority confirms says where its log ends ──────────────┬─▶ votes as if its own log
//!    │                                                                                │   had reached until there
//!    └── all other replicas say where their logs end, nobody leads, and those without ┘              │
//!        doubt are no majority: the farthest of all                              its log reaches until there
//!                                                                                                    ▼
//!                                                                                                no doubt
//! ```
//!
//! Invariants
//! - Whatever this replica acknowledged and has lost stands at or before the point that it votes by, if any replica still
//!   has it. A leader's log holds all that is committed, and what it may still count as committed because of lost
//!   acknowledgements came before it was asked. Without a leader, each committed entry is in the log of some replica that
//!   has answered, or of none. So a candidate that gets this vote has all of it (Raft section 5.4.1).
//! - A doubt outlives the process: it stands in the journal before a log is cut because of a failed sync (after a loss of
//!   power, before the power is taken for back), and so does that records may be in the page cache alone, before the first
//!   one is acknowledged from there.
//! - All who have a vote are asked, also those of whom only the others have heard.
//!
//! With `unclean.leader.election.enable` the answers of a majority are enough where nobody has heard of a leader: what only
//! the missing replicas have is given up.
mod answer;
mod ask;
mod farthest;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft_rt::WatchReceiver as _;
use parking_lot::Mutex;
use takhin_config::node::Durability;
use takhin_storage::{JournalError, Log, PreviousStop, RecoveryAction, RecoveryReport};

pub(crate) use ask::watch;

use super::flush::flush;
use super::group::Group;
use super::host::GroupHost;
use super::types::{RaftLogId, RaftStoredMembership, log_id};

/// What a replica in doubt goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    /// Its log may have reached until here, and no farther.
    UpTo(Option<RaftLogId>),
}

/// Whether a replica is in doubt.
#[derive(Default)]
pub(in crate::raft) struct Doubt(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` without doubt.
    known: Option<Known>,
    /// How many doubts there have been: what was asked because of one says nothing of a later one.
    number: u64,
    /// The newest members that others have told of.
    members: Option<RaftStoredMembership>,
    /// Where the own log ended when this replica, as leader, answered one in doubt.
    answered: Option<RaftLogId>,
}

impl Doubt {
    /// Whether the replica may vote for a candidate whose log ends with `last`.
    pub(in crate::raft) fn may_vote_for(&self, last: Option<RaftLogId>) -> bool {
        match self.0.lock().known {
            None => true,
            Some(Known::Nothing) => false,
            Some(Known::UpTo(end)) => last >= end,
        }
    }

    /// Whether there is any.
    pub(in crate::raft) fn is_any(&self) -> bool {
        self.0.lock().known.is_some()
    }

    fn begin(&self) {
        let mut state = self.0.lock();
        state.known = Some(Known::Nothing);
        state.number += 1;
        state.members = None;
    }

    /// The number of the doubt, while there is one.
    fn number(&self) -> Option<u64> {
        let state = self.0.lock();
        state.known.map(|_| state.number)
    }

    fn learn(&self, number: u64, end: Option<RaftLogId>) {
        let mut state = self.0.lock();
        if state.number != number {
            return;
        }
        // What is lost came before the first answer: a leader that is written to does not put it off.
        state.known = state.known.map(|known| match known {
            Known::UpTo(before) => Known::UpTo(before.min(end)),
            Known::Nothing => Known::UpTo(end),
        });
    }

    /// Remembers members that another replica has told of, if they are news.
    fn hear_of(&self, number: u64, members: Option<RaftStoredMembership>) {
        let mut state = self.0.lock();
        let newest = state.members.as_ref().and_then(|known| *known.log_id());
        if state.number == number && members.as_ref().is_some_and(|told| *told.log_id() > newest) {
            state.members = members;
        }
    }

    /// The newer of the members that this replica and the others know of.
    fn newest(&self, own: &RaftStoredMembership) -> RaftStoredMembership {
        let told = self.0.lock().members.clone();
        told.filter(|told| told.log_id() > own.log_id())
            .unwrap_or_else(|| own.clone())
    }

    /// Whether the log ended at `last` already when this was asked before.
    fn has_answered_before(&self, last: Option<RaftLogId>) -> bool {
        std::mem::replace(&mut self.0.lock().answered, last) == last
    }

    /// The number of the doubt, if a log that ends at `last` ends it.
    fn overcome_by(&self, last: Option<RaftLogId>) -> Option<u64> {
        let state = self.0.lock();
        matches!(state.known, Some(Known::UpTo(end)) if last >= end).then_some(state.number)
    }

    /// Ends the doubt of this number; whether it was still the last one.
    fn end(&self, number: u64) -> bool {
        let mut state = self.0.lock();
        let is_last = state.number == number;
        if is_last {
            state.known = None;
            state.members = None;
        }
        is_last
    }
}

impl Group {
    /// Begins a doubt before a log is opened that may lack something: the power was lost, or the log has failed, so that what
    /// it wrote last is cut now. Whether there is one from here on.
    pub(in crate::raft) async fn expect_loss(
        &self,
        host: &GroupHost,
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let (manager, id) = (Arc::clone(&host.manager), self.spec.id);
        let has_failed = host
            .env
            .tasks
            .blocking(move || manager.has_failed(id.into()))
            .await?;
        let lost_power = !self.was_open.load(Ordering::Relaxed) && host.previous == PreviousStop::PowerLoss;
        let may_lack = (has_failed || lost_power) && self.has_cached(host)?;
        if may_lack {
            self.begin_doubt(host).await?;
        }
        Ok(may_lack)
    }

    /// Begins a doubt where opening the log has cut more than was expected. Where that cannot be written down it still is in
    /// memory, and [`Self::recall`] writes it down before the replica answers for anything.
    pub(in crate::raft) async fn find_loss(
        &self,
        host: &GroupHost,
        report: &RecoveryReport,
    ) -> io::Result<()> {
        // What a failed sync may have lost is cut without being damaged.
        let is_cut = |action: &RecoveryAction| matches!(action, RecoveryAction::Cut { damage: None, .. });
        if report.actions.iter().any(is_cut) && self.has_cached(host)? {
            self.begin_doubt(host).await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Whether this replica may have acknowledged what was in the page cache alone. Who has no vote has answered for nothing.
    fn has_cached(&self, host: &GroupHost) -> io::Result<bool> {
        let was_cached = self.is_cached() || host.hard_state.is_cached(self.spec.id);
        Ok(was_cached && host.hard_state.vote(self.spec.id)?.is_some())
    }

    fn is_cached(&self) -> bool {
        self.spec.partition.config().durability == Durability::Cached
    }

    /// In memory first: whoever ends an earlier doubt at this moment sees that there is another one.
    async fn begin_doubt(&self, host: &GroupHost) -> Result<(), JournalError> {
        self.doubt.begin();
        host.hard_state.set_in_doubt(self.spec.id, true).await
    }

    /// Finds out, when the log has been opened, whether the replica is in doubt, and what is to be known of it at the next start.
    pub(in crate::raft) async fn recall(
        &self,
        host: &GroupHost,
        log: &Arc<Log>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let id = self.spec.id;
        if self.doubt.is_any() && !host.hard_state.is_in_doubt(id) {
            host.hard_state.set_in_doubt(id, true).await?;
        }
        // Not before it is written down: whoever opens the log again goes by that.
        self.was_open.store(true, Ordering::Relaxed);
        if self.is_cached() {
            host.hard_state.set_cached(id, true).await?;
        } else if host.hard_state.is_cached(id) && !self.doubt.is_any() {
            // It was altered meanwhile: now all is on the disk.
            flush(&host.flusher, log).await?;
            host.hard_state.set_cached(id, false).await?;
        }
        if host.hard_state.is_in_doubt(id) && !self.doubt.is_any() {
            self.doubt.begin();
        }
        if self.doubt.is_any() {
            let end = log.end().log_end_offset;
            tracing::warn!(partition = %id, end, "acknowledged records may be missing here: no vote before others have said");
        }
        Ok(())
    }

    /// Ends the doubt if the log has reached what is known; whether it has.
    async fn overcome(&self, host: &GroupHost) -> bool {
        let number = self.last().ok().and_then(|last| self.doubt.overcome_by(last));
        let Some(number) = number else { return false };
        if let Err(error) = host.hard_state.set_in_doubt(self.spec.id, false).await {
            tracing::warn!(partition = %self.spec.id, %error, "in doubt still");
            return false;
        }
        if !self.doubt.end(number) {
            // Another one has begun meanwhile, and may have been written down before.
            let again = host.hard_state.set_in_doubt(self.spec.id, true).await;
            if let Err(error) = again {
                tracing::warn!(partition = %self.spec.id, %error, "in doubt until the broker ends only");
            }
            return false;
        }
        if let Some(raft) = self.raft() {
            let may_campaign = self.may_campaign(&raft.server_metrics().borrow_watched());
            raft.runtime_config().elect(may_campaign);
        }
        tracing::info!(partition = %self.spec.id, "nothing is missing any more: votes again");
        host.elections.notify_one();
        true
    }

    /// Whether this replica may lack what it has answered for.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubt.is_any()
    }

    /// The newest members that this replica knows of.
    fn newest_members(&self) -> Option<RaftStoredMembership> {
        if let Some(raft) = self.raft() {
            return Some((*raft.server_metrics().borrow_watched().membership_config).clone());
        }
        // Everything was applied when the group was parked.
        Some(self.ground()?.progress.lock().membership.clone())
    }

    /// The last entry of the log. That there is none, only a log can say: whoever took a partition that is closing for an
    /// empty one would lose a doubt.
    fn last(&self) -> Result<Option<RaftLogId>, &'static str> {
        let last = self.ground().ok_or("the partition is not open")?.log.end().last;
        Ok(last.map(|id| log_id(id.term.into(), id.index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::RaftMembership;

    fn at(index: u64) -> Option<RaftLogId> {
        Some(log_id(2, index))
    }

    #[test]
    fn a_replica_in_doubt_votes_for_whom_has_as_much_as_it_may_have_had() {
        let doubt = Doubt::default();
        assert!(doubt.may_vote_for(None));
        doubt.begin();
        assert!(!doubt.may_vote_for(at(100)));
        doubt.learn(1, at(7));
        assert!(!doubt.may_vote_for(at(6)) && doubt.may_vote_for(at(7)));
        assert!(doubt.may_vote_for(Some(log_id(3, 1))), "of a later term");
        assert_eq!(
            (doubt.overcome_by(at(6)), doubt.overcome_by(at(7))),
            (None, Some(1))
        );
        doubt.learn(1, at(9));
        assert!(doubt.may_vote_for(at(7)), "what came since was never here");
        // What was answered to an earlier doubt says nothing of this one.
        doubt.begin();
        doubt.learn(1, at(7));
        assert!(!doubt.may_vote_for(at(7)) && !doubt.end(1) && doubt.is_any());
        doubt.learn(2, at(8));
        assert!(doubt.may_vote_for(at(8)) && doubt.end(2) && !doubt.is_any());
    }

    #[test]
    fn the_newest_members_that_anybody_knows_of_are_asked() {
        let of = |index| RaftStoredMembership::new(at(index), RaftMembership::default());
        let doubt = Doubt::default();
        doubt.begin();
        doubt.hear_of(1, Some(of(4)));
        doubt.hear_of(1, Some(of(3)));
        doubt.hear_of(1, None);
        assert_eq!(*doubt.newest(&of(2)).log_id(), at(4));
        assert_eq!(*doubt.newest(&of(5)).log_id(), at(5), "its log has caught up");
        doubt.begin();
        doubt.hear_of(1, Some(of(9)));
        assert_eq!(*doubt.newest(&of(2)).log_id(), at(2));
    }

    /// Each question would have cost an entry, also where writers bring enough of them.
    #[test]
    fn only_a_leader_that_nobody_writes_to_appends_an_entry_of_its_own() {
        let doubt = Doubt::default();
        assert!(!doubt.has_answered_before(at(4)));
        assert!(!doubt.has_answered_before(at(5)), "somebody has written");
        assert!(doubt.has_answered_before(at(5)));
    }
}
