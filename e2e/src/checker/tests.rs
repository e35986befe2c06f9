//! The checker must find each kind of planted damage, and nothing in a sound history.

use super::*;

fn id(seq: u64) -> Id {
    Id {
        writer: "w".into(),
        partition: 0,
        seq,
    }
}

fn crc(seq: u64) -> u32 {
    u32::try_from(seq).unwrap() + 1000
}

/// A writer that sent `sent` records and got an answer for the first `acked`, each at the offset of its number.
fn log(sent: u64, acked: u64) -> Vec<Event> {
    let sends = (0..sent).map(|seq| Event::Sent {
        id: id(seq),
        crc: crc(seq),
    });
    let acks = (0..acked).map(|seq| Event::Acked {
        id: id(seq),
        offset: Some(i64::try_from(seq).unwrap()),
    });
    sends.chain(acks).collect()
}

/// Records with these numbers, at offsets 0, 1, 2, ...
fn read(seqs: &[u64]) -> Vec<Found> {
    let found = |(offset, &seq)| Found {
        id: id(seq),
        partition: 0,
        offset,
        crc: crc(seq),
    };
    (0..).zip(seqs).map(found).collect()
}

#[test]
fn a_sound_history_has_no_faults() {
    let report = check(&log(5, 3), &read(&[0, 1, 2, 3]));
    assert_eq!(
        report,
        Report {
            acked: 3,
            unknown_present: 1,
            unknown_absent: 1,
            faults: vec![]
        }
    );
}

#[test]
fn a_skipped_unknown_record_is_no_fault() {
    // Number 1 had no answer and is not there; number 2 took its offset.
    let mut events = log(3, 1);
    events.push(Event::Acked {
        id: id(2),
        offset: Some(1),
    });
    assert_eq!(check(&events, &read(&[0, 2])).faults, []);
}

#[test]
fn loss_at_the_end_is_found() {
    assert_eq!(check(&log(3, 3), &read(&[0, 1])).faults, [Fault::Lost(id(2))]);
}

#[test]
fn loss_in_the_middle_is_found_and_so_is_what_moved_up() {
    let faults = check(&log(3, 3), &read(&[0, 2])).faults;
    assert_eq!(
        faults,
        [
            Fault::Lost(id(1)),
            Fault::Moved {
                id: id(2),
                acked: 2,
                found: 1
            }
        ]
    );
}

#[test]
fn loss_of_everything_is_found() {
    assert_eq!(
        check(&log(2, 2), &[]).faults,
        [Fault::Lost(id(0)), Fault::Lost(id(1))]
    );
}

#[test]
fn an_acknowledgement_without_offset_still_counts() {
    let events = [
        Event::Sent {
            id: id(0),
            crc: crc(0),
        },
        Event::Acked {
            id: id(0),
            offset: None,
        },
    ];
    assert_eq!(check(&events, &[]).faults, [Fault::Lost(id(0))]);
    assert_eq!(check(&events, &read(&[0])).faults, []);
}

#[test]
fn a_duplicate_is_found_acknowledged_or_not() {
    let twice = |seq| Fault::Duplicate {
        id: id(seq),
        offsets: [i64::try_from(seq).unwrap(), 2],
    };
    assert_eq!(check(&log(2, 2), &read(&[0, 1, 1])).faults, [twice(1)]);
    assert_eq!(check(&log(2, 1), &read(&[0, 1, 1])).faults, [twice(1)]);
}

#[test]
fn a_reorder_is_found() {
    let mut events = log(3, 1);
    events.push(Event::Acked {
        id: id(1),
        offset: Some(2),
    });
    events.push(Event::Acked {
        id: id(2),
        offset: Some(1),
    });
    let faults = check(&events, &read(&[0, 2, 1])).faults;
    assert_eq!(
        faults,
        [Fault::Reordered {
            id: id(1),
            offset: 2,
            behind: 2
        }]
    );
}

#[test]
fn altered_bytes_are_found() {
    let mut found = read(&[0, 1]);
    found[1].crc ^= 1;
    assert_eq!(check(&log(2, 2), &found).faults, [Fault::Altered(id(1))]);
}

#[test]
fn a_record_that_nobody_sent_is_found() {
    let found = read(&[0, 7]);
    assert_eq!(
        check(&log(1, 1), &found).faults,
        [Fault::Phantom(found[1].clone())]
    );
}

#[test]
fn a_record_in_the_wrong_partition_is_found() {
    let mut found = read(&[0, 1]);
    found[1].partition = 3;
    let faults = check(&log(2, 2), &found).faults;
    assert_eq!(faults, [Fault::Phantom(found[1].clone()), Fault::Lost(id(1))]);
}

#[test]
fn a_gap_in_the_offsets_is_found() {
    let mut found = read(&[0, 1]);
    found[1].offset = 2;
    let faults = check(&log(2, 1), &found).faults;
    assert_eq!(
        faults,
        [Fault::Gap {
            partition: 0,
            expected: 1,
            found: 2
        }]
    );
}
