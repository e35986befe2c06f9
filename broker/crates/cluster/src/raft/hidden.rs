//! Hidden entries: what the replication layer itself keeps in a partition's log.
//!
//! ```text
//! 0  kind      u8    1 blank, 2 membership, 3 log start
//! 1  version   u8    1
//! 2  body
//!      membership: configs u16, each: voters u16, each u64; nodes u16, each: id u64, directory 16 bytes
//!      log start:  offset i64
//! ```
//! Big endian. The bytes are ours and hold no openraft type, so that an upgrade of openraft is a compile problem
//! and never a data problem.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use super::types::{Data, RaftMembership, Voter};

const VERSION: u8 = 1;
const BLANK: u8 = 1;
const MEMBERSHIP: u8 = 2;
const LOG_START: u8 = 3;

/// A hidden entry's meaning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Hidden {
    Blank,
    Membership(RaftMembership),
    LogStart { offset: i64 },
}

/// Why a hidden entry cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HiddenError {
    #[error("hidden entry ends too early")]
    Short,
    #[error(
        "hidden entry of kind {kind} version {version}; kind {LOG_START} and version {VERSION} are the newest that this \
         release knows: start the release that wrote it, or a later one"
    )]
    Unknown { kind: u8, version: u8 },
    #[error("hidden entry holds an impossible membership")]
    Membership,
}

/// Bytes of a hidden entry.
pub(crate) fn encode(hidden: &Hidden) -> Bytes {
    let mut out = Vec::new();
    match hidden {
        Hidden::Blank => out.extend([BLANK, VERSION]),
        Hidden::Membership(membership) => {
            out.extend([MEMBERSHIP, VERSION]);
            encode_membership(membership, &mut out);
        }
        Hidden::LogStart { offset } => {
            out.extend([LOG_START, VERSION]);
            out.put_i64(*offset);
        }
    }
    out.into()
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(mut body: &[u8]) -> Result<Hidden, HiddenError> {
    if body.len() < 2 {
        return Err(HiddenError::Short);
    }
    match (body.get_u8(), body.get_u8()) {
        (BLANK, VERSION) => Ok(Hidden::Blank),
        (MEMBERSHIP, VERSION) => decode_membership(body).map(Hidden::Membership),
        (LOG_START, VERSION) if body.len() >= 8 => Ok(Hidden::LogStart {
            offset: body.get_i64(),
        }),
        (LOG_START, VERSION) => Err(HiddenError::Short),
        (kind, version) => Err(HiddenError::Unknown { kind, version }),
    }
}

/// Bytes of a membership alone, for the hard-state store.
pub(crate) fn encode_membership(membership: &RaftMembership, out: &mut Vec<u8>) {
    fn count(n: usize) -> u16 {
        // A group has a handful of replicas; openraft itself could not elect among 65,535.
        u16::try_from(n).unwrap_or(u16::MAX)
    }
    let configs = membership.get_joint_config();
    out.put_u16(count(configs.len()));
    for config in configs {
        out.put_u16(count(config.len()));
        for id in config {
            out.put_u64(*id);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u16(count(nodes.len()));
    for (id, voter) in nodes {
        out.put_u64(*id);
        out.put_slice(voter.directory.as_bytes());
    }
}

/// Reads what [`encode_membership`] wrote.
pub(crate) fn decode_membership(mut b: &[u8]) -> Result<RaftMembership, HiddenError> {
    let mut configs = Vec::new();
    for _ in 0..take_u16(&mut b)? {
        let mut config = BTreeSet::new();
        for _ in 0..take_u16(&mut b)? {
            config.insert(take_u64(&mut b)?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..take_u16(&mut b)? {
        let id = take_u64(&mut b)?;
        if b.len() < 16 {
            return Err(HiddenError::Short);
        }
        let mut directory = [0; 16];
        b.copy_to_slice(&mut directory);
        nodes.insert(
            id,
            Voter {
                directory: Uuid::from_bytes(directory),
            },
        );
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(RaftMembership::default());
    }
    RaftMembership::new(configs, nodes).map_err(|_| HiddenError::Membership)
}

fn take_u16(b: &mut &[u8]) -> Result<u16, HiddenError> {
    if b.len() < 2 {
        Err(HiddenError::Short)
    } else {
        Ok(b.get_u16())
    }
}

fn take_u64(b: &mut &[u8]) -> Result<u64, HiddenError> {
    if b.len() < 8 {
        Err(HiddenError::Short)
    } else {
        Ok(b.get_u64())
    }
}

impl From<&Hidden> for Option<Data> {
    fn from(hidden: &Hidden) -> Self {
        match hidden {
            Hidden::LogStart { offset } => Some(Data::LogStart { offset: *offset }),
            Hidden::Blank | Hidden::Membership(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_a_round_trip() {
        let voter = Voter {
            directory: Uuid::from_u128(9),
        };
        let voters = RaftMembership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, voter)])).unwrap();
        for hidden in [
            Hidden::Blank,
            Hidden::Membership(voters),
            Hidden::LogStart { offset: 42 },
        ] {
            assert_eq!(decode(&encode(&hidden)).unwrap(), hidden);
        }
    }

    #[test]
    fn truncated_and_newer_entries_are_refused() {
        let bytes = encode(&Hidden::LogStart { offset: 42 });
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(matches!(
            decode(&[BLANK, 9]),
            Err(HiddenError::Unknown { version: 9, .. })
        ));
    }
}
