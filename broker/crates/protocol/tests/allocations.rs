//! What validation and decoding allocate, counted.

#![allow(
    clippy::unwrap_used,
    reason = "tests; the lint's own exception misses their helpers"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use takhin_protocol::messages::{self, MetadataRequest, ProduceRequest, StrBytes, produce_request};
use takhin_protocol::record::{BatchBuilder, Compression, Limits, NewRecord, validate_produced};
use takhin_protocol::request::RequestHead;

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    COUNT.with(|c| c.set(c.get() + 1));
    BYTES.with(|c| c.set(c.get() + bytes));
}

// SAFETY: everything is passed on to the system's allocator; the counters are cells of this thread without a
// destructor, and touching them allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps to the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the result of `work`, the number of allocations it made and their bytes.
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = (COUNT.get(), BYTES.get());
    let result = work();
    (result, COUNT.get() - before.0, BYTES.get() - before.1)
}

fn a_batch(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for _ in 0..100 {
        let headers = [("trace", Some(&b"1234"[..]))];
        builder.push(NewRecord {
            timestamp: 5,
            key: Some(b"key"),
            value: Some(&[b'v'; 100]),
            headers: &headers,
        });
    }
    builder.build().unwrap().to_bytes()
}

#[test]
fn validation_allocates_nothing() {
    for codec in [Compression::None, Compression::Lz4] {
        // A request's records are a slice of the frame, which is shared from the start.
        let frame = a_batch(codec);
        let records = frame.slice(..);
        let (batch, count, _) = counted(|| validate_produced(Some(records), &Limits::default()));
        assert_eq!(batch.unwrap().header.records_count, 100);
        assert_eq!(count, 0, "{}", codec.name());
    }
}

#[test]
fn a_produce_request_takes_few_allocations() {
    let partition =
        produce_request::PartitionProduceData::default().with_records(Some(a_batch(Compression::None)));
    let topic = produce_request::TopicProduceData::default().with_partition_data(vec![partition]);
    let request = ProduceRequest::default().with_topic_data(vec![topic]);
    let frame = messages::encode_request(13, 1, Some(&StrBytes::from_static_str("me")), &request).unwrap();
    let mut body = Bytes::from(frame[4..].to_vec());
    let (decoded, count, bytes) = counted(|| {
        let head = RequestHead::parse(&mut body).unwrap();
        messages::decode::<ProduceRequest>(head.api_version, &mut body).unwrap()
    });
    assert_eq!(decoded.topic_data[0].partition_data.len(), 1);
    assert!(count <= 8, "{count} allocations");
    assert!(bytes < 1024, "{bytes} bytes");
}

#[test]
fn a_claim_of_two_billion_topics_takes_no_memory() {
    let mut claim = Bytes::from_static(b"\x7f\xff\xff\xff\0\x03abc\0\x03abc");
    let (refused, _, bytes) = counted(|| messages::decode::<MetadataRequest>(1, &mut claim));
    assert!(refused.is_err());
    assert!(bytes < 1024, "{bytes} bytes");
}

#[test]
fn decompression_takes_memory_in_proportion_to_its_budget() {
    let bomb = takhin_protocol::record::compress(Compression::Gzip, &vec![0; 64 << 20]).unwrap();
    let (refused, _, bytes) =
        counted(|| takhin_protocol::record::decompress(Compression::Gzip, &bomb, 100_000));
    assert!(refused.is_err());
    // The decoder's own tables and the output's doublings.
    assert!(bytes < 1 << 20, "{bytes} bytes");
}
