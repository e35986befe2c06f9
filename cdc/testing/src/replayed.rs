//! A master that has what a real one had: its dump, and the changes that were recorded after that.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;
use takhin_pika::info::DumpInfo;
use tempfile::TempDir;

use crate::fixture::{Fixture, MASTER_PORT};
use crate::master::{Entry, Master, Settings, recorded};
use crate::state::State;
use crate::topics::Read;

/// Its databases.
const DATABASES: [&str; 2] = ["db0", "db1"];

/// A master with the dump of a fixture and the changes that were recorded after it.
#[derive(Debug)]
pub struct Replayed {
    /// The master.
    pub master: Master,
    /// The version that was recorded.
    pub version: &'static str,
    /// What the real master had in the end.
    pub expected: &'static str,
    _work: TempDir,
}

impl Replayed {
    /// Starts one of these: 3.5.5, 4.0.1.
    ///
    /// # Errors
    ///
    /// The fixture cannot be read.
    pub fn start(version: &'static str) -> Result<Self> {
        Self::with(version, &["01"], "expected-2-incremental.jsonl")
    }

    /// The same with what was executed while the slave was away, too.
    ///
    /// # Errors
    ///
    /// The fixture cannot be read.
    pub fn longer(version: &'static str) -> Result<Self> {
        Self::with(version, &["01", "02"], "expected-3-partial.jsonl")
    }

    fn with(version: &'static str, sessions: &[&str], expected: &'static str) -> Result<Self> {
        let fixture = Fixture::of(version);
        let work = tempfile::tempdir()?;
        let dump = fixture.dump(work.path())?;
        let master = Master::start(Settings {
            version: if version == "4.0.1" { "4.0.0" } else { version }.to_owned(),
            databases: 2,
            ..Settings::default()
        })?;
        let mut streams = Vec::new();
        for session in sessions {
            streams.push(stream(&fixture, session)?);
        }
        for db in DATABASES {
            let dir = dump.join(db);
            let info = std::fs::read_to_string(dir.join("info"))?;
            let info = DumpInfo::parse(&info).context("the info of the dump")?;
            master.begin_at(db, info.position);
            for entries in &mut streams {
                // A slave that comes back is sent the last one again.
                let mut entries = entries.remove(db).unwrap_or_default();
                entries.retain(|entry| entry.end > master.end(db));
                master.load(db, entries);
            }
            master.dump(db, &dir)?;
        }
        Ok(Self {
            master,
            version,
            expected,
            _work: work,
        })
    }

    /// Whether everything was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        let mut databases = DATABASES.iter();
        databases.all(|db| self.master.acked(db) == Some(self.master.end(db)))
    }
}

/// The recorded changes of a session, by database.
fn stream(fixture: &Fixture, session: &str) -> Result<BTreeMap<String, Vec<Entry>>> {
    for connection in fixture.session(session)? {
        if connection.server_port == MASTER_PORT + 2000 {
            let entries = recorded(&connection)?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
    }
    anyhow::bail!("no changes were recorded in {session}")
}

/// Checks that data set and changes together are what the real master had in the end of the first session.
#[track_caller]
pub fn check(version: &str, snapshot: &[Read], binlog: &[Read]) {
    check_against(version, "expected-2-incremental.jsonl", snapshot, binlog);
}

/// The same with what it had at another time.
#[track_caller]
pub fn check_against(version: &str, expected: &str, snapshot: &[Read], binlog: &[Read]) {
    let state = State::rebuild(snapshot, binlog);
    let mut lines = Fixture::of(version).lines(expected).unwrap();
    // Of a database whose position was not lost there are changes only.
    let taken: BTreeSet<&str> = snapshot.iter().map(|event| event.text("db")).collect();
    lines.retain(|line| taken.contains(format!("db{}", line["db"]).as_str()));
    let is_of_dump = expected.contains("purged");
    // 3.5 does not send the streams that it had, and what has expired in a dump is left out. Keys with zero bytes 4.0 itself does not
    // read back.
    let is_left_out = |line: &Value| {
        let is_stream = version == "3.5.5" && line["type"] == "stream";
        is_stream && (line["key"] == "st:1" || is_of_dump) || is_of_dump && line["expire_at_about"].is_i64()
    };
    let checked = state.check(&lines, is_left_out);
    assert!(checked > 40, "{version}: {checked} of {}", lines.len());
    assert!(state.applied > 80, "{version}: {}", state.applied);
}
