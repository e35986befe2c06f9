//! The metrics of this crate, all declared here.

use std::sync::LazyLock;

use takhin_runtime::telemetry::metrics::{Counter, Histogram, counter, histogram};

/// Metrics of all logs of this process.
#[derive(Debug)]
pub(crate) struct StorageMetrics {
    pub(crate) appended_bytes: Counter,
    pub(crate) appended_batches: Counter,
    pub(crate) segments_rolled: Counter,
    pub(crate) segments_deleted: Counter,
    pub(crate) logs_failed: Counter,
    pub(crate) recovery_cut_bytes: Counter,
    pub(crate) indexes_rebuilt: Counter,
    pub(crate) flush_files: Counter,
    pub(crate) flush_logs: Counter,
    pub(crate) flush_round: Histogram,
    pub(crate) cleaner_runs: Counter,
    pub(crate) cleaner_failures: Counter,
    pub(crate) cleaner_read_bytes: Counter,
    pub(crate) cleaner_written_bytes: Counter,
    pub(crate) cleaner_records: Counter,
    pub(crate) cleaner_records_kept: Counter,
    pub(crate) cleaner_batches_unread: Counter,
    pub(crate) segments_cleaned: Counter,
}

pub(crate) static METRICS: LazyLock<StorageMetrics> = LazyLock::new(|| StorageMetrics {
    appended_bytes: counter(
        "takhin_storage_appended_bytes_total",
        "Bytes appended to logs, entries of the replication layer included",
    ),
    appended_batches: counter(
        "takhin_storage_appended_batches_total",
        "Batches appended to logs, entries of the replication layer included",
    ),
    segments_rolled: counter(
        "takhin_storage_segments_rolled_total",
        "Segments sealed because a new one began",
    ),
    segments_deleted: counter(
        "takhin_storage_segments_deleted_total",
        "Segments deleted below the log start",
    ),
    logs_failed: counter(
        "takhin_storage_logs_failed_total",
        "Logs that stopped taking appends because a write or sync failed",
    ),
    recovery_cut_bytes: counter(
        "takhin_storage_recovery_cut_bytes_total",
        "Bytes that recovery moved from the end of logs to their quarantine",
    ),
    indexes_rebuilt: counter(
        "takhin_storage_indexes_rebuilt_total",
        "Segment indexes rebuilt from batch headers",
    ),
    flush_files: counter("takhin_storage_flush_files_total", "Files synced by flush rounds"),
    flush_logs: counter(
        "takhin_storage_flush_logs_total",
        "Logs made durable by flush rounds",
    ),
    flush_round: histogram(
        "takhin_storage_flush_round_seconds",
        "Time that a flush round took to sync; its count is the number of rounds",
    ),
    cleaner_runs: counter(
        "takhin_storage_cleaner_runs_total",
        "Compaction passes that came to their end",
    ),
    cleaner_failures: counter(
        "takhin_storage_cleaner_failures_total",
        "Compaction passes that ended with an error",
    ),
    cleaner_read_bytes: counter(
        "takhin_storage_cleaner_read_bytes_total",
        "Bytes of segments read by compaction",
    ),
    cleaner_written_bytes: counter(
        "takhin_storage_cleaner_written_bytes_total",
        "Bytes of the segments that compaction has put in place",
    ),
    cleaner_records: counter(
        "takhin_storage_cleaner_records_total",
        "Records that compaction has looked at while writing",
    ),
    cleaner_records_kept: counter(
        "takhin_storage_cleaner_records_kept_total",
        "Records that compaction has kept",
    ),
    cleaner_batches_unread: counter(
        "takhin_storage_cleaner_batches_unread_total",
        "Batches that compaction kept as they were because they are too large to be looked into",
    ),
    segments_cleaned: counter(
        "takhin_storage_segments_cleaned_total",
        "Segments that were replaced by cleaned ones",
    ),
});
