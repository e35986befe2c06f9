//! Events of a data set.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use takhin_pika_dump::Piece;

use crate::event::{Event, Kind, Part, SnapshotRef, Source};

/// Bytes of a key's hash in event ids.
const HASH_LEN: usize = 12;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The event of a piece of a key.
pub(super) fn of_piece(
    source: &Source,
    db: &Arc<str>,
    reference: &SnapshotRef,
    now_ms: i64,
    piece: Piece,
) -> Event {
    let digest = Sha256::digest(&piece.key);
    let digits = digest[..HASH_LEN].iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hash: String = digits.map(|digit| char::from(HEX[usize::from(digit)])).collect();
    let (epoch, id) = (source.epoch(), &reference.id);
    let (data_type, index) = (piece.data_type.name(), piece.index);
    Event {
        kind: Kind::Snapshot,
        op: piece.op.into(),
        data_type: Some(piece.data_type),
        db: Arc::clone(db),
        key: Some(piece.key),
        args: piece.args,
        ts_ms: now_ms,
        event_id: format!("{epoch}:{db}:snapshot:{id}:{data_type}:{hash}:{index}"),
        expire_at_ms: piece.expire_at_ms,
        place: None,
        part: Some(Part {
            index,
            is_last: piece.is_last,
        }),
        snapshot: Some(reference.clone()),
        is_random: false,
        has_more_keys: false,
        is_known: true,
    }
}

/// The event of its beginning or end, which every partition gets.
pub(super) fn boundary(
    source: &Source,
    db: &Arc<str>,
    reference: &SnapshotRef,
    now_ms: i64,
    op: &'static str,
) -> Event {
    let (epoch, id) = (source.epoch(), &reference.id);
    Event {
        kind: Kind::Control,
        op: op.into(),
        data_type: None,
        db: Arc::clone(db),
        key: None,
        args: Vec::new(),
        ts_ms: now_ms,
        event_id: format!("{epoch}:{db}:snapshot:{id}:{op}"),
        expire_at_ms: None,
        place: None,
        part: None,
        snapshot: Some(reference.clone()),
        is_random: false,
        has_more_keys: false,
        is_known: true,
    }
}
