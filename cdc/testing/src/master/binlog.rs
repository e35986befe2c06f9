//! The binlog of one database.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use takhin_pika::Position;
use takhin_pika::binlog::Item;
use takhin_pika::resp;

/// An item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it ends.
    pub end: Position,
    /// Its number.
    pub index: u64,
    /// Header and command.
    pub bytes: Bytes,
    /// Items of one group are sent in one message; those of none as many as there are.
    pub group: Option<usize>,
}

/// Items in order, in files that roll as Pika's do.
#[derive(Debug)]
pub struct Binlog {
    /// Where it begins.
    pub(crate) begin: Position,
    pub(crate) entries: Vec<Entry>,
    pub(crate) first_file: u32,
    file_size: u64,
    next_index: u64,
}

impl Binlog {
    /// An empty one.
    pub fn new(file_size: u64) -> Self {
        Self::at(Position::default(), file_size)
    }

    /// One that begins at a position.
    pub fn at(begin: Position, file_size: u64) -> Self {
        Self {
            begin,
            entries: Vec::new(),
            first_file: 0,
            file_size,
            next_index: 1,
        }
    }

    /// Where the last item ends.
    pub fn end(&self) -> Position {
        self.entries.last().map_or(self.begin, |entry| entry.end)
    }

    /// Has the next item have another number.
    pub fn number_on(&mut self, by: u64) {
        self.next_index += by;
    }

    /// Writes an item as Pika does: its header says where the item before it ended, and the file rolls after that was
    /// said.
    pub fn append(&mut self, words: &[&[u8]]) -> Position {
        let header = self.end();
        let start = match header.offset > self.file_size {
            true => Position::new(header.filenum + 1, 0),
            false => header,
        };
        let mut content = Vec::new();
        resp::put_command(&mut content, words);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let item = Item {
            exec_time: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            origin: 0,
            logic_id: self.next_index,
            start: header,
            content: content.into(),
        };
        let end = start.after(item.len()).unwrap_or(start);
        self.entries.push(Entry {
            end,
            index: self.next_index,
            bytes: item.encode(),
            group: None,
        });
        self.next_index += 1;
        end
    }

    pub(crate) fn load(&mut self, entries: Vec<Entry>) {
        let last = entries.last().map(|entry| entry.index);
        self.next_index = last.map_or(self.next_index, |index| index + 1);
        self.entries.extend(entries);
    }

    /// The entry that follows a position; `None` if no item begins there.
    pub(crate) fn after(&self, position: Position) -> Option<usize> {
        if position == self.begin {
            return Some(0);
        }
        let ends_there = |entry: &Entry| entry.end == position;
        let at = self.entries.iter().position(ends_there)?;
        Some(at + 1)
    }

    /// Whether a position is the very beginning of a file that exists, other than the first one.
    pub(crate) fn begins_file(&self, position: Position) -> Option<usize> {
        let is_in = |entry: &Entry| entry.end.filenum == position.filenum;
        let first = self.entries.iter().position(is_in)?;
        (position.offset == 0).then_some(first)
    }
}
