//! Whether an idempotent batch follows, repeats or breaks its producer's sequence (KIP-98, KIP-360).

use takhin_protocol::record::{BatchHeader, NO_PRODUCER};
use takhin_storage::ProducerTable;

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is next, or not idempotent, or of a producer that is not known (any more).
    Append,
    /// One of the producer's last five batches again.
    Duplicate {
        base_offset: i64,
        next_offset: i64,
        timestamp: i64,
    },
    /// A gap, or older than what is remembered.
    OutOfOrder { expected: i32 },
    /// A newer incarnation of the producer has written already.
    Fenced { current: i16 },
}

pub(super) fn judge(table: &ProducerTable, header: &BatchHeader) -> Verdict {
    if header.producer_id == NO_PRODUCER {
        return Verdict::Append;
    }
    // An unknown producer may begin anywhere: its state has expired or was deleted with its records (KIP-360).
    let Some(producer) = table.get(header.producer_id) else {
        return Verdict::Append;
    };
    if header.producer_epoch < producer.epoch {
        return Verdict::Fenced {
            current: producer.epoch,
        };
    }
    if header.producer_epoch > producer.epoch {
        return if header.base_sequence == 0 {
            Verdict::Append
        } else {
            Verdict::OutOfOrder { expected: 0 }
        };
    }
    let Some(last) = producer.batches.back() else {
        return Verdict::Append;
    };
    let last_sequence = wrapping_add(header.base_sequence, header.last_offset_delta);
    let repeated = producer
        .batches
        .iter()
        .find(|batch| batch.first_sequence == header.base_sequence && batch.last_sequence == last_sequence);
    if let Some(batch) = repeated {
        return Verdict::Duplicate {
            base_offset: batch.base_offset,
            next_offset: batch.last_offset + 1,
            timestamp: batch.timestamp,
        };
    }
    let expected = wrapping_add(last.last_sequence, 1);
    if header.base_sequence == expected {
        Verdict::Append
    } else {
        Verdict::OutOfOrder { expected }
    }
}

/// Sequence numbers wrap from `i32::MAX` to 0.
fn wrapping_add(sequence: i32, n: i32) -> i32 {
    sequence.wrapping_add(n) & i32::MAX
}
