//! How far what was written is behind the master.

use takhin_pika::Position;
use takhin_pika::info::binlog_end;

use super::connection::file_size;
use super::{LOOK, Runner};
use crate::metrics;
use crate::source::{Followed, Redis, SourceError};

impl Runner<'_> {
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
    }
}
