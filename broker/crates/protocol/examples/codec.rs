//! Prints what the produce and fetch codecs cost per batch. Run in a release build:
//!
//! ```text
//! cargo run --release -p takhin-protocol --example codec
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring program"
)]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use takhin_protocol::guard;
use takhin_protocol::messages::{self, FetchResponse, ProduceRequest, fetch_response, produce_request};
use takhin_protocol::record::{
    BatchBuilder, Compression, Limits, NewRecord, RecordCheck, scan, validate_produced,
};

const BATCHES: usize = 100;

fn batch(codec: Compression, records: usize, value: usize) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    let value: Vec<u8> = (0..value).map(|i| (i * 7 % 251).to_le_bytes()[0]).collect();
    for _ in 0..records {
        builder.push(NewRecord {
            timestamp: 5,
            key: Some(b"some-key"),
            value: Some(&value),
            headers: &[],
        });
    }
    builder.build().unwrap().to_bytes()
}

/// Best of several rounds, in nanoseconds per batch.
fn measure(mut work: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..30 {
        let start = Instant::now();
        for _ in 0..20 {
            work();
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / (20.0 * BATCHES as f64));
    }
    best
}

fn main() {
    println!(
        "{:>22} {:>8} {:>7} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8}",
        "ns per batch", "bytes", "guard", "decode", "header", "records", "scan", "encode", "target"
    );
    for (records, value) in [
        (1, 100),
        (10, 100),
        (100, 100),
        (1000, 100),
        (16, 1024),
        (64, 16 * 1024),
    ] {
        let batch = batch(Compression::None, records, value);
        let [guard, decode] = decoding(&produce_body(&batch));
        let [header, deep, scan] = checking(&batch);
        let encode = encoding(&batch);
        let target = 150.0 + 5.0 * batch.len() as f64 / 1024.0;
        println!(
            "{:>22} {:>8} {guard:>7.1} {decode:>8.1} {header:>9.1} {deep:>9.1} {scan:>8.1} {encode:>8.1} {target:>8.1}",
            format!("{records} records of {value}"),
            batch.len(),
        );
    }
}

/// The body of a Produce request, version 13, with the batch for each of its partitions.
fn produce_body(batch: &Bytes) -> Bytes {
    let partition = |i: usize| {
        produce_request::PartitionProduceData::default()
            .with_index(i32::try_from(i).unwrap())
            .with_records(Some(batch.clone()))
    };
    let topic = produce_request::TopicProduceData::default()
        .with_partition_data((0..BATCHES).map(partition).collect());
    let request = ProduceRequest::default().with_topic_data(vec![topic]);
    let frame = messages::encode_request(13, 1, None, &request).unwrap();
    // Header v2: eight bytes of numbers, a null client id, no tagged fields.
    Bytes::copy_from_slice(&frame[4 + 11..])
}

/// Guard and decoder.
fn decoding(body: &Bytes) -> [f64; 2] {
    let guard = measure(|| {
        black_box(guard::check(0, 13, black_box(body)).unwrap());
    });
    let decode = measure(|| {
        black_box(messages::decode::<ProduceRequest>(13, &mut body.clone()).unwrap());
    });
    [guard, decode]
}

/// Validation of the header only and of every record, and the scan of a stored batch.
fn checking(batch: &Bytes) -> [f64; 3] {
    let all = Limits {
        max_bytes: 2 << 20,
        ..Limits::default()
    };
    let header_only = Limits {
        records: RecordCheck::HeaderOnly,
        ..all
    };
    let validate = |limits: &Limits| {
        measure(|| {
            for _ in 0..BATCHES {
                black_box(validate_produced(Some(batch.clone()), black_box(limits)).unwrap());
            }
        })
    };
    let scan = measure(|| {
        for _ in 0..BATCHES {
            black_box(scan::check(black_box(batch)).unwrap());
        }
    });
    [validate(&header_only), validate(&all), scan]
}

/// The encoder of a Fetch response with the batch for each of a hundred partitions.
fn encoding(batch: &Bytes) -> f64 {
    let data = |i: i32| {
        fetch_response::PartitionData::default()
            .with_partition_index(i)
            .with_records(Some(batch.clone()))
    };
    let topic =
        fetch_response::FetchableTopicResponse::default().with_partitions((0..100).map(data).collect());
    let response = FetchResponse::default().with_responses(vec![topic]);
    measure(|| {
        black_box(messages::encode_response(17, 1, &response).unwrap());
    })
}
