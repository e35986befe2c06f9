//! A partition as this broker serves it: offsets, idempotence, acknowledgements, reads. A follower serves reads only, to
//! those who ask for no more than a replica of it (KIP-392).
//!
//! ```text
//! produce ──▶ sequence check ──▶ offset ──▶ replicator ──▶ log append ──▶ flush ──▶ commit
//!                 (overlay)     (next_offset)             appended()              committed()
//!                                                         acks=1 replies          high watermark, acks=all replies,
//!                                                                                 waiting fetches: in this order
//! ```
//!
//! Invariants
//! - `log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset`, each monotonic but the log end.
//! - Only [`ProposalSink::committed`] moves the high watermark, and it does so before any reply that depends on it.
//! - The producer overlay holds every batch proposed under the present term; when a proposal is rejected the overlay
//!   and everything queued behind it is discarded, and nothing is proposed until a new term has begun.

mod control;
mod delete_records;
mod in_flight;
mod produce;
mod read;
mod sequence;
mod state;
mod ticket;
mod types;
mod waiter;

pub use control::PartitionId;
pub use state::Partition;
pub use ticket::Ticket;
pub use types::{
    Acks, Fetched, FoundOffset, Isolation, OffsetSpec, Offsets, ProduceError, Produced, ReadError, ServedBy,
};
pub use waiter::Waiter;

#[cfg(test)]
mod tests;
