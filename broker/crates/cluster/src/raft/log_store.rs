//! openraft's log storage on a partition's segment files.
//!
//! Invariants
//! - One entry is one batch, appended in index order; a batch's base offset equals the log end or the append fails
//!   and ends the group (its supervisor rebuilds it from disk).
//! - The flush callback fires only after the bytes are durable, in flushed mode and for memberships; in cached mode after
//!   the write. Nothing of a failed sync is ever reported as flushed. A replica that forgot who else has a vote might take
//!   itself for the only one (see `doubt` for what else it may forget).
//! - A vote is returned as saved only when it is durable, and every entry appended before it is durable by then:
//!   openraft keeps one watermark for both kinds of I/O.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, OnceLock};

use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use takhin_config::node::Durability;
use takhin_protocol::record::Batch;
use takhin_runtime::Env;
use takhin_storage::{EntryHead, EntryId, Flusher, Log, NewEntry};

use super::flush::flush;
use super::hard_state::{GroupId, HardStateStore};
use super::hidden::{self, Hidden};
use super::in_flight::InFlight;
use super::io_order::{IoOrder, Stored};
use super::types::{Data, RaftEntry, RaftLogId, RaftVote, TypeConfig, log_id};
use crate::partition::Partition;
use crate::replicator::ProposalSink as _;

/// Timestamp of hidden entries: every replica writes the same bytes, and nothing asks for their time.
const NO_TIME: i64 = -1;

/// How many entries one step of the apply stream looks up.
const APPLY_STEP: u64 = 1024;

/// The log storage of one group; clones share everything.
#[derive(Clone)]
pub(crate) struct LogStore {
    pub(crate) group: GroupId,
    pub(crate) env: Env,
    pub(crate) log: Arc<Log>,
    pub(crate) flusher: Flusher,
    pub(crate) hard_state: Arc<HardStateStore>,
    pub(crate) partition: Arc<Partition>,
    /// Tells openraft of stored entries in the order in which they were appended.
    pub(crate) order: Arc<IoOrder<IOFlushed<TypeConfig>>>,
    /// The index before the first entry, in a log that began above 0.
    pub(crate) begins_after: Arc<OnceLock<u64>>,
    /// Whether the state machine needs the batches themselves, not only their offsets.
    pub(crate) full_bodies: bool,
    /// How much is held of what was read here for other replicas.
    pub(crate) in_flight: Arc<InFlight>,
}

impl LogStore {
    /// Whether an entry counts as stored only after a sync.
    fn is_flushed(&self) -> bool {
        self.partition.config().durability == Durability::Flushed
    }

    fn to_new_entry(&self, entry: RaftEntry, end: &mut i64) -> io::Result<NewEntry> {
        let term = term_u32(*entry.log_id.committed_leader_id())?;
        let epoch =
            i32::try_from(term).map_err(|_| io::Error::other("term exceeds the range of a leader epoch"))?;
        let hidden = match entry.payload {
            EntryPayload::Normal(Data::Batch(batch)) => {
                if batch.header.base_offset != *end {
                    let message = format!(
                        "batch proposed for offset {}, log end is {end}",
                        batch.header.base_offset
                    );
                    return Err(io::Error::other(message));
                }
                *end = batch.header.next_offset();
                return Ok(NewEntry {
                    term,
                    raft_index: entry.log_id.index,
                    batch,
                });
            }
            EntryPayload::Normal(Data::LogStart { offset }) => Hidden::LogStart { offset },
            EntryPayload::Normal(Data::Head { .. }) => {
                return Err(io::Error::other("an entry without its payload"));
            }
            EntryPayload::Blank => Hidden::Blank,
            EntryPayload::Membership(membership) => Hidden::Membership(membership),
        };
        let batch = Batch::hidden(*end, epoch, NO_TIME, hidden::encode(&hidden));
        Ok(NewEntry {
            term,
            raft_index: entry.log_id.index,
            batch,
        })
    }

    /// Entries of `[start, end)` with data batches reduced to their ends, unless the state machine wants bodies.
    fn light_entries(&self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        if self.full_bodies {
            return self.full_entries(start, end, usize::MAX);
        }
        self.log
            .heads(start..end)
            .map_err(io::Error::other)?
            .iter()
            .map(|head| self.light_entry(head))
            .collect()
    }

    fn light_entry(&self, head: &EntryHead) -> io::Result<RaftEntry> {
        let id = log_id(head.term.into(), head.index);
        if !head.hidden {
            let data = Data::Head {
                next_offset: head.next_offset,
            };
            return Ok(RaftEntry {
                log_id: id,
                payload: EntryPayload::Normal(data),
            });
        }
        let mut full = self.full_entries(head.index, head.index + 1, usize::MAX)?;
        full.pop()
            .ok_or_else(|| io::Error::other(format!("entry {} is missing", head.index)))
    }

    fn full_entries(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<RaftEntry>> {
        let entries = self
            .log
            .entries(start..end, max_bytes)
            .map_err(io::Error::other)?;
        entries
            .into_iter()
            .map(|entry| to_raft_entry(entry.term, entry.index, entry.batch))
            .collect()
    }

    /// Lets a log that never held an entry begin at `index`, as after a snapshot.
    fn begin_at(&self, index: u64) -> io::Result<()> {
        let end = self.log.end();
        match index.checked_sub(1) {
            Some(before) if end.last.is_none() && before >= end.first_index => {
                self.log
                    .restart_after(EntryId {
                        term: 0,
                        index: before,
                    })
                    .map_err(io::Error::other)?;
                // Nobody purged anything: the purge point of the new log is only where it begins.
                self.begins_after.get_or_init(|| before);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The part of `range` that the log holds.
    fn held(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let end = self.log.end();
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let stop = match range.end_bound() {
            Bound::Included(stop) => stop.saturating_add(1),
            Bound::Excluded(stop) => *stop,
            Bound::Unbounded => u64::MAX,
        };
        let next = end.last.map_or(end.first_index, |last| last.index + 1);
        // Purged entries stay readable by offset; as Raft entries they are gone.
        let unpurged = end.purged.map_or(0, |purged| purged.index + 1);
        let start = start.max(end.first_index).max(unpurged);
        (start, stop.min(next).max(start))
    }
}

/// A stored batch as a Raft entry.
pub(crate) fn to_raft_entry(term: u32, index: u64, batch: Batch) -> io::Result<RaftEntry> {
    let log_id = log_id(term.into(), index);
    if !batch.header.is_hidden() {
        return Ok(RaftEntry {
            log_id,
            payload: EntryPayload::Normal(Data::Batch(batch)),
        });
    }
    let payload = match hidden::decode(&batch.body).map_err(io::Error::other)? {
        Hidden::Blank => EntryPayload::Blank,
        Hidden::Membership(membership) => EntryPayload::Membership(membership),
        Hidden::LogStart { offset } => EntryPayload::Normal(Data::LogStart { offset }),
    };
    Ok(RaftEntry { log_id, payload })
}

fn term_u32(term: impl std::ops::Deref<Target = u64>) -> io::Result<u32> {
    u32::try_from(*term).map_err(|_| io::Error::other("term exceeds 32 bits"))
}

impl Stored for IOFlushed<TypeConfig> {
    fn stored(self, result: io::Result<()>) {
        self.io_completed(result);
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.held(&range);
        let store = self.clone();
        let steps = (start..end).step_by(usize::try_from(APPLY_STEP).unwrap_or(usize::MAX));
        stream::iter(steps.flat_map(move |from| {
            match store.light_entries(from, from.saturating_add(APPLY_STEP).min(end)) {
                Ok(entries) => entries.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            }
        }))
    }

    /// Data batches come back as [`Data::Head`]: openraft reads through this method only to find log ids and
    /// memberships. Replication reads through [`Self::limited_get_log_entries`].
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let (start, end) = self.held(&range);
        self.light_entries(start, end)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, io::Error> {
        let (start, end) = self.held(&(start..end));
        self.full_entries(start, end, self.in_flight.read_bytes())
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        self.hard_state.vote(self.group)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let end = self.log.end();
        let to_id = |id: EntryId| log_id(id.term.into(), id.index);
        let begins_after = self.begins_after.get();
        let purged = end.purged.filter(|id| begins_after != Some(&id.index)).map(to_id);
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: end.last.map(to_id).or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        // A round of its own for nothing, and the one before it, would make every election wait.
        let waits = self.is_flushed() || !self.order.is_empty();
        if waits && self.log.checkpoint().last != self.log.end().last {
            flush(&self.flusher, &self.log).await.map_err(io::Error::other)?;
        }
        self.hard_state.save_vote(self.group, vote).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut end = self.log.end().log_end_offset;
        let mut entries = entries.into_iter().peekable();
        if let Some(first) = entries.peek() {
            self.begin_at(first.log_id.index)?;
        }
        let mut batches = Vec::new();
        let mut waits = self.is_flushed();
        for entry in entries {
            waits |= matches!(entry.payload, EntryPayload::Membership(_));
            batches.push(self.to_new_entry(entry, &mut end)?);
        }
        // A page-cache write of what has just been received: shorter than handing the thread's tasks to another one.
        self.log.append(&batches).map_err(io::Error::other)?;
        if let Some(last) = batches.last() {
            self.partition.appended(last.term.into(), end);
        }
        if waits {
            let (order, place) = (Arc::clone(&self.order), self.order.enter(callback));
            self.flusher.submit(Arc::clone(&self.log), move |result| {
                order.stored(place, result.map(drop).map_err(io::Error::other));
            });
        } else {
            let place = self.order.enter(callback);
            self.order.stored(place, Ok(()));
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> Result<(), io::Error> {
        self.env
            .tasks
            .in_place(|| self.log.truncate_after(last_log_id.map(|id| id.index)))
            .map_err(io::Error::other)
    }

    async fn purge(&mut self, id: RaftLogId) -> Result<(), io::Error> {
        let last = EntryId {
            term: term_u32(*id.committed_leader_id())?,
            index: id.index,
        };
        let purge = || {
            if self.log.end().last.is_none_or(|held| held.index < last.index) {
                return self.log.restart_after(last);
            }
            self.log.purge_to(last)
        };
        self.env.tasks.in_place(purge).map_err(io::Error::other)
    }
}
