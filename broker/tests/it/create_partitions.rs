//! CreatePartitions (reference M10).

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use takhin_protocol::messages::metadata_request::MetadataRequestTopic;
use takhin_protocol::messages::{CreatePartitionsRequest, MetadataRequest};

use crate::fetch::produce;
use crate::support::{Broker, Client, batch, code, topic};

fn grow(name: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic::default()
        .with_name(topic(name))
        .with_count(count)
        .with_assignments(None)
}

fn chosen(replicas: &[&[i32]]) -> Option<Vec<CreatePartitionsAssignment>> {
    let assignment = |ids: &&[i32]| {
        CreatePartitionsAssignment::default().with_broker_ids(ids.iter().map(|id| (*id).into()).collect())
    };
    Some(replicas.iter().map(assignment).collect())
}

fn request(topics: Vec<CreatePartitionsTopic>) -> CreatePartitionsRequest {
    CreatePartitionsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(20_000)
}

/// Leaders of the topic's partitions.
async fn leaders(client: &mut Client, name: &str) -> Vec<i32> {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    let mut response = client.call(9, &request).await;
    let mut partitions = response.topics.remove(0).partitions;
    partitions.sort_by_key(|p| p.partition_index);
    partitions.iter().map(|p| p.leader_id.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_partitions_are_led_keep_the_old_ones_and_survive_a_restart() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    produce(&mut client, id, 0, batch(&["old"]).to_bytes()).await;
    for version in 0..=3 {
        let count = 2 + i32::from(version);
        let response = client.call(version, &request(vec![grow("t", count)])).await;
        assert_eq!(
            code(response.results[0].error_code),
            ErrorCode::NoError,
            "{version}"
        );
        assert_eq!(
            leaders(&mut client, "t").await.len(),
            usize::try_from(count).unwrap()
        );
    }
    let explicit = grow("t", 6).with_assignments(chosen(&[&[1]]));
    assert_eq!(
        client.call(3, &request(vec![explicit])).await.results[0].error_code,
        0
    );
    assert_eq!(leaders(&mut client, "t").await, [1; 6]);
    produce(&mut client, id, 5, batch(&["new"]).to_bytes()).await;
    broker.restart().await;
    let mut client = broker.client().await;
    assert_eq!(leaders(&mut client, "t").await, [1; 6]);
    assert_eq!(
        produce(&mut client, id, 5, batch(&["more"]).to_bytes()).await,
        1,
        "what was in it before the restart is still there"
    );
    assert_eq!(produce(&mut client, id, 0, batch(&["more"]).to_bytes()).await, 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_topic_is_answered_and_one_mistake_spoils_no_other() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    for name in [
        "good", "same", "less", "width", "count", "broker", "many", "twice",
    ] {
        client.create(name, 2, &[]).await;
    }
    let asked = vec![
        grow("good", 3),
        grow("same", 2),
        grow("less", 1),
        grow("missing", 3),
        grow("width", 3).with_assignments(chosen(&[&[1, 1]])),
        grow("count", 4).with_assignments(chosen(&[&[1]])),
        grow("broker", 3).with_assignments(chosen(&[&[7]])),
        grow("many", 20_000),
        grow("twice", 3),
        grow("twice", 4),
    ];
    let response = client.call(3, &request(asked)).await;
    let mut codes: Vec<_> = response
        .results
        .iter()
        .map(|result| (result.name.to_string(), code(result.error_code)))
        .collect();
    codes.sort();
    let expected = [
        ("broker", ErrorCode::InvalidReplicaAssignment),
        ("count", ErrorCode::InvalidReplicaAssignment),
        ("good", ErrorCode::NoError),
        ("less", ErrorCode::InvalidPartitions),
        ("many", ErrorCode::PolicyViolation),
        ("missing", ErrorCode::UnknownTopicOrPartition),
        ("same", ErrorCode::InvalidPartitions),
        ("twice", ErrorCode::InvalidRequest),
        ("width", ErrorCode::InvalidReplicaAssignment),
    ];
    assert_eq!(codes, expected.map(|(name, code)| (name.to_owned(), code)));
    let failed = response.results.iter().filter(|r| r.error_code != 0);
    assert!(
        failed
            .clone()
            .all(|r| r.error_message.as_ref().is_some_and(|m| !m.is_empty()))
    );
    assert_eq!(leaders(&mut client, "good").await.len(), 3);
    assert_eq!(leaders(&mut client, "twice").await.len(), 2);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validation_alone_adds_nothing() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    let asked = request(vec![grow("t", 5), grow("missing", 5)]).with_validate_only(true);
    let results = client.call(3, &asked).await.results;
    let codes: Vec<_> = results.iter().map(|result| code(result.error_code)).collect();
    assert_eq!(codes, [ErrorCode::NoError, ErrorCode::UnknownTopicOrPartition]);
    assert_eq!(leaders(&mut client, "t").await.len(), 1);
    broker.stop().await;
}
