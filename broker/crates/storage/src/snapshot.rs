//! The state that a log derives from its entries, as of one point: epochs and producers.
//!
//! One `.producers` file at each roll (named like the segment that begins there) and one at a clean close (named
//! after the log's end). A cache: without any valid one, the state is rebuilt from all batch headers.
//!
//! ```text
//! next_offset i64 | next_index u64
//! epochs u32    * { epoch u32 | first_index u64 | first_offset i64 }
//! producers u32 * { id i64 | epoch i16 | last_timestamp i64 | transaction_start i64 or -1 | batches u8
//!                   * { first_sequence i32 | last_sequence i32 | base_offset i64 | last_offset i64 | timestamp i64 } }
//! ```

use bytes::Buf;

use crate::epochs::EpochHistory;
use crate::format::SegmentId;
use crate::producers::ProducerTable;

/// Epochs and producers as of a point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) epochs: EpochHistory,
    pub(crate) producers: ProducerTable,
}

impl Derived {
    /// `None` unless it is a snapshot of exactly the point `at`.
    pub(crate) fn decode(at: SegmentId, mut body: &[u8]) -> Option<Self> {
        let b = &mut body;
        let found = SegmentId::decode(b)?;
        let epochs = EpochHistory::decode(b)?;
        let producers = ProducerTable::decode(b)?;
        (found == at && !b.has_remaining()).then_some(Self { epochs, producers })
    }
}

pub(crate) fn encode(at: SegmentId, epochs: &EpochHistory, producers: &ProducerTable) -> Vec<u8> {
    let mut out = Vec::new();
    at.encode(&mut out);
    epochs.encode(&mut out);
    producers.encode(&mut out);
    out
}
