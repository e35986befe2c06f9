//! Group coordinators as state machines: no I/O, no clock, no tasks.
//!
//! A shard is one partition of `__consumer_offsets`. A handler is a synchronous function of its state, the
//! [`Context`] and a request; it returns an [`Outcome`]: records to append, and replies to send once they are committed.
//! Committed offsets change by replaying records only, whether a handler has just decided on a record or a new leader
//! reads the log. A classic group changes in memory and writes snapshots of itself; a test with random clients holds that
//! the log says the same. What is not durable (who waits in a join, session deadlines) is lost with the leader, as in
//! Kafka. Start reading at [`Shard`].
//!
//! Invariants:
//!
//! - a reply never leaves before the records of its outcome, and of every earlier outcome of the shard, are committed;
//! - when an append fails, the whole shard is dropped and rebuilt from the log: undoing is replaying;
//! - no decision depends on the order of a hash map;
//! - records are Kafka's, so that its tools can read the topic.

mod assignor;
mod config;
mod group;
mod offsets;
mod outcome;
mod records;
mod shard;
mod timers;
mod topics;

pub use self::config::{GroupConfig, GroupOverrides};
pub use self::outcome::{Context, Now, Outcome, Reply, Ticket};
pub use self::records::{
    ClassicMetadata, ClassicRecord, CommittedOffset, ConsumerMember, ConsumerRecord, CurrentAssignment,
    GroupEpoch, GroupMetadata, MemberMetadata, MemberState, OffsetRecord, Partitions, Record, RecordError,
    ResolvedRegex, TopicMetadata,
};
pub use self::shard::{GroupView, Shard};
pub use self::topics::{TopicInfo, Topics};
