//! How far events were written: in a file, and in a compacted topic for whoever has lost the file.

mod file;
mod topic;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use takhin_pika::Position;
use takhin_pika::legacy::LastRecord;

pub use file::{CheckpointError, PositionFile, peek};
pub use topic::{read_topic, record};

/// Version of the format; a newer one is refused.
const VERSION: u32 = 1;

/// Everything before it was written and acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Version of the format.
    pub version: u32,
    /// Name of the source.
    pub source_id: String,
    /// The database.
    pub db: String,
    /// Whose binlog the position is in; empty before 3.5.1.
    #[serde(default)]
    pub replication_id: String,
    /// The changes go on in this file,
    pub filenum: u32,
    /// from this offset on.
    pub offset: u64,
    /// Number of the last item, 0 if there was none.
    pub logic_id: u64,
    /// Of masters before 3.3, which have no terms: the server that has executed the last change.
    #[serde(default)]
    pub server_id: u32,
    /// The master's term.
    #[serde(default)]
    pub term_id: u32,
    /// When this was noted, in milliseconds since 1970.
    pub ts_ms: i64,
    /// How often a data set has replaced a position that was lost. The later one counts, wherever its position is: a master
    /// that was restored from a backup is behind what it had.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u32,
    /// Partitions of the topic of changes that keys were spread over; 0 where that was not noted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub partitions: u32,
    /// Of masters before 3.1: the record that ends there, which is asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

/// The last record that was written, of masters before 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The file where it begins, as the master says it,
    pub filenum: u32,
    /// and the offset there.
    pub offset: u64,
    /// Its commands that were written.
    pub commands: u32,
}

impl From<LastRecord> for Last {
    fn from(last: LastRecord) -> Self {
        Self {
            filenum: last.header.filenum,
            offset: last.header.offset,
            commands: last.commands,
        }
    }
}

impl From<Last> for LastRecord {
    fn from(last: Last) -> Self {
        Self {
            header: Position::new(last.filenum, last.offset),
            commands: last.commands,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Checkpoints by database.
pub type Checkpoints = BTreeMap<String, Checkpoint>;

impl Checkpoint {
    /// A checkpoint of the newest version.
    pub fn new(source_id: &str, db: &str, replication_id: &str, position: Position, now_ms: i64) -> Self {
        Self {
            version: VERSION,
            source_id: source_id.to_owned(),
            db: db.to_owned(),
            replication_id: replication_id.to_owned(),
            filenum: position.filenum,
            offset: position.offset,
            logic_id: 0,
            server_id: 0,
            term_id: 0,
            ts_ms: now_ms,
            epoch: 0,
            partitions: 0,
            last: None,
        }
    }

    /// Where the changes go on.
    pub fn position(&self) -> Position {
        Position::new(self.filenum, self.offset)
    }

    /// Whether this build knows the format.
    fn is_known(&self) -> bool {
        self.version <= VERSION
    }

    /// Whether it supersedes `other`: that after more data sets; else of one binlog the further one, of two the one noted
    /// later.
    fn is_newer_than(&self, other: &Self) -> bool {
        if self.epoch != other.epoch {
            return self.epoch > other.epoch;
        }
        match self.replication_id == other.replication_id {
            true => self.position() > other.position(),
            false => self.ts_ms > other.ts_ms,
        }
    }
}

/// Of each database the newer one. Both were noted after what is before them had been written, so that either is right.
///
/// Where positions are written in the transactions of the events, those of the topic are right and another one's file may be
/// of long ago, whatever its clock said: of two binlogs the one in the topic counts.
pub fn newest(of_file: Checkpoints, of_topic: Checkpoints, is_transactional: bool) -> Checkpoints {
    let mut newest = of_file;
    for (db, other) in of_topic {
        match newest.get(&db) {
            Some(known)
                if is_transactional
                    && known.epoch == other.epoch
                    && known.replication_id != other.replication_id => {}
            Some(known) if !other.is_newer_than(known) => continue,
            _ => {}
        }
        newest.insert(db, other);
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(replication_id: &str, filenum: u32, offset: u64, ts_ms: i64) -> Checkpoint {
        Checkpoint::new("s", "db0", replication_id, Position::new(filenum, offset), ts_ms)
    }

    fn of(a: Checkpoint, b: Checkpoint, is_transactional: bool) -> Checkpoint {
        let map = |checkpoint: Checkpoint| Checkpoints::from([("db0".to_owned(), checkpoint)]);
        newest(map(a), map(b), is_transactional).remove("db0").unwrap()
    }

    fn of_two(a: Checkpoint, b: Checkpoint) -> Checkpoint {
        of(a, b, false)
    }

    /// The file of a process that was away has another binlog, and a clock that is ahead.
    #[test]
    fn the_topic_of_transactions_wins_over_another_binlog() {
        let (file, topic) = (at("q", 9, 9, 9), at("r", 1, 1, 1));
        assert_eq!(of(file.clone(), topic.clone(), true), topic);
        assert_eq!(of(file.clone(), topic, false), file);
        let (near, far) = (at("r", 1, 900, 5), at("r", 2, 0, 4));
        assert_eq!(of(far.clone(), near.clone(), true), far);
        assert_eq!(of(near, far.clone(), true), far);
    }

    /// A master that was restored from a backup goes on in the same binlog, behind what was noted before.
    #[test]
    fn a_position_after_another_data_set_wins_wherever_it_is() {
        let (before, mut after) = (at("r", 9, 9, 9), at("r", 1, 1, 1));
        after.epoch = 1;
        // Another binlog, and whatever a clock has said.
        for binlog in ["r", "q"] {
            after.replication_id = binlog.to_owned();
            for is_transactional in [false, true] {
                assert_eq!(of(before.clone(), after.clone(), is_transactional), after);
                assert_eq!(of(after.clone(), before.clone(), is_transactional), after);
            }
        }
    }

    #[test]
    fn the_further_one_of_a_binlog_and_the_later_one_of_two_wins() {
        let (near, far) = (at("r", 1, 900, 5), at("r", 2, 0, 4));
        assert_eq!(of_two(near.clone(), far.clone()), far);
        assert_eq!(of_two(far.clone(), near), far);
        let other = at("q", 0, 7, 6);
        assert_eq!(of_two(far, other.clone()), other);
        let topic_only = newest(
            Checkpoints::new(),
            Checkpoints::from([("db1".to_owned(), other)]),
            true,
        );
        assert!(topic_only.contains_key("db1"));
    }
}
