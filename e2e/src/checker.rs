//! Decides what a crash did to acknowledged records.
//!
//! Input: everything writers logged (what they were about to send, which answers came), and every record that a reader
//! found afterwards. The rules, each linear in the log:
//!
//! | fault       | rule |
//! |-------------|------|
//! | `Lost`      | an acknowledged record is not there |
//! | `Moved`     | an acknowledged record lies at another offset than was acknowledged |
//! | `Duplicate` | a record lies at two offsets, acknowledged or not (writers are idempotent) |
//! | `Reordered` | a writer's records in a partition are not in the order they were sent |
//! | `Altered`   | a record's bytes differ from what was sent |
//! | `Phantom`   | a record that nobody sent, or that lies in another partition than it was sent to |
//! | `Gap`       | offsets are not dense from the first one read (no transactions, no compaction here) |
//!
//! A send without an answer is *unknown*: its record may be there once, or not at all.

use std::collections::{BTreeMap, HashMap};

/// Identifies a record: writer, partition, and the writer's own count in that partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// The writer's name.
    pub writer: String,
    /// The partition it was sent to.
    pub partition: i32,
    /// 0, 1, 2, ... per writer and partition.
    pub seq: u64,
}

/// One line of a writer's log, in the order written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// About to be sent.
    Sent {
        /// Which record.
        id: Id,
        /// CRC-32 of its value.
        crc: u32,
    },
    /// Acknowledged.
    Acked {
        /// Which record.
        id: Id,
        /// The offset in the answer; `None` where the broker answered "already have it" without one.
        offset: Option<i64>,
    },
}

/// One record as a reader found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Who the value says it is.
    pub id: Id,
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// CRC-32 of the value as read.
    pub crc: u32,
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Acknowledged and gone.
    Lost(Id),
    /// Acknowledged at one offset, found at another.
    Moved {
        /// Which record.
        id: Id,
        /// The offset in the answer.
        acked: i64,
        /// Where it is.
        found: i64,
    },
    /// There twice.
    Duplicate {
        /// Which record.
        id: Id,
        /// The two offsets.
        offsets: [i64; 2],
    },
    /// Behind a record that its writer sent later.
    Reordered {
        /// Which record.
        id: Id,
        /// Its offset.
        offset: i64,
        /// The later record's number.
        behind: u64,
    },
    /// Other bytes than were sent.
    Altered(Id),
    /// Nobody sent it, or not there.
    Phantom(Found),
    /// The next offset is missing.
    Gap {
        /// In which partition.
        partition: i32,
        /// The missing offset.
        expected: i64,
        /// The offset found instead.
        found: i64,
    },
}

/// The verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that were acknowledged.
    pub acked: usize,
    /// Records without an answer that are there.
    pub unknown_present: usize,
    /// Records without an answer that are not there.
    pub unknown_absent: usize,
    /// What must not be, in the order found.
    pub faults: Vec<Fault>,
}

/// What is known of one record.
#[derive(Debug, Default)]
struct State {
    crc: u32,
    acked: bool,
    acked_offset: Option<i64>,
    found: Option<i64>,
}

/// Compares the writers' log with everything that was found, each partition in the order read.
pub fn check(log: &[Event], found: &[Found]) -> Report {
    let mut states: HashMap<Id, State> = HashMap::new();
    for event in log {
        match event {
            Event::Sent { id, crc } => {
                states.entry(id.clone()).or_default().crc = *crc;
            }
            Event::Acked { id, offset } => {
                let state = states.entry(id.clone()).or_default();
                state.acked = true;
                state.acked_offset = *offset;
            }
        }
    }
    let mut report = Report::default();
    check_found(found, &mut states, &mut report.faults);
    check_acked(&states, &mut report);
    report
}

fn check_found(found: &[Found], states: &mut HashMap<Id, State>, faults: &mut Vec<Fault>) {
    let mut next_offset: HashMap<i32, i64> = HashMap::new();
    let mut last_seq: HashMap<(&str, i32), u64> = HashMap::new();
    for record in found {
        let expected = next_offset.entry(record.partition).or_insert(record.offset);
        if record.offset != *expected {
            faults.push(Fault::Gap {
                partition: record.partition,
                expected: *expected,
                found: record.offset,
            });
        }
        *expected = record.offset + 1;

        let known = states
            .get_mut(&record.id)
            .filter(|_| record.id.partition == record.partition);
        let Some(state) = known else {
            faults.push(Fault::Phantom(record.clone()));
            continue;
        };
        if state.crc != record.crc {
            faults.push(Fault::Altered(record.id.clone()));
        }
        if let Some(first) = state.found {
            faults.push(Fault::Duplicate {
                id: record.id.clone(),
                offsets: [first, record.offset],
            });
            continue;
        }
        state.found = Some(record.offset);
        let last = last_seq
            .entry((&record.id.writer, record.partition))
            .or_insert(record.id.seq);
        if *last > record.id.seq {
            faults.push(Fault::Reordered {
                id: record.id.clone(),
                offset: record.offset,
                behind: *last,
            });
        }
        *last = record.id.seq.max(*last);
    }
}

fn check_acked(states: &HashMap<Id, State>, report: &mut Report) {
    // Sorted, so that a report reads from the first loss on.
    for (id, state) in states.iter().collect::<BTreeMap<_, _>>() {
        match (state.acked, state.found) {
            (false, Some(_)) => report.unknown_present += 1,
            (false, None) => report.unknown_absent += 1,
            (true, None) => {
                report.acked += 1;
                report.faults.push(Fault::Lost(id.clone()));
            }
            (true, Some(found)) => {
                report.acked += 1;
                if let Some(acked) = state.acked_offset.filter(|&acked| acked != found) {
                    report.faults.push(Fault::Moved {
                        id: id.clone(),
                        acked,
                        found,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
