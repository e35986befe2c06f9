//! A shard between its clients and its log.

mod admin;
mod join;
mod offsets;
mod property;
mod session;
mod statics;
mod sync;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use takhin_protocol::messages::leave_group_request::MemberIdentity;
use takhin_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use takhin_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use takhin_protocol::messages::{self as kafka, *};
use uuid::Uuid;

use super::*;
use crate::group::own;
use crate::records::{ClassicRecord, GroupMetadata};
use crate::topics::{TopicInfo, Topics};

/// Topics with a number of partitions each.
#[derive(Debug, Default)]
struct FakeTopics(BTreeMap<String, i32>);

impl Topics for FakeTopics {
    fn version(&self) -> u64 {
        1
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        let partitions = *self.0.get(name)?;
        Some(TopicInfo {
            id: Uuid::from_u128(u128::from(partitions.unsigned_abs())),
            partitions,
        })
    }

    fn name_of(&self, _: Uuid) -> Option<&str> {
        None
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.0.keys().map(String::as_str))
    }

    fn racks(&self, _: &str, _: i32) -> Vec<String> {
        Vec::new()
    }
}

/// A shard with a clock, a log that commits at once, and the replies as clients get them.
struct Rig {
    shard: Shard,
    now: Now,
    log: Vec<Record>,
    /// Version of each request that was made.
    asked: BTreeMap<Ticket, i16>,
    replies: BTreeMap<Ticket, Reply>,
    answered: BTreeSet<Ticket>,
    topics: FakeTopics,
    client_id: String,
}

fn text(text: &str) -> StrBytes {
    own(text)
}

/// The metadata of a consumer that reads these topics.
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, u8::try_from(topics.len()).unwrap()];
    for topic in topics {
        bytes.extend([0, u8::try_from(topic.len()).unwrap()]);
        bytes.extend(topic.as_bytes());
    }
    bytes.extend([0xff; 4]);
    Bytes::from(bytes)
}

/// A join of a consumer with one protocol; its session lasts 10 s, a rebalance 60 s.
fn join(member_id: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(subscription(&["t"]));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn with_protocols(request: JoinGroupRequest, names: &[&str]) -> JoinGroupRequest {
    let protocol = |name: &&str| {
        JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(subscription(&["t"]))
    };
    request.with_protocols(names.iter().map(protocol).collect())
}

fn with_instance(request: JoinGroupRequest, instance: &str) -> JoinGroupRequest {
    request.with_group_instance_id(Some(text(instance)))
}

fn sync(member_id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> SyncGroupRequest {
    let assignments = assignments.iter().map(|(id, assignment)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(id))
            .with_assignment(Bytes::from_static(assignment.as_bytes()))
    });
    SyncGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id(generation)
        .with_member_id(text(member_id))
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(assignments.collect())
}

fn commit(member_id: &str, generation: i32, offsets: &[(&str, i32, i64)]) -> OffsetCommitRequest {
    let topics = offsets.iter().map(|(topic, partition, offset)| {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_leader_epoch(4)
            .with_committed_metadata(Some(text("note")));
        OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition])
    });
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member_id))
        .with_retention_time_ms(-1)
        .with_topics(topics.collect())
}

impl Rig {
    /// A shard with Kafka's defaults, and topics `t` of 2 and `u` of 1 partition.
    fn new() -> Self {
        Self::with(GroupConfig::default())
    }

    fn with(config: GroupConfig) -> Self {
        let mut rig = Self {
            shard: Shard::new(config),
            now: Now {
                monotonic: Duration::from_secs(5),
                wall_ms: 1_000_000,
            },
            log: Vec::new(),
            asked: BTreeMap::new(),
            replies: BTreeMap::new(),
            answered: BTreeSet::new(),
            topics: FakeTopics([("t".to_owned(), 2), ("u".to_owned(), 1)].into()),
            client_id: "app".to_owned(),
        };
        rig.shard.loaded(rig.now);
        rig
    }

    /// Calls a handler as a client with this version; then what is due at once.
    fn call(
        &mut self,
        version: i16,
        handler: impl FnOnce(&mut Shard, &Context<'_>) -> Vec<Outcome>,
    ) -> Ticket {
        let ticket = Ticket(self.asked.len() as u64);
        let cx = Context {
            now: self.now,
            ticket,
            version,
            client_id: &self.client_id,
            client_host: "/10.0.0.7",
            uuid: Uuid::from_u128(u128::from(ticket.0)),
            topics: &self.topics,
        };
        let outcomes = handler(&mut self.shard, &cx);
        self.asked.insert(ticket, version);
        for outcome in outcomes {
            self.absorb(outcome);
        }
        self.advance(0);
        ticket
    }

    /// What the adapter does with an outcome, and what it relies on.
    fn absorb(&mut self, outcome: Outcome) {
        let bytes: usize = outcome.records.iter().map(Record::size).sum();
        assert!(
            bytes <= self.shard.config.max_batch_bytes,
            "{bytes} bytes in one outcome"
        );
        for record in outcome.records {
            let (key, value) = record.encode().unwrap();
            assert_eq!(Record::decode(&key, value.as_deref()), Ok(Some(record.clone())));
            self.log.push(record);
        }
        for (ticket, reply) in outcome.replies {
            assert_can_be_sent(self.asked[&ticket], &reply);
            assert!(self.answered.insert(ticket), "{ticket:?} is answered twice");
            self.replies.insert(ticket, reply);
        }
    }

    /// Lets time pass, timer by timer.
    fn advance(&mut self, ms: u64) {
        let end = self.now.monotonic + Duration::from_millis(ms);
        for _ in 0..10_000 {
            let due = self.shard.next_deadline().filter(|due| *due <= end);
            let at = due.map_or(end, |due| due.max(self.now.monotonic));
            self.now.wall_ms += i64::try_from((at - self.now.monotonic).as_millis()).unwrap();
            self.now.monotonic = at;
            if due.is_none() {
                return;
            }
            let outcome = self.shard.expire(self.now, &self.topics);
            self.absorb(outcome);
        }
        panic!("timers never come to rest");
    }

    /// A new leader reads the log.
    fn fail_over(&mut self) -> Vec<(Ticket, Reply)> {
        let dropped = self.shard.drop_waiting();
        self.shard = Shard::new(self.shard.config.clone());
        for record in &self.log {
            self.shard.replay(record);
        }
        self.shard.loaded(self.now);
        dropped
    }

    fn join_at(&mut self, version: i16, request: &JoinGroupRequest) -> Ticket {
        self.call(version, |shard, cx| vec![shard.join_group(cx, request)])
    }

    /// Joins with version 3, in which a member gets its id with its generation.
    fn join(&mut self, request: &JoinGroupRequest) -> Ticket {
        self.join_at(if request.group_instance_id.is_some() { 5 } else { 3 }, request)
    }

    fn sync(&mut self, request: &SyncGroupRequest) -> Ticket {
        self.call(5, |shard, cx| vec![shard.sync_group(cx, request)])
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(text(member_id))
            .with_generation_id(generation);
        let ticket = self.call(4, |shard, cx| vec![shard.heartbeat(cx, &request)]);
        match self.take(ticket) {
            Reply::Heartbeat(response) => code(response.error_code),
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let members = members.iter().map(|(id, instance)| {
            MemberIdentity::default()
                .with_member_id(text(id))
                .with_group_instance_id(instance.map(text))
        });
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_members(members.collect());
        let ticket = self.call(5, |shard, cx| vec![shard.leave_group(cx, &request)]);
        match self.take(ticket) {
            Reply::LeaveGroup(response) => {
                assert_eq!(response.error_code, 0);
                response
                    .members
                    .iter()
                    .map(|member| code(member.error_code))
                    .collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, version: i16, request: &OffsetCommitRequest) -> Vec<ErrorCode> {
        let ticket = self.call(version, |shard, cx| vec![shard.offset_commit(cx, request)]);
        match self.take(ticket) {
            Reply::OffsetCommit(response) => {
                let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.map(|partition| code(partition.error_code)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// All offsets of the group `g`.
    fn committed(&self) -> Vec<(String, i32, i64)> {
        let topics = self.shard.offsets.of_group("g").into_iter().flatten();
        let offsets = topics.flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(|(partition, offset)| (topic.to_string(), *partition, offset.offset))
        });
        offsets.collect()
    }

    fn take(&mut self, ticket: Ticket) -> Reply {
        self.replies
            .remove(&ticket)
            .unwrap_or_else(|| panic!("{ticket:?} waits"))
    }

    fn waits(&self, ticket: Ticket) -> bool {
        !self.answered.contains(&ticket)
    }

    fn joined(&mut self, ticket: Ticket) -> JoinGroupResponse {
        match self.take(ticket) {
            Reply::JoinGroup(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn synced(&mut self, ticket: Ticket) -> (ErrorCode, Bytes) {
        match self.take(ticket) {
            Reply::SyncGroup(response) => (code(response.error_code), response.assignment),
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> &'static str {
        self.shard
            .groups
            .get(b"g".as_slice())
            .map_or("Dead", Group::state_name)
    }

    /// A stable group of so many dynamic members, the leader first.
    fn stable(&mut self, size: usize) -> Vec<String> {
        let requests = vec![join(""); size];
        self.stable_with(&requests)
    }

    /// A stable group of those who join with these requests, the leader first. Each is assigned `work`.
    fn stable_with(&mut self, requests: &[JoinGroupRequest]) -> Vec<String> {
        let tickets: Vec<Ticket> = requests.iter().map(|request| self.join(request)).collect();
        while self.waits(tickets[0]) {
            self.advance(1_000);
        }
        let joined: Vec<_> = tickets.into_iter().map(|ticket| self.joined(ticket)).collect();
        let ids: Vec<String> = joined
            .iter()
            .map(|response| response.member_id.to_string())
            .collect();
        assert!(
            joined
                .iter()
                .all(|response| response.error_code == 0 && response.leader == joined[0].member_id)
        );
        let work: Vec<(&str, &'static str)> = ids.iter().map(|id| (id.as_str(), "work")).collect();
        for id in &ids {
            let ticket = self.sync(&sync(id, joined[0].generation_id, &work));
            assert_eq!(
                self.synced(ticket),
                (ErrorCode::NoError, Bytes::from_static(b"work"))
            );
        }
        assert_eq!(self.state(), "Stable");
        ids
    }

    /// The newest record of the group.
    fn last_group(&self) -> Option<GroupMetadata> {
        let groups = self.log.iter().rev().filter_map(|record| match record {
            Record::Classic(record) => Some(record.value.clone()),
            Record::Offset(_) | Record::Consumer(_) => None,
        });
        groups.flatten().next()
    }
}

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap()
}

/// Every reply can be encoded in the version in which it was asked for.
fn assert_can_be_sent(version: i16, reply: &Reply) {
    macro_rules! encode {
        ($($api:ident)*) => { match reply { $( Reply::$api(response) => {
            kafka::encode_response(version, 1, response).map(|_| ())
        } )* } };
    }
    let result = encode!(
        JoinGroup SyncGroup Heartbeat LeaveGroup OffsetCommit OffsetFetch OffsetDelete DescribeGroups ListGroups
        DeleteGroups ConsumerGroupHeartbeat ConsumerGroupDescribe
    );
    result.unwrap_or_else(|error| panic!("version {version}: {error:?} for {reply:?}"));
}
