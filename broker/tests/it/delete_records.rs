//! DeleteRecords (reference M11).

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use takhin_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use takhin_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, FetchResponse, ListOffsetsRequest,
};
use uuid::Uuid;

use crate::fetch::{from, produce};
use crate::support::{Broker, Client, batch, code, topic};

fn request(name: &str, partitions: &[(i32, i64)]) -> DeleteRecordsRequest {
    let partitions = partitions.iter().map(|(index, offset)| {
        DeleteRecordsPartition::default()
            .with_partition_index(*index)
            .with_offset(*offset)
    });
    let wanted = DeleteRecordsTopic::default()
        .with_name(topic(name))
        .with_partitions(partitions.collect());
    DeleteRecordsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(20_000)
}

/// Partition, code and low watermark of every answer.
fn answers(response: &DeleteRecordsResponse) -> Vec<(i32, ErrorCode, i64)> {
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|p| (p.partition_index, code(p.error_code), p.low_watermark))
        .collect()
}

/// What ListOffsets and Fetch say of the log start.
async fn log_start(client: &mut Client, name: &str, id: Uuid) -> (i64, i64) {
    let partition = ListOffsetsPartition::default()
        .with_timestamp(-2)
        .with_current_leader_epoch(-1);
    let wanted = ListOffsetsTopic::default()
        .with_name(topic(name))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![wanted]);
    let listed = client.call(7, &request).await.topics[0].partitions[0].offset;
    let fetched: FetchResponse = client.call(13, &from(id, 0, listed)).await;
    (listed, fetched.responses[0].partitions[0].log_start_offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_start_moves_up_only_shows_at_once_and_survives_a_restart() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    for _ in 0..5 {
        produce(&mut client, id, 0, batch(&["a", "b"]).to_bytes()).await;
    }
    for (version, asked, expected) in [(0, 2, 2), (1, 5, 5), (2, 3, 5), (2, 5, 5)] {
        let response = client.call(version, &request("t", &[(0, asked)])).await;
        assert_eq!(answers(&response), [(0, ErrorCode::NoError, expected)]);
        assert_eq!(log_start(&mut client, "t", id).await, (expected, expected));
    }
    let below = client.call(13, &from(id, 0, 4)).await;
    assert_eq!(
        code(below.responses[0].partitions[0].error_code),
        ErrorCode::OffsetOutOfRange
    );
    broker.restart().await;
    let mut client = broker.client().await;
    assert_eq!(log_start(&mut client, "t", id).await, (5, 5));
    let all = client.call(2, &request("t", &[(0, -1)])).await;
    assert_eq!(answers(&all), [(0, ErrorCode::NoError, 10)]);
    assert_eq!(
        produce(&mut client, id, 0, batch(&["next"]).to_bytes()).await,
        10,
        "offsets go on"
    );
    broker.restart().await;
    let mut client = broker.client().await;
    assert_eq!(log_start(&mut client, "t", id).await, (10, 10));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_topic_that_only_compacts_go_by_compaction_alone() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("only", 1, &[("cleanup.policy", "compact")]).await;
    client
        .create("both", 1, &[("cleanup.policy", "compact,delete")])
        .await;
    let only = client.call(2, &request("only", &[(0, 0)])).await;
    assert_eq!(answers(&only), [(0, ErrorCode::PolicyViolation, -1)]);
    let both = client.call(2, &request("both", &[(0, 0)])).await;
    assert_eq!(answers(&both), [(0, ErrorCode::NoError, 0)]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_partition_is_answered_for_itself() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 2, &[]).await;
    produce(&mut client, id, 0, batch(&["a", "b"]).to_bytes()).await;
    let asked = request("t", &[(0, 3), (0, -2), (0, 1), (1, -1), (1, 0), (2, 0), (-1, 0)]);
    let response = client.call(2, &asked).await;
    let expected = [
        (0, ErrorCode::OffsetOutOfRange, -1),
        (0, ErrorCode::OffsetOutOfRange, -1),
        (0, ErrorCode::NoError, 1),
        (1, ErrorCode::NoError, 0),
        (1, ErrorCode::NoError, 0),
        (2, ErrorCode::UnknownTopicOrPartition, -1),
        (-1, ErrorCode::UnknownTopicOrPartition, -1),
    ];
    assert_eq!(answers(&response), expected);
    let missing = client.call(2, &request("missing", &[(0, 0)])).await;
    assert_eq!(answers(&missing), [(0, ErrorCode::UnknownTopicOrPartition, -1)]);
    client.create("__transaction_state", 1, &[]).await;
    let internal = client.call(2, &request("__transaction_state", &[(0, 0)])).await;
    assert_eq!(answers(&internal), [(0, ErrorCode::InvalidTopicException, -1)]);
    broker.stop().await;
}
