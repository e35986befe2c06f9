//! How far what was written is behind the master. While that one does not say how far it is, nobody knows the bytes, and each second
//! may be one more.

use std::time::Duration;

use takhin_pika::Position;
use takhin_pika::info::binlog_end;
use takhin_runtime::clock::Instant;

use super::connection::file_size;
use super::{LOOK, Runner};
use crate::metrics;
use crate::source::{Followed, Redis, SourceError};

/// How long the last answer of a master counts.
const FRESH: Duration = Duration::from_secs(5);

/// What was seen when the master said last how far it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    at: Instant,
    behind_ms: i64,
}

impl Seen {
    /// How far it may be behind by now, if that is no longer known.
    fn grown(&self, now: Instant) -> Option<i64> {
        let since = now.saturating_duration_since(self.at);
        let since_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        (since > FRESH).then(|| self.behind_ms.saturating_add(since_ms))
    }
}

impl Runner<'_> {
    /// Has the lag of databases grow whose master says nothing; never returns.
    pub(super) async fn grow_lag(&self) -> std::convert::Infallible {
        loop {
            self.env.clock.sleep(LOOK).await;
            let now = self.env.clock.instant();
            for (db, seen) in &*self.seen.lock() {
                if let Some(behind_ms) = seen.grown(now) {
                    metrics::LAG_BYTES.remove([db]);
                    metrics::LAG_SECONDS.with([db]).set(behind_ms / 1000);
                }
            }
        }
    }

    /// Looks how far the master is, until it does not answer.
    pub(super) async fn look_on(
        &self,
        followed: &Followed,
        redis: &mut Redis,
        dbs: Vec<String>,
    ) -> SourceError {
        let file_size = file_size(redis).await;
        loop {
            match redis.info("replication").await {
                Ok(text) => {
                    for db in &dbs {
                        self.look(followed, db, binlog_end(&text, db), file_size);
                    }
                }
                Err(error) => return error,
            }
            self.env.clock.sleep(LOOK).await;
        }
    }

    /// Computes the lag of a database whose binlog ends at `head`.
    pub(super) fn look(&self, followed: &Followed, db: &str, head: Option<Position>, file_size: u64) {
        let (Some(head), Some((written, ts_ms))) = (head, followed.written(db)) else {
            return;
        };
        let lag = written.bytes_to(head, file_size);
        let behind_ms = match lag {
            0 => 0,
            _ if ts_ms == 0 => 0,
            _ => self.env.clock.now_ms().saturating_sub(ts_ms).max(0),
        };
        metrics::HEAD_FILE.with([db]).set(i64::from(head.filenum));
        metrics::HEAD_OFFSET
            .with([db])
            .set(i64::try_from(head.offset).unwrap_or(i64::MAX));
        metrics::LAG_BYTES
            .with([db])
            .set(i64::try_from(lag).unwrap_or(i64::MAX));
        metrics::LAG_SECONDS.with([db]).set(behind_ms / 1000);
        let at = self.env.clock.instant();
        self.seen.lock().insert(db.to_owned(), Seen { at, behind_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_grows_by_the_time_in_which_the_master_says_nothing() {
        let at = takhin_runtime::Env::real().clock.instant();
        let seen = Seen { at, behind_ms: 1500 };
        assert_eq!(seen.grown(at + FRESH), None);
        assert_eq!(seen.grown(at + Duration::from_secs(60)), Some(61_500));
    }
}
