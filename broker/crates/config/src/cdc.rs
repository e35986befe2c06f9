//! The file of `takhin-cdc`: every setting of the program that follows a Pika master, each declared once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::load::{ConfigError, Sources, merge};
use crate::node::{LogFormat, LogLevel};
use crate::scalar::choice;
use crate::section::{Reader, Row, Rules, Setting, section};
use crate::tree::Origin;
use crate::units::{ByteSize, HostPort, HttpUrl, Limit};

section! {
    /// The whole configuration of `takhin-cdc`.
    CdcConfig {
        /// The Pika master that is followed.
        source: CdcSource = CdcSource::default();
        /// The Kafka cluster that events go to.
        sink: CdcSink = CdcSink::default();
        /// Where it is kept how far events were written.
        checkpoint: CdcCheckpoint = CdcCheckpoint::default();
        /// The data set as it was before the changes.
        snapshot: CdcSnapshot = CdcSnapshot::default();
        /// What masters before 3.1 have sent and is not written yet.
        wal: CdcWal = CdcWal::default();
        /// What becomes an event.
        filters: CdcFilters = CdcFilters::default();
        /// Health and metrics over HTTP.
        admin: CdcAdmin = CdcAdmin::default();
        /// Logging, and traces.
        telemetry: CdcTelemetry = CdcTelemetry::default();
    }
}

section! {
    /// The Pika master that is followed: 2.3.3 to 4.0.
    CdcSource {
        /// Its host name or IP address.
        host: String = String::new(), required "name the master, as in `host: 10.0.0.1`";
        /// Its Redis port. The ports 2000 and 10001 above it must be reachable too: changes and the files of the data set
        /// come from there. Before 3.5 it is the port 2000 above only, and the master connects to this process, see `listed_as`.
        port: u16 = 9221, in 1..=55_534;
        /// What the master speaks: `auto` goes by the version that it says it has. `legacy` (before 3.1) and `pb` (from then
        /// on) refuse masters of the other kind.
        sync_protocol: SyncProtocol = SyncProtocol::Auto;
        /// Name of the data in the names of topics: `pika.<cluster>.binlog`.
        cluster: String = "pika".to_owned();
        /// File with the master's password (`requirepass`); white space around it does not count. Read anew for every
        /// connection, so that it can be replaced.
        password_file: Option<PathBuf> = None;
        /// Name of the source in events and of its positions; by default `host:port` as above. Keep it when the master moves.
        id: Option<String> = None;
        /// Address under which the master lists this process among its slaves. Nobody connects to it, but no other slave of
        /// the master may have the same; by default the own address of the connection, with port 21333. A master before 3.5
        /// does connect, where it must reach this process: from 3.1 on to the port 1000 above it with the data set, before 3.1 to
        /// that port with changes and to the port 3000 above it with the data set. Before 3.1 this process must also connect to the
        /// master from the address that it is listed with.
        listed_as: Option<HostPort> = None;
        /// What to do when the master can no longer send the changes from the position on, or is another one: `resync` takes the
        /// data set again, `stop` says so and waits for somebody to decide. With `snapshot.mode: no_data` it is `stop`.
        on_position_lost: OnPositionLost = OnPositionLost::Resync;
        /// How long the master may be silent where it should not be, and how long an answer may take.
        timeout: Duration = Duration::from_secs(20), in Duration::from_secs(1)..=Duration::from_secs(600);
    }
}

section! {
    /// The Kafka cluster that events go to.
    CdcSink {
        /// Brokers to begin with; one that answers is enough.
        bootstrap: Vec<HostPort> = Vec::new(), required "list brokers, as in `bootstrap: [\"127.0.0.1:9092\"]`";
        /// `dual`: data set and changes have a topic each. `single`: one topic for all.
        mode: TopicMode = TopicMode::Dual;
        /// Topic of the data set in mode `dual`; by default `pika.<cluster>.snapshot`.
        topic_snapshot: Option<String> = None;
        /// Topic of the changes in mode `dual`; by default `pika.<cluster>.binlog`.
        topic_binlog: Option<String> = None;
        /// Topic in mode `single`; by default `pika.<cluster>.stream`.
        topic_single: Option<String> = None;
        /// Compacted topic with the positions of all sources.
        topic_offsets: String = "__pika_port_kafka_offsets".to_owned();
        /// Whether topics that are missing are created. Without it a missing topic is an error.
        create_topics: bool = true;
        /// Partitions of topics that are created; that of positions has one.
        partitions: u16 = 4, in 1..=10_000;
        /// Replicas of topics that are created; 0 leaves it to the brokers.
        replication_factor: u16 = 0, in 0..=7;
        /// How long topics with changes that are created keep them.
        binlog_retention: Limit<Duration> = Limit::At(Duration::from_secs(7 * 86_400)),
            in Limit::At(Duration::from_secs(60))..=Limit::Unlimited;
        /// How long a topic of its own for the data set keeps it, where it is created.
        snapshot_retention: Limit<Duration> = Limit::At(Duration::from_secs(7 * 86_400)),
            in Limit::At(Duration::from_secs(60))..=Limit::Unlimited;
        /// How often an event is in its topic. `at_least_once`: what was not acknowledged when something broke comes again, with
        /// the same `event_id`. `exactly_once`: events and position are written in transactions, which the brokers must have,
        /// and a second process with the same `source.id` takes the place of the first.
        delivery: Delivery = Delivery::AtLeastOnce;
        /// With `exactly_once`, how long a transaction may take before the brokers abort it and what it had is written again;
        /// not more than their `transaction.max.timeout.ms`. So long readers may wait for what a process that was killed left.
        transaction_timeout: Duration = Duration::from_secs(60), in Duration::from_secs(1)..=Duration::from_secs(900);
        /// With `exactly_once`, least time from the beginning of a transaction to that of the next, as long as what waits is not
        /// more than one holds. Fewer transactions take less of the brokers' processors; the time is added to the latency.
        commit_interval: Duration = Duration::ZERO, in Duration::ZERO..=Duration::from_secs(1);
        /// What a record's partition depends on. `key`: database and key, so that all events of a key stay in order, those
        /// that do not know its type included. `type_and_key`: database, type and key; `del` and `expire` of a key may then
        /// be in another partition than what they follow.
        partition_by: PartitionBy = PartitionBy::Key;
        /// Whether events also carry the command as Redis writes it (`raw_resp_b64`).
        raw_resp: bool = true;
        /// Codec of record batches.
        compression: Codec = Codec::Lz4;
        /// Records of a partition that are sent together have about so many bytes at most.
        batch_size: ByteSize = ByteSize::kib(512), in ByteSize::kib(1)..=ByteSize::mib(8);
        /// Largest record; created topics take it (`max.message.bytes`). One that is larger stops the source, or is left out
        /// and counted, see `oversize`.
        max_record_size: ByteSize = ByteSize::mib(16), in ByteSize::kib(64)..=ByteSize::mib(64);
        /// What becomes of an event whose record is larger than that.
        oversize: Oversize = Oversize::Stop;
        /// Memory for what was received and not yet written; when it is used up nothing more is read from the master, which
        /// keeps the rest.
        queue_size: ByteSize = ByteSize::mib(32), in ByteSize::mib(1)..=ByteSize::gib(4);
    }
}

section! {
    /// Where it is kept how far events were written.
    CdcCheckpoint {
        /// Directory of the position file, created if missing. No other process may use it.
        dir: PathBuf = PathBuf::from("takhin-cdc-data"),
            required "name a directory, as in `dir: /var/lib/takhin-cdc`";
        /// Pause between two writes of the positions to their topic. The file is written before anything is acknowledged to
        /// the master.
        topic_interval: Duration = Duration::from_secs(1), in Duration::from_millis(100)..=Duration::from_secs(60);
    }
}

section! {
    /// The data set as it was before the changes.
    CdcSnapshot {
        /// When it is taken: `initial` where there is no position (and where it is lost, unless source.on_position_lost is stop),
        /// `initial_only` as well, and then there are no changes, `when_needed` where there is none or it is lost, `always` at
        /// each start, `no_data` never: the changes from now on.
        mode: SnapshotMode = SnapshotMode::Initial;
        /// Directory for the master's dump while it is received and read, as large as the data set on the master's disk; by
        /// default `snapshot` in `checkpoint.dir`. What is in it is deleted.
        dir: Option<PathBuf> = None;
        /// Bytes of the dump received in a second at most.
        max_rate: Limit<ByteSize> = Limit::Unlimited,
            in Limit::At(ByteSize::kib(64))..=Limit::Unlimited;
        /// The program `rsync`, 3.1 or newer. Masters before 3.5 push their dump with it; it is not used for others.
        rsync: PathBuf = PathBuf::from("rsync");
        /// How long a master may take to make its dump: until it lists the files of it, and one before 3.5, which may serve others
        /// meanwhile, until it pushes the first bytes.
        push_wait: Duration = Duration::from_secs(1800), in Duration::from_secs(1)..=Duration::from_secs(86_400);
        /// Databases of the dump that are read at a time, each on a thread.
        parallelism: u16 = 2, in 1..=16;
    }
}

section! {
    /// A log of what the master has sent and is not written yet. Masters before 3.1 take no acknowledgements, so that there is
    /// always one of them; those from 3.1 on keep their binlog until it is written, unless it is kept here.
    CdcWal {
        /// Whether there is one of masters from 3.1 on too: they are acknowledged what is in it, and delete their binlog by their
        /// own rules however long brokers are away. It costs a sync of the disk on the way of every change.
        enabled: bool = false;
        /// Directory for it, created if missing; by default `wal` in `checkpoint.dir`. No other process may use it.
        dir: Option<PathBuf> = None;
        /// Most bytes of it, shared out evenly between the databases; when they are used up nothing more is read from the
        /// master.
        max_size: ByteSize = ByteSize::gib(4), in ByteSize::mib(1)..=ByteSize::gib(1024);
    }
}

section! {
    /// What becomes an event. Lists that are empty leave nothing out.
    CdcFilters {
        /// Databases that are followed, as in `db0`; all if there are none.
        databases: Vec<String> = Vec::new();
        /// Types of which there are events: string, hash, list, set, zset, stream. Commands that act on keys of any type,
        /// such as `del`, are always among them. From 4.0 on a `set` replaces a key of any type: leave strings among them where keys change
        /// their type, or what was there before stays with whoever reads the events.
        types: Vec<DataTypeName> = Vec::new();
        /// Keys of which there are events, as patterns with `*`, `?` and `[...]` as in Redis.
        keys: Vec<String> = Vec::new();
        /// Keys of which there are none, as such patterns.
        exclude_keys: Vec<String> = Vec::new();
        /// Commands that become events, as they stand in the binlog (`pksetexat` rather than `setex`; `set` for each key of an `mset`).
        commands: Vec<String> = Vec::new();
        /// Commands that do not.
        exclude_commands: Vec<String> = Vec::new();
    }
}

section! {
    /// Health (`/livez`, `/readyz`) and metrics (`/metrics`) over HTTP; on a loopback address also `/v1/pause` and `/v1/resume`.
    CdcAdmin {
        /// IP address and port to listen on; port 0 takes a free one.
        bind: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9654);
    }
}

section! {
    /// Logging, to standard error, and traces.
    CdcTelemetry {
        /// Least severe level that is logged.
        log_level: LogLevel = LogLevel::Info;
        /// Lines for people or for machines.
        log_format: LogFormat = LogFormat::Text;
        /// OpenTelemetry collector that gets spans by OTLP over HTTP, under `/v1/traces`; without it there are none. When it is
        /// away nothing waits: what does not fit the queue is dropped and counted (`takhin_traces_spans_total`).
        otlp_endpoint: Option<HttpUrl> = None;
    }
}

choice! {
    /// How a master sends its changes.
    SyncProtocol {
        /// As its version does.
        Auto = "auto";
        /// As masters before 3.1 do.
        Legacy = "legacy";
        /// As masters from 3.1 on do.
        Pb = "pb";
    }
}

choice! {
    /// What to do when the position is lost.
    OnPositionLost {
        /// Say so and wait.
        Stop = "stop";
        /// Take the data set again.
        Resync = "resync";
    }
}

choice! {
    /// How many topics there are.
    TopicMode {
        /// One for the data set and one for the changes.
        Dual = "dual";
        /// One for both.
        Single = "single";
    }
}

choice! {
    /// When the data set is taken; the names are Debezium's.
    SnapshotMode {
        /// Where there is no position.
        Initial = "initial";
        /// Where there is no position, and nothing more.
        InitialOnly = "initial_only";
        /// Where there is no position, or it is lost.
        WhenNeeded = "when_needed";
        /// At each start.
        Always = "always";
        /// Never: changes from now on.
        NoData = "no_data";
    }
}

choice! {
    /// How often an event is in its topic.
    Delivery {
        /// Once, and again after a crash.
        AtLeastOnce = "at_least_once";
        /// Once, by transactions.
        ExactlyOnce = "exactly_once";
    }
}

choice! {
    /// What a record's partition depends on.
    PartitionBy {
        /// Database and key.
        Key = "key";
        /// Database, type and key.
        TypeAndKey = "type_and_key";
    }
}

choice! {
    /// What becomes of an event that is too large.
    Oversize {
        /// The source stops.
        Stop = "stop";
        /// It is left out and counted.
        Skip = "skip";
    }
}

choice! {
    /// Codec of record batches.
    Codec {
        /// None.
        None = "none";
        /// gzip.
        Gzip = "gzip";
        /// Snappy.
        Snappy = "snappy";
        /// LZ4.
        Lz4 = "lz4";
        /// zstd.
        Zstd = "zstd";
    }
}

choice! {
    /// A type of values.
    DataTypeName {
        /// Strings.
        String = "string";
        /// Hashes.
        Hash = "hash";
        /// Lists.
        List = "list";
        /// Sets.
        Set = "set";
        /// Sorted sets.
        Zset = "zset";
        /// Streams.
        Stream = "stream";
    }
}

/// Reads and checks a configuration of `takhin-cdc`.
///
/// # Errors
/// All faults of all sources, as [`load`](crate::load()) tells them.
pub fn load_cdc(sources: &Sources) -> Result<CdcConfig, ConfigError> {
    let mut reader = Reader::default();
    let tree = merge(sources, &mut reader);
    let config = CdcConfig::default().read("", Some(&tree), &Rules::new(""), &mut reader);
    check(&config, &mut reader);
    if reader.faults.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError {
            faults: reader.faults,
        })
    }
}

/// Rules that one setting alone does not break.
fn check(config: &CdcConfig, reader: &mut Reader) {
    let is_bootstrap_set = reader.is_set("sink.bootstrap");
    let is_lost_set = reader.is_set("source.on_position_lost");
    let mut fault = |path: &str, message: String| {
        let origin = reader.origins.get(path).cloned().unwrap_or(Origin::Default);
        reader.fault(path, &origin, message);
    };
    let sink = &config.sink;
    if sink.bootstrap.is_empty() && is_bootstrap_set {
        fault("sink.bootstrap", "is empty: name a broker".to_owned());
    }
    let (snapshot, binlog) = config.topics();
    for (path, name) in [
        ("sink.topic_snapshot", &snapshot),
        ("sink.topic_binlog", &binlog),
        ("sink.topic_offsets", &sink.topic_offsets),
    ] {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.len() > 249 || !name.chars().all(is_name) {
            let message = format!(
                "is {name:?}, which is no topic name: letters, digits, `.`, `_` and `-`, 249 at most; source.cluster is a part of it"
            );
            fault(path, message);
        }
        if path != "sink.topic_offsets" && *name == sink.topic_offsets {
            fault(
                path,
                format!("is {name}, where the positions are: choose another topic"),
            );
        }
    }
    let contradicts = match (config.source.on_position_lost, config.snapshot.mode) {
        (OnPositionLost::Resync, SnapshotMode::NoData) => {
            Some("is resync, which takes the data set, and snapshot.mode is no_data: change one of them")
        }
        (OnPositionLost::Stop, SnapshotMode::WhenNeeded) => {
            Some("is stop, and snapshot.mode is when_needed, which takes the data set: change one of them")
        }
        _ => None,
    };
    if let Some(message) = contradicts.filter(|_| is_lost_set) {
        fault("source.on_position_lost", message.to_owned());
    }
    for database in &config.filters.databases {
        let is_name = database
            .strip_prefix("db")
            .is_some_and(|number| number.parse::<u8>().is_ok());
        if !is_name {
            fault(
                "filters.databases",
                format!("has {database:?}; databases are called db0, db1 and so on"),
            );
        }
    }
}

impl CdcConfig {
    /// The rows of the reference: every section and setting, in order.
    pub fn rows() -> Vec<Row> {
        let mut rows = Vec::new();
        Self::default().describe("", &Rules::new(""), &mut rows);
        rows
    }

    /// Topics of the data set and of the changes, which may be the same.
    pub fn topics(&self) -> (String, String) {
        let sink = &self.sink;
        let or = |name: &Option<String>, end: &str| {
            let default = || format!("pika.{}.{end}", self.source.cluster);
            name.clone().unwrap_or_else(default)
        };
        match sink.mode {
            TopicMode::Single => (or(&sink.topic_single, "stream"), or(&sink.topic_single, "stream")),
            TopicMode::Dual => (
                or(&sink.topic_snapshot, "snapshot"),
                or(&sink.topic_binlog, "binlog"),
            ),
        }
    }

    /// Whether the data set is taken again where a position is lost.
    pub fn is_resynced(&self) -> bool {
        match self.snapshot.mode {
            SnapshotMode::WhenNeeded => true,
            SnapshotMode::NoData => false,
            _ => self.source.on_position_lost == OnPositionLost::Resync,
        }
    }

    /// Whether the data set is taken where there is no position.
    pub fn is_data_set_taken(&self) -> bool {
        self.snapshot.mode != SnapshotMode::NoData
    }

    /// Where the master's dump is received.
    pub fn snapshot_dir(&self) -> PathBuf {
        let default = || self.checkpoint.dir.join("snapshot");
        self.snapshot.dir.clone().unwrap_or_else(default)
    }

    /// Where what the master has sent is kept.
    pub fn wal_dir(&self) -> PathBuf {
        let default = || self.checkpoint.dir.join("wal");
        self.wal.dir.clone().unwrap_or_else(default)
    }

    /// Name of the source in events and of its positions.
    pub fn source_id(&self) -> String {
        let default = || format!("{}:{}", self.source.host, self.source.port);
        self.source.id.clone().unwrap_or_else(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CdcConfig, String> {
        let sources = Sources {
            file: Some(("cdc.yaml".to_owned(), text.to_owned())),
            ..Sources::default()
        };
        load_cdc(&sources).map_err(|error| error.to_string())
    }

    const SMALL: &str = "source: { host: pika }\nsink: { bootstrap: [\"b:9092\"] }\ncheckpoint: { dir: d }\n";

    #[test]
    fn the_smallest_file_is_enough() {
        let config = read(SMALL).unwrap();
        assert_eq!(
            config.topics(),
            ("pika.pika.snapshot".to_owned(), "pika.pika.binlog".to_owned())
        );
        assert_eq!(config.source_id(), "pika:9221");
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        assert_eq!(
            read(&format!("{SMALL}filter: {{}}\n")).unwrap_err(),
            "cdc.yaml: unknown setting filter: did you mean filters?"
        );
        let missing = read("sink: { bootstrap: [\"b:9092\"] }").unwrap_err();
        assert_eq!(
            missing,
            "source.host has no value: name the master, as in `host: 10.0.0.1`\n\
             checkpoint.dir has no value: name a directory, as in `dir: /var/lib/takhin-cdc`"
        );
        let same = SMALL.replace(" }\ncheck", ", topic_binlog: __pika_port_kafka_offsets }\ncheck");
        assert!(read(&same).unwrap_err().contains("choose another topic"));
        let database = read(&format!("{SMALL}filters: {{ databases: [\"0\"] }}\n"));
        assert!(database.unwrap_err().contains("db0, db1"));
    }
}
