//! What goes into a handler and what comes out.

use std::time::Duration;

use takhin_protocol::messages::{
    ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatResponse, DeleteGroupsResponse,
    DescribeGroupsResponse, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse, ListGroupsResponse,
    OffsetCommitResponse, OffsetDeleteResponse, OffsetFetchResponse, SyncGroupResponse,
};
use uuid::Uuid;

use crate::records::Record;
use crate::topics::Topics;

/// The time of a call, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic, from an origin that does not change while a shard lives. Deadlines are in it.
    pub monotonic: Duration,
    /// Wall time in milliseconds since 1970. Timestamps in records are in it.
    pub wall_ms: i64,
}

/// Names a request that waits for its reply. Chosen by the caller, unique among the requests that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What surrounds a request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The time of this call.
    pub now: Now,
    /// The request's ticket; its reply comes with this call's outcome or a later one.
    pub ticket: Ticket,
    /// Version of the API that the client used.
    pub version: i16,
    /// The client's name of itself; empty if it gave none.
    pub client_id: &'a str,
    /// Its address as Java prints it: `/10.0.0.7`.
    pub client_host: &'a str,
    /// A new random number, for member ids.
    pub uuid: Uuid,
    /// The cluster's topics.
    pub topics: &'a dyn Topics,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("now", &self.now)
            .field("ticket", &self.ticket)
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// What a call decided. The shard's state includes `records` already; they are to be appended as one batch.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// Records to append, atomically and in this order.
    pub records: Vec<Record>,
    /// Replies to send once these records, and those of all earlier outcomes, are committed. Not only to the request of
    /// this call: the last member to join answers everybody's wait.
    pub replies: Vec<(Ticket, Reply)>,
}

/// A response to one of the APIs of this crate.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the response of the API of its name")]
#[allow(clippy::large_enum_variant, reason = "moved once")]
pub enum Reply {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponse),
    OffsetDelete(OffsetDeleteResponse),
    DescribeGroups(DescribeGroupsResponse),
    ListGroups(ListGroupsResponse),
    DeleteGroups(DeleteGroupsResponse),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponse),
    ConsumerGroupDescribe(ConsumerGroupDescribeResponse),
}
