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
//! - A doubt outlives the process: it stands in the journal, and so does that records may be in the page cache alone,
//!   before the first one is acknowledged from there.
//!
//! With `unclean.leader.election.enable` the answers of a majority are enough where nobody leads: what only the missing
//! replicas have is given up.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use openraft_rt::WatchReceiver as _;
use parking_lot::Mutex;
use takhin_config::node::Durability;
use takhin_runtime::Shutdown;
use takhin_storage::{Log, PreviousStop, RecoveryAction, RecoveryReport};

use super::flush::flush;
use super::group::Group;
use super::host::GroupHost;
use super::types::{RaftLogId, Voter, log_id};
use super::wire::{self, WireError};
use crate::links::{Class, Kind};

/// How often replicas in doubt ask.
const PAUSE: Duration = Duration::from_millis(500);

/// How long another replica has to answer; a leader has a majority confirm it before.
const ANSWER: Duration = Duration::from_secs(3);

/// Replicas that ask at a time; the others wait.
const AT_A_TIME: usize = 32;

/// What a replica in doubt goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    /// Its log may have reached until here, and no farther.
    UpTo(Option<RaftLogId>),
}

/// Whether a replica is in doubt.
#[derive(Default)]
pub(super) struct Doubt(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` without doubt.
    known: Option<Known>,
    /// How many doubts there have been: what was asked because of one says nothing of a later one.
    number: u64,
}

impl Doubt {
    /// Whether the replica may vote for a candidate whose log ends with `last`.
    pub(super) fn may_vote_for(&self, last: Option<RaftLogId>) -> bool {
        match self.0.lock().known {
            None => true,
            Some(Known::Nothing) => false,
            Some(Known::UpTo(end)) => last >= end,
        }
    }

    /// Whether there is any.
    pub(super) fn is_any(&self) -> bool {
        self.0.lock().known.is_some()
    }

    fn begin(&self) {
        let mut state = self.0.lock();
        state.known = Some(Known::Nothing);
        state.number += 1;
    }

    /// The number of the doubt, while there is one.
    fn number(&self) -> Option<u64> {
        let state = self.0.lock();
        state.known.map(|_| state.number)
    }

    fn learn(&self, number: u64, end: Option<RaftLogId>) {
        let mut state = self.0.lock();
        if state.number == number && state.known.is_some() {
            state.known = Some(Known::UpTo(end));
        }
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
        }
        is_last
    }
}

/// Where a replica's log ends, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    last: Option<RaftLogId>,
    of: Of,
}

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// That of a leader whom a majority has confirmed.
    Leader = 0,
    /// That of a replica that has all that it answered for.
    Sound = 1,
    /// That of one in doubt.
    InDoubt = 2,
}

impl Group {
    /// Remembers what opening the log has cut, until it is written down.
    pub(super) fn note_cut(&self, report: &RecoveryReport) {
        // What a failed sync may have lost is cut without being damaged.
        let is_cut = |action: &RecoveryAction| matches!(action, RecoveryAction::Cut { damage: None, .. });
        if report.actions.iter().any(is_cut) {
            self.was_cut.store(true, Ordering::Relaxed);
        }
    }

    /// Finds out, when the log has been opened, whether the replica is in doubt, and what is to be known of it at the next start.
    pub(super) async fn recall(
        &self,
        host: &GroupHost,
        log: &Arc<Log>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let id = self.spec.id;
        let lost_power = !self.was_open.load(Ordering::Relaxed) && host.previous == PreviousStop::PowerLoss;
        let may_lack = lost_power || self.was_cut.load(Ordering::Relaxed);
        let is_cached = self.spec.partition.config().durability == Durability::Cached;
        let was_cached = is_cached || host.hard_state.is_cached(id);
        // Who has no vote has answered for nothing.
        let is_new = may_lack && was_cached && host.hard_state.vote(id)?.is_some();
        if is_new {
            host.hard_state.set_in_doubt(id, true).await?;
        }
        // Not before it is written down: whoever opens the log again goes by that.
        self.was_open.store(true, Ordering::Relaxed);
        self.was_cut.store(false, Ordering::Relaxed);
        if is_cached {
            host.hard_state.set_cached(id, true).await?;
        } else if was_cached && !is_new {
            // It was altered meanwhile: now all is on the disk.
            flush(&host.flusher, log).await?;
            host.hard_state.set_cached(id, false).await?;
        }
        if is_new || host.hard_state.is_in_doubt(id) {
            let end = log.end().log_end_offset;
            tracing::warn!(partition = %id, end, "acknowledged records may be missing here: no vote before others have said");
            self.doubt.begin();
        }
        Ok(())
    }

    /// Asks the other replicas, if this one is in doubt and open.
    async fn ask_others(&self, host: &GroupHost) {
        let (Some(raft), Some(number)) = (self.raft(), self.doubt.number()) else {
            return;
        };
        if self.overcome(host).await {
            return;
        }
        let membership = raft.server_metrics().borrow_watched().membership_config.clone();
        let membership = membership.membership();
        let mut configs = membership.get_joint_config().clone();
        let mut nodes: Vec<(u64, Voter)> = membership
            .nodes()
            .map(|(id, voter)| (*id, voter.clone()))
            .collect();
        if nodes.is_empty() {
            // The founding entry is lost.
            configs = vec![self.spec.founders.keys().copied().collect()];
            nodes = self
                .spec
                .founders
                .iter()
                .map(|(id, voter)| (*id, voter.clone()))
                .collect();
        }
        let Ok(own) = self.last() else { return };
        let others = nodes.iter().filter(|(node, _)| *node != host.node);
        let asked = others.map(async |(node, voter)| {
            let target = u32::try_from(*node).ok()?;
            let body = encode_question(self, voter, own);
            let answer = host
                .links
                .call(target, Class::Control, 0, Kind::Recall, body, ANSWER);
            let end = answer.await.map_err(|e| e.to_string());
            let end = end.and_then(|body| decode_end(body).map_err(|e| e.to_string()));
            if let Err(reason) = &end {
                tracing::debug!(partition = %self.spec.id, node, reason, "no word of where its log ends");
            }
            Some((*node, end.ok()?))
        });
        let ends: Vec<(u64, End)> = join_all(asked).await.into_iter().flatten().collect();
        let may_give_up = self.spec.partition.config().unclean_leader_election;
        if let Some(end) = farthest(host.node, own, &configs, &ends, may_give_up) {
            self.doubt.learn(number, end);
            self.overcome(host).await;
        }
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
            raft.runtime_config().elect(true);
        }
        tracing::info!(partition = %self.spec.id, "nothing is missing any more: votes again");
        host.elections.notify_one();
        true
    }

    /// Whether this replica may lack what it has answered for.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubt.is_any()
    }

    /// Answers a replica in doubt.
    pub(crate) async fn answer_doubt(&self, mut body: Bytes) -> Result<Bytes, String> {
        wire::meant_for(&self.spec.voter, &mut body)?;
        let asks = decode_question(body).map_err(|e| e.to_string())?;
        let partition = &self.spec.partition;
        let Some(epoch) = partition.leadership() else {
            let of = if self.doubt.is_any() {
                Of::InDoubt
            } else {
                Of::Sound
            };
            let last = self.last().map_err(str::to_owned)?;
            return Ok(encode_end(End { last, of }));
        };
        let term = u64::try_from(epoch).map_err(|e| e.to_string())?;
        if !self.is_confirmed(term).await {
            return Err("no majority confirms this leader".to_owned());
        }
        let last = self.last().map_err(str::to_owned)?;
        if asks < last {
            // openraft may believe that it has all; it learns better with the next entry. This one changes nothing.
            // Refused only when leadership is lost or passed on, which another question tells.
            let _ = partition.propose_log_start(partition.offsets().log_start_offset);
        }
        Ok(encode_end(End { last, of: Of::Leader }))
    }

    /// The last entry of the log. That there is none, only a log can say: whoever took a partition that is closing for an
    /// empty one would lose a doubt.
    fn last(&self) -> Result<Option<RaftLogId>, &'static str> {
        let last = self.ground().ok_or("the partition is not open")?.log.end().last;
        Ok(last.map(|id| log_id(id.term.into(), id.index)))
    }
}

/// Until where the log of replica `own` may have reached, which ends at `last` now: `None` as long as that is not known,
/// or a majority can do without it.
#[allow(clippy::option_option, reason = "a log may be empty")]
fn farthest(
    own: u64,
    last: Option<RaftLogId>,
    configs: &[BTreeSet<u64>],
    ends: &[(u64, End)],
    may_give_up: bool,
) -> Option<Option<RaftLogId>> {
    if let Some((_, leader)) = ends.iter().find(|(_, end)| end.of == Of::Leader) {
        return Some(leader.last);
    }
    let is_majority = |of: &dyn Fn(u64) -> bool| {
        let has = |config: &BTreeSet<u64>| config.iter().filter(|node| of(**node)).count() > config.len() / 2;
        configs.iter().all(has)
    };
    let said = |node: u64| ends.iter().find(|(other, _)| *other == node).map(|(_, end)| end);
    let has_said = |node: u64| node == own || said(node).is_some();
    let is_sound = |node: u64| said(node).is_some_and(|end| end.of == Of::Sound);
    if is_majority(&is_sound) {
        return None;
    }
    let enough = match may_give_up {
        true => is_majority(&has_said),
        false => configs.iter().flatten().all(|node| has_said(*node)),
    };
    // A replica that has no vote cannot lead, whatever it has.
    let votes = |node: &u64| configs.iter().any(|config| config.contains(node));
    let lasts = ends
        .iter()
        .filter(|(node, _)| votes(node))
        .map(|(_, end)| end.last);
    enough.then(|| lasts.max().flatten().max(last))
}

/// Has the replicas in doubt ask until `stop`.
pub(crate) async fn watch(host: Arc<GroupHost>, groups: impl Fn() -> Vec<Arc<Group>>, stop: Shutdown) {
    loop {
        let mut asking = groups();
        asking.retain(|group| group.doubt.is_any());
        let asking = stream::iter(asking);
        let asking = asking.for_each_concurrent(AT_A_TIME, async |group| group.ask_others(&host).await);
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = async {
                asking.await;
                host.env.clock.sleep(PAUSE).await;
            } => {}
        }
    }
}

/// Group and voter as of every request | the asker's last entry: see [`wire`].
fn encode_question(group: &Group, voter: &Voter, last: Option<RaftLogId>) -> Vec<Bytes> {
    let mut out = wire::addressed(group.spec.id, voter);
    wire::put_log_id(&mut out, last.as_ref());
    vec![out.freeze()]
}

fn decode_question(mut body: Bytes) -> Result<Option<RaftLogId>, WireError> {
    wire::take_log_id(&mut body)
}

/// Whose log u8 | last entry.
fn encode_end(end: End) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(end.of as u8);
    wire::put_log_id(&mut out, end.last.as_ref());
    out.freeze()
}

fn decode_end(mut body: Bytes) -> Result<End, WireError> {
    wire::need(&body, 1)?;
    let of = match body.get_u8() {
        0 => Of::Leader,
        1 => Of::Sound,
        2 => Of::InDoubt,
        other => return Err(WireError::Tag(other)),
    };
    Ok(End {
        last: wire::take_log_id(&mut body)?,
        of,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 3;

    fn at(index: u64) -> Option<RaftLogId> {
        Some(log_id(2, index))
    }

    /// Where the log of the third of three replicas may have reached, which ends at 5.
    #[allow(clippy::option_option, reason = "as what is tested")]
    fn known(ends: &[(u64, Of, u64)], may_give_up: bool) -> Option<Option<RaftLogId>> {
        let end = |(node, of, index): &(u64, Of, u64)| {
            (
                *node,
                End {
                    last: at(*index),
                    of: *of,
                },
            )
        };
        let ends: Vec<_> = ends.iter().map(end).collect();
        farthest(OWN, at(5), &[BTreeSet::from([1, 2, OWN])], &ends, may_give_up)
    }

    #[test]
    fn a_leader_is_believed_and_otherwise_the_farthest_of_all() {
        use Of::{InDoubt, Leader, Sound};
        assert_eq!(known(&[], false), None);
        assert_eq!(known(&[(1, InDoubt, 4), (2, Leader, 7)], false), Some(at(7)));
        assert_eq!(known(&[(1, InDoubt, 4), (2, Sound, 9)], false), Some(at(9)));
        assert_eq!(known(&[(1, InDoubt, 4), (2, InDoubt, 3)], false), Some(at(5)));
        // Those without doubt elect one of themselves.
        assert_eq!(known(&[(1, Sound, 4), (2, Sound, 9)], false), None);
        // The other may have more.
        assert_eq!(known(&[(1, Sound, 9)], false), None);
        assert_eq!(known(&[(1, Sound, 9)], true), Some(at(9)));
        assert_eq!(known(&[], true), None);
    }

    #[test]
    fn while_voters_change_both_sets_have_a_word() {
        let configs = [BTreeSet::from([1, 2, OWN]), BTreeSet::from([2, OWN, 4])];
        let sound = |node, index| {
            (
                node,
                End {
                    last: at(index),
                    of: Of::Sound,
                },
            )
        };
        let ends = [sound(1, 4), sound(2, 9)];
        assert_eq!(
            farthest(OWN, at(5), &configs, &ends, false),
            None,
            "4 has not answered"
        );
        assert_eq!(farthest(OWN, at(5), &configs, &ends, true), Some(at(9)));
        let ends = [sound(1, 4), sound(2, 9), sound(4, 1)];
        assert_eq!(
            farthest(OWN, at(5), &configs, &ends, false),
            None,
            "they elect a leader"
        );
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
        // What was answered to an earlier doubt says nothing of this one.
        doubt.begin();
        doubt.learn(1, at(7));
        assert!(!doubt.may_vote_for(at(7)) && !doubt.end(1) && doubt.is_any());
        doubt.learn(2, at(8));
        assert!(doubt.may_vote_for(at(8)) && doubt.end(2) && !doubt.is_any());
    }

    #[test]
    fn a_replica_without_a_vote_is_not_waited_for() {
        let end = |node, index| {
            (
                node,
                End {
                    last: at(index),
                    of: Of::InDoubt,
                },
            )
        };
        let ends = [end(1, 4), end(2, 7), end(4, 10)];
        let configs = [BTreeSet::from([1, 2, OWN])];
        assert_eq!(farthest(OWN, at(5), &configs, &ends, false), Some(at(7)));
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        for of in [Of::Leader, Of::Sound, Of::InDoubt] {
            for last in [None, at(8)] {
                let bytes = encode_end(End { last, of });
                assert_eq!(decode_end(bytes.clone()).unwrap(), End { last, of });
                assert!(decode_end(bytes.slice(..bytes.len() - 1)).is_err());
            }
        }
        assert!(decode_end(Bytes::from_static(&[3, 0])).is_err());
    }
}
