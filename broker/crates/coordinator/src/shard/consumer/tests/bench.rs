//! A shard with topics, a clock and a log.

use std::collections::BTreeMap;
use std::time::Duration;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use takhin_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupId, StrBytes, TopicName,
};
use uuid::Uuid;

use crate::config::GroupConfig;
use crate::group::Group;
use crate::outcome::{Context, Now, Outcome, Reply, Ticket};
use crate::records::Record;
use crate::shard::Shard;
use crate::topics::{TopicInfo, Topics};

/// The group of all tests.
pub(super) const GROUP: &str = "g";

#[derive(Debug, Default, Clone)]
pub(super) struct Cluster {
    topics: BTreeMap<String, TopicInfo>,
    version: u64,
}

impl Topics for Cluster {
    fn version(&self) -> u64 {
        self.version
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        self.topics.get(name).copied()
    }

    fn name_of(&self, id: Uuid) -> Option<&str> {
        let mut topics = self.topics.iter();
        topics
            .find(|(_, topic)| topic.id == id)
            .map(|(name, _)| name.as_str())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.topics.keys().map(String::as_str))
    }

    fn racks(&self, _name: &str, _partition: i32) -> Vec<String> {
        Vec::new()
    }
}

impl Cluster {
    /// Makes the topic, or gives it more partitions.
    pub(super) fn set(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        let id = Uuid::from_u128(0x100 + u128::from(self.version));
        let topic = TopicInfo { id, partitions };
        self.topics.entry(name.to_owned()).or_insert(topic).partitions = partitions;
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }
}

pub(super) struct Bench {
    pub(super) shard: Shard,
    pub(super) topics: Cluster,
    pub(super) now: Duration,
    pub(super) log: Vec<Record>,
    tickets: u64,
}

impl Bench {
    pub(super) fn new(topics: &[(&str, i32)]) -> Self {
        Self::with(GroupConfig::default(), topics)
    }

    pub(super) fn with(config: GroupConfig, topics: &[(&str, i32)]) -> Self {
        let mut cluster = Cluster::default();
        for (name, partitions) in topics {
            cluster.set(name, *partitions);
        }
        let mut shard = Shard::new(config);
        let now = Duration::from_secs(1000);
        shard.loaded(at(now));
        Self {
            shard,
            topics: cluster,
            now,
            log: Vec::new(),
            tickets: 0,
        }
    }

    /// Calls a handler; its records go to the log.
    pub(super) fn call(
        &mut self,
        version: i16,
        handler: impl FnOnce(&mut Shard, &Context<'_>) -> Outcome,
    ) -> Vec<(Ticket, Reply)> {
        self.tickets += 1;
        let cx = Context {
            now: at(self.now),
            ticket: Ticket(self.tickets),
            version,
            client_id: "client",
            client_host: "/10.0.0.1",
            uuid: Uuid::from_u128(u128::from(self.tickets)),
            topics: &self.topics,
        };
        let outcome = handler(&mut self.shard, &cx);
        self.log.extend(outcome.records);
        outcome.replies
    }

    /// Calls a handler that answers at once.
    pub(super) fn ask(
        &mut self,
        version: i16,
        handler: impl FnOnce(&mut Shard, &Context<'_>) -> Outcome,
    ) -> Reply {
        let mut replies = self.call(version, handler);
        let ticket = Ticket(self.tickets);
        let at = replies
            .iter()
            .position(|(other, _)| *other == ticket)
            .expect("a reply");
        replies.swap_remove(at).1
    }

    pub(super) fn beat(&mut self, request: &ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        match self.ask(1, |shard, cx| shard.consumer_group_heartbeat(cx, request)) {
            Reply::ConsumerGroupHeartbeat(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// The code of a heartbeat that is refused; it must have written nothing.
    pub(super) fn refused(&mut self, request: &ConsumerGroupHeartbeatRequest) -> ErrorCode {
        let before = self.log.len();
        let response = self.beat(request);
        assert_eq!(self.log.len(), before, "{:?}", &self.log[before..]);
        assert!(response.error_message.is_some());
        ErrorCode::from_code(response.error_code).unwrap()
    }

    /// Lets time pass, and timers fire.
    pub(super) fn advance(&mut self, by: Duration) -> Vec<(Ticket, Reply)> {
        self.now += by;
        let mut replies = Vec::new();
        while self.shard.next_deadline().is_some_and(|due| due <= self.now) {
            let outcome = self.shard.expire(at(self.now), &self.topics);
            self.log.extend(outcome.records);
            replies.extend(outcome.replies);
        }
        replies
    }

    pub(super) fn state(&self) -> &'static str {
        self.shard
            .groups
            .get(GROUP.as_bytes())
            .map_or("Dead", Group::state_name)
    }

    pub(super) fn kind(&self) -> &'static str {
        self.shard
            .groups
            .get(GROUP.as_bytes())
            .map_or("", Group::type_name)
    }

    /// A new leader reads the log; what it knows must be what this one knows.
    pub(super) fn fail_over(&mut self) {
        let mut next = Shard::new(self.shard.config.clone());
        for record in &self.log {
            let (key, value) = record.encode().unwrap();
            let record = Record::decode(&key, value.as_deref()).unwrap().unwrap();
            next.replay(&record);
        }
        assert!(self.shard.groups.keys().eq(next.groups.keys()));
        for (live, read) in self.shard.groups.values().zip(next.groups.values()) {
            assert_eq!(live.type_name(), read.type_name());
            if let (Group::Consumer(live), Group::Consumer(read)) = (live, read) {
                live.assert_same(read);
            }
        }
        next.loaded(at(self.now));
        self.shard = next;
    }

    /// Names of the records from `first` on, short.
    pub(super) fn kinds(&self, first: usize) -> Vec<String> {
        use crate::records::ConsumerRecord as C;
        let name = |record: &Record| match record {
            Record::Offset(_) => "Offset".to_owned(),
            Record::Classic(record) => tombstone("Classic", record.value.is_none()),
            Record::Consumer(record) => {
                let name = match record {
                    C::Group { .. } => "Group",
                    C::PartitionMetadata { .. } => "PartitionMetadata",
                    C::Member { .. } => "Member",
                    C::TargetEpoch { .. } => "TargetEpoch",
                    C::Target { .. } => "Target",
                    C::Current { .. } => "Current",
                    C::Regex { .. } => "Regex",
                };
                tombstone(name, record.is_tombstone())
            }
        };
        self.log[first..].iter().map(name).collect()
    }
}

fn tombstone(name: &str, is: bool) -> String {
    format!("{}{name}", if is { "-" } else { "" })
}

fn at(monotonic: Duration) -> Now {
    Now {
        monotonic,
        wall_ms: i64::try_from(monotonic.as_millis()).unwrap(),
    }
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A heartbeat that says nothing but that the member is there.
pub(super) fn stay(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

pub(super) fn join(member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    let topics = topics.iter().map(|topic| TopicName(text(topic))).collect();
    stay(member, 0)
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(topics))
        .with_topic_partitions(Some(Vec::new()))
}

impl Bench {
    /// A heartbeat that tells what the member owns, by topic name.
    pub(super) fn own(
        &self,
        member: &str,
        epoch: i32,
        owned: &[(&str, &[i32])],
    ) -> ConsumerGroupHeartbeatRequest {
        let owned = owned.iter().map(|(topic, partitions)| {
            TopicPartitions::default()
                .with_topic_id(self.topics.by_name(topic).unwrap().id)
                .with_partitions(partitions.to_vec())
        });
        stay(member, epoch).with_topic_partitions(Some(owned.collect()))
    }

    /// Epoch and assignment of a response: `None` if it has none.
    #[allow(clippy::type_complexity, reason = "it is compared with literals")]
    pub(super) fn told(
        &self,
        response: &ConsumerGroupHeartbeatResponse,
    ) -> (i32, Option<Vec<(String, Vec<i32>)>>) {
        assert_eq!(response.error_code, 0, "{response:?}");
        let assignment = response.assignment.as_ref().map(|assignment| {
            let topics = assignment.topic_partitions.iter();
            topics
                .map(|topic| {
                    (
                        self.topics.name_of(topic.topic_id).unwrap_or("?").to_owned(),
                        topic.partitions.clone(),
                    )
                })
                .collect()
        });
        (response.member_epoch, assignment)
    }
}

/// An assignment to compare with.
pub(super) fn has(topics: &[(&str, &[i32])]) -> Option<Vec<(String, Vec<i32>)>> {
    let topics = topics.iter();
    Some(
        topics
            .map(|(topic, partitions)| ((*topic).to_owned(), partitions.to_vec()))
            .collect(),
    )
}
