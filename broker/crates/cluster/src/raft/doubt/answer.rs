//! What the others answer.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::ask::decode_question;
use crate::raft::group::Group;
use crate::raft::hidden;
use crate::raft::types::{RaftLogId, RaftStoredMembership};
use crate::raft::wire::{self, WireError};

/// Where a replica's log ends, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) last: Option<RaftLogId>,
    pub(super) of: Of,
}

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// That of a leader whom a majority has confirmed.
    Leader = 0,
    /// That of a replica that has all that it answered for.
    Sound = 1,
    /// That of one in doubt.
    InDoubt = 2,
    /// That of one that has heard of a leader who is there.
    Led = 3,
}

/// What a replica says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) end: End,
    /// The newest members that it knows of; `None` from a release that does not say.
    pub(super) members: Option<RaftStoredMembership>,
}

impl Group {
    /// Answers a replica in doubt. `is_led`: some broker that is there has said that it leads the partition.
    pub(crate) async fn answer_doubt(&self, mut body: Bytes, is_led: bool) -> Result<Bytes, String> {
        wire::meant_for(&self.spec.voter, &mut body)?;
        let asks = decode_question(body).map_err(|e| e.to_string())?;
        let partition = &self.spec.partition;
        let Some(epoch) = partition.leadership() else {
            let of = match (is_led, self.doubt.is_any()) {
                (true, _) => Of::Led,
                (false, true) => Of::InDoubt,
                (false, false) => Of::Sound,
            };
            let last = self.last().map_err(str::to_owned)?;
            return Ok(encode_answer(End { last, of }, self.newest_members().as_ref()));
        };
        let term = u64::try_from(epoch).map_err(|e| e.to_string())?;
        if !self.is_confirmed(term).await {
            return Err("no majority confirms this leader".to_owned());
        }
        let last = self.last().map_err(str::to_owned)?;
        // openraft may believe that a replica has all; it learns better with the next entry, which writers bring anyway.
        let is_idle = asks < last && self.doubt.has_answered_before(last);
        if is_idle {
            // This one changes nothing. Refused only when leadership is lost or passed on, which another question tells.
            let _ = partition.propose_log_start(partition.offsets().log_start_offset);
        }
        Ok(encode_answer(
            End { last, of: Of::Leader },
            self.newest_members().as_ref(),
        ))
    }
}

/// Whose log u8 | last entry | the entry that brought the newest members, and these.
fn encode_answer(end: End, members: Option<&RaftStoredMembership>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(end.of as u8);
    wire::put_log_id(&mut out, end.last.as_ref());
    if let Some(members) = members {
        wire::put_log_id(&mut out, members.log_id().as_ref());
        let mut encoded = Vec::new();
        hidden::encode_membership(members.membership(), &mut encoded);
        out.put_slice(&encoded);
    }
    out.freeze()
}

pub(super) fn decode_answer(mut body: Bytes) -> Result<Answer, WireError> {
    wire::need(&body, 1)?;
    let of = match body.get_u8() {
        0 => Of::Leader,
        1 => Of::Sound,
        2 => Of::InDoubt,
        3 => Of::Led,
        other => return Err(WireError::Tag(other)),
    };
    let last = wire::take_log_id(&mut body)?;
    let members = match body.is_empty() {
        true => None,
        false => {
            let of = wire::take_log_id(&mut body)?;
            let members = hidden::decode_membership(&body).map_err(|_| WireError::Short)?;
            Some(RaftStoredMembership::new(of, members))
        }
    };
    Ok(Answer {
        end: End { last, of },
        members,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use uuid::Uuid;

    use super::*;
    use crate::raft::types::{RaftMembership, Voter, log_id};

    #[test]
    fn answers_are_read_as_they_were_written() {
        let voter = Voter {
            directory: Uuid::from_u128(7),
        };
        let membership =
            RaftMembership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, voter)])).unwrap();
        let members = RaftStoredMembership::new(Some(log_id(2, 3)), membership);
        for of in [Of::Leader, Of::Sound, Of::InDoubt, Of::Led] {
            for last in [None, Some(log_id(2, 8))] {
                let end = End { last, of };
                for members in [None, Some(members.clone())] {
                    let bytes = encode_answer(end, members.as_ref());
                    assert!(decode_answer(bytes.slice(..bytes.len() - 1)).is_err());
                    assert_eq!(decode_answer(bytes).unwrap(), Answer { end, members });
                }
            }
        }
        assert!(decode_answer(Bytes::from_static(&[4, 0])).is_err());
    }
}
