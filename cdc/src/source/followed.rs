//! What is known of a master and of how far its changes were written, whatever it speaks.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use takhin_config::CdcConfig;
use takhin_pika::Position;

use crate::event::Source;

/// Whom events come from, and how far they were written.
#[derive(Debug, Default)]
pub struct Followed {
    source: OnceLock<Source>,
    written: Mutex<BTreeMap<String, (Position, i64)>>,
    has_written: AtomicBool,
}

impl Followed {
    /// Whom events come from, whether there is a connection to it or not.
    pub fn of(config: &CdcConfig, version: &str, replication_id: String) -> Self {
        let followed = Self::default();
        followed.set_source(Source {
            id: config.source_id(),
            host: config.source.host.clone(),
            port: config.source.port,
            version: version.to_owned(),
            replication_id,
        });
        followed
    }

    /// Whom events come from; known once the master has said what it is.
    pub fn source(&self) -> Option<&Source> {
        self.source.get()
    }

    pub(super) fn set_source(&self, source: Source) {
        let _ = self.source.set(source);
    }

    /// Follows a database from a position on.
    pub fn begin(&self, db: &str, from: Position) {
        self.written.lock().insert(db.to_owned(), (from, 0));
    }

    /// Notes, of where a database begins, when it was as far as that: no change behind it is older, as far as anybody knows.
    pub fn since(&self, db: &str, ts_ms: i64) {
        if let Some((_, known)) = self.written.lock().get_mut(db)
            && *known == 0
        {
            *known = ts_ms;
        }
    }

    /// Notes up to where the changes of a database were written, and when the last one happened.
    pub fn wrote(&self, db: &str, position: Position, ts_ms: i64) {
        self.has_written.store(true, Ordering::Relaxed);
        if let Some(written) = self.written.lock().get_mut(db) {
            *written = (position, if ts_ms > 0 { ts_ms } else { written.1 });
        }
    }

    /// Whether anything was written.
    pub fn has_written(&self) -> bool {
        self.has_written.load(Ordering::Relaxed)
    }

    /// Up to where the changes of a database were written, and when the last one happened, in milliseconds since 1970 (0 if
    /// that is not known).
    pub fn written(&self, db: &str) -> Option<(Position, i64)> {
        self.written.lock().get(db).copied()
    }

    /// The databases that are followed.
    pub fn databases(&self) -> Vec<String> {
        self.written.lock().keys().cloned().collect()
    }
}
