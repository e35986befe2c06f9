//! Records as values, and batches made from them.

use proptest::prelude::*;
use takhin_protocol::record::{
    Batch, BatchBuilder, Compression, NewRecord, Records, decompress, scan, validate_produced,
};

use crate::rules::reading_all;

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owned {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

pub(crate) const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

pub(crate) fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..100))
}

/// Records with distinct header keys, which is all that the message codec can hold.
pub(crate) fn records() -> impl Strategy<Value = Vec<Owned>> {
    let header = (prop::sample::select(vec!["a", "trace", ""]), bytes());
    let headers = prop::collection::btree_map(header.0, header.1, 0..3);
    let record = (0i64..1 << 45, bytes(), bytes(), headers);
    let record = record.prop_map(|(timestamp, key, value, headers)| Owned {
        timestamp,
        key,
        value,
        headers: headers.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
    });
    prop::collection::vec(record, 1..20)
}

pub(crate) fn batch(records: &[Owned], codec: Compression) -> Batch {
    let mut builder = BatchBuilder::new(codec).producer(9, 3, 100);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_deref()))
            .collect();
        builder.push(NewRecord {
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        });
    }
    builder.build().unwrap()
}

pub(crate) fn read(batch: &Batch) -> Vec<Owned> {
    let codec = Compression::from_id(batch.header.attributes.compression()).unwrap();
    let body = decompress(codec, &batch.body, 1 << 20).unwrap();
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    Records::new(&body, batch.header.records_count)
        .map(|record| record.unwrap())
        .map(|record| Owned {
            timestamp: batch.header.base_timestamp + record.timestamp_delta,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .map(|h| (text(h.key), h.value.map(<[u8]>::to_vec)))
                .collect(),
        })
        .collect()
}

proptest! {
    #[test]
    fn records_come_back_from_every_codec(sent in records()) {
        for codec in CODECS {
            let built = batch(&sent, codec);
            let bytes = built.to_bytes();
            let received = validate_produced(Some(bytes.clone()), &reading_all()).unwrap();
            prop_assert_eq!(&received, &built);
            prop_assert_eq!(&read(&received), &sent);
            prop_assert_eq!(received.body.as_ptr(), bytes[61..].as_ptr(), "the body is not copied");
            prop_assert_eq!(scan::check(&bytes), Ok((built.header, bytes.len())));
        }
    }
}
