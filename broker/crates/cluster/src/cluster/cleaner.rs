//! Compaction of the topics that ask for it: one log at a time, overdue ones first, then the dirtiest.
//!
//! A pass needs its entries purged, that is, no longer part of the Raft log. It runs in steps of about a megabyte, each
//! where blocking is allowed; between two of them it can be slowed down or ended.

use std::sync::Arc;

use takhin_config::Limit;
use takhin_config::topic::TopicConfig;
use takhin_runtime::Env;
use takhin_storage::{CleanLimits, CleanRules, CleanStep, Cleanable, Cleaning, Log, LogError, LogStatus};

use super::Cluster;
use super::maintenance::pause;
use crate::metrics::CLEANER;
use crate::partition::Partition;
use crate::raft::Group;

/// Largest batch that compaction looks into, in bytes of records; a compacted topic takes none that is larger.
pub const MAX_COMPACTED_BATCH: usize = 64 << 20;

/// A log that is due.
struct Due {
    group: Arc<Group>,
    log: Arc<Log>,
    rules: CleanRules,
    cleanable: Cleanable,
}

/// How a pass ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// It went on from where the last one had ended.
    Progress,
    /// It could not begin, or not finish.
    Nothing,
    /// The node stops.
    Stopped,
}

pub(super) async fn run(cluster: Arc<Cluster>) {
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = pause(&cluster, |storage| storage.cleaner_interval) => {}
        }
        while clean_one(&cluster).await {}
    }
}

/// Runs a pass over the log that needs it most, of those on which one can make progress; whether it did.
async fn clean_one(cluster: &Arc<Cluster>) -> bool {
    let mut due = look(cluster).await;
    due.sort_by(|a, b| {
        urgency(b)
            .partial_cmp(&urgency(a))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    for due in due {
        let upto = due.cleanable.end.first_index.saturating_sub(1);
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return false,
            () = due.group.purge(&cluster.env, &cluster.host, upto) => {}
        }
        match pass(cluster, &due).await {
            Ended::Progress => return true,
            Ended::Nothing => {}
            Ended::Stopped => return false,
        }
    }
    false
}

fn urgency(due: &Due) -> (bool, f64) {
    (due.cleanable.overdue, due.cleanable.ratio())
}

/// The logs that are due, after aged segments have been closed.
async fn look(cluster: &Cluster) -> Vec<Due> {
    let mut due = Vec::new();
    let (mut dirtiest, mut uncleanable) = (0.0_f64, 0);
    for group in cluster.all_groups() {
        let partition = Arc::clone(&group.spec.partition);
        // What an observer follows is replayed from its first entry at each start.
        if group.spec.observer.is_some() || !partition.config().cleanup_policy.compact {
            continue;
        }
        let Some(log) = partition.log().filter(|log| log.status() == LogStatus::Ready) else {
            continue;
        };
        if log.cleaner_status().uncleanable.is_some() {
            uncleanable += 1;
            continue;
        }
        let (rules, now_ms) = (rules(&partition.config()), cluster.env.clock.now_ms());
        let looked = Arc::clone(&log);
        let found = cluster
            .env
            .tasks
            .blocking(move || assess(&partition, &looked, &rules, now_ms));
        match found.await {
            Ok(None) => {}
            Ok(Some(cleanable)) => {
                dirtiest = dirtiest.max(cleanable.ratio());
                if cleanable.is_due(&rules) {
                    due.push(Due {
                        group,
                        log,
                        rules,
                        cleanable,
                    });
                }
            }
            Err(error) => {
                tracing::warn!(partition = %group.spec.id, %error, "compaction could not look at the log");
            }
        }
    }
    CLEANER.dirtiest.set(percent(dirtiest));
    CLEANER.uncleanable.set(uncleanable);
    due
}

fn assess(
    partition: &Partition,
    log: &Log,
    rules: &CleanRules,
    now_ms: i64,
) -> Result<Option<Cleanable>, LogError> {
    log.roll_if_expired(now_ms)?;
    log.cleanable(rules, now_ms, partition.offsets().last_stable_offset)
}

fn rules(config: &TopicConfig) -> CleanRules {
    CleanRules {
        min_compaction_lag_ms: config.min_compaction_lag_ms,
        max_compaction_lag_ms: config.max_compaction_lag_ms,
        delete_retention_ms: config.delete_retention_ms,
        min_dirty_ratio: config.min_cleanable_dirty_ratio,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a share is at most 1.0")]
fn percent(share: f64) -> i64 {
    (share * 100.0) as i64
}

async fn pass(cluster: &Cluster, due: &Due) -> Ended {
    let env = &cluster.env;
    // A pass keeps the settings that it began with.
    let settings = Arc::clone(&cluster.controller.image().settings);
    let storage = &settings.node.storage;
    let limits = CleanLimits {
        map_bytes: usize::try_from(storage.cleaner_memory.as_u64()).unwrap_or(usize::MAX),
        max_inflated: MAX_COMPACTED_BATCH,
        seed: u128::from_be_bytes(env.rng.uuid()),
    };
    let now_ms = env.clock.now_ms();
    let Some(mut cleaning) = due.log.clean(&due.cleanable, due.rules, &limits, now_ms) else {
        return Ended::Nothing;
    };
    let begun = env.clock.instant();
    let mut done = 0;
    loop {
        let (back, stepped) = step(env, cleaning).await;
        cleaning = back;
        match stepped {
            Ok(CleanStep::More { bytes }) => done += bytes,
            Ok(CleanStep::Done(report)) => {
                CLEANER.last_run.set(env.clock.now_ms() / 1000);
                CLEANER.last_run_time.set(whole_seconds(begun.elapsed()));
                return if report.first_dirty > due.cleanable.first_dirty {
                    Ended::Progress
                } else {
                    Ended::Nothing
                };
            }
            // The log has said so, and knows whether it is to be tried again.
            Err(_) => return Ended::Nothing,
        }
        let gone = !due
            .group
            .spec
            .partition
            .log()
            .is_some_and(|log| Arc::ptr_eq(&log, &due.log));
        if cluster.stop.is_triggered() {
            return Ended::Stopped;
        }
        if gone || due.group.is_stopping() {
            return Ended::Nothing;
        }
        if let Limit::At(rate) = storage.cleaner_rate {
            let rate = rate.as_u64().max(1);
            let due_at = begun + std::time::Duration::from_millis(done.saturating_mul(1000) / rate);
            tokio::select! {
                biased;
                () = cluster.stop.wait() => return Ended::Stopped,
                () = env.clock.sleep_until(due_at) => {}
            }
        }
    }
}

async fn step(env: &Env, mut cleaning: Cleaning) -> (Cleaning, Result<CleanStep, LogError>) {
    env.tasks
        .blocking(move || {
            let stepped = cleaning.step();
            (cleaning, stepped)
        })
        .await
}

fn whole_seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
