//! Produce, by the rules P1 to P14 and I1 to I7 of the reference.

use bytes::Bytes;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use takhin_protocol::messages::produce_response::PartitionProduceResponse;
use takhin_protocol::messages::{
    ApiVersionsRequest, DeleteTopicsRequest, InitProducerIdRequest, ProduceRequest, ProduceResponse,
    TransactionalId,
};
use takhin_protocol::record::{Attributes, Batch, BatchBuilder, Compression, NewRecord, validate_produced};
use uuid::Uuid;

use crate::fetch::fetch_all;
use crate::support::{Broker, Client, altered, batch, code, compressed, now_ms, text, topic};

/// A request of these records for partition 0 of topic `t`, in the words of the version.
pub(crate) fn request(version: i16, id: Uuid, acks: i16, records: Option<Bytes>) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(records);
    let named = TopicProduceData::default().with_partition_data(vec![data]);
    let named = if version >= 13 {
        named.with_topic_id(id)
    } else {
        named.with_name(topic("t"))
    };
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(20_000)
        .with_topic_data(vec![named])
}

pub(crate) fn only(response: ProduceResponse) -> PartitionProduceResponse {
    let [topic] = &response.responses[..] else {
        panic!("{response:?}")
    };
    let [partition] = &topic.partition_responses[..] else {
        panic!("{response:?}")
    };
    partition.clone()
}

async fn produce(
    client: &mut Client,
    version: i16,
    id: Uuid,
    records: Option<Bytes>,
) -> PartitionProduceResponse {
    only(client.call(version, &request(version, id, -1, records)).await)
}

fn fresh_producer() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(None)
}

/// The code for these records with version 12.
async fn refusal(client: &mut Client, records: Option<Bytes>) -> ErrorCode {
    let answer = produce(client, 12, Uuid::nil(), records).await;
    assert_eq!(
        (
            answer.base_offset,
            answer.log_append_time_ms,
            answer.log_start_offset
        ),
        (-1, -1, -1)
    );
    code(answer.error_code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_and_codec_comes_back_byte_for_byte() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let mut sent = Vec::new();
    let mut next_offset = 0;
    for version in 3..=13 {
        for codec in codecs {
            if codec == Compression::Zstd && version < 7 {
                continue;
            }
            let batch = compressed(codec, &["a", "b", "c"]);
            let answer = produce(&mut client, version, id, Some(batch.to_bytes())).await;
            assert_eq!(
                (answer.error_code, answer.base_offset),
                (0, next_offset),
                "version {version} {codec:?}"
            );
            assert_eq!(answer.log_append_time_ms, -1);
            assert_eq!(answer.log_start_offset, if version >= 5 { 0 } else { -1 });
            sent.push(batch);
            next_offset += 3;
        }
    }
    for version in 4..=18 {
        let got = fetch_all(&mut client, version, "t", id).await;
        assert_eq!(got.len(), sent.len(), "version {version}");
        for (got, sent) in got.iter().zip(&sent) {
            // Only base offset and leader epoch are the broker's, and the checksum leaves them out.
            assert_eq!(got.body, sent.body);
            assert_eq!(got.header.crc, sent.header.crc);
            assert_eq!(got.compute_crc(), got.header.crc);
        }
        assert_eq!(got.last().unwrap().header.next_offset(), next_offset);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_before_record_batches_are_answered_per_partition() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    for version in 0..=2u8 {
        let body = b"\0\x01\0\0\x03\xe8\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\0\0\0\x03xyz";
        let mut frame = vec![
            0,
            0,
            0,
            u8::try_from(body.len() + 10).unwrap(),
            0,
            0,
            0,
            version,
            0,
            0,
            0,
            9,
            255,
            255,
        ];
        frame.extend_from_slice(body);
        client.send_bytes(frame).await;
        let answer = client.receive().await.unwrap();
        // correlation 9, one topic "t", one partition 0: UNSUPPORTED_VERSION, offset -1.
        let expected = b"\0\0\0\x09\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\0\x23\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(answer[..expected.len()], expected[..]);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_0_is_silent_until_it_fails() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    client
        .send(9, &request(9, id, 0, Some(batch(&["quiet"]).to_bytes())))
        .await;
    // The next answer belongs to the next request.
    let answer = produce(&mut client, 9, id, Some(batch(&["loud"]).to_bytes())).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 1));
    client.send(9, &request(9, id, 0, None)).await;
    assert_eq!(
        client.receive().await,
        None,
        "an error closes: there is no other way to tell"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_1_and_a_timeout_of_zero_are_answered() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    let records = || Some(batch(&["x"]).to_bytes());
    let leader = only(client.call(9, &request(9, id, 1, records())).await);
    assert_eq!((leader.error_code, leader.base_offset), (0, 0));
    let hasty = only(
        client
            .call(9, &request(9, id, -1, records()).with_timeout_ms(0))
            .await,
    );
    assert!([ErrorCode::NoError, ErrorCode::RequestTimedOut].contains(&code(hasty.error_code)));
    // Late or not, it was appended.
    assert_eq!(produce(&mut client, 9, id, records()).await.base_offset, 2);
    for acks in [2, -2, i16::MAX] {
        let refused = only(client.call(9, &request(9, id, acks, records())).await);
        assert_eq!(code(refused.error_code), ErrorCode::InvalidRequiredAcks);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_topics_partitions_and_ids_are_told_apart() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let good = || Some(batch(&["x"]).to_bytes());
    assert_eq!(
        refusal(&mut client, good()).await,
        ErrorCode::UnknownTopicOrPartition
    );
    let id = client.create("t", 1, &[]).await;
    let other = produce(&mut client, 13, Uuid::from_u128(99), good()).await;
    assert_eq!(code(other.error_code), ErrorCode::UnknownTopicId);
    for index in [1, -1, i32::MAX] {
        let mut wrong = request(12, id, -1, good());
        wrong.topic_data[0].partition_data[0].index = index;
        assert_eq!(
            code(only(client.call(12, &wrong).await).error_code),
            ErrorCode::UnknownTopicOrPartition
        );
    }
    // A deleted topic's id is never reused.
    client
        .call(
            5,
            &DeleteTopicsRequest::default()
                .with_topic_names(vec![topic("t")])
                .with_timeout_ms(20_000),
        )
        .await;
    let again = client.create("t", 1, &[]).await;
    assert_ne!(again, id);
    assert_eq!(
        code(produce(&mut client, 13, id, good()).await.error_code),
        ErrorCode::UnknownTopicId
    );
    assert_eq!(produce(&mut client, 13, again, good()).await.base_offset, 0);

    client.create("__consumer_offsets", 1, &[]).await;
    let mut internal = request(12, id, -1, good());
    internal.topic_data[0].name = topic("__consumer_offsets");
    assert_eq!(
        code(only(client.call(12, &internal).await).error_code),
        ErrorCode::InvalidTopicException
    );
    broker.stop().await;
}

/// Records that are refused where `max.message.bytes` is 1000, and with which code.
fn unsound(good: &Batch) -> Vec<(&'static str, Option<Bytes>, ErrorCode)> {
    let bytes = good.to_bytes();
    let two = Bytes::from([&bytes[..], &bytes[..]].concat());
    let flipped = |at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        Some(Bytes::from(bytes))
    };
    let change = |change: fn(&mut Batch)| Some(altered(good, change));
    let large = batch(&[&"x".repeat(1000)]).to_bytes();
    let short = bytes.slice(..bytes.len() - 1);
    vec![
        ("null", None, ErrorCode::InvalidRecord),
        ("empty", Some(Bytes::new()), ErrorCode::InvalidRecord),
        ("two batches", Some(two), ErrorCode::InvalidRecord),
        ("magic", flipped(16), ErrorCode::InvalidRecord),
        ("checksum", flipped(bytes.len() - 1), ErrorCode::CorruptMessage),
        ("cut short", Some(short), ErrorCode::CorruptMessage),
        (
            "garbage",
            Some(Bytes::from_static(&[2; 40])),
            ErrorCode::CorruptMessage,
        ),
        (
            "count",
            change(|b| b.header.records_count = 3),
            ErrorCode::InvalidRecord,
        ),
        (
            "control",
            change(|b| b.header.attributes.0 |= Attributes::CONTROL),
            ErrorCode::InvalidRecord,
        ),
        (
            "hidden",
            change(|b| b.header.attributes.0 |= Attributes::HIDDEN),
            ErrorCode::InvalidRecord,
        ),
        (
            "codec 7",
            change(|b| b.header.attributes.0 |= 7),
            ErrorCode::InvalidRecord,
        ),
        (
            "no sequence",
            change(|b| b.header.producer_id = 5),
            ErrorCode::InvalidRecord,
        ),
        (
            "append time",
            change(|b| b.header.attributes.0 |= Attributes::LOG_APPEND_TIME),
            ErrorCode::InvalidTimestamp,
        ),
        (
            "far future",
            change(|b| {
                b.header.base_timestamp += 7_200_000;
                b.header.max_timestamp += 7_200_000;
            }),
            ErrorCode::InvalidTimestamp,
        ),
        ("too large", Some(large), ErrorCode::MessageTooLarge),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsound_records_are_refused_and_leave_no_trace() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[("max.message.bytes", "1000")]).await;
    for (what, records, expected) in unsound(&batch(&["x", "y"])) {
        assert_eq!(refusal(&mut client, records).await, expected, "{what}");
    }
    let zstd = compressed(Compression::Zstd, &["x"]).to_bytes();
    let early = produce(&mut client, 6, id, Some(zstd)).await;
    assert_eq!(code(early.error_code), ErrorCode::UnsupportedCompressionType);
    assert_eq!(
        produce(&mut client, 12, id, Some(batch(&["x"]).to_bytes()))
            .await
            .base_offset,
        0
    );
    broker.stop().await;
}

/// P9 and P6: the topic's codec, the producer's records, and the size that is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_a_codec_of_its_own_has_batches_compressed_anew() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let codecs = [
        ("uncompressed", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];
    let value = "x".repeat(2000);
    for (name, codec) in codecs {
        let settings = [("compression.type", name), ("max.message.bytes", "1500")];
        let id = client.create("t", 1, &settings).await;
        let sent = compressed(Compression::Gzip, &["a", "b", "c"]);
        let answer = produce(&mut client, 12, id, Some(sent.to_bytes())).await;
        assert_eq!(answer.error_code, 0, "{name}: {:?}", answer.error_message);
        let got = fetch_all(&mut client, 13, "t", id).await;
        let [got] = &got[..] else { panic!("{got:?}") };
        assert_eq!(got.header.attributes.compression(), codec.id());
        assert_eq!(got.compute_crc(), got.header.crc);
        let plain = |batch: &Batch| {
            batch
                .clone()
                .recompressed(Compression::None, None, 1 << 20)
                .unwrap()
                .body
        };
        assert_eq!(plain(got), plain(&sent), "{name}");

        let long = compressed(Compression::Gzip, &[&value]);
        assert!(long.to_bytes().len() < 1500);
        let answer = produce(&mut client, 12, id, Some(long.to_bytes())).await;
        let expected = match codec {
            Compression::None => ErrorCode::MessageTooLarge,
            _ => ErrorCode::NoError,
        };
        assert_eq!(code(answer.error_code), expected, "{name}");
        let names = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic("t")])
            .with_timeout_ms(20_000);
        client.call(5, &names).await;
    }
    broker.stop().await;
}

/// P7: what compaction could not keep is refused, whole, with the record that is to blame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_topic_takes_no_record_without_a_key() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client
        .create("t", 1, &[("cleanup.policy", "compact,delete")])
        .await;
    for codec in [Compression::None, Compression::Zstd] {
        let keyed = |keys: [Option<&str>; 3]| {
            let mut builder = BatchBuilder::new(codec);
            for key in keys {
                builder.push(NewRecord {
                    timestamp: now_ms(),
                    key: key.map(str::as_bytes),
                    ..NewRecord::default()
                });
            }
            Some(builder.build().unwrap().to_bytes())
        };
        let refused = produce(&mut client, 12, id, keyed([None, Some("b"), None])).await;
        assert_eq!(code(refused.error_code), ErrorCode::InvalidRecord);
        let blamed: Vec<_> = refused.record_errors.iter().map(|e| e.batch_index).collect();
        assert_eq!(blamed, [0, 2]);
        let taken = produce(&mut client, 12, id, keyed([Some("a"), Some(""), Some("b")])).await;
        assert_eq!(taken.error_code, 0, "{codec:?}: {:?}", taken.error_message);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brokers_time_replaces_the_clients_where_the_topic_says_so() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client
        .create("t", 1, &[("message.timestamp.type", "LogAppendTime")])
        .await;
    let old = altered(&batch(&["x"]), |b| {
        b.header.base_timestamp = 1;
        b.header.max_timestamp = 1;
    });
    let before = now_ms();
    let answer = produce(&mut client, 12, id, Some(old)).await;
    assert_eq!(answer.error_code, 0);
    assert!((before..=now_ms()).contains(&answer.log_append_time_ms));
    let got = fetch_all(&mut client, 12, "t", id).await;
    assert!(got[0].header.attributes.has(Attributes::LOG_APPEND_TIME));
    assert_eq!(got[0].header.max_timestamp, answer.log_append_time_ms);
    assert_eq!(got[0].compute_crc(), got[0].header.crc);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipelined_idempotent_producer_leaves_no_gap_and_no_duplicate() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    let given = client.call(4, &fresh_producer()).await;
    assert_eq!((given.error_code, given.producer_epoch), (0, 0));
    let producer_id = given.producer_id.0;
    let sequenced = |sequence: i32, epoch: i16| {
        altered(&batch(&["a", "b"]), |b| {
            b.header.producer_id = producer_id;
            b.header.producer_epoch = epoch;
            b.header.base_sequence = sequence;
        })
    };
    let mut sent = Vec::new();
    for i in 0..5 {
        sent.push(
            client
                .send(12, &request(12, id, -1, Some(sequenced(i * 2, 0))))
                .await,
        );
    }
    for (correlation, offset) in sent.into_iter().zip([0, 2, 4, 6, 8]) {
        let answer = only(client.response::<ProduceRequest>(12, correlation).await);
        assert_eq!((answer.error_code, answer.base_offset), (0, offset));
    }
    // A retry is answered with the original's offset; the cache outlives a restart.
    assert_eq!(
        produce(&mut client, 12, id, Some(sequenced(4, 0)))
            .await
            .base_offset,
        4
    );
    broker.restart().await;
    let mut client = broker.client().await;
    assert_eq!(
        produce(&mut client, 12, id, Some(sequenced(4, 0)))
            .await
            .base_offset,
        4
    );
    assert_eq!(
        refusal(&mut client, Some(sequenced(12, 0))).await,
        ErrorCode::OutOfOrderSequenceNumber
    );
    assert_eq!(
        refusal(&mut client, Some(sequenced(3, 1))).await,
        ErrorCode::OutOfOrderSequenceNumber
    );
    assert_eq!(
        produce(&mut client, 12, id, Some(sequenced(0, 1)))
            .await
            .base_offset,
        10
    );
    assert_eq!(
        refusal(&mut client, Some(sequenced(10, 0))).await,
        ErrorCode::InvalidProducerEpoch
    );
    let other = client.call(4, &fresh_producer()).await;
    assert!(
        other.producer_id.0 > producer_id,
        "ids are not reused after a restart"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_refused_for_good() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    let transactional = altered(&batch(&["x"]), |b| {
        b.header.attributes.0 |= Attributes::TRANSACTIONAL;
        (
            b.header.producer_id,
            b.header.producer_epoch,
            b.header.base_sequence,
        ) = (7, 0, 0);
    });
    let answer = refusal(&mut client, Some(transactional.clone())).await;
    assert_eq!(answer, ErrorCode::TransactionalIdAuthorizationFailed);
    let name = TransactionalId(text("tx"));
    let named = request(12, id, -1, Some(transactional)).with_transactional_id(Some(name.clone()));
    assert_eq!(
        code(only(client.call(12, &named).await).error_code),
        ErrorCode::InvalidTxnState
    );
    for (name, expected) in [
        ("tx", ErrorCode::UnsupportedVersion),
        ("", ErrorCode::InvalidRequest),
    ] {
        let init = InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text(name))));
        assert_eq!(code(client.call(4, &init).await.error_code), expected);
    }
    client.call(0, &ApiVersionsRequest::default()).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_partition_does_not_suffer_from_a_bad_one() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 2, &[]).await;
    let mut mixed = request(13, id, -1, None);
    let good = PartitionProduceData::default()
        .with_index(1)
        .with_records(Some(batch(&["x"]).to_bytes()));
    mixed.topic_data[0].partition_data.push(good);
    let response = client.call(13, &mixed).await;
    let codes: Vec<_> = response.responses[0]
        .partition_responses
        .iter()
        .map(|p| (p.index, code(p.error_code)))
        .collect();
    assert_eq!(codes, [(0, ErrorCode::InvalidRecord), (1, ErrorCode::NoError)]);
    assert!(
        validate_produced(
            Some(batch(&["x"]).to_bytes()),
            &takhin_protocol::record::Limits::default()
        )
        .is_ok()
    );
    broker.stop().await;
}
