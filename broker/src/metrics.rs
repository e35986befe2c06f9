//! Everything the broker counts, with its help text. Families are present from the start.

mod groups;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use takhin_cluster::Image;
use takhin_protocol::{ErrorCode, TopicId};
use takhin_runtime::telemetry::metrics::{self, Counter, Family, Gauge, Histogram};
use uuid::Uuid;

use self::groups::GroupMetrics;
use crate::api;
use crate::connection::Closed;
use crate::reply::CloseReason;

/// All metrics of the broker crate.
#[derive(Debug)]
pub(crate) struct Metrics {
    apis: Vec<ApiMetrics>,
    errors: Family<Counter, 2>,
    connections: Family<Gauge, 1>,
    connections_total: Family<Counter, 2>,
    closed: Family<Counter, 1>,
    /// Per topic.
    pub(crate) topics: TopicMetrics,
    /// Of consumer groups.
    pub(crate) groups: GroupMetrics,
    /// Of the node as a whole.
    pub(crate) node: NodeMetrics,
}

/// One API's counters.
#[derive(Debug)]
pub(crate) struct ApiMetrics {
    pub(crate) requests: Counter,
    pub(crate) total: Histogram,
    pub(crate) local: Histogram,
    pub(crate) remote: Histogram,
    pub(crate) send: Histogram,
}

/// One listener's counters.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    pub(crate) open: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
}

/// Gauges that a background task refreshes.
#[derive(Debug)]
pub(crate) struct NodeMetrics {
    pub(crate) topics: Gauge,
    pub(crate) partitions: Gauge,
    pub(crate) unavailable: Gauge,
    pub(crate) imbalanced: Gauge,
    pub(crate) under_replicated: Gauge,
    pub(crate) under_min_isr: Gauge,
    pub(crate) at_min_isr: Gauge,
    pub(crate) offline_replicas: Gauge,
    pub(crate) in_doubt: Gauge,
    pub(crate) parked: Gauge,
    pub(crate) is_controller: Gauge,
    pub(crate) active: Gauge,
    pub(crate) fenced: Gauge,
    pub(crate) request_memory: Gauge,
    pub(crate) fetch_sessions: Gauge,
    pub(crate) fetch_session_partitions: Gauge,
    pub(crate) disk_total: Gauge,
    pub(crate) disk_free: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let requests = metrics::counters("takhin_kafka_requests_total", "Requests answered", ["api"]);
        let errors = metrics::counters(
            "takhin_kafka_request_errors_total",
            "Error codes given to clients; a request may count several",
            ["api", "error"],
        );
        let duration = metrics::histograms(
            "takhin_kafka_request_duration_seconds",
            "Time of requests. local: until the work was begun or proposed. remote: waiting for replication, for data \
             or for requests before. send: writing the reply. total: from the last byte received to the last sent \
             (Kafka: TotalTimeMs)",
            ["api", "phase"],
        );
        let apis = api::TABLE.iter().map(|entry| {
            // Present from the start, so that alerts on growth have a zero to grow from.
            errors.with([entry.name, ErrorCode::UnknownServerError.name()]);
            ApiMetrics {
                requests: requests.with([entry.name]),
                total: duration.with([entry.name, "total"]),
                local: duration.with([entry.name, "local"]),
                remote: duration.with([entry.name, "remote"]),
                send: duration.with([entry.name, "send"]),
            }
        });
        let closed = metrics::counters(
            "takhin_kafka_connections_closed_total",
            "Connections that ended, by who ended them and why",
            ["reason"],
        );
        for reason in ["peer", "lost"]
            .into_iter()
            .chain(CloseReason::ALL.map(CloseReason::name))
        {
            closed.with([reason]);
        }
        Self {
            apis: apis.collect(),
            errors,
            connections: metrics::gauges("takhin_kafka_connections", "Open connections", ["listener"]),
            connections_total: metrics::counters(
                "takhin_kafka_connections_total",
                "Connections accepted, or refused because too many were open",
                ["listener", "result"],
            ),
            closed,
            topics: TopicMetrics::new(),
            groups: GroupMetrics::new(),
            node: NodeMetrics::new(),
        }
    }

    /// The counters of an API, by its place in the table.
    pub(crate) fn api(&self, index: usize) -> &ApiMetrics {
        &self.apis[index]
    }

    /// Counts an error code given to a client.
    pub(crate) fn request_error(&self, api: usize, code: ErrorCode) {
        self.errors.with([api::TABLE[api].name, code.name()]).inc();
    }

    /// The counters of a listener.
    pub(crate) fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            open: self.connections.with([name]),
            accepted: self.connections_total.with([name, "accepted"]),
            refused: self.connections_total.with([name, "refused"]),
        }
    }

    /// Counts the end of a connection.
    pub(crate) fn closed(&self, closed: &Closed) {
        let reason = match closed {
            Closed::ByPeer => "peer",
            Closed::Lost(_) => "lost",
            Closed::ByUs(reason) => reason.name(),
        };
        self.closed.with([reason]).inc();
    }
}

impl NodeMetrics {
    fn new() -> Self {
        let brokers = metrics::gauges(
            "takhin_cluster_brokers",
            "Registered brokers, by whether they are heard of (Kafka: ActiveBrokerCount, FencedBrokerCount)",
            ["state"],
        );
        Self {
            topics: metrics::gauge("takhin_cluster_topics", "Topics"),
            partitions: metrics::gauge("takhin_cluster_partitions", "Partitions of all topics"),
            unavailable: metrics::gauge(
                "takhin_cluster_partitions_unavailable",
                "Partitions without a leader in the whole cluster, as this broker knows (Kafka: OfflinePartitionsCount)",
            ),
            imbalanced: metrics::gauge(
                "takhin_cluster_partitions_imbalanced",
                "Partitions in the whole cluster that another broker than the preferred one leads (Kafka: \
                 PreferredReplicaImbalanceCount)",
            ),
            under_replicated: metrics::gauge(
                "takhin_partitions_under_replicated",
                "Partitions led here with a replica that lags (Kafka: UnderReplicatedPartitions)",
            ),
            under_min_isr: metrics::gauge(
                "takhin_partitions_under_min_isr",
                "Partitions led here with fewer replicas in sync than min.insync.replicas (Kafka: UnderMinIsrPartitionCount)",
            ),
            at_min_isr: metrics::gauge(
                "takhin_partitions_at_min_isr",
                "Partitions led here with just as many (Kafka: AtMinIsrPartitionCount)",
            ),
            offline_replicas: metrics::gauge(
                "takhin_replicas_offline",
                "Replicas here that cannot be read or written (Kafka: OfflineReplicaCount)",
            ),
            in_doubt: metrics::gauge(
                "takhin_replicas_in_doubt",
                "Replicas of cached topics here that may lack acknowledged records since power or a sync failed",
            ),
            parked: metrics::gauge(
                "takhin_partitions_parked",
                "Partitions with a replica here whose replication rests because nobody writes",
            ),
            is_controller: metrics::gauge(
                "takhin_controller_is_leader",
                "1 on the broker that leads the metadata (Kafka: ActiveControllerCount)",
            ),
            active: brokers.with(["active"]),
            fenced: brokers.with(["fenced"]),
            request_memory: metrics::gauge(
                "takhin_kafka_request_memory_bytes",
                "Bytes of requests that are being received or served",
            ),
            fetch_sessions: metrics::gauge(
                "takhin_kafka_fetch_sessions",
                "Fetch sessions (Kafka: NumIncrementalFetchSessions)",
            ),
            fetch_session_partitions: metrics::gauge(
                "takhin_kafka_fetch_session_partitions",
                "Partitions in all fetch sessions (Kafka: NumIncrementalFetchPartitionsCached)",
            ),
            disk_total: metrics::gauge(
                "takhin_disk_total_bytes",
                "Size of the data directory's file system",
            ),
            disk_free: metrics::gauge("takhin_disk_free_bytes", "Free bytes there"),
        }
    }
}

/// Counters by topic; a topic that is gone is removed with the next refresh.
#[derive(Debug)]
pub(crate) struct TopicMetrics {
    bytes_in: Family<Counter, 1>,
    bytes_out: Family<Counter, 1>,
    records_in: Family<Counter, 1>,
    records_out: Family<Counter, 1>,
    log_bytes: Family<Gauge, 1>,
    known: RwLock<BTreeMap<Uuid, Arc<Handles>>>,
}

#[derive(Debug)]
struct Handles {
    name: String,
    bytes_in: Counter,
    bytes_out: Counter,
    records_in: Counter,
    records_out: Counter,
    log_bytes: Gauge,
}

impl TopicMetrics {
    fn new() -> Self {
        let counters = |name, help| metrics::counters(name, help, ["topic"]);
        Self {
            bytes_in: counters(
                "takhin_topic_bytes_in_total",
                "Bytes of record batches accepted from producers (Kafka: BytesInPerSec)",
            ),
            bytes_out: counters(
                "takhin_topic_bytes_out_total",
                "Bytes of record batches given to consumers (Kafka: BytesOutPerSec)",
            ),
            records_in: counters(
                "takhin_topic_records_in_total",
                "Records accepted from producers (Kafka: MessagesInPerSec)",
            ),
            records_out: counters(
                "takhin_topic_records_out_total",
                "Offsets given to consumers, from the one asked for to the last one sent",
            ),
            log_bytes: metrics::gauges(
                "takhin_topic_log_bytes",
                "Bytes of the topic's segments here",
                ["topic"],
            ),
            known: RwLock::default(),
        }
    }

    /// Counts a batch taken from a producer.
    pub(crate) fn received(&self, image: &Image, topic: Uuid, bytes: usize, records: i32) {
        if let Some(handles) = self.handles(image, topic) {
            handles.bytes_in.add(bytes as u64);
            handles.records_in.add(u64::try_from(records).unwrap_or(0));
        }
    }

    /// Counts batches given to a consumer.
    pub(crate) fn sent(&self, image: &Image, topic: Uuid, bytes: usize, records: i64) {
        if let Some(handles) = self.handles(image, topic) {
            handles.bytes_out.add(bytes as u64);
            handles.records_out.add(u64::try_from(records).unwrap_or(0));
        }
    }

    /// Sets the sizes on disk and forgets topics that are gone.
    pub(crate) fn refresh(&self, image: &Image, log_bytes: &BTreeMap<TopicId, u64>) {
        for topic in image.topics.values() {
            if let Some(handles) = self.handles(image, topic.id) {
                let bytes = log_bytes.get(&TopicId(topic.id)).copied().unwrap_or(0);
                handles.log_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
        self.known.write().retain(|id, handles| {
            let lives = image.topic_by_id(*id).is_some();
            // A topic of the same name that lives has taken over the series.
            if !lives && image.topic(&handles.name).is_none() {
                let name = [handles.name.as_str()];
                self.bytes_in.remove(name);
                self.bytes_out.remove(name);
                self.records_in.remove(name);
                self.records_out.remove(name);
                self.log_bytes.remove(name);
            }
            lives
        });
    }

    fn handles(&self, image: &Image, topic: Uuid) -> Option<Arc<Handles>> {
        if let Some(handles) = self.known.read().get(&topic) {
            return Some(Arc::clone(handles));
        }
        let name = image.topic_by_id(topic)?.name.clone();
        let handles = Arc::new(Handles {
            bytes_in: self.bytes_in.with([&name]),
            bytes_out: self.bytes_out.with([&name]),
            records_in: self.records_in.with([&name]),
            records_out: self.records_out.with([&name]),
            log_bytes: self.log_bytes.with([&name]),
            name,
        });
        self.known.write().insert(topic, Arc::clone(&handles));
        Some(handles)
    }
}
