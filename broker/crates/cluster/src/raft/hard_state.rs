//! Votes, and what each group had applied: one small durable store per node.
//!
//! ```text
//! key    'g', topic id 16 bytes, partition i32, kind u8
//! vote   (kind 1)  version u8, term u64, voted for u64, committed u8
//! state  (kind 2)  version u8, applied log id, membership's log id (each: present u8, term u64, index u64),
//!                  membership length u32, membership (see `hidden`)
//! doubt  (kind 3)  version u8; there while the replica is in doubt (see `doubt`)
//! cached (kind 4)  version u8; there while entries may count as stored that are in the page cache alone
//!
//! key    "node.image"
//! image  version u8, offset i64: the end of the newest image that replicas here were made or deleted for
//!
//! key    "node.peers"
//! peers  version u8, JSON: where other brokers were reached, by id; what to try, not what is so
//! ```
//!
//! Invariants
//! - A vote is durable before it is returned as saved: no node votes twice in a term, whatever is cut off when. That a vote
//!   which is durable has won is not waited for: who forgets it asks again, and voted for the same node all the same.
//! - A group that has a vote was initialized once and never initializes again.
//! - A store that cannot be read is an error for the node: it votes in no group.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use takhin_runtime::Tasks;
use takhin_storage::{Journal, JournalError};

use super::hidden;
use super::types::{RaftLogId, RaftStoredMembership, RaftVote, log_id};
use crate::partition::PartitionId;

/// A group is the partition it replicates.
pub(crate) type GroupId = PartitionId;

const VERSION: u8 = 1;
const VOTE: u8 = 1;
const STATE: u8 = 2;
const DOUBT: u8 = 3;
const CACHED: u8 = 4;

const IMAGE: &[u8] = b"node.image";
const PEERS: &[u8] = b"node.peers";

/// What a state machine had applied when it was last written down.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupState {
    pub(crate) applied: Option<RaftLogId>,
    pub(crate) membership: RaftStoredMembership,
}

pub(crate) struct HardStateStore {
    journal: Arc<Journal>,
    tasks: Tasks,
}

impl HardStateStore {
    pub(crate) fn new(journal: Arc<Journal>, tasks: Tasks) -> Self {
        Self { journal, tasks }
    }

    pub(crate) fn vote(&self, group: GroupId) -> io::Result<Option<RaftVote>> {
        let Some(value) = self.journal.get(&key(group, VOTE)) else {
            return Ok(None);
        };
        // A vote that cannot be read must not look like no vote: the group would vote again in an old term.
        decode_vote(&value)
            .map(Some)
            .ok_or_else(|| unreadable("vote", group, &value))
    }

    pub(crate) async fn save_vote(&self, group: GroupId, vote: &RaftVote) -> io::Result<()> {
        let known = self.vote(group)?;
        let has_won = vote.is_committed() && known.is_some_and(|known| known.leader_id() == vote.leader_id());
        let mut value = vec![VERSION];
        value.put_u64(vote.leader_id().term);
        value.put_u64(vote.leader_id().voted_for);
        value.put_u8(u8::from(vote.is_committed()));
        let (journal, change) = (Arc::clone(&self.journal), (key(group, VOTE), Some(value)));
        self.tasks
            .blocking(move || journal.put(&[change], !has_won))
            .await
            .map_err(io::Error::other)
    }

    /// The end of the newest image that replicas here were made or deleted for; -1 if there was none.
    pub(crate) fn image(&self) -> io::Result<i64> {
        let Some(value) = self.journal.get(IMAGE) else {
            return Ok(-1);
        };
        match value[..] {
            [VERSION, ref end @ ..] if end.len() == 8 => Ok((&mut &*end).get_i64()),
            _ => Err(io::Error::other(
                "node.image in the journal cannot be decoded: start the release that wrote it",
            )),
        }
    }

    /// Writes it down; durable on return.
    pub(crate) async fn set_image(&self, end: i64) -> Result<(), JournalError> {
        let mut value = vec![VERSION];
        value.put_i64(end);
        let journal = Arc::clone(&self.journal);
        let put = (IMAGE.to_vec(), Some(value));
        self.tasks.blocking(move || journal.put(&[put], true)).await
    }

    /// Where other brokers were reached when that changed last, by id.
    pub(crate) fn peers(&self) -> BTreeMap<u32, String> {
        let value = self.journal.get(PEERS).unwrap_or_default();
        let peers = match value[..] {
            [VERSION, ref json @ ..] => serde_json::from_slice(json).ok(),
            _ => None,
        };
        // What a newer release has written differently is as good as forgotten: the seeds are asked all the same.
        peers.unwrap_or_default()
    }

    /// Writes it down without a sync: what is older is worth a try too.
    pub(crate) async fn set_peers(&self, peers: &BTreeMap<u32, String>) -> Result<(), JournalError> {
        let mut value = vec![VERSION];
        // Numbers and strings always have a form in JSON.
        value.extend(serde_json::to_vec(peers).unwrap_or_default());
        let journal = Arc::clone(&self.journal);
        let put = (PEERS.to_vec(), Some(value));
        self.tasks.blocking(move || journal.put(&[put], false)).await
    }

    /// Whether the replica was in doubt when this was written down last. A newer release that says more of it says this too.
    pub(crate) fn is_in_doubt(&self, group: GroupId) -> bool {
        self.journal.get(&key(group, DOUBT)).is_some()
    }

    /// Writes down whether the replica is in doubt; durable on return.
    pub(crate) async fn set_in_doubt(&self, group: GroupId, is_so: bool) -> Result<(), JournalError> {
        self.mark(key(group, DOUBT), is_so).await
    }

    /// Whether entries may have counted as stored that were in the page cache alone.
    pub(crate) fn is_cached(&self, group: GroupId) -> bool {
        self.journal.get(&key(group, CACHED)).is_some()
    }

    /// Writes that down, if it is news; durable on return.
    pub(crate) async fn set_cached(&self, group: GroupId, is_so: bool) -> Result<(), JournalError> {
        if self.is_cached(group) == is_so {
            return Ok(());
        }
        self.mark(key(group, CACHED), is_so).await
    }

    async fn mark(&self, key: Vec<u8>, is_there: bool) -> Result<(), JournalError> {
        let change = (key, is_there.then(|| vec![VERSION]));
        let journal = Arc::clone(&self.journal);
        self.tasks.blocking(move || journal.put(&[change], true)).await
    }

    pub(crate) fn state(&self, group: GroupId) -> io::Result<GroupState> {
        match self.journal.get(&key(group, STATE)) {
            Some(value) => decode_state(&value).ok_or_else(|| unreadable("state", group, &value)),
            None => Ok(GroupState::default()),
        }
    }

    /// Writes states down without waiting for the disk: an older state is correct too, only slower to start from.
    pub(crate) fn save_states(&self, states: &[(GroupId, GroupState)]) -> Result<(), JournalError> {
        let puts: Vec<_> = states
            .iter()
            .map(|(group, state)| (key(*group, STATE), Some(encode_state(state))))
            .collect();
        self.journal.put(&puts, false)
    }

    /// Writes a state down; durable on return.
    pub(crate) async fn save_state(&self, group: GroupId, state: &GroupState) -> Result<(), JournalError> {
        let put = (key(group, STATE), Some(encode_state(state)));
        let journal = Arc::clone(&self.journal);
        self.tasks.blocking(move || journal.put(&[put], true)).await
    }
}

/// What the journal holds of a group, to be forgotten with its log.
pub(crate) fn keys(group: GroupId) -> [Vec<u8>; 4] {
    [VOTE, STATE, DOUBT, CACHED].map(|kind| key(group, kind))
}

fn key(group: GroupId, kind: u8) -> Vec<u8> {
    // Watermarks share the journal under a prefix of their own.
    let mut key = b"g".to_vec();
    key.extend_from_slice(group.topic_id.as_bytes());
    key.put_i32(group.index);
    key.put_u8(kind);
    key
}

fn unreadable(what: &str, group: GroupId, value: &[u8]) -> io::Error {
    let reason = match value.first() {
        Some(version) if *version > VERSION => format!(
            "has version {version}, newer than {VERSION}, the newest that this release knows: \
             start the release that wrote it, or a later one"
        ),
        _ => "cannot be decoded".to_owned(),
    };
    let text = format!("the {what} of group {group} in the journal {reason}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn decode_vote(mut b: &[u8]) -> Option<RaftVote> {
    if b.len() != 18 || b.get_u8() != VERSION {
        return None;
    }
    let (term, node, committed) = (b.get_u64(), b.get_u64(), b.get_u8() == 1);
    Some(if committed {
        RaftVote::new_committed(term, node)
    } else {
        RaftVote::new(term, node)
    })
}

pub(super) fn encode_state(state: &GroupState) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_id(state.applied, &mut out);
    put_id(*state.membership.log_id(), &mut out);
    let mut membership = Vec::new();
    hidden::encode_membership(state.membership.membership(), &mut membership);
    put_bytes(&membership, &mut out);
    out
}

pub(super) fn decode_state(mut b: &[u8]) -> Option<GroupState> {
    if b.is_empty() || b.get_u8() != VERSION {
        return None;
    }
    let applied = take_id(&mut b)?;
    let membership_id = take_id(&mut b)?;
    let membership = hidden::decode_membership(take_bytes(&mut b)?).ok()?;
    Some(GroupState {
        applied,
        membership: RaftStoredMembership::new(membership_id, membership),
    })
}

fn put_id(id: Option<RaftLogId>, out: &mut Vec<u8>) {
    // Index 0 with term 0 exists (the first membership entry), so presence is a byte of its own.
    out.put_u8(u8::from(id.is_some()));
    out.put_u64(id.map_or(0, |id| **id.committed_leader_id()));
    out.put_u64(id.map_or(0, |id| id.index));
}

fn take_id(b: &mut &[u8]) -> Option<Option<RaftLogId>> {
    if b.len() < 17 {
        return None;
    }
    let (present, term, index) = (b.get_u8() == 1, b.get_u64(), b.get_u64());
    Some(present.then(|| log_id(term, index)))
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(0));
    out.put_slice(bytes);
}

fn take_bytes<'a>(b: &mut &'a [u8]) -> Option<&'a [u8]> {
    if b.len() < 4 {
        return None;
    }
    let len = usize::try_from(b.get_u32()).ok()?;
    let (bytes, rest) = b.split_at_checked(len)?;
    *b = rest;
    Some(bytes)
}
