//! The node file: every setting of a broker process, each declared once.
//!
//! All of them are read at start; a change of the file takes effect with the next start. Those marked `dynamic` can
//! also be set while the broker runs, under Kafka's names (AlterConfigs); what is set so wins over all sources here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::scalar::choice;
use crate::section::section;
use crate::units::{ByteSize, HostPort, Limit};

section! {
    /// The whole configuration of one broker.
    NodeConfig {
        /// This broker.
        node: Node = Node::default();
        /// The cluster that it belongs to.
        cluster: Cluster = Cluster::default();
        /// The Kafka protocol.
        kafka: Kafka = Kafka::default();
        /// Traffic between brokers.
        rpc: Rpc = Rpc::default();
        /// Health, metrics and administration over HTTP.
        admin: Admin = Admin::default();
        /// Logs on disk.
        storage: Storage = Storage::default();
        /// Logging.
        telemetry: Telemetry = Telemetry::default();
    }
}

section! {
    /// This broker.
    Node {
        /// Number of this broker, unique in the cluster and never given to another data directory.
        id: i32 = 1, in 0..=i32::MAX, kafka Int "node.id",
            required "give each broker of the cluster its own number, as in `id: 1`";
        /// Directory that holds everything this broker stores; created if missing. No other process may use it.
        data_dir: PathBuf = PathBuf::from("takhin-data"), kafka List "log.dirs",
            required "name a directory on a local disk, as in `data_dir: /var/lib/takhin`";
        /// Rack or zone of this broker; shown to clients in Metadata.
        rack: Option<String> = None, kafka String "broker.rack";
        /// How long a stopping broker waits for requests that are being served.
        drain_timeout: Duration = Duration::from_secs(10),
            in Duration::ZERO..=Duration::from_secs(600);
    }
}

section! {
    /// The cluster that this broker belongs to.
    Cluster {
        /// Name of the cluster. Brokers of another name are refused.
        name: String = "takhin".to_owned(),
            required "name the cluster, as in `name: demo`; the same name on every broker";
        /// `rpc.advertise` addresses of the cluster's first members, the same list on each of these.
        seeds: Vec<HostPort> = Vec::new(),
            required "list the rpc addresses of the first members, as in `seeds: [\"127.0.0.1:33145\"]`";
        /// Idle time after which a partition is parked: until somebody writes to it again, its replication takes neither
        /// memory nor processor time. The first write takes a few milliseconds more then. Zero parks none.
        park_after: Duration = Duration::from_secs(60), in Duration::ZERO..=CENTURY;
        /// How long a write to the data directory may wait before this broker withdraws: it breaks its connections, so that
        /// clients and other brokers go on without it until its disk answers again. Zero: it never does. Nor does a broker
        /// that is the only one.
        disk_stall_timeout: Duration = Duration::from_millis(500), in Duration::ZERO..=Duration::from_secs(3600);
        /// Moving replicas when brokers come and go. What the controller is told counts, which any broker may become.
        rebalance: Rebalance = Rebalance::default();
    }
}

section! {
    /// Moving replicas when brokers come and go.
    Rebalance {
        /// Whether replicas move onto new brokers by themselves. Those of brokers being decommissioned always move.
        enabled: bool = true, kafka Boolean "takhin.rebalance.enable" dynamic;
        /// Partitions that the cluster moves at a time; those that somebody else has begun to move do not count.
        max_moves: u16 = 20, in 1..=1000, kafka Int "takhin.rebalance.max.moves" dynamic;
        /// Percentage of its disk in use above which a broker gets no new replicas while others have room.
        max_disk_usage: u16 = 85, in 1..=100, kafka Int "takhin.rebalance.max.disk.usage" dynamic;
    }
}

section! {
    /// The Kafka protocol.
    Kafka {
        /// Where Kafka clients connect. Each listener answers with its own advertised address.
        listeners: Vec<Listener> = vec![Listener::default()];
        /// Permits listeners on addresses that other machines reach although they neither encrypt nor authenticate.
        allow_insecure: bool = false;
        /// Bounds on what clients may use.
        limits: Limits = Limits::default();
        /// Consumer groups and the offsets that they commit.
        groups: Groups = Groups::default();
        /// Whether producing to or asking for a missing topic creates it.
        auto_create_topics: bool = true, kafka Boolean "auto.create.topics.enable" dynamic;
        /// Whether DeleteTopics is served.
        delete_topic_enable: bool = true, kafka Boolean "delete.topic.enable" dynamic;
        /// Partitions of a topic created without a number.
        num_partitions: u32 = 1, in 1..=10_000, kafka Int "num.partitions" dynamic;
        /// Replicas of a topic created without a number; no more than there are brokers.
        default_replication_factor: u16 = 1, in 1..=7, kafka Int "default.replication.factor" dynamic;
        /// Largest record batch, as sent, that a topic without its own `max.message.bytes` takes.
        message_max_bytes: ByteSize = ByteSize::bytes(1_048_588),
            in ByteSize::kib(1)..=ByteSize::gib(1), kafka Int "message.max.bytes" dynamic;
        /// Largest Fetch response, whatever the client asks for. A first batch that is larger is sent whole.
        fetch_max_bytes: ByteSize = ByteSize::mib(55),
            in ByteSize::kib(1)..=ByteSize::gib(1), kafka Int "fetch.max.bytes" dynamic;
        /// Incremental fetch sessions (KIP-227) kept at a time; consumers without one send full requests.
        fetch_session_slots: u32 = 1000, in 0..=100_000, kafka Int "max.incremental.fetch.session.cache.slots";
        /// Where consumers read that name their rack (`client.rack`): `rack` sends them to a replica in it that is in sync,
        /// if the leader is in another one; `leader` serves all of them. Followers serve whoever comes, up to the high
        /// watermark that they know (KIP-392).
        replica_selector: ReplicaSelector = ReplicaSelector::Rack, kafka String "replica.selector.class";
    }
}

section! {
    /// Consumer groups and the offsets that they commit.
    Groups {
        /// Partitions of the topic that groups live in, when it is made; a group lives in one of them for ever.
        offsets_topic_partitions: u32 = 50, in 1..=10_000, kafka Int "offsets.topic.num.partitions";
        /// Shortest session timeout that a member may ask for.
        min_session_timeout: Duration = Duration::from_secs(6),
            in Duration::ZERO..=Duration::from_secs(86_400), kafka Int "group.min.session.timeout.ms";
        /// Longest session timeout that a member may ask for.
        max_session_timeout: Duration = Duration::from_secs(1800),
            in Duration::from_millis(1)..=Duration::from_secs(7 * 86_400), kafka Int "group.max.session.timeout.ms";
        /// How long the first member of an empty group waits for more before a rebalance; each that comes makes it wait
        /// as long again.
        initial_rebalance_delay: Duration = Duration::from_secs(3),
            in Duration::ZERO..=Duration::from_secs(600), kafka Int "group.initial.rebalance.delay.ms";
        /// How long a member of a consumer group (KIP-848) may be silent.
        consumer_session_timeout: Duration = Duration::from_secs(45),
            in Duration::from_millis(1)..=Duration::from_secs(86_400), kafka Int "group.consumer.session.timeout.ms";
        /// Shortest such time that may be set for a single group.
        consumer_min_session_timeout: Duration = Duration::from_secs(45),
            in Duration::from_millis(1)..=Duration::from_secs(86_400), kafka Int "group.consumer.min.session.timeout.ms";
        /// Longest such time that may be set for a single group.
        consumer_max_session_timeout: Duration = Duration::from_secs(60),
            in Duration::from_millis(1)..=Duration::from_secs(86_400), kafka Int "group.consumer.max.session.timeout.ms";
        /// How often members of a consumer group (KIP-848) are told to send a heartbeat.
        consumer_heartbeat_interval: Duration = Duration::from_secs(5),
            in Duration::from_millis(1)..=Duration::from_secs(3600), kafka Int "group.consumer.heartbeat.interval.ms";
        /// Shortest such pause that may be set for a single group.
        consumer_min_heartbeat_interval: Duration = Duration::from_secs(5),
            in Duration::from_millis(1)..=Duration::from_secs(3600), kafka Int "group.consumer.min.heartbeat.interval.ms";
        /// Longest such pause that may be set for a single group.
        consumer_max_heartbeat_interval: Duration = Duration::from_secs(15),
            in Duration::from_millis(1)..=Duration::from_secs(3600), kafka Int "group.consumer.max.heartbeat.interval.ms";
        /// Members of a group; one more is refused.
        max_size: u32 = 10_000, in 1..=i32::MAX.unsigned_abs(), kafka Int "group.max.size";
        /// Memory for the members of one group: their subscriptions and assignments. A member beyond it is refused.
        max_group_memory: ByteSize = ByteSize::mib(16), in ByteSize::kib(64)..=ByteSize::gib(1);
        /// Groups in each partition of the topic; one more is refused.
        max_groups: u32 = 100_000, in 1..=10_000_000;
        /// Series that single groups have in the metrics: four for each group and two for each topic that it has offsets
        /// for. At the bound groups with members come first, and `takhin_groups_without_series` counts the others.
        metric_series: u32 = 10_000, in 0..=1_000_000;
        /// Largest note that a client may commit beside an offset.
        offset_metadata_max: ByteSize = ByteSize::kib(4),
            in ByteSize::bytes(0)..=ByteSize::kib(32), kafka Int "offset.metadata.max.bytes";
        /// How long the offsets of a group without members are kept.
        offsets_retention: Duration = Duration::from_secs(7 * 86_400),
            in Duration::from_secs(60)..=CENTURY, kafka Int "offsets.retention.minutes";
        /// Pause between two looks for offsets that are kept no longer.
        offsets_retention_check_interval: Duration = Duration::from_secs(600),
            in Duration::from_millis(1)..=Duration::from_secs(86_400), kafka Long "offsets.retention.check.interval.ms";
    }
}

section! {
    /// One address for Kafka clients.
    Listener {
        /// Name in logs and metrics.
        name: String = "internal".to_owned();
        /// IP address and port to listen on; port 0 takes a free one.
        bind: SocketAddr = loopback(9092);
        /// Address given to clients; by default the one listened on. Needed where that is `0.0.0.0` or `[::]`.
        advertise: Option<HostPort> = None;
    }
}

section! {
    /// Bounds on what clients may use. At a bound the broker refuses or waits; it never grows past it.
    Limits {
        /// Connections at a time; further ones are closed at once.
        max_connections: u32 = 10_000, in 1..=1_000_000, kafka Int "max.connections" dynamic;
        /// Connections at a time from one IP address; further ones are closed at once.
        max_connections_per_ip: u32 = 10_000, in 1..=1_000_000, kafka Int "max.connections.per.ip" dynamic;
        /// Largest request; a connection that announces a larger one is closed.
        max_request_size: ByteSize = ByteSize::mib(100),
            in ByteSize::kib(64)..=ByteSize::gib(1), kafka Int "socket.request.max.bytes";
        /// Memory for requests being received or served, over all connections; when it is used up connections
        /// are read no further until some is free.
        max_request_memory: ByteSize = ByteSize::mib(512),
            in ByteSize::mib(1)..=ByteSize::gib(1024), kafka Long "queued.max.request.bytes";
        /// Requests of one connection being served at a time; further ones stay in the socket.
        max_pipelined_requests: u32 = 256, in 1..=10_000;
        /// How long a connection may be idle; one with an unanswered request is not.
        connections_max_idle: Duration = Duration::from_secs(600),
            in Duration::from_secs(1)..=Duration::from_secs(7 * 86_400), kafka Long "connections.max.idle.ms";
        /// How long a request may take to arrive once its first byte has.
        request_receive_timeout: Duration = Duration::from_secs(30),
            in Duration::from_millis(100)..=Duration::from_secs(3600);
    }
}

section! {
    /// Traffic between brokers.
    Rpc {
        /// IP address and port to listen on; port 0 takes a free one.
        bind: SocketAddr = loopback(33145);
        /// Address given to other brokers; by default the one listened on.
        advertise: Option<HostPort> = None;
        /// Permits an address that other machines reach although the traffic is neither encrypted nor authenticated.
        allow_insecure: bool = false;
        /// Bytes that this broker sends in a second, at most, to all those replicas together that are not in sync and whose
        /// partition names it in its topic's `leader.replication.throttled.replicas` (KIP-73). At 0 none is sent.
        leader_throttled_rate: Limit<ByteSize> = Limit::Unlimited,
            in Limit::At(ByteSize::bytes(0))..=Limit::Unlimited, kafka Long "leader.replication.throttled.rate" dynamic;
        /// Bytes that all those replicas on this broker together are sent in a second, at most, that are not in sync and that
        /// their topic names in `follower.replication.throttled.replicas` (KIP-73). At 0 none is sent.
        follower_throttled_rate: Limit<ByteSize> = Limit::Unlimited,
            in Limit::At(ByteSize::bytes(0))..=Limit::Unlimited, kafka Long "follower.replication.throttled.rate" dynamic;
    }
}

section! {
    /// Health (`/livez`, `/readyz`, `/startupz`), metrics (`/metrics`) and administration (`/v1`) over HTTP.
    Admin {
        /// IP address and port to listen on; port 0 takes a free one.
        bind: SocketAddr = loopback(9644);
        /// Permits an address that other machines reach although it does not encrypt, and health and metrics ask nobody
        /// who they are.
        allow_insecure: bool = false;
        /// File with the token that clients of `/v1` send as `Authorization: Bearer TOKEN`: 16 to 4096 visible ASCII
        /// characters, read anew for every request, so that it can be replaced. Without it `/v1` is open on a loopback
        /// address, to programs of this machine and not to web pages, and closed on any other. Health and metrics need
        /// no token.
        token_file: Option<PathBuf> = None;
    }
}

section! {
    /// Logs on disk. What Kafka has per topic is here the default for topics that say nothing else.
    Storage {
        /// When a record counts as written: `flushed` once it is on the medium, `cached` once it is in the page
        /// cache. `cached` can lose acknowledged records when replicas lose power: a majority of them, or one that has not
        /// caught up again when the leader fails too. Topics override it with `takhin.durability`.
        durability: Durability = Durability::Flushed, kafka String "takhin.durability" dynamic;
        /// Size at which a segment is closed and the next one begun.
        segment_size: ByteSize = ByteSize::gib(1),
            in ByteSize::mib(1)..=ByteSize::bytes(i32::MAX.unsigned_abs() as u64), kafka Int "log.segment.bytes" dynamic;
        /// Age at which a segment is closed even if it is not full.
        segment_age: Duration = Duration::from_secs(7 * 86_400),
            in Duration::from_millis(1)..=CENTURY, kafka Long "log.roll.ms" dynamic;
        /// Bytes of log between two entries of the offset index.
        index_interval: ByteSize = ByteSize::kib(4),
            in ByteSize::bytes(0)..=ByteSize::bytes(i32::MAX.unsigned_abs() as u64), kafka Int "log.index.interval.bytes" dynamic;
        /// Age at which records are deleted, a whole segment at a time.
        retention_time: Limit<Duration> = Limit::At(Duration::from_secs(7 * 86_400)),
            in Limit::At(Duration::ZERO)..=Limit::Unlimited, kafka Long "log.retention.ms" dynamic;
        /// Size of a partition above which its oldest segments are deleted.
        retention_size: Limit<ByteSize> = Limit::Unlimited,
            in Limit::At(ByteSize::bytes(0))..=Limit::Unlimited, kafka Long "log.retention.bytes" dynamic;
        /// Pause between two looks for segments that may be deleted.
        retention_check_interval: Duration = Duration::from_secs(300),
            in Duration::from_millis(1)..=Duration::from_secs(86_400), kafka Long "log.retention.check.interval.ms" dynamic;
        /// Pause between two looks for compacted topics that have become dirty enough.
        cleaner_interval: Duration = Duration::from_secs(15),
            in Duration::from_millis(1)..=Duration::from_secs(86_400), kafka Long "log.cleaner.backoff.ms" dynamic;
        /// Memory in which compaction keeps the keys of one pass, 24 bytes for each. What does not fit is left to the
        /// next pass.
        cleaner_memory: ByteSize = ByteSize::mib(128),
            in ByteSize::kib(64)..=ByteSize::gib(64), kafka Long "log.cleaner.dedupe.buffer.size" dynamic;
        /// Bytes that compaction reads and writes in a second at most.
        cleaner_rate: Limit<ByteSize> = Limit::Unlimited,
            in Limit::At(ByteSize::kib(64))..=Limit::Unlimited;
        /// Pause between two records of how far each log is known to be on disk; a restart after a crash re-reads
        /// what was written since.
        checkpoint_interval: Duration = Duration::from_secs(1),
            in Duration::from_millis(10)..=Duration::from_secs(3600);
        /// Files that one flush round syncs in parallel.
        flush_parallelism: u16 = 4, in 1..=256;
        /// Closed segments whose files are kept open over all partitions.
        max_open_segments: u32 = 256, in 16..=1_000_000;
        /// Free space of the file system below which produce requests are refused.
        min_free_space: ByteSize = ByteSize::mib(256);
        /// How long a partition remembers an idempotent producer that has stopped writing.
        producer_expiration: Duration = Duration::from_secs(86_400),
            in Duration::from_secs(1)..=CENTURY, kafka Int "producer.id.expiration.ms" dynamic;
        /// Pause between two looks for producers that have stopped.
        producer_expiration_check_interval: Duration = Duration::from_secs(600),
            in Duration::from_millis(1)..=Duration::from_secs(86_400), kafka Int "producer.id.expiration.check.interval.ms";
    }
}

section! {
    /// Logging, to standard error.
    Telemetry {
        /// Least severe level that is logged.
        log_level: LogLevel = LogLevel::Info;
        /// Lines for people or for machines.
        log_format: LogFormat = LogFormat::Text;
    }
}

choice! {
    /// When a record counts as written.
    Durability {
        /// On the medium of a majority (fsync).
        Flushed = "flushed";
        /// In the page cache of a majority. Acknowledged records can be lost when replicas lose power.
        Cached = "cached";
    }
}

choice! {
    /// Severity of a log line.
    LogLevel {
        /// Something failed that must not.
        Error = "error";
        /// Unexpected, and the broker went on.
        Warn = "warn";
        /// Changes of state.
        Info = "info";
        /// Decisions.
        Debug = "debug";
        /// Single requests.
        Trace = "trace";
    }
}

choice! {
    /// Shape of a log line.
    LogFormat {
        /// One readable line.
        Text = "text";
        /// One JSON object.
        Json = "json";
    }
}

choice! {
    /// Which replica a consumer that names its rack is sent to.
    ReplicaSelector {
        /// One in that rack.
        Rack = "rack", kafka "org.apache.kafka.common.replica.RackAwareReplicaSelector";
        /// None: the leader alone is read from.
        Leader = "leader", kafka "";
    }
}

/// A bound for ages that are meant to be long; what has no bound at all is a [`Limit`].
const CENTURY: Duration = Duration::from_secs(36_500 * 86_400);

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The address that `bind` stands for where nothing else is advertised.
fn dialable(bind: SocketAddr) -> HostPort {
    HostPort {
        host: bind.ip().to_string(),
        port: bind.port(),
    }
}

impl Listener {
    /// The address given to clients once the listener listens on `bound`.
    pub fn advertised(&self, bound: SocketAddr) -> HostPort {
        self.advertise.clone().unwrap_or_else(|| dialable(bound))
    }
}

impl Rpc {
    /// The address given to other brokers once this one listens on `bound`.
    pub fn advertised(&self, bound: SocketAddr) -> HostPort {
        self.advertise.clone().unwrap_or_else(|| dialable(bound))
    }

    /// The address as it stands in the configuration; port 0 if the system is to choose one.
    pub fn configured(&self) -> HostPort {
        self.advertised(self.bind)
    }
}
