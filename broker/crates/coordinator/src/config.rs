//! Settings of the group coordinator.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// Settings of the group coordinator. The defaults are Kafka's where Kafka has the setting.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`, inclusive. Default 6 s.
    pub min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`, inclusive. Default 30 min.
    pub max_session_timeout: Duration,
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for more members;
    /// each that comes in this time makes it wait as long again, up to the rebalance timeout. Default 3 s.
    pub initial_rebalance_delay: Duration,
    /// How long a JoinGroup of a member that has no id yet waits; the client has no way to say that it is still there.
    /// Kafka has this as a constant. Default 5 min.
    pub new_member_join_timeout: Duration,
    /// `group.max.size`: members of a group. One more is answered GROUP_MAX_SIZE_REACHED. Default: no limit but that
    /// of `max_group_bytes`.
    pub max_group_size: usize,
    /// Bytes that a group's members take in memory: metadata for all their protocols, ids, 256 for each member and each
    /// member id that was given out and not used yet. A join beyond it is answered GROUP_MAX_SIZE_REACHED. Assignments
    /// come on top; `max_batch_bytes` bounds them. Default 16 MiB; Kafka has no such limit.
    pub max_group_bytes: usize,
    /// Groups of one shard. A join or commit that would make one more is answered GROUP_MAX_SIZE_REACHED. Default
    /// 100,000; Kafka has no such limit.
    pub max_groups: usize,
    /// Bytes of the records of an outcome, the size of the batch that holds them: `max.message.bytes` of
    /// `__consumer_offsets` less the batch's header. What is larger is answered as by Kafka when the append is refused:
    /// an assignment UNKNOWN_SERVER_ERROR (and the group rebalances), offsets INVALID_COMMIT_OFFSET_SIZE, deleted
    /// offsets UNKNOWN_SERVER_ERROR. Deletions that nobody chose the size of come in several outcomes. Default 1 MiB
    /// less 128 bytes.
    pub max_batch_bytes: usize,
    /// `group.consumer.session.timeout.ms`: a member of a consumer group that is silent for so long is fenced.
    /// Default 45 s.
    pub consumer_session_timeout: Duration,
    /// `group.consumer.heartbeat.interval.ms`, which members are told to keep. Default 5 s.
    pub consumer_heartbeat_interval: Duration,
    /// `group.consumer.max.size`: members of a consumer group. One more is answered GROUP_MAX_SIZE_REACHED. Default:
    /// no limit but that of `max_group_bytes`.
    pub consumer_max_size: usize,
    /// `offset.metadata.max.bytes`: bytes of the note that a client may put beside an offset. Default 4096.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`: how long offsets of a group without members are kept. Default 7 days.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`. Default 10 min.
    pub offsets_retention_check_interval: Duration,
    /// What is set for single groups. Default: nothing.
    pub of_groups: Arc<dyn GroupOverrides>,
}

/// What is set for single consumer groups, where they differ from what [`GroupConfig`] says for all.
pub trait GroupOverrides: Debug + Send + Sync {
    /// `consumer.session.timeout.ms` of the group, if it has one.
    fn session_timeout(&self, group: &str) -> Option<Duration>;

    /// `consumer.heartbeat.interval.ms` of the group, if it has one.
    fn heartbeat_interval(&self, group: &str) -> Option<Duration>;
}

/// No group differs.
impl GroupOverrides for () {
    fn session_timeout(&self, _: &str) -> Option<Duration> {
        None
    }

    fn heartbeat_interval(&self, _: &str) -> Option<Duration> {
        None
    }
}

impl GroupConfig {
    /// How long a member of this consumer group may be silent.
    pub(crate) fn consumer_session_timeout(&self, group: &str) -> Duration {
        let own = self.of_groups.session_timeout(group);
        own.unwrap_or(self.consumer_session_timeout)
    }

    /// How often members of this consumer group are told to send a heartbeat.
    pub(crate) fn consumer_heartbeat_interval(&self, group: &str) -> Duration {
        let own = self.of_groups.heartbeat_interval(group);
        own.unwrap_or(self.consumer_heartbeat_interval)
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: minutes(30),
            initial_rebalance_delay: Duration::from_secs(3),
            new_member_join_timeout: minutes(5),
            max_group_size: usize::MAX,
            max_group_bytes: 16 << 20,
            max_groups: 100_000,
            max_batch_bytes: (1 << 20) - 128,
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
            consumer_max_size: usize::MAX,
            offset_metadata_max_bytes: 4096,
            offsets_retention: minutes(7 * 24 * 60),
            offsets_retention_check_interval: minutes(10),
            of_groups: Arc::new(()),
        }
    }
}
