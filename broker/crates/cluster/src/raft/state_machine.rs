//! The state machine of a group: it advances a partition, and hands committed records to an observer if one cares.
//!
//! The segments are the state; applying an entry means moving the positions that depend on it. A snapshot is
//! therefore only a statement of how far the log may be purged.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta};
use parking_lot::Mutex;
use takhin_protocol::record::Batch;
use takhin_runtime::watch;
use takhin_storage::Log;

use super::types::{Applied, Data, RaftLogId, RaftStoredMembership, TypeConfig, log_id};
use crate::partition::Partition;
use crate::replicator::ProposalSink;

pub(super) type Meta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, ()>;

/// Receives every committed batch of a group, in order, once after each start.
pub(crate) trait Observer: Send + Sync + 'static {
    /// `batch` is committed.
    ///
    /// # Errors
    /// Ends the group: what follows must not be applied without this one.
    fn committed(&self, batch: &Batch) -> io::Result<()>;
}

/// What has been applied; shared with the checkpointer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) applied: Option<RaftLogId>,
    pub(crate) membership: RaftStoredMembership,
}

pub(crate) struct StateMachine {
    pub(crate) partition: Arc<Partition>,
    pub(crate) log: Arc<Log>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) progress: Arc<Mutex<Progress>>,
    /// Where the next snapshot is to end: where a segment ends. Without it, at the purge point.
    pub(crate) purge_to: Arc<Mutex<Option<RaftLogId>>>,
    /// The newest snapshot; it is only a position, so it need not survive a restart.
    pub(crate) current: Arc<Mutex<Option<Meta>>>,
    /// Highest term whose first entry (a blank) has been applied.
    pub(crate) term_begun: watch::Sender<u64>,
}

impl StateMachine {
    fn apply_one(
        &self,
        id: RaftLogId,
        payload: &EntryPayload<Data, u64, super::types::Voter>,
    ) -> io::Result<()> {
        let term = **id.committed_leader_id();
        match payload {
            EntryPayload::Normal(Data::Head { next_offset }) => self.partition.committed(term, *next_offset),
            EntryPayload::Normal(Data::Batch(batch)) => {
                if let Some(observer) = &self.observer {
                    observer.committed(batch)?;
                }
                self.partition.committed(term, batch.header.next_offset());
            }
            EntryPayload::Normal(Data::LogStart { offset }) => {
                self.log.set_log_start(*offset).map_err(io::Error::other)?;
                self.partition.log_start_moved();
            }
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.progress.lock().membership = RaftStoredMembership::new(Some(id), membership.clone());
            }
        }
        self.progress.lock().applied = Some(id);
        if matches!(payload, EntryPayload::Blank) {
            self.term_begun.send_replace(term);
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = ();
    type SnapshotBuilder = PurgePoint;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, RaftStoredMembership), io::Error> {
        let progress = self.progress.lock();
        Ok((progress.applied, progress.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.apply_one(entry.log_id, &entry.payload)?;
            if let Some(responder) = responder {
                responder.send(Applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> PurgePoint {
        let Progress { applied, membership } = self.progress.lock().clone();
        let purged = self.log.end().purged;
        let purged = purged.map(|id| log_id(id.term.into(), id.index));
        let last = self.purge_to.lock().take().or(purged).or(applied);
        // A membership that came later is committed too, so that it does no harm to know it early; openraft wants it to be
        // no newer than the snapshot.
        let since = (*membership.log_id()).min(last);
        let meta = SnapshotMeta {
            last_log_id: last,
            last_membership: RaftStoredMembership::new(since, membership.membership().clone()),
        };
        PurgePoint {
            meta,
            current: Arc::clone(&self.current),
        }
    }

    async fn install_snapshot(&mut self, meta: &Meta, _snapshot: ()) -> Result<(), io::Error> {
        // The segments are the state, and they are in place before this is called: only the positions are left.
        let mut progress = self.progress.lock();
        progress.applied = meta.last_log_id;
        progress.membership = meta.last_membership.clone();
        drop(progress);
        *self.current.lock() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self
            .current
            .lock()
            .clone()
            .map(|meta| Snapshot { meta, snapshot: () }))
    }
}

/// A snapshot at the applied position: permission to purge below it.
pub(crate) struct PurgePoint {
    meta: Meta,
    current: Arc<Mutex<Option<Meta>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for PurgePoint {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        *self.current.lock() = Some(self.meta.clone());
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: (),
        })
    }
}
