//! What replicas of a group say to each other, as bytes.
//!
//! ```text
//! every request   topic id 16 bytes | partition i32 | body
//! append, vote request, transfer: before the body the voter that is meant, 16 bytes
//! vote            term u64 | node u64 | committed u8
//! log id          0 u8, or 1 u8 | term u64 | index u64
//! append          vote | previous log id | commit log id | entries u32, each:
//!                   term u64 | index u64 | kind u8 (0 batch, 1 hidden) | length u32 | bytes
//! append reply    0 u8 success | 1 u8 partial, log id | 2 u8 conflict | 3 u8 higher vote, vote
//! vote request    vote | last log id | leadership transfer u8
//! vote reply      vote | granted u8 | last log id
//! transfer        vote | to u64 | last log id
//! purge           index u64
//! pass            to u64
//! copy            see `copy/wire.rs`
//! transfer reply  0 u8 accepted | 1 u8 vote changed, vote expected, vote actual | 2 u8 not flushed, log id, log id
//! ```
//! Big endian. A batch travels as it lies in the segment file, and its checksum is verified on arrival: what one disk or
//! memory has spoilt does not spread. The bytes hold no openraft type, as those on disk do not.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use takhin_protocol::record::{Batch, HEADER_LEN, scan};
use uuid::Uuid;

use super::hard_state::GroupId;
use super::hidden::{self, Hidden};
use super::types::{Data, RaftEntry, RaftLogId, RaftVote, TypeConfig, Voter, log_id};

/// Bytes of the group's name at the beginning of a request.
const GROUP_LEN: usize = 20;

const BATCH: u8 = 0;
const HIDDEN: u8 = 1;

/// Why bytes of a peer cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("message of a peer ends too early")]
    Short,
    #[error("message of a peer holds the unknown tag {0}: one of the two brokers runs a newer release")]
    Tag(u8),
    #[error("entry {index} of a peer is damaged: {damage}")]
    Damaged { index: u64, damage: String },
    #[error("an entry without its payload cannot be sent")]
    Headless,
}

/// A message in pieces: what is built here, and the bodies of batches as they are.
#[derive(Debug, Default)]
struct Pieces {
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Pieces {
    fn of(group: GroupId) -> Self {
        let mut pieces = Self::default();
        put_group(&mut pieces.open, group);
        pieces
    }

    /// To one replica, as the sender's membership names it.
    fn to(group: GroupId, voter: &Voter) -> Self {
        Self {
            open: addressed(group, voter),
            ..Self::default()
        }
    }

    fn append(&mut self, body: Bytes) {
        self.done.push(self.open.split().freeze());
        self.done.push(body);
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.freeze());
        }
        self.done
    }
}

/// The beginning of a message to one replica, as the sender's membership names it.
pub(super) fn addressed(group: GroupId, voter: &Voter) -> BytesMut {
    let mut out = BytesMut::new();
    put_group(&mut out, group);
    out.put_slice(voter.directory.as_bytes());
    out
}

pub(super) fn put_group(out: &mut BytesMut, group: GroupId) {
    out.put_slice(group.topic_id.as_bytes());
    out.put_i32(group.index);
}

/// Takes the group's name off a request.
pub(crate) fn group(message: &mut Bytes) -> Result<GroupId, WireError> {
    need(message, GROUP_LEN)?;
    let mut topic_id = [0; 16];
    message.copy_to_slice(&mut topic_id);
    Ok(GroupId {
        topic_id: Uuid::from_bytes(topic_id),
        index: message.get_i32(),
    })
}

/// Takes off the voter that a request is meant for.
///
/// # Errors
/// In words, if it is not `own`.
///
/// Invariant: a replica answers for itself alone. One that was removed and came back empty is not the one whose vote and
/// whose acknowledgements a member that has not heard of this counts on.
pub(super) fn meant_for(own: &Voter, message: &mut Bytes) -> Result<(), String> {
    match voter(message) {
        Ok(voter) if voter == *own => Ok(()),
        Ok(voter) => Err(format!("the replica here is {own}, not {voter}")),
        Err(error) => Err(error.to_string()),
    }
}

fn voter(message: &mut Bytes) -> Result<Voter, WireError> {
    need(message, 16)?;
    let mut directory = [0; 16];
    message.copy_to_slice(&mut directory);
    Ok(Voter {
        directory: Uuid::from_bytes(directory),
    })
}

pub(crate) fn encode_append(
    group: GroupId,
    voter: &Voter,
    request: AppendEntriesRequest<TypeConfig>,
) -> Result<Vec<Bytes>, WireError> {
    let mut out = Pieces::to(group, voter);
    put_vote(&mut out.open, &request.vote);
    put_log_id(&mut out.open, request.prev_log_id.as_ref());
    put_log_id(&mut out.open, request.leader_commit.as_ref());
    out.open.put_u32(length(request.entries.len()));
    for entry in request.entries {
        out.open.put_u64(**entry.log_id.committed_leader_id());
        out.open.put_u64(entry.log_id.index);
        let hidden = match entry.payload {
            EntryPayload::Normal(Data::Batch(batch)) => {
                out.open.put_u8(BATCH);
                out.open.put_u32(length(batch.header.total_len()));
                out.open.put_slice(&batch.header.encode());
                out.append(batch.body);
                continue;
            }
            EntryPayload::Normal(Data::LogStart { offset }) => Hidden::LogStart { offset },
            EntryPayload::Normal(Data::Head { .. }) => return Err(WireError::Headless),
            EntryPayload::Blank => Hidden::Blank,
            EntryPayload::Membership(membership) => Hidden::Membership(membership),
        };
        let bytes = hidden::encode(&hidden);
        out.open.put_u8(HIDDEN);
        out.open.put_u32(length(bytes.len()));
        out.open.put_slice(&bytes);
    }
    Ok(out.finish())
}

/// Bytes that an entry has in a request; those of entries without a batch are few and not counted.
pub(crate) fn entry_bytes(entry: &RaftEntry) -> u64 {
    match &entry.payload {
        EntryPayload::Normal(Data::Batch(batch)) => batch.header.total_len() as u64,
        _ => 0,
    }
}

pub(crate) fn decode_append(mut b: Bytes) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let vote = take_vote(&mut b)?;
    let prev_log_id = take_log_id(&mut b)?;
    let leader_commit = take_log_id(&mut b)?;
    need(&b, 4)?;
    let count = b.get_u32();
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(take_entry(&mut b)?);
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn take_entry(b: &mut Bytes) -> Result<RaftEntry, WireError> {
    need(b, 21)?;
    let log_id = log_id(b.get_u64(), b.get_u64());
    let kind = b.get_u8();
    let len = usize::try_from(b.get_u32()).unwrap_or(usize::MAX);
    need(b, len)?;
    let mut bytes = b.split_to(len);
    let damaged = |damage: String| WireError::Damaged {
        index: log_id.index,
        damage,
    };
    let payload = match kind {
        BATCH => {
            let (header, whole) = scan::check(&bytes).map_err(|e| damaged(e.to_string()))?;
            if whole != len {
                return Err(damaged(format!("its length is {whole}, not {len}")));
            }
            bytes.advance(HEADER_LEN);
            EntryPayload::Normal(Data::Batch(Batch { header, body: bytes }))
        }
        HIDDEN => match hidden::decode(&bytes).map_err(|e| damaged(e.to_string()))? {
            Hidden::Blank => EntryPayload::Blank,
            Hidden::Membership(membership) => EntryPayload::Membership(membership),
            Hidden::LogStart { offset } => EntryPayload::Normal(Data::LogStart { offset }),
        },
        other => return Err(WireError::Tag(other)),
    };
    Ok(RaftEntry { log_id, payload })
}

pub(crate) fn encode_append_reply(reply: &AppendEntriesResponse<TypeConfig>) -> Bytes {
    let mut out = BytesMut::new();
    match reply {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(last) => {
            out.put_u8(1);
            put_log_id(&mut out, last.as_ref());
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(3);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

pub(crate) fn decode_append_reply(mut b: Bytes) -> Result<AppendEntriesResponse<TypeConfig>, WireError> {
    match take_u8(&mut b)? {
        0 => Ok(AppendEntriesResponse::Success),
        1 => Ok(AppendEntriesResponse::PartialSuccess(take_log_id(&mut b)?)),
        2 => Ok(AppendEntriesResponse::Conflict),
        3 => Ok(AppendEntriesResponse::HigherVote(take_vote(&mut b)?)),
        other => Err(WireError::Tag(other)),
    }
}

pub(crate) fn encode_vote(group: GroupId, voter: &Voter, request: &VoteRequest<TypeConfig>) -> Vec<Bytes> {
    let mut out = Pieces::to(group, voter);
    put_vote(&mut out.open, &request.vote);
    put_log_id(&mut out.open, request.last_log_id.as_ref());
    out.open.put_u8(request.leadership_transfer.into());
    out.finish()
}

pub(crate) fn decode_vote(mut b: Bytes) -> Result<VoteRequest<TypeConfig>, WireError> {
    let mut request = VoteRequest::new(take_vote(&mut b)?, take_log_id(&mut b)?);
    request.leadership_transfer = take_u8(&mut b)? != 0;
    Ok(request)
}

pub(crate) fn encode_vote_reply(reply: &VoteResponse<TypeConfig>) -> Bytes {
    let mut out = BytesMut::new();
    put_vote(&mut out, &reply.vote);
    out.put_u8(reply.vote_granted.into());
    put_log_id(&mut out, reply.last_log_id.as_ref());
    out.freeze()
}

pub(crate) fn decode_vote_reply(mut b: Bytes) -> Result<VoteResponse<TypeConfig>, WireError> {
    let vote = take_vote(&mut b)?;
    let granted = take_u8(&mut b)? != 0;
    Ok(VoteResponse::new(vote, take_log_id(&mut b)?, granted))
}

pub(crate) fn encode_transfer(
    group: GroupId,
    voter: &Voter,
    request: &TransferLeaderRequest<TypeConfig>,
) -> Vec<Bytes> {
    let mut out = Pieces::to(group, voter);
    put_vote(&mut out.open, request.from_leader());
    out.open.put_u64(*request.to_node_id());
    put_log_id(&mut out.open, request.last_log_id());
    out.finish()
}

pub(crate) fn decode_transfer(mut b: Bytes) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let from = take_vote(&mut b)?;
    need(&b, 8)?;
    let to = b.get_u64();
    Ok(TransferLeaderRequest::new(from, to, take_log_id(&mut b)?))
}

pub(crate) fn encode_purge(group: GroupId, upto: u64) -> Vec<Bytes> {
    let mut out = Pieces::of(group);
    out.open.put_u64(upto);
    out.finish()
}

pub(crate) fn decode_purge(mut b: Bytes) -> Result<u64, WireError> {
    need(&b, 8)?;
    Ok(b.get_u64())
}

pub(crate) fn encode_pass(group: GroupId, to: u64) -> Vec<Bytes> {
    encode_purge(group, to)
}

pub(crate) fn decode_pass(b: Bytes) -> Result<u64, WireError> {
    decode_purge(b)
}

pub(crate) fn encode_transfer_reply(reply: &TransferLeaderResponse<TypeConfig>) -> Bytes {
    let mut out = BytesMut::new();
    match reply {
        Ok(()) => out.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(1);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(2);
            put_log_id(&mut out, expected.as_ref());
            put_log_id(&mut out, actual.as_ref());
        }
    }
    out.freeze()
}

pub(crate) fn decode_transfer_reply(mut b: Bytes) -> Result<TransferLeaderResponse<TypeConfig>, WireError> {
    Ok(match take_u8(&mut b)? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged {
            expected: take_vote(&mut b)?,
            actual: take_vote(&mut b)?,
        }),
        2 => Err(TransferLeaderError::LogNotFlushed {
            expected: take_log_id(&mut b)?,
            actual: take_log_id(&mut b)?,
        }),
        other => return Err(WireError::Tag(other)),
    })
}

pub(super) fn put_vote(out: &mut BytesMut, vote: &RaftVote) {
    out.put_u64(vote.leader_id().term);
    out.put_u64(vote.leader_id().voted_for);
    out.put_u8(vote.is_committed().into());
}

pub(super) fn take_vote(b: &mut Bytes) -> Result<RaftVote, WireError> {
    need(b, 17)?;
    let (term, node, committed) = (b.get_u64(), b.get_u64(), b.get_u8() != 0);
    Ok(match committed {
        true => RaftVote::new_committed(term, node),
        false => RaftVote::new(term, node),
    })
}

pub(super) fn put_log_id(out: &mut BytesMut, id: Option<&RaftLogId>) {
    match id {
        None => out.put_u8(0),
        Some(id) => {
            out.put_u8(1);
            out.put_u64(**id.committed_leader_id());
            out.put_u64(id.index);
        }
    }
}

pub(super) fn take_log_id(b: &mut Bytes) -> Result<Option<RaftLogId>, WireError> {
    match take_u8(b)? {
        0 => Ok(None),
        1 => {
            need(b, 16)?;
            Ok(Some(log_id(b.get_u64(), b.get_u64())))
        }
        other => Err(WireError::Tag(other)),
    }
}

fn take_u8(b: &mut Bytes) -> Result<u8, WireError> {
    need(b, 1)?;
    Ok(b.get_u8())
}

pub(super) fn need(b: &Bytes, len: usize) -> Result<(), WireError> {
    if b.len() < len {
        Err(WireError::Short)
    } else {
        Ok(())
    }
}

/// Batches are smaller than 2 GiB, and a request holds a few hundred entries.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::LogId;
    use proptest::prelude::*;
    use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};

    use super::*;
    use crate::raft::types::RaftMembership;

    const GROUP: GroupId = GroupId {
        topic_id: Uuid::from_u128(5),
        index: 3,
    };

    const VOTER: Voter = Voter {
        directory: Uuid::from_u128(8),
    };

    fn whole(pieces: Vec<Bytes>) -> Bytes {
        let mut bytes = Bytes::from(pieces.concat());
        assert_eq!(group(&mut bytes).unwrap(), GROUP);
        let other = Voter {
            directory: Uuid::from_u128(9),
        };
        assert!(meant_for(&other, &mut bytes.clone()).is_err());
        assert!(meant_for(&VOTER, &mut bytes.slice(..15)).is_err());
        meant_for(&VOTER, &mut bytes).unwrap();
        bytes
    }

    fn batch(value: &[u8]) -> Batch {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(NewRecord {
            timestamp: 7,
            key: None,
            value: Some(value),
            headers: &[],
        });
        builder.build().unwrap()
    }

    fn membership() -> RaftMembership {
        let node = |n: u64| {
            (
                n,
                Voter {
                    directory: Uuid::from_u128(n.into()),
                },
            )
        };
        let nodes = BTreeMap::from([node(1), node(2), node(3)]);
        RaftMembership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], nodes).unwrap()
    }

    fn vote() -> impl Strategy<Value = RaftVote> {
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, node, committed)| match committed {
            true => RaftVote::new_committed(term, node),
            false => RaftVote::new(term, node),
        })
    }

    fn id() -> impl Strategy<Value = Option<RaftLogId>> {
        proptest::option::of((any::<u64>(), any::<u64>()).prop_map(|(term, index)| log_id(term, index)))
    }

    fn entry() -> impl Strategy<Value = RaftEntry> {
        let payload = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200)
                .prop_map(|value| EntryPayload::Normal(Data::Batch(batch(&value)))),
            any::<i64>().prop_map(|offset| EntryPayload::Normal(Data::LogStart { offset })),
            Just(EntryPayload::Blank),
            Just(EntryPayload::Membership(membership())),
        ];
        (any::<u64>(), any::<u64>(), payload).prop_map(|(term, index, payload)| RaftEntry {
            log_id: LogId::new(term.into(), index),
            payload,
        })
    }

    proptest! {
        #[test]
        fn an_append_arrives_as_it_was_sent(
            vote in vote(),
            prev_log_id in id(),
            leader_commit in id(),
            entries in proptest::collection::vec(entry(), 0..5),
            cut in any::<proptest::sample::Index>(),
        ) {
            let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
            let bytes = whole(encode_append(GROUP, &VOTER, request.clone()).unwrap());
            let back = decode_append(bytes.clone()).unwrap();
            prop_assert_eq!((back.vote, back.prev_log_id, back.leader_commit), (vote, prev_log_id, leader_commit));
            prop_assert_eq!(back.entries, request.entries);
            prop_assert!(decode_append(bytes.slice(..cut.index(bytes.len()))).is_err());
        }

        #[test]
        fn votes_and_transfers_arrive_as_they_were_sent(a in vote(), b in vote(), last in id(), flag in any::<bool>()) {
            let mut request = VoteRequest::new(a, last);
            request.leadership_transfer = flag;
            prop_assert_eq!(&decode_vote(whole(encode_vote(GROUP, &VOTER, &request))).unwrap(), &request);
            let reply = VoteResponse::new(a, last, flag);
            prop_assert_eq!(&decode_vote_reply(encode_vote_reply(&reply)).unwrap(), &reply);
            let transfer = TransferLeaderRequest::new(a, 9, last);
            prop_assert_eq!(&decode_transfer(whole(encode_transfer(GROUP, &VOTER, &transfer))).unwrap(), &transfer);
            for reply in [
                Ok(()),
                Err(TransferLeaderError::VoteChanged { expected: a, actual: b }),
                Err(TransferLeaderError::LogNotFlushed { expected: last, actual: None }),
            ] {
                prop_assert_eq!(&decode_transfer_reply(encode_transfer_reply(&reply)).unwrap(), &reply);
            }
            for reply in [
                AppendEntriesResponse::Success,
                AppendEntriesResponse::PartialSuccess(last),
                AppendEntriesResponse::Conflict,
                AppendEntriesResponse::HigherVote(b),
            ] {
                prop_assert_eq!(&decode_append_reply(encode_append_reply(&reply)).unwrap(), &reply);
            }
        }
    }

    #[test]
    fn a_spoilt_batch_is_refused_by_its_index() {
        let entries = vec![RaftEntry {
            log_id: log_id(1, 42),
            payload: EntryPayload::Normal(Data::Batch(batch(b"value"))),
        }];
        let request = AppendEntriesRequest {
            vote: RaftVote::new_committed(1, 1),
            prev_log_id: None,
            entries,
            leader_commit: None,
        };
        let mut bytes = whole(encode_append(GROUP, &VOTER, request).unwrap()).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let error = decode_append(bytes.into()).unwrap_err();
        assert!(matches!(error, WireError::Damaged { index: 42, .. }), "{error}");
    }
}
