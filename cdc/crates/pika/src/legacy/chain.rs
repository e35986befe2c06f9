//! What follows what in the stream of a master of Pika 2.3 or 3.0, which numbers nothing that could be acknowledged, and
//! does not say where a record ends.

use crate::position::Position;

/// The last record that was taken: where to begin again so that nothing is missed. Ends are no good place for that. The end of
/// a file is refused once it is beyond `binlog-file-size`, and a position within a record is silently moved to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    /// Where it begins, as the master says it: the first record of a file shows where the file before it ended.
    pub header: Position,
    /// How many of its commands were taken: 2.3 keeps `mset` as several in one record.
    pub commands: u32,
}

/// The order of a stream.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Bytes after which files roll (`binlog-file-size`).
    file_size: u64,
    begin: Position,
    last: Option<LastRecord>,
    record: Option<Record>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    header: Position,
    /// Commands that have come since the connection was made, and those that were taken, over all connections.
    seen: u32,
    taken: u32,
    len: u64,
    end: Position,
}

/// What a command is in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next one.
    New {
        /// Its number in its record, 0 for the first.
        index: u32,
        /// Where the record ends if it is the last one.
        end: Position,
    },
    /// It was taken before.
    Known,
}

/// Something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} follows where {expected} is to be")]
pub struct Gap {
    /// Where the next record is to begin.
    pub expected: Position,
    /// Where it begins.
    pub found: Position,
}

impl Chain {
    /// A stream that goes on at `end`, behind the record `last` if that is known, in files of `file_size` bytes.
    pub fn new(end: Position, last: Option<LastRecord>, file_size: u64) -> Self {
        Self {
            file_size,
            begin: end,
            last,
            record: None,
        }
    }

    /// The position to ask for.
    pub fn asks_for(&self) -> Position {
        match self.last() {
            Some(last) => self.start(last.header),
            None => self.begin,
        }
    }

    /// Where what was taken ends.
    pub fn end(&self) -> Position {
        let is_whole = |record: &&Record| record.seen >= record.taken;
        match self.record.as_ref().filter(is_whole) {
            Some(record) => record.end,
            None => self.begin,
        }
    }

    /// The last record that was taken.
    pub fn last(&self) -> Option<LastRecord> {
        let of = |record: Record| LastRecord {
            header: record.header,
            commands: record.taken,
        };
        self.record.map(of).or(self.last)
    }

    /// The master connects again: the record that it could not send whole comes anew.
    pub fn begin_again(&mut self) {
        if let Some(record) = &mut self.record {
            self.begin = record.end;
            (record.seen, record.len) = (0, 0);
        }
    }

    /// Takes a command whose record begins at `header`, with the bytes that it has of it. `may_go_on` says whether a record
    /// may have several.
    ///
    /// # Errors
    ///
    /// [`Gap`]; the chain is as it was.
    pub fn take(&mut self, header: Position, len: u64, may_go_on: bool) -> Result<Step, Gap> {
        let gap = |expected| Gap {
            expected,
            found: header,
        };
        let known = match (self.record, self.last) {
            (Some(record), _) if header < record.header => return Ok(Step::Known),
            (Some(record), _) if header == record.header => {
                if record.seen > 0 && !may_go_on {
                    return Ok(Step::Known);
                }
                return self.go_on(record, len).ok_or_else(|| gap(record.end));
            }
            (Some(record), _) if header == record.end => 0,
            (Some(record), _) => return Err(gap(record.end)),
            (None, Some(last)) if header == last.header => last.commands,
            (None, Some(last)) => return Err(gap(last.header)),
            (None, None) if header == self.begin || self.begins_file(header) => 0,
            (None, None) => return Err(gap(self.begin)),
        };
        let record = Record {
            header,
            seen: 0,
            taken: known,
            len: 0,
            end: header,
        };
        self.go_on(record, len).ok_or_else(|| gap(header))
    }

    /// One more command of a record; `None` past what positions hold.
    fn go_on(&mut self, mut record: Record, len: u64) -> Option<Step> {
        record.seen = record.seen.checked_add(1)?;
        record.len = record.len.checked_add(len)?;
        record.end = self.start(record.header).after(record.len)?;
        let is_new = record.seen > record.taken;
        record.taken = record.taken.max(record.seen);
        self.record = Some(record);
        Some(match is_new {
            true => Step::New {
                index: record.seen - 1,
                end: record.end,
            },
            false => Step::Known,
        })
    }

    /// Where a record really begins: the file is chosen after its header was written.
    fn start(&self, header: Position) -> Position {
        match header.offset > self.file_size {
            true => Position::new(header.filenum.saturating_add(1), 0),
            false => header,
        }
    }

    /// Whether the stream begins with the first record of a file.
    fn begins_file(&self, header: Position) -> bool {
        self.begin.offset == 0 && header.offset > self.file_size && self.start(header) == self.begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16_384;

    fn at(filenum: u32, offset: u64) -> Position {
        Position::new(filenum, offset)
    }

    fn new(index: u32, end: Position) -> Result<Step, Gap> {
        Ok(Step::New { index, end })
    }

    #[test]
    fn a_record_follows_the_end_of_the_one_before() {
        let mut chain = Chain::new(at(0, 100), None, SIZE);
        assert_eq!(chain.asks_for(), at(0, 100));
        assert_eq!(chain.take(at(0, 100), 92, false), new(0, at(0, 200)));
        let gap = Gap {
            expected: at(0, 200),
            found: at(0, 300),
        };
        assert_eq!(chain.take(at(0, 300), 92, false), Err(gap));
        assert_eq!(chain.take(at(0, 100), 92, false), Ok(Step::Known));
        // Filling of an earlier slave shows no position.
        assert_eq!(chain.take(at(0, 0), 92, false), Ok(Step::Known));
        assert_eq!(chain.take(at(0, 200), 92, false), new(0, at(0, 300)));
        assert_eq!(chain.end(), at(0, 300));
    }

    /// As recorded of 2.3.6: 0:16471 lies at 1:0.
    #[test]
    fn the_first_record_of_a_file_shows_the_end_of_the_file_before() {
        let mut chain = Chain::new(at(0, 16_471), None, SIZE);
        assert_eq!(chain.take(at(0, 16_471), 94, true), new(0, at(1, 102)));
        assert_eq!((chain.asks_for(), chain.end()), (at(1, 0), at(1, 102)));
        let mut again = Chain::new(chain.end(), chain.last(), SIZE);
        assert_eq!(again.take(at(0, 16_471), 94, true), Ok(Step::Known));
        assert_eq!(again.take(at(1, 102), 94, true), new(0, at(1, 204)));
        let mut asked = Chain::new(at(1, 0), None, SIZE);
        assert_eq!(asked.take(at(0, 16_471), 94, true), new(0, at(1, 102)));
        let mut other = Chain::new(at(1, 0), None, SIZE);
        assert!(other.take(at(0, 16_000), 94, true).is_err());
    }

    #[test]
    fn a_record_of_several_commands_is_begun_again_and_none_taken_twice() {
        let mut chain = Chain::new(at(0, 0), None, SIZE);
        assert_eq!(chain.take(at(0, 0), 50, true), new(0, at(0, 58)));
        assert_eq!(chain.take(at(0, 0), 60, true), new(1, at(0, 118)));
        // Over another connection, and in another process.
        let mut over_again = chain.clone();
        over_again.begin_again();
        let others = Chain::new(chain.end(), chain.last(), SIZE);
        for mut chain in [over_again, others] {
            assert_eq!((chain.asks_for(), chain.end()), (at(0, 0), at(0, 118)));
            assert_eq!(chain.take(at(0, 0), 50, true), Ok(Step::Known));
            assert_eq!(chain.end(), at(0, 118), "what is known was taken");
            assert_eq!(chain.take(at(0, 0), 60, true), Ok(Step::Known));
            assert_eq!(chain.take(at(0, 0), 70, true), new(2, at(0, 188)));
            assert_eq!(chain.take(at(0, 188), 42, true), new(0, at(0, 238)));
        }
        // What the master believes to have sent is missing.
        chain.begin_again();
        assert!(chain.take(at(0, 188), 42, true).is_err());
    }
}
