//! What brokers agree on: metadata, leadership, replication.
//!
//! - [`Cluster`] is a node's view: the metadata image, the partitions that live here, and the changes one may ask
//!   for.
//! - [`Partition`] is one partition as its leader serves it: produce, fetch, offsets, idempotence.
//! - [`Replicator`] is the seam to whatever replicates; `raft` puts openraft behind it and is the only code that
//!   names it.
//!
//! Left to others: bytes on disk (`takhin-storage`), requests and error codes (`takhin-broker`).
//!
//! Start reading at `partition/mod.rs`, then `raft/group.rs`.

mod cluster;
mod controller;
mod disk_gate;
mod leaders;
mod links;
mod metadata;
mod metrics;
mod partition;
mod placement;
mod raft;
mod replicator;
mod survey;
mod throttle;

pub use cluster::{
    Addition, Cluster, ClusterOptions, ClusterStats, FormingError, Interconnect, MAX_COMPACTED_BATCH, Move,
    NoElection, Quorum, QuorumReplica, StartError,
};
pub use controller::{ConfigTarget, NewTopic, ReplicaChange, TopicError};
pub use links::{Class, Kind, LinkError, Links};
pub use metadata::{
    BrokerInfo, Endpoint, INTERNAL_REPLICAS, Image, MetadataRecord, PartitionInfo, Reassignment, TopicInfo,
    is_internal,
};
pub use partition::{
    Acks, Fetched, FoundOffset, Isolation, OffsetSpec, Offsets, Partition, PartitionId, ProduceError,
    Produced, ReadError, ServedBy, Ticket, Waiter,
};
pub use placement::{Fitness, Fitnesses, Spread};
pub use replicator::{ProposalSink, ProposeError, Replicator};
pub use survey::{
    BrokerReport, Concern, ConcernKind, DecommissionProgress, DiskReport, DrainProgress, Findings, Load,
    RestartSafety, Survey,
};
