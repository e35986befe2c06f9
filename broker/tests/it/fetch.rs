//! Fetch, by the rules F1 to F13 of the reference.

use bytes::Bytes;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use takhin_protocol::messages::fetch_response::PartitionData;
use takhin_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use takhin_protocol::messages::{FetchRequest, FetchResponse, OffsetForLeaderEpochRequest, ProduceRequest};
use takhin_protocol::messages::{
    offset_for_leader_epoch_request as for_epoch, offset_for_leader_epoch_response as of_epoch,
};
use takhin_protocol::record::{Batch, scan};
use uuid::Uuid;

use crate::support::{Broker, Client, batch, code, topic};

/// A full fetch without a session, of one partition by id.
pub(crate) fn from(id: Uuid, partition: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_session_epoch(-1)
        .with_max_bytes(50 << 20)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic_id(id)
                .with_partitions(vec![partition]),
        ])
}

/// All batches of partition 0, read with this version from the start to the high watermark.
pub(crate) async fn fetch_all(client: &mut Client, version: i16, name: &str, id: Uuid) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    loop {
        let offset = batches.last().map_or(0, |batch| batch.header.next_offset());
        let mut request = from(id, 0, offset);
        if version < 13 {
            request.topics[0].topic_id = Uuid::nil();
            request.topics[0].topic = topic(name);
        }
        if version < 7 {
            // The codec insists on the defaults of what the version lacks.
            request.session_epoch = -1;
        }
        let partition = only(client.call(version, &request).await);
        assert_eq!(partition.error_code, 0);
        let got = batches_of(&partition);
        if got.is_empty() {
            assert_eq!(offset, partition.high_watermark);
            return batches;
        }
        batches.extend(got);
    }
}

pub(crate) fn only(response: FetchResponse) -> PartitionData {
    assert_eq!(response.error_code, 0);
    let [topic] = &response.responses[..] else {
        panic!("{response:?}")
    };
    let [partition] = &topic.partitions[..] else {
        panic!("{response:?}")
    };
    partition.clone()
}

/// The whole batches in a partition's records; there must be nothing else.
fn batches_of(partition: &PartitionData) -> Vec<Batch> {
    let mut records = partition.records.clone().unwrap_or_default();
    let mut batches = Vec::new();
    while !records.is_empty() {
        let (header, len) = scan::check(&records).unwrap();
        let bytes = records.split_to(len);
        batches.push(Batch {
            header,
            body: bytes.slice(takhin_protocol::record::HEADER_LEN..),
        });
    }
    batches
}

pub(crate) async fn produce(client: &mut Client, id: Uuid, partition: i32, records: Bytes) -> i64 {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_topic_id(id)
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(20_000)
        .with_topic_data(vec![topic]);
    let response = client.call(13, &request).await;
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    answer.base_offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_fetch_is_woken_by_what_it_waits_for() {
    let mut broker = Broker::start().await;
    let (mut consumer, mut producer) = (broker.client().await, broker.client().await);
    let id = consumer.create("t", 2, &[]).await;
    let mut waiting = from(id, 0, 0).with_max_wait_ms(600_000).with_min_bytes(1);
    let other = waiting.topics[0].partitions[0].clone().with_partition(1);
    waiting.topics[0].partitions.push(other);
    let correlation = consumer.send(13, &waiting).await;
    produce(&mut producer, id, 1, batch(&["x"]).to_bytes()).await;
    let response = consumer.response::<FetchRequest>(13, correlation).await;
    let found: Vec<_> = response.responses[0]
        .partitions
        .iter()
        .map(|p| batches_of(p).len())
        .collect();
    assert_eq!(found, [0, 1]);

    // Fewer bytes than asked for are not news enough, and an error is at once.
    let size = i32::try_from(batch(&["x"]).to_bytes().len()).unwrap();
    let more = from(id, 0, 0).with_max_wait_ms(600_000).with_min_bytes(size + 1);
    let correlation = consumer.send(13, &more).await;
    produce(&mut producer, id, 0, batch(&["x"]).to_bytes()).await;
    produce(&mut producer, id, 0, batch(&["x"]).to_bytes()).await;
    assert_eq!(
        batches_of(&only(consumer.response::<FetchRequest>(13, correlation).await)).len(),
        2
    );
    let beyond = from(id, 0, 99).with_max_wait_ms(600_000).with_min_bytes(1);
    assert_eq!(
        code(only(consumer.call(13, &beyond).await).error_code),
        ErrorCode::OffsetOutOfRange
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_wakes_a_waiting_fetch() {
    let mut broker = Broker::start().await;
    let (mut consumer, mut admin) = (broker.client().await, broker.client().await);
    let id = consumer.create("t", 1, &[]).await;
    let correlation = consumer
        .send(13, &from(id, 0, 0).with_max_wait_ms(600_000).with_min_bytes(1))
        .await;
    let delete = takhin_protocol::messages::DeleteTopicsRequest::default()
        .with_topic_names(vec![topic("t")])
        .with_timeout_ms(20_000);
    assert_eq!(admin.call(5, &delete).await.responses[0].error_code, 0);
    let answer = only(consumer.response::<FetchRequest>(13, correlation).await);
    assert!([ErrorCode::UnknownTopicId, ErrorCode::NotLeaderOrFollower].contains(&code(answer.error_code)));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_batches_at_least_one_and_no_more_than_the_limits() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 2, &[]).await;
    let value = "x".repeat(1000);
    let bytes = batch(&[&value, &value]).to_bytes();
    let size = i32::try_from(bytes.len()).unwrap();
    for partition in [0, 0, 0, 1, 1] {
        produce(&mut client, id, partition, bytes.clone()).await;
    }
    let with = |partition_max: i32, max: i32| {
        let mut request = from(id, 0, 0).with_max_bytes(max);
        request.topics[0].partitions[0].partition_max_bytes = partition_max;
        let other = request.topics[0].partitions[0].clone().with_partition(1);
        request.topics[0].partitions.push(other);
        request
    };
    let cases = [
        // The first partition with data gives one batch whatever the limits; the others obey.
        (0, 0, [1, 0]),
        (-1, -1, [1, 0]),
        (size - 1, i32::MAX, [1, 0]),
        (size, i32::MAX, [1, 1]),
        (3 * size - 1, i32::MAX, [2, 2]),
        (i32::MAX, 4 * size, [3, 1]),
        (i32::MAX, 3 * size + 10, [3, 0]),
    ];
    for (partition_max, max, expected) in cases {
        let response = client.call(13, &with(partition_max, max)).await;
        let found: Vec<_> = response.responses[0]
            .partitions
            .iter()
            .map(|p| batches_of(p).len())
            .collect();
        assert_eq!(found, expected, "partition {partition_max}, request {max}");
    }
    // An offset inside a batch gives the whole batch.
    let inside = batches_of(&only(client.call(13, &from(id, 0, 3)).await));
    assert_eq!(inside[0].header.base_offset, 2);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_why_and_carry_no_offsets() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    produce(&mut client, id, 0, batch(&["x"]).to_bytes()).await;
    let epoch = only(client.call(13, &from(id, 0, 0)).await)
        .records
        .map(|r| scan::check(&r).unwrap().0);
    let epoch = epoch.unwrap().partition_leader_epoch;
    let at_epoch = |current: i32| {
        let mut request = from(id, 0, 0);
        request.topics[0].partitions[0].current_leader_epoch = current;
        request
    };
    let cases = [
        (from(id, 0, 2), ErrorCode::OffsetOutOfRange),
        (from(id, 0, -1), ErrorCode::OffsetOutOfRange),
        (from(id, 0, i64::MAX), ErrorCode::OffsetOutOfRange),
        (from(id, 1, 0), ErrorCode::UnknownTopicOrPartition),
        (from(Uuid::from_u128(5), 0, 0), ErrorCode::UnknownTopicId),
        (at_epoch(epoch + 1), ErrorCode::UnknownLeaderEpoch),
        (at_epoch(epoch - 1), ErrorCode::FencedLeaderEpoch),
        (at_epoch(epoch), ErrorCode::NoError),
    ];
    for (request, expected) in cases {
        // Without an answer at once this would wait for ever.
        let answer = only(
            client
                .call(18, &request.with_max_wait_ms(600_000).with_min_bytes(1))
                .await,
        );
        assert_eq!(code(answer.error_code), expected);
        if expected != ErrorCode::NoError {
            assert_eq!((answer.high_watermark, answer.log_start_offset), (-1, -1));
            assert_eq!(answer.records.as_deref(), Some(&[][..]));
        }
    }
    let empty = only(client.call(13, &from(id, 0, 1)).await);
    assert_eq!(
        (empty.error_code, empty.high_watermark, empty.log_start_offset),
        (0, 1, 0)
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_parted_from_the_clients_is_told() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    produce(&mut client, id, 0, batch(&["a", "b"]).to_bytes()).await;
    broker.restart().await;
    let mut client = broker.client().await;
    produce(&mut client, id, 0, batch(&["c"]).to_bytes()).await;
    let all = fetch_all(&mut client, 13, "t", id).await;
    let (old, new) = (
        all[0].header.partition_leader_epoch,
        all[1].header.partition_leader_epoch,
    );
    assert!(old < new, "a restart begins a new epoch");

    // A client that claims to have read offset 2 in the old epoch has read something that is gone.
    let mut claim = from(id, 0, 3).with_max_wait_ms(600_000).with_min_bytes(1);
    claim.topics[0].partitions[0].last_fetched_epoch = old;
    let answer = only(client.call(13, &claim).await);
    assert_eq!(answer.error_code, 0);
    assert_eq!(
        (answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset),
        (old, 2)
    );
    assert!(batches_of(&answer).is_empty());
    claim.topics[0].partitions[0].fetch_offset = 2;
    assert_eq!(batches_of(&only(client.call(13, &claim).await)).len(), 1);

    for (version, asked, expected) in [(2, old, (old, 2)), (3, new, (new, 3)), (4, old - 1, (-1, -1))] {
        let answer = end_of_epoch(&mut client, version, asked).await;
        if asked >= old {
            assert_eq!(
                (answer.leader_epoch, answer.end_offset),
                expected,
                "epoch {asked}"
            );
        } else {
            assert_eq!(
                answer.end_offset.max(0),
                0,
                "nothing of ours lies before the first epoch"
            );
        }
    }
    broker.stop().await;
}

async fn end_of_epoch(client: &mut Client, version: i16, epoch: i32) -> of_epoch::EpochEndOffset {
    let partition = for_epoch::OffsetForLeaderPartition::default()
        .with_current_leader_epoch(-1)
        .with_leader_epoch(epoch);
    let topic = for_epoch::OffsetForLeaderTopic::default()
        .with_topic(topic("t"))
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let response = client.call(version, &request).await;
    response.topics[0].partitions[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_answers_changes_only() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 3, &[]).await;
    let mut first = from(id, 0, 0).with_session_epoch(0);
    for partition in 1..3 {
        let other = first.topics[0].partitions[0].clone().with_partition(partition);
        first.topics[0].partitions.push(other);
    }
    let response = client.call(13, &first).await;
    let session = response.session_id;
    assert_ne!(session, 0);
    assert_eq!(
        response.responses[0].partitions.len(),
        3,
        "the first answer names all"
    );

    let next = |epoch: i32| {
        FetchRequest::default()
            .with_session_id(session)
            .with_session_epoch(epoch)
            .with_max_bytes(1 << 20)
    };
    let quiet = client.call(13, &next(1)).await;
    assert_eq!((quiet.session_id, quiet.responses.len()), (session, 0));

    produce(&mut client, id, 1, batch(&["x"]).to_bytes()).await;
    let news = only(client.call(13, &next(2)).await);
    assert_eq!((news.partition_index, batches_of(&news).len()), (1, 1));

    // Moved past the record: nothing new. Then one partition is forgotten, and its record is no news.
    let mut moved = next(3);
    moved.topics = from(id, 1, 1).topics;
    assert!(client.call(13, &moved).await.responses.is_empty());
    produce(&mut client, id, 2, batch(&["y"]).to_bytes()).await;
    let forget = ForgottenTopic::default()
        .with_topic_id(id)
        .with_partitions(vec![2]);
    assert!(
        client
            .call(13, &next(4).with_forgotten_topics_data(vec![forget]))
            .await
            .responses
            .is_empty()
    );

    let refused = client.call(13, &next(4)).await;
    assert_eq!(code(refused.error_code), ErrorCode::InvalidFetchSessionEpoch);
    let refused = client.call(12, &next(5)).await;
    assert_eq!(code(refused.error_code), ErrorCode::FetchSessionTopicIdError);
    let closed = client.call(13, &next(-1)).await;
    assert_eq!((closed.error_code, closed.session_id), (0, 0));
    let refused = client.call(13, &next(5)).await;
    assert_eq!(code(refused.error_code), ErrorCode::FetchSessionIdNotFound);
    broker.stop().await;
}
