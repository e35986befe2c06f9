//! Our record batches against those of another implementation, the message codec's.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records as theirs;
use proptest::prelude::*;
use takhin_protocol::record::{Compression, validate_produced};

use crate::records::{CODECS, Owned, batch, read, records};
use crate::rules::reading_all;

fn their_codec(codec: Compression) -> theirs::Compression {
    match codec {
        Compression::None => theirs::Compression::None,
        Compression::Gzip => theirs::Compression::Gzip,
        Compression::Snappy => theirs::Compression::Snappy,
        Compression::Lz4 => theirs::Compression::Lz4,
        Compression::Zstd => theirs::Compression::Zstd,
    }
}

fn to_theirs(records: &[Owned]) -> Vec<theirs::Record> {
    let bytes = |b: &Option<Vec<u8>>| b.clone().map(Bytes::from);
    let one = |(offset, record): (i32, &Owned)| theirs::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: 9,
        producer_epoch: 3,
        timestamp_type: theirs::TimestampType::Creation,
        offset: offset.into(),
        sequence: 100 + offset,
        timestamp: record.timestamp,
        key: bytes(&record.key),
        value: bytes(&record.value),
        headers: record
            .headers
            .iter()
            .map(|(k, v)| (k.clone().into(), bytes(v)))
            .collect(),
    };
    (0..).zip(records).map(one).collect()
}

fn from_theirs(record: theirs::Record) -> Owned {
    let headers: IndexMap<_, _> = record.headers;
    let headers: BTreeMap<_, _> = headers.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    Owned {
        timestamp: record.timestamp,
        key: record.key.map(|b| b.to_vec()),
        value: record.value.map(|b| b.to_vec()),
        headers: headers
            .into_iter()
            .map(|(k, v)| (k, v.map(|b| b.to_vec())))
            .collect(),
    }
}

proptest! {
    #[test]
    fn each_reads_what_the_other_writes(sent in records()) {
        for codec in CODECS {
            let options = theirs::RecordEncodeOptions { version: 2, compression: their_codec(codec) };
            let mut written = BytesMut::new();
            theirs::RecordBatchEncoder::encode(&mut written, &to_theirs(&sent), &options).unwrap();
            let received = validate_produced(Some(written.freeze()), &reading_all()).unwrap();
            prop_assert_eq!(&read(&received), &sent, "we read theirs, {}", codec.name());

            let mut ours = batch(&sent, codec).to_bytes();
            let decoded = theirs::RecordBatchDecoder::decode(&mut ours).unwrap();
            let decoded: Vec<_> = decoded.records.into_iter().map(from_theirs).collect();
            prop_assert_eq!(&decoded, &sent, "they read ours, {}", codec.name());
        }
    }
}
