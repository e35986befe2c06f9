//! Numbers of this program; the operator reads some of them.

use std::sync::LazyLock;

use parking_lot::Mutex;
use takhin_runtime::Clock;
use takhin_runtime::clock::Instant;
use takhin_runtime::telemetry::metrics::{self, Counter, Family, Gauge};

macro_rules! families {
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ident $of:ident<$n:literal> = $text:literal, $help:literal, [$($label:literal),*];)*) => {$(
        $(#[doc = $doc])*
        pub static $name: LazyLock<Family<$of, $n>> = LazyLock::new(|| metrics::$kind($text, $help, [$($label),*]));
    )*};
}

families! {
    /// 1 for the phase that a database is in.
    PHASE: gauges Gauge<2> = "takhin_cdc_phase", "1 for the phase that a database is in", ["db", "phase"];
    /// The source, which no other process is to have.
    SOURCE: gauges Gauge<1> = "takhin_cdc_source", "1 for the source.id that this process writes for; no two are to have one", ["source"];
    /// Position: the file.
    POSITION_FILE: gauges Gauge<1> = "takhin_cdc_source_position_filenum", "File of the binlog up to which changes were written", ["db"];
    /// Position: the offset.
    POSITION_OFFSET: gauges Gauge<1> = "takhin_cdc_source_position_offset", "Offset in that file", ["db"];
    /// The master's end: the file.
    HEAD_FILE: gauges Gauge<1> = "takhin_cdc_source_head_filenum", "File in which the master's binlog ends", ["db"];
    /// The master's end: the offset.
    HEAD_OFFSET: gauges Gauge<1> = "takhin_cdc_source_head_offset", "Offset in that file", ["db"];
    /// Bytes behind the master.
    LAG_BYTES: gauges Gauge<1> = "takhin_cdc_lag_bytes", "Bytes of binlog between position and end; none while the master does not say where that is", ["db"];
    /// Seconds behind the master.
    LAG_SECONDS: gauges Gauge<1> = "takhin_cdc_lag_seconds", "Age of the last change written, 0 at the end of the binlog; with the time since then while the master does not say where that is", ["db"];
    /// Events that were written.
    EVENTS: counters Counter<2> = "takhin_cdc_events_total", "Events that were written and acknowledged", ["db", "kind"];
    /// Events that were left out.
    FILTERED: counters Counter<1> = "takhin_cdc_filtered_total", "Events that a filter left out", ["rule"];
    /// Batches that failed.
    PRODUCE_ERRORS: counters Counter<1> = "takhin_cdc_produce_errors_total", "Batches that brokers refused", ["topic"];
    /// Batches that were sent again.
    PRODUCE_RETRIES: counters Counter<1> = "takhin_cdc_produce_retries_total", "Times that a batch had to be sent again", ["topic"];
    /// Transactions.
    TRANSACTIONS: counters Counter<1> = "takhin_cdc_transactions_total", "Transactions that ended, by how: committed, or failed and begun anew", ["result"];
    /// Connections that ended.
    RECONNECTS: counters Counter<1> = "takhin_cdc_reconnects_total", "Connections to the master that ended or were not made, by reason", ["reason"];
    /// Items that came twice.
    DUPLICATES: counters Counter<1> = "takhin_cdc_duplicate_items_total", "Items of the binlog that came again and were dropped", ["db"];
    /// Gaps.
    GAPS: counters Counter<1> = "takhin_cdc_gaps_total", "Gaps in the binlog, each of which ends the connection", ["db"];
    /// Where what is kept on the own disk ends: the file.
    KEPT_FILE: gauges Gauge<1> = "takhin_cdc_kept_filenum", "File of the binlog up to which changes were received and are in the log", ["db"];
    /// Where that ends: the offset.
    KEPT_OFFSET: gauges Gauge<1> = "takhin_cdc_kept_offset", "Offset in that file", ["db"];
    /// Bytes of dumps.
    SNAPSHOT_BYTES: counters Counter<1> = "takhin_cdc_snapshot_received_bytes_total", "Bytes of dumps that were received", ["db"];
    /// Keys of data sets.
    SNAPSHOT_KEYS: counters Counter<1> = "takhin_cdc_snapshot_keys_total", "Keys of data sets that were read", ["db"];
    /// How many there may be.
    SNAPSHOT_ESTIMATE: gauges Gauge<1> = "takhin_cdc_snapshot_keys_estimate", "Entries of data sets that are being read, or were, as RocksDB guesses", ["db"];
    /// Keys that Pika has cut.
    SNAPSHOT_DAMAGED: counters Counter<1> = "takhin_cdc_snapshot_damaged_keys_total", "Keys left out because Pika itself has cut them", ["db"];
    /// Data sets taken.
    RESYNCS: counters Counter<1> = "takhin_cdc_full_resyncs_total", "Data sets that were begun to be taken, by reason", ["reason"];
    /// Events of several keys.
    MORE_KEYS: counters Counter<1> = "takhin_cdc_more_keys_total", "Changes that touch other keys than that of their record, in whose partitions they are not", ["db"];
    /// Commands that are not in our table.
    UNKNOWN: counters Counter<1> = "takhin_cdc_unknown_commands_total", "Changes by commands that are not known, written as they are", ["db"];
}

/// Bytes between master and brokers.
pub static QUEUE_BYTES: LazyLock<Gauge> =
    LazyLock::new(|| metrics::gauge("takhin_cdc_queue_bytes", "Bytes received and not yet written"));

/// Bytes of what the master has sent and is kept.
pub static WAL_BYTES: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::gauge(
        "takhin_cdc_wal_bytes",
        "Bytes of the logs of what the master has sent",
    )
});

/// Where what a master before 3.1 has sent and is kept ends: the file, and the offset.
pub static WAL_END: LazyLock<(Gauge, Gauge)> = LazyLock::new(|| {
    let file = "File of the binlog up to which a master before 3.1 has sent and it is kept";
    (
        metrics::gauge("takhin_cdc_wal_end_filenum", file),
        metrics::gauge("takhin_cdc_wal_end_offset", "Offset in that file"),
    )
});

/// 1 while it is paused.
pub static PAUSED: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::gauge(
        "takhin_cdc_paused",
        "1 while nothing is written because somebody said so",
    )
});

/// Bytes of records that were written.
pub static BYTES: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "takhin_cdc_bytes_total",
        "Bytes of keys and values that were written and acknowledged",
    )
});

/// Events that were larger than allowed.
pub static OVERSIZE: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "takhin_cdc_oversize_total",
        "Events left out because their records are too large",
    )
});

/// When the position file was written last; not by the time of day, which people change.
static SAVED: Mutex<Option<Instant>> = Mutex::new(None);

/// Notes that the position file was written.
pub fn saved(now: Instant) {
    *SAVED.lock() = Some(now);
}

/// Registers what is computed when it is asked for.
pub fn register(clock: Clock) {
    // Whoever never comes so far as to save is to be seen too.
    let start = clock.instant();
    metrics::sampled(
        "takhin_cdc_checkpoint_age_seconds",
        "Time since this process has written the position file, or since its start while it has not",
        move || {
            let since = SAVED.lock().unwrap_or(start);
            Some(clock.instant().saturating_duration_since(since).as_secs_f64())
        },
    );
}

/// What a database is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its changes cannot come yet.
    Connecting,
    /// Its data set is being taken.
    Snapshot,
    /// They come.
    Streaming,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Connecting, Self::Snapshot, Self::Streaming];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Snapshot => "snapshot",
            Self::Streaming => "streaming",
        }
    }
}

/// Notes the phase of a database.
pub fn set_phase(db: &str, now: Phase) {
    for phase in Phase::ALL {
        PHASE.with([db, phase.name()]).set(i64::from(phase == now));
    }
}
