//! What is told of a change, and of a piece of the data set.

mod filter;
mod glob;
mod json;
mod key;
mod of_binlog;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use takhin_pika::Position;
use takhin_pika::command::DataType;

pub use filter::{Filter, Rule};
pub use json::Json;
pub use key::{partition_of, put_record_key};
pub use of_binlog::put_events;

/// What an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The data set.
    Snapshot,
    /// The changes.
    Binlog,
    /// The course of both.
    Control,
}

impl Kind {
    /// Its word in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Binlog => "binlog",
            Self::Control => "control",
        }
    }
}

/// Where a change stands in the binlog of its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where its item begins, as the master says it.
    pub start: Position,
    /// Where its item ends.
    pub end: Position,
    /// Number of the item.
    pub logic_id: u64,
    /// The master's term; before 3.3 the id of the server that has executed it.
    pub origin: u32,
    /// Which change of its record it is.
    pub sub: u32,
}

/// Which piece of a key an event of the data set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// 0 for the first one, with which the key begins anew.
    pub index: u32,
    /// Whether it is the last one.
    pub is_last: bool,
}

/// The data set that an event is from, or tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRef {
    /// Its name, another one for each time that it is taken.
    pub id: Arc<str>,
    /// The changes go on there.
    pub position: Position,
    /// Whether it is the state at exactly that position; otherwise some changes after it may be in it already.
    pub is_exact: bool,
    /// Why it is taken; told with its beginning and end.
    pub reason: &'static str,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it belongs to.
    pub kind: Kind,
    /// Name of the command in lower case, or what happened.
    pub op: Cow<'static, str>,
    /// Type of the value, where it is known.
    pub data_type: Option<DataType>,
    /// The database.
    pub db: Arc<str>,
    /// The key; `None` if it concerns the whole database.
    pub key: Option<Bytes>,
    /// What follows the name of the command, the key included.
    pub args: Vec<Bytes>,
    /// When it happened, in milliseconds since 1970.
    pub ts_ms: i64,
    /// The same for the same change, whenever it is sent.
    pub event_id: String,
    /// When the value is gone, in milliseconds since 1970.
    pub expire_at_ms: Option<i64>,
    /// Of a change.
    pub place: Option<Place>,
    /// Of a piece of the data set.
    pub part: Option<Part>,
    /// Of a piece of the data set, and of its beginning and end.
    pub snapshot: Option<SnapshotRef>,
    /// Whether the outcome depends on chance.
    pub is_random: bool,
    /// Whether it touches more keys than `key`.
    pub has_more_keys: bool,
    /// Whether the command is one that we know. One that is not is taken to have its key first.
    pub is_known: bool,
}

/// Whom events come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name of the source.
    pub id: String,
    /// The master's host.
    pub host: String,
    /// Its Redis port.
    pub port: u16,
    /// Its version.
    pub version: String,
    /// Whose binlog it is; empty before 3.5.1.
    pub replication_id: String,
}

/// Characters of the replication id that tell binlogs apart in event ids.
const EPOCH_LEN: usize = 8;

impl Source {
    /// Whether its binlog names the server that has executed a change: from 3.3 on the master's term stands there. 2.3 names it
    /// too, if not in the item.
    pub fn names_servers(&self) -> bool {
        let mut numbers = self.version.split('.').map(|number| number.parse::<u32>().ok());
        let mut next = || numbers.next().flatten();
        (next(), next()) < (Some(3), Some(3))
    }

    /// What tells its binlog from others in event ids: the beginning of the replication id, `0` where there is none.
    pub fn epoch(&self) -> &str {
        match self.replication_id.get(..EPOCH_LEN) {
            Some(epoch) => epoch,
            None => "0",
        }
    }
}

/// Makes the value of a record from an event.
pub trait Encoder: Send + Sync {
    /// Value of the header `content-type`.
    fn content_type(&self) -> &'static str;

    /// Appends the record's value.
    fn encode(&self, source: &Source, event: &Event, out: &mut Vec<u8>);
}
