//! The replica's side of a copy.
//!
//! Bounded by [`MAX_COPIES`] at a time on a node, and as many that are throttled: the next one is refused, and its leader
//! tries again. One that is not gone on with for [`ABANDONED`] makes room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use takhin_config::topic::ThrottledReplicas;
use takhin_runtime::clock::Instant;
use takhin_storage::{CheckedCopy, EntryId, Incoming, LogError, Replaced};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::wire::{self, Begin, Step};
use crate::raft::group::Group;
use crate::raft::hard_state::{GroupId, GroupState, encode_state};
use crate::raft::host::{GroupHost, log_options};
use crate::raft::types::RaftVote;

const MAX_COPIES: usize = 4;

const UNKNOWN: &str = "this copy is not known; it was given up";

const ABANDONED: Duration = Duration::from_secs(60);

/// How long a group may take to open its new log before its leader is told that it failed.
const REOPEN: Duration = Duration::from_secs(60);

const LOOK: Duration = Duration::from_millis(20);

/// The copies that a node is receiving, one per group at most.
#[derive(Default)]
pub(in crate::raft) struct Copies(Mutex<BTreeMap<GroupId, Receiving>>);

struct Receiving {
    session: Uuid,
    phase: Phase,
    touched: Instant,
    /// Whether its topic has it throttled: it may take long, and stands in the way of its like only.
    is_slow: bool,
}

enum Phase {
    /// Parts are coming; `None` while one is being written.
    Parts(Option<Box<Unfinished>>),
    /// Being checked and put in place.
    Finishing,
    Done(RaftVote),
    Failed(String),
}

struct Unfinished {
    incoming: Incoming,
    vote: RaftVote,
    state: GroupState,
}

/// A checked copy that waits for the group's instance to end.
pub(in crate::raft) struct Replacement {
    copy: CheckedCopy,
    state: GroupState,
    done: oneshot::Sender<Result<Replaced, LogError>>,
}

impl Replacement {
    /// Has the copy take the log's place, unless the log has caught up by other means. Nothing may be appended to it.
    pub(in crate::raft) async fn take_place(self, host: &GroupHost, id: GroupId) {
        let Self { copy, state, done } = self;
        let manager = Arc::clone(&host.manager);
        let put = move || manager.replace(id.into(), copy, &encode_state(&state));
        // Whoever waits for it outlives the instance.
        let _ = done.send(host.env.tasks.blocking(put).await);
    }
}

impl Copies {
    fn enter(&self, group: GroupId, session: Uuid, is_slow: bool, now: Instant) -> Result<(), String> {
        let mut copies = self.0.lock();
        copies.retain(|_, copy| {
            matches!(copy.phase, Phase::Finishing) || now.duration_since(copy.touched) < ABANDONED
        });
        if matches!(
            copies.get(&group),
            Some(Receiving {
                phase: Phase::Finishing,
                ..
            })
        ) {
            return Err("another copy is being put in place".to_owned());
        }
        copies.remove(&group);
        let is_under_way = |copy: &&Receiving| matches!(copy.phase, Phase::Parts(_) | Phase::Finishing);
        let alike = copies.values().filter(|copy| copy.is_slow == is_slow);
        if alike.filter(is_under_way).count() >= MAX_COPIES {
            return Err(format!("{MAX_COPIES} copies are being received already"));
        }
        let receiving = Receiving {
            session,
            phase: Phase::Parts(None),
            touched: now,
            is_slow,
        };
        copies.insert(group, receiving);
        Ok(())
    }

    /// Changes the phase of a session that is still the group's.
    fn set(&self, group: GroupId, session: Uuid, phase: Phase) {
        if let Some(copy) = self.0.lock().get_mut(&group)
            && copy.session == session
        {
            copy.phase = phase;
        }
    }

    /// Gives a session up, which makes room for the next one at once; returns why.
    fn fail(&self, group: GroupId, session: Uuid, error: &LogError) -> String {
        let reason = error.to_string();
        self.set(group, session, Phase::Failed(reason.clone()));
        reason
    }

    /// Takes out what is being received, to write to it or to finish it.
    fn take(&self, group: GroupId, session: Uuid, now: Instant) -> Result<Option<Box<Unfinished>>, String> {
        let mut copies = self.0.lock();
        let copy = copies.get_mut(&group).filter(|copy| copy.session == session);
        let copy = copy.ok_or(UNKNOWN)?;
        copy.touched = now;
        match &mut copy.phase {
            Phase::Parts(unfinished) => Ok(unfinished.take()),
            Phase::Failed(reason) => Err(reason.clone()),
            Phase::Finishing | Phase::Done(_) => Ok(None),
        }
    }

    /// Has a session wait on for its next part.
    fn keep(&self, group: GroupId, session: Uuid, now: Instant) -> Result<(), String> {
        let mut copies = self.0.lock();
        let copy = copies.get_mut(&group).filter(|copy| copy.session == session);
        copy.ok_or(UNKNOWN)?.touched = now;
        Ok(())
    }

    fn answer(&self, group: GroupId) -> Bytes {
        match self.0.lock().get(&group).map(|copy| &copy.phase) {
            Some(Phase::Done(vote)) => wire::encode_answer(Some(vote)),
            _ => wire::encode_answer(None),
        }
    }
}

impl Group {
    /// Takes a step of a copy. The group's name has been read off `body`.
    ///
    /// # Errors
    /// Why the copy cannot go on.
    pub(crate) async fn receive(
        self: &Arc<Self>,
        host: &Arc<GroupHost>,
        body: Bytes,
    ) -> Result<Bytes, String> {
        let (session, step) = wire::decode(body).map_err(|e| e.to_string())?;
        let (id, copies, now) = (self.spec.id, &host.copies, host.env.clock.instant());
        if self.spec.observer.is_some() {
            return Err("the metadata log is never purged".to_owned());
        }
        match step {
            Step::Begin(begin) => {
                copies.enter(id, session, self.is_throttled(host), now)?;
                let Begin { vote, state, export } = *begin;
                let manager = Arc::clone(&host.manager);
                let begun = host
                    .env
                    .tasks
                    .blocking(move || manager.receive(id.into(), export))
                    .await;
                let incoming = begun.map_err(|e| copies.fail(id, session, &e))?;
                let unfinished = Box::new(Unfinished {
                    incoming,
                    vote,
                    state,
                });
                copies.set(id, session, Phase::Parts(Some(unfinished)));
                Ok(Bytes::new())
            }
            Step::Part { segment, pos, bytes } => {
                self.count_received(bytes.len());
                let unfinished = copies.take(id, session, now)?;
                let mut unfinished = unfinished.ok_or("parts of a copy come one at a time")?;
                let written = move || {
                    let written = unfinished.incoming.write(segment, pos, &bytes);
                    (unfinished, written)
                };
                let (unfinished, written) = host.env.tasks.blocking(written).await;
                written.map_err(|e| copies.fail(id, session, &e))?;
                copies.set(id, session, Phase::Parts(Some(unfinished)));
                Ok(Bytes::new())
            }
            Step::Keep => copies.keep(id, session, now).map(|()| Bytes::new()),
            Step::End => {
                if let Some(unfinished) = copies.take(id, session, now)? {
                    copies.set(id, session, Phase::Finishing);
                    let (group, on) = (Arc::clone(self), Arc::clone(host));
                    let finish = async move {
                        let phase = match group.take_in(&on, *unfinished).await {
                            Ok(vote) => Phase::Done(vote),
                            Err(reason) => {
                                tracing::warn!(partition = %id, reason, "a copy cannot take the log's place");
                                Phase::Failed(reason)
                            }
                        };
                        on.copies.set(id, session, phase);
                    };
                    drop(host.env.tasks.spawn("take in a copy", finish));
                }
                Ok(copies.answer(id))
            }
        }
    }

    /// Whether the topic has some leader, or this replica, throttled.
    fn is_throttled(&self, host: &GroupHost) -> bool {
        let (config, index) = (self.spec.partition.config(), self.spec.id.index);
        let broker = i32::try_from(host.node).unwrap_or(i32::MAX);
        config.leader_throttled != ThrottledReplicas::None || config.follower_throttled.names(index, broker)
    }

    /// Has a copy take the log's place; returns this replica's vote once the group is open on it.
    async fn take_in(&self, host: &Arc<GroupHost>, unfinished: Unfinished) -> Result<RaftVote, String> {
        let Unfinished {
            incoming,
            vote,
            state,
        } = unfinished;
        let id = self.spec.id;
        let text = |e: std::io::Error| e.to_string();
        // A log that goes on above term 0 must have a vote beside it, or it looks like one that has lost its vote.
        let own = host.hard_state.vote(id).map_err(text)?;
        let vote = match own {
            Some(own) if own >= vote => own,
            _ => {
                host.hard_state.save_vote(id, &vote).await.map_err(text)?;
                vote
            }
        };
        let last = incoming.export().last;
        let generation = match self.spec.partition.log() {
            Some(log) if log.has(last) => return Ok(vote),
            Some(log) => log.checkpoint().generation + 1,
            None => 1,
        };
        let options = log_options(&self.spec.partition.config());
        let check = move || incoming.check(&options, generation);
        let copy = host.env.tasks.blocking(check).await.map_err(|e| e.to_string())?;
        match self.swap(host, copy, state).await? {
            Replaced::ByCopy => {
                tracing::info!(partition = %id, last = last.index, "a copy of the leader's segments is the log now");
            }
            Replaced::CaughtUp => {
                tracing::info!(partition = %id, "the log caught up before a copy of the leader's did")
            }
        }
        let reopened = host.env.clock.timeout(REOPEN, self.reaches(host, last)).await;
        reopened.map_err(|_| "the group does not open on the copy".to_owned())?;
        Ok(vote)
    }

    /// Has the group's supervisor put the copy in the log's place.
    async fn swap(&self, host: &GroupHost, copy: CheckedCopy, state: GroupState) -> Result<Replaced, String> {
        let (done, mut swapped) = oneshot::channel();
        self.replace(Some(Replacement { copy, state, done }));
        let in_time = host.env.clock.timeout(REOPEN, &mut swapped).await;
        let swapped = match in_time {
            Ok(swapped) => swapped,
            // No copy may be left that could take the log's place while the next one is written to the same directory.
            Err(_) if self.replace(None) => return Err("the group is not open".to_owned()),
            Err(_) => swapped.await,
        };
        let swapped = swapped.map_err(|_| "the group has ended".to_owned())?;
        swapped.map_err(|e| e.to_string())
    }

    async fn reaches(&self, host: &GroupHost, last: EntryId) {
        while !self.holds(last) {
            host.env.clock.sleep(LOOK).await;
        }
    }
}
