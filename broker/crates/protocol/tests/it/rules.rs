//! What a producer may send, rule by rule (Kafka's `LogValidator` and `UnifiedLog`).

use bytes::Bytes;
use takhin_protocol::record::{
    Attributes, Batch, BatchBuilder, BatchError, Compression, Limits, NewRecord, RecordCheck, RecordError,
    validate_produced,
};

pub(crate) fn reading_all() -> Limits {
    Limits {
        records: RecordCheck::All { budget: 1 << 20 },
        ..Limits::default()
    }
}

fn three_records(codec: Compression) -> Batch {
    let mut builder = BatchBuilder::new(codec).producer(7, 0, 0);
    for timestamp in [1000, 3000, 2000] {
        builder.push(NewRecord {
            timestamp,
            key: Some(b"k"),
            value: Some(b"v"),
            headers: &[],
        });
    }
    builder.build().unwrap()
}

/// The error for three records after `change`, with a CRC that is right.
fn refused_with(codec: Compression, limits: &Limits, change: impl FnOnce(&mut Batch)) -> BatchError {
    let mut batch = three_records(codec);
    change(&mut batch);
    batch.header.crc = batch.compute_crc();
    validate_produced(Some(batch.to_bytes()), limits).unwrap_err()
}

fn refused(change: impl FnOnce(&mut Batch)) -> BatchError {
    refused_with(Compression::None, &Limits::default(), change)
}

fn refused_bytes(bytes: &[u8]) -> BatchError {
    validate_produced(Some(Bytes::copy_from_slice(bytes)), &Limits::default()).unwrap_err()
}

macro_rules! assert_matches {
    ($value:expr, $pattern:pat $(if $guard:expr)?) => {
        let value = $value;
        assert!(matches!(&value, $pattern $(if $guard)?), "{value:?}");
    };
}

#[test]
fn exactly_one_batch_of_the_current_format() {
    let good = three_records(Compression::None).to_bytes();
    let none = validate_produced(None, &Limits::default()).unwrap_err();
    assert_matches!(none, BatchError::NoBatch);
    assert_matches!(refused_bytes(b""), BatchError::NoBatch);
    assert_matches!(refused_bytes(&good.repeat(2)), BatchError::Trailing { bytes } if *bytes == good.len());
    assert_matches!(
        refused_bytes(&good[..16]),
        BatchError::Length {
            claimed: 0,
            actual: 16
        }
    );
    assert_matches!(
        refused_bytes(&good[..60]),
        BatchError::Length {
            claimed: 0,
            actual: 60
        }
    );
    assert_matches!(refused_bytes(&good[..good.len() - 1]), BatchError::Length { .. });
    // A message of format v1: 34 bytes, too short for a header of ours.
    let mut old = [0; 34];
    old[16] = 1;
    assert_matches!(refused_bytes(&old), BatchError::Magic { magic: 1 });
    assert_matches!(refused(|b| b.header.magic = 3), BatchError::Magic { magic: 3 });
    assert_matches!(
        refused(|b| b.header.base_offset = 5),
        BatchError::BaseOffset { base_offset: 5 }
    );
    let mut flipped = good.to_vec();
    flipped[61] ^= 1;
    assert_matches!(refused_bytes(&flipped), BatchError::Crc { .. });
}

#[test]
fn size_and_codec_are_checked_before_the_checksum() {
    let mut zstd = three_records(Compression::Zstd).to_bytes().to_vec();
    zstd[17] ^= 1;
    let zstd = Some(Bytes::from(zstd));
    let limits = Limits {
        allow_zstd: false,
        max_bytes: 61,
        ..Limits::default()
    };
    assert_matches!(
        validate_produced(zstd.clone(), &limits).unwrap_err(),
        BatchError::ZstdNotAllowed
    );
    let limits = Limits {
        allow_zstd: true,
        ..limits
    };
    assert_matches!(
        validate_produced(zstd, &limits).unwrap_err(),
        BatchError::TooLarge { max: 61, .. }
    );

    let batch = three_records(Compression::None);
    let exact = Limits {
        max_bytes: batch.to_bytes().len(),
        ..Limits::default()
    };
    assert_eq!(validate_produced(Some(batch.to_bytes()), &exact).unwrap(), batch);
    for id in 5..=7 {
        let unknown = refused(|b| b.header.attributes.0 |= id);
        assert_matches!(unknown, BatchError::Codec { id: got } if *got == id);
    }
}

#[test]
fn attribute_bits_are_for_producers_or_not() {
    let with = |bits| refused(|b| b.header.attributes.0 |= bits);
    assert_matches!(with(Attributes::CONTROL), BatchError::Control);
    assert_matches!(with(Attributes::LOG_APPEND_TIME), BatchError::TimestampType);
    for bits in [Attributes::HIDDEN, Attributes::DELETE_HORIZON, 1 << 7, 1 << 14] {
        assert_matches!(with(bits), BatchError::ReservedAttributes { bits: got } if *got == bits);
    }
    let mut transactional = three_records(Compression::None);
    transactional.header.attributes.0 |= Attributes::TRANSACTIONAL;
    transactional.header.crc = transactional.compute_crc();
    assert!(validate_produced(Some(transactional.to_bytes()), &Limits::default()).is_ok());
}

#[test]
fn counts_agree_with_one_another_and_with_the_records() {
    let counts = |codec, count, delta| {
        refused_with(codec, &reading_all(), |b| {
            (b.header.records_count, b.header.last_offset_delta) = (count, delta);
        })
    };
    for (count, delta) in [
        (0, -1),
        (-1, -2),
        (3, 3),
        (2, 2),
        (i32::MIN, i32::MAX),
        (i32::MAX, i32::MAX - 1),
    ] {
        assert_matches!(counts(Compression::None, count, delta), BatchError::Count { .. });
    }
    for codec in [Compression::None, Compression::Lz4] {
        let fewer = counts(codec, 2, 1);
        assert_matches!(
            fewer,
            BatchError::Record {
                index: 2,
                source: RecordError::Trailing { .. }
            }
        );
    }
    let more = counts(Compression::Lz4, 4, 3);
    assert_matches!(
        more,
        BatchError::Record {
            index: 3,
            source: RecordError::Truncated
        }
    );
    // Compressed records are not read unless asked for.
    let mut batch = three_records(Compression::Lz4);
    (batch.header.records_count, batch.header.last_offset_delta) = (4, 3);
    batch.header.crc = batch.compute_crc();
    assert!(validate_produced(Some(batch.to_bytes()), &Limits::default()).is_ok());
}

#[test]
fn offset_deltas_are_dense() {
    let second_offset = |delta: u8| {
        refused(|b| {
            // The first record takes nine bytes. The second has length and attributes of one byte each and a
            // timestamp delta of two before its offset delta.
            let mut body = b.body.to_vec();
            assert_eq!(body[13], 2);
            body[13] = delta;
            b.body = body.into();
        })
    };
    assert_matches!(
        second_offset(0),
        BatchError::RecordOffset {
            index: 1,
            offset_delta: 0
        }
    );
    assert_matches!(
        second_offset(1),
        BatchError::RecordOffset {
            index: 1,
            offset_delta: -1
        }
    );
    assert_matches!(
        second_offset(4),
        BatchError::RecordOffset {
            index: 1,
            offset_delta: 2
        }
    );
}

#[test]
fn a_producer_id_has_an_epoch_and_a_sequence() {
    let producer = |id, epoch, sequence| {
        refused(|b| {
            (
                b.header.producer_id,
                b.header.producer_epoch,
                b.header.base_sequence,
            ) = (id, epoch, sequence);
        })
    };
    assert_matches!(
        producer(7, 0, -1),
        BatchError::Producer {
            base_sequence: -1,
            ..
        }
    );
    assert_matches!(
        producer(7, -1, 0),
        BatchError::Producer {
            producer_epoch: -1,
            ..
        }
    );
    assert_matches!(producer(-2, 0, 0), BatchError::Producer { producer_id: -2, .. });
    let transactional = refused(|b| {
        b.header.producer_id = -1;
        b.header.attributes.0 |= Attributes::TRANSACTIONAL;
    });
    assert_matches!(transactional, BatchError::Producer { producer_id: -1, .. });

    // kafkajs leaves 0 as epoch and sequence of a batch without producer id.
    let mut plain = three_records(Compression::None);
    plain.header.producer_id = -1;
    plain.header.crc = plain.compute_crc();
    assert_eq!(
        validate_produced(Some(plain.to_bytes()), &Limits::default()).unwrap(),
        plain
    );
}

#[test]
fn timestamps_lie_within_the_limits() {
    let limits = |min, max| Limits {
        min_timestamp: min,
        max_timestamp: max,
        ..reading_all()
    };
    for codec in [Compression::None, Compression::Gzip] {
        let sent = || Some(three_records(codec).to_bytes());
        assert!(validate_produced(sent(), &limits(1000, 3000)).is_ok());
        let late = validate_produced(sent(), &limits(1000, 2999)).unwrap_err();
        assert_matches!(late, BatchError::Timestamp { timestamp: 3000, .. });
        let early = validate_produced(sent(), &limits(1001, 3000)).unwrap_err();
        assert_matches!(early, BatchError::Timestamp { timestamp: 1000, .. });
        // A header that hides the latest record does not help.
        let hidden = refused_with(codec, &limits(0, 2500), |b| b.header.max_timestamp = 2000);
        assert_matches!(hidden, BatchError::Timestamp { timestamp: 3000, .. });
    }
    assert_matches!(
        refused(|b| b.header.max_timestamp = -2),
        BatchError::Timestamp { timestamp: -2, .. }
    );
    assert_matches!(
        refused(|b| b.header.base_timestamp = i64::MIN),
        BatchError::Timestamp { .. }
    );

    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(NewRecord {
        timestamp: -1,
        ..NewRecord::default()
    });
    let untimed = builder.build().unwrap();
    assert_eq!(
        validate_produced(Some(untimed.to_bytes()), &limits(1, 2)).unwrap(),
        untimed
    );
}

#[test]
fn a_wrong_max_timestamp_is_corrected() {
    let sent = |codec| {
        let mut batch = three_records(codec);
        batch.header.max_timestamp = -1;
        batch.header.crc = batch.compute_crc();
        Some(batch.to_bytes())
    };
    let received = validate_produced(sent(Compression::None), &Limits::default()).unwrap();
    assert_eq!(received, three_records(Compression::None));
    // Without reading the records, the first one's timestamp is the best that is known.
    let received = validate_produced(sent(Compression::Lz4), &Limits::default()).unwrap();
    assert_eq!(
        (received.header.max_timestamp, received.header.crc),
        (1000, received.compute_crc())
    );
}

#[test]
fn a_compacted_topic_needs_keys() {
    let limits = Limits {
        require_keys: true,
        ..reading_all()
    };
    for codec in [Compression::None, Compression::Zstd] {
        assert!(validate_produced(Some(three_records(codec).to_bytes()), &limits).is_ok());
        let mut builder = BatchBuilder::new(codec);
        builder.push(NewRecord {
            key: Some(b""),
            ..NewRecord::default()
        });
        builder.push(NewRecord {
            value: Some(b"v"),
            ..NewRecord::default()
        });
        let refused = validate_produced(Some(builder.build().unwrap().to_bytes()), &limits).unwrap_err();
        assert_matches!(refused, BatchError::NullKeys { indexes } if *indexes == [1]);
    }
}
