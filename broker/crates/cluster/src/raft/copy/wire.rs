//! What leader and replica say about a copy.
//!
//! ```text
//! group's name | session 16 bytes | step u8
//!   begin (0)   vote | state length u32, state as in the journal | export
//!   part  (1)   segment u32 | position u64 | bytes
//!   end   (2)
//!   keep  (3)
//! answer to end: 0 u8 not yet | 1 u8 done, vote
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use takhin_storage::Export;
use uuid::Uuid;

use crate::raft::hard_state::{GroupId, GroupState, decode_state, encode_state};
use crate::raft::types::RaftVote;
use crate::raft::wire::{WireError, need, put_group, put_vote, take_vote};

const BEGIN: u8 = 0;
const PART: u8 = 1;
const END: u8 = 2;
const KEEP: u8 = 3;

/// One step of a copy, as the replica hears it.
#[derive(Debug)]
pub(super) enum Step {
    Begin(Box<Begin>),
    Part {
        segment: usize,
        pos: u64,
        bytes: Bytes,
    },
    End,
    /// The next part comes later.
    Keep,
}

#[derive(Debug)]
pub(super) struct Begin {
    pub(super) vote: RaftVote,
    pub(super) state: GroupState,
    pub(super) export: Export,
}

fn head(group: GroupId, session: Uuid, step: u8) -> BytesMut {
    let mut out = BytesMut::new();
    put_group(&mut out, group);
    out.put_slice(session.as_bytes());
    out.put_u8(step);
    out
}

pub(super) fn encode_begin(group: GroupId, session: Uuid, begin: &Begin) -> Vec<Bytes> {
    let mut out = head(group, session, BEGIN);
    put_vote(&mut out, &begin.vote);
    let state = encode_state(&begin.state);
    out.put_u32(u32::try_from(state.len()).unwrap_or(0));
    out.put_slice(&state);
    vec![out.freeze(), Bytes::from(begin.export.encode())]
}

pub(super) fn encode_part(
    group: GroupId,
    session: Uuid,
    segment: usize,
    pos: u64,
    bytes: Vec<u8>,
) -> Vec<Bytes> {
    let mut out = head(group, session, PART);
    out.put_u32(u32::try_from(segment).unwrap_or(u32::MAX));
    out.put_u64(pos);
    vec![out.freeze(), Bytes::from(bytes)]
}

pub(super) fn encode_end(group: GroupId, session: Uuid) -> Vec<Bytes> {
    vec![head(group, session, END).freeze()]
}

pub(super) fn encode_keep(group: GroupId, session: Uuid) -> Vec<Bytes> {
    vec![head(group, session, KEEP).freeze()]
}

/// Session and step; the group's name has been taken off.
pub(super) fn decode(mut b: Bytes) -> Result<(Uuid, Step), WireError> {
    need(&b, 17)?;
    let mut session = [0; 16];
    b.copy_to_slice(&mut session);
    let step = match b.get_u8() {
        BEGIN => Step::Begin(Box::new(decode_begin(b)?)),
        PART => {
            need(&b, 12)?;
            Step::Part {
                segment: b.get_u32() as usize,
                pos: b.get_u64(),
                bytes: b,
            }
        }
        END => Step::End,
        KEEP => Step::Keep,
        other => return Err(WireError::Tag(other)),
    };
    Ok((Uuid::from_bytes(session), step))
}

fn decode_begin(mut b: Bytes) -> Result<Begin, WireError> {
    let vote = take_vote(&mut b)?;
    need(&b, 4)?;
    let len = b.get_u32() as usize;
    need(&b, len)?;
    let state = decode_state(&b.split_to(len)).ok_or(WireError::Short)?;
    let export = Export::decode(&b).ok_or(WireError::Short)?;
    Ok(Begin { vote, state, export })
}

/// `None`: not yet.
pub(super) fn encode_answer(done: Option<&RaftVote>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(u8::from(done.is_some()));
    if let Some(vote) = done {
        put_vote(&mut out, vote);
    }
    out.freeze()
}

pub(super) fn decode_answer(mut b: Bytes) -> Result<Option<RaftVote>, WireError> {
    need(&b, 1)?;
    match b.get_u8() {
        0 => Ok(None),
        1 => take_vote(&mut b).map(Some),
        other => Err(WireError::Tag(other)),
    }
}
