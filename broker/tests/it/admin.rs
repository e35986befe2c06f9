//! Topics, metadata, configurations and offsets (reference L1 to L3, M1 to M9, C1 to C3).

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use takhin_protocol::messages::delete_topics_request::DeleteTopicState;
use takhin_protocol::messages::describe_configs_request::DescribeConfigsResource;
use takhin_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use takhin_protocol::messages::metadata_request::MetadataRequestTopic;
use takhin_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    ListOffsetsRequest, MetadataRequest,
};
use uuid::Uuid;

use crate::fetch::produce;
use crate::support::{Broker, Client, altered, batch, code, text, topic};

fn named(name: &str) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(1)
        .with_replication_factor(1)
}

async fn create(client: &mut Client, version: i16, topics: Vec<CreatableTopic>) -> Vec<ErrorCode> {
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(20_000);
    client
        .call(version, &request)
        .await
        .topics
        .iter()
        .map(|topic| code(topic.error_code))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_and_listed_in_every_version() {
    let mut broker = Broker::with(&["kafka.num_partitions=3"]).await;
    let mut client = broker.client().await;
    for version in 2..=7 {
        let new = named(&format!("v{version}")).with_num_partitions(2);
        assert_eq!(
            create(&mut client, version, vec![new]).await,
            [ErrorCode::NoError]
        );
    }
    let defaults = named("defaults")
        .with_num_partitions(-1)
        .with_replication_factor(-1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![defaults])
        .with_timeout_ms(20_000);
    let created = client.call(7, &request).await.topics.remove(0);
    assert_eq!((created.num_partitions, created.replication_factor), (3, 1));
    assert!(
        created
            .configs
            .unwrap()
            .iter()
            .any(|config| &*config.name == "retention.ms")
    );

    for version in 0..=13 {
        let all = MetadataRequest::default().with_topics(if version == 0 { Some(Vec::new()) } else { None });
        let response = client.call(version, &all).await;
        assert_eq!(response.topics.len(), 7, "version {version}");
        assert!(
            response
                .topics
                .iter()
                .flat_map(|t| &t.partitions)
                .all(|p| p.leader_id.0 == 1 && p.error_code == 0)
        );
        let port = broker.address().rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(
            (response.brokers[0].node_id.0, response.brokers[0].port),
            (1, port)
        );
        assert_eq!(response.cluster_id.is_some_and(|id| id.len() == 22), version >= 2);
    }
    let none = client
        .call(9, &MetadataRequest::default().with_topics(Some(Vec::new())))
        .await;
    assert!(none.topics.is_empty());

    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_deleted_by_name_and_by_id() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    for name in ["v2", "v3", "v4", "v5"] {
        client.create(name, 1, &[]).await;
    }
    let id = client.create("last", 1, &[]).await;
    for version in 1..=5 {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic(&format!("v{version}")), topic("missing")])
            .with_timeout_ms(20_000);
        let response = client.call(version, &request).await;
        let expected = if version == 1 {
            ErrorCode::UnknownTopicOrPartition
        } else {
            ErrorCode::NoError
        };
        assert_eq!(code(response.responses[0].error_code), expected);
        assert_eq!(
            code(response.responses[1].error_code),
            ErrorCode::UnknownTopicOrPartition
        );
    }
    let by_id = |id| DeleteTopicState::default().with_name(None).with_topic_id(id);
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![by_id(id), by_id(Uuid::from_u128(7))])
        .with_timeout_ms(20_000);
    let twice = DeleteTopicState::default().with_name(Some(topic("last")));
    let mut with_twice = request.clone();
    with_twice.topics.push(twice);
    let refused = client.call(6, &with_twice).await.responses;
    let codes: Vec<_> = refused.iter().map(|answer| code(answer.error_code)).collect();
    let (bad, unknown) = (ErrorCode::InvalidRequest, ErrorCode::UnknownTopicId);
    assert_eq!(codes, [bad, unknown, bad], "named twice, deleted not once");
    let answers = client.call(6, &request).await.responses;
    let codes: Vec<_> = answers.iter().map(|answer| code(answer.error_code)).collect();
    assert_eq!(codes, [ErrorCode::NoError, unknown]);
    assert_eq!(answers[0].name, Some(topic("last")));
    broker.stop().await;
}

/// A topic with one setting.
fn config(name: &str, value: &str) -> CreatableTopic {
    let config = CreatableTopicConfig::default()
        .with_name(text(name))
        .with_value(Some(text(value)));
    named("c").with_configs(vec![config])
}

/// A topic with replicas for each of these partitions.
fn assigned(replicas: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = replicas.iter().map(|(index, brokers)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*index)
            .with_broker_ids(brokers.iter().map(|id| (*id).into()).collect())
    });
    named("s")
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(assignments.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_created_says_why_and_changes_nothing() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    assert_eq!(
        create(&mut client, 7, vec![named("a.b")]).await,
        [ErrorCode::NoError]
    );
    let long = "x".repeat(250);
    let cases = [
        (named("a.b"), ErrorCode::TopicAlreadyExists),
        (named("a_b"), ErrorCode::InvalidTopicException),
        (named(""), ErrorCode::InvalidTopicException),
        (named(".."), ErrorCode::InvalidTopicException),
        (named("a/b"), ErrorCode::InvalidTopicException),
        (named("ä"), ErrorCode::InvalidTopicException),
        (named(&long), ErrorCode::InvalidTopicException),
        (named("p").with_num_partitions(0), ErrorCode::InvalidPartitions),
        (named("p").with_num_partitions(-2), ErrorCode::InvalidPartitions),
        (
            named("p").with_num_partitions(i32::MAX),
            ErrorCode::PolicyViolation,
        ),
        (
            named("r").with_replication_factor(2),
            ErrorCode::InvalidReplicationFactor,
        ),
        (
            named("r").with_replication_factor(0),
            ErrorCode::InvalidReplicationFactor,
        ),
        (config("retention.msx", "1"), ErrorCode::InvalidConfig),
        (config("retention.ms", "soon"), ErrorCode::InvalidConfig),
        (config("cleanup.policy", "squash"), ErrorCode::InvalidConfig),
        (
            assigned(&[(0, &[1]), (2, &[1])]),
            ErrorCode::InvalidReplicaAssignment,
        ),
        (assigned(&[(0, &[1, 1])]), ErrorCode::InvalidReplicaAssignment),
        (assigned(&[(0, &[2])]), ErrorCode::InvalidReplicaAssignment),
        (assigned(&[(0, &[])]), ErrorCode::InvalidReplicaAssignment),
        (
            assigned(&[(0, &[1])]).with_num_partitions(1),
            ErrorCode::InvalidRequest,
        ),
    ];
    for (new, expected) in cases {
        let what = format!("{new:?}");
        assert_eq!(create(&mut client, 7, vec![new]).await, [expected], "{what}");
    }
    let all = client
        .call(9, &MetadataRequest::default().with_topics(None))
        .await;
    assert_eq!(all.topics.len(), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubles_are_refused_and_dry_runs_create_nothing() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let twice = create(&mut client, 7, vec![named("d"), named("e"), named("d")]).await;
    assert_eq!(twice, [ErrorCode::InvalidRequest, ErrorCode::NoError]);
    let dry = CreateTopicsRequest::default()
        .with_topics(vec![named("dry")])
        .with_validate_only(true);
    assert_eq!(client.call(7, &dry).await.topics[0].error_code, 0);
    let all = client
        .call(9, &MetadataRequest::default().with_topics(None))
        .await;
    let names: Vec<_> = all
        .topics
        .iter()
        .map(|t| t.name.clone().unwrap().to_string())
        .collect();
    assert_eq!(names, ["e"]);
    assert_eq!(
        create(&mut client, 7, vec![assigned(&[(1, &[1]), (0, &[1])])]).await,
        [ErrorCode::NoError]
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_asked_for_comes_into_being_if_both_sides_want_it() {
    let mut broker = Broker::with(&["kafka.num_partitions=4"]).await;
    let mut client = broker.client().await;
    let ask = |name: &str, create: bool| {
        let topic = MetadataRequestTopic::default().with_name(Some(topic(name)));
        MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(create)
    };
    let no = client.call(9, &ask("new", false)).await;
    assert_eq!(code(no.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
    let bad = client.call(9, &ask("n e w", true)).await;
    assert_eq!(code(bad.topics[0].error_code), ErrorCode::InvalidTopicException);
    let first = client.call(9, &ask("new", true)).await;
    assert_eq!(code(first.topics[0].error_code), ErrorCode::LeaderNotAvailable);
    // Clients ask again until it is there.
    let there = loop {
        let response = client.call(12, &ask("new", false)).await;
        if response.topics[0].error_code == 0 {
            break response.topics[0].clone();
        }
    };
    assert_eq!(there.partitions.len(), 4);

    let by_id = |id| {
        let topic = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
        MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    let found = client.call(12, &by_id(there.topic_id)).await;
    assert_eq!(found.topics[0].name, Some(topic("new")));
    let unknown = client.call(12, &by_id(Uuid::from_u128(9))).await;
    assert_eq!(code(unknown.topics[0].error_code), ErrorCode::UnknownTopicId);
    broker.stop().await;

    let mut broker = Broker::with(&["kafka.auto_create_topics=false"]).await;
    let mut client = broker.client().await;
    let off = client.call(9, &ask("new", true)).await;
    assert_eq!(code(off.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
    broker.stop().await;
}

/// All settings of a topic or broker.
fn resource(kind: i8, name: &str) -> DescribeConfigsResource {
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_is_described_with_its_source() {
    let mut broker = Broker::with(&["storage.segment_size=2MiB"]).await;
    let mut client = broker.client().await;
    client.create("t", 1, &[("retention.ms", "1000")]).await;
    for version in 1..=4 {
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![
                resource(2, "t"),
                resource(4, "1"),
                resource(2, "missing"),
                resource(4, "2"),
                resource(4, "x"),
                resource(99, "t"),
                resource(2, "t").with_resource_name(text("t ")),
            ])
            .with_include_synonyms(true);
        let results = client.call(version, &request).await.results;
        let codes: Vec<_> = results.iter().map(|result| code(result.error_code)).collect();
        let expected = [
            ErrorCode::NoError,
            ErrorCode::NoError,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidTopicException,
        ];
        assert_eq!(codes, expected);
        assert!(results[0].configs.len() > 30, "every topic setting, set or not");
        let find = |name: &str| {
            results[0]
                .configs
                .iter()
                .find(|config| &*config.name == name)
                .unwrap()
        };
        assert_eq!(
            (
                find("retention.ms").value.as_deref(),
                find("retention.ms").config_source
            ),
            (Some("1000"), 1)
        );
        assert_eq!(
            (
                find("segment.bytes").value.as_deref(),
                find("segment.bytes").config_source
            ),
            (Some("2097152"), 4)
        );
        assert_eq!(find("segment.bytes").synonyms[0].name, text("log.segment.bytes"));
        assert_eq!(find("max.message.bytes").config_source, 5);
        let broker_setting = results[1]
            .configs
            .iter()
            .find(|config| &*config.name == "node.id")
            .unwrap();
        assert!(broker_setting.read_only);
        if version >= 3 {
            assert_eq!(find("retention.ms").config_type, 5);
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_settings_asked_for_are_described() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    let some = resource(2, "t").with_configuration_keys(Some(vec![text("retention.ms"), text("nonsense")]));
    let none = resource(4, "1").with_configuration_keys(Some(Vec::new()));
    let results = client
        .call(
            4,
            &DescribeConfigsRequest::default().with_resources(vec![some, none]),
        )
        .await
        .results;
    assert_eq!((results[0].configs.len(), results[1].configs.len()), (1, 0));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_describes_itself() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    for version in 0..=2 {
        let response = client.call(version, &DescribeClusterRequest::default()).await;
        assert_eq!(
            (
                response.error_code,
                response.brokers.len(),
                response.controller_id.0
            ),
            (0, 1, 1)
        );
        assert_eq!(response.cluster_id.len(), 22);
        assert_eq!(response.cluster_authorized_operations, i32::MIN, "nobody asked");
    }
    let controllers = client
        .call(1, &DescribeClusterRequest::default().with_endpoint_type(2))
        .await;
    assert_eq!(code(controllers.error_code), ErrorCode::MismatchedEndpointType);
    broker.stop().await;
}

/// The offset that this timestamp asks for, in partition 0 of topic `t`.
fn ask(timestamp: i64) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default()
        .with_timestamp(timestamp)
        .with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(topic("t"))
        .with_partitions(vec![partition]);
    ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_found_by_time_and_by_name() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    let empty = client.call(7, &ask(-3)).await.topics[0].partitions[0].clone();
    assert_eq!((empty.error_code, empty.offset, empty.timestamp), (0, -1, -1));
    for timestamp in [1000, 3000, 2000] {
        let stamped = altered(&batch(&["x"]), |b| {
            b.header.base_timestamp = timestamp;
            b.header.max_timestamp = timestamp;
        });
        produce(&mut client, id, 0, stamped).await;
    }
    for version in 1..=10 {
        let cases = [
            (-1, 1, (3, -1)),
            (-2, 1, (0, -1)),
            (-3, 7, (1, 3000)),
            (-4, 8, (0, -1)),
            (-5, 9, (-1, -1)),
            (0, 1, (0, 1000)),
            (1001, 1, (1, 3000)),
            (3000, 1, (1, 3000)),
            (3001, 1, (-1, -1)),
            (-6, 99, (0, 0)),
        ];
        for (timestamp, since, expected) in cases {
            let answer = client.call(version, &ask(timestamp)).await.topics[0].partitions[0].clone();
            if version < since {
                assert_eq!(
                    code(answer.error_code),
                    ErrorCode::UnsupportedVersion,
                    "{timestamp} in {version}"
                );
            } else {
                assert_eq!(answer.error_code, 0);
                assert_eq!(
                    (answer.offset, answer.timestamp),
                    expected,
                    "{timestamp} in {version}"
                );
            }
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_asked_for_twice_is_refused() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    let mut twice = ask(-1);
    let again = twice.topics[0].partitions[0].clone();
    twice.topics[0].partitions.push(again);
    twice.topics[0]
        .partitions
        .push(ListOffsetsPartition::default().with_partition_index(7));
    let answers = client.call(4, &twice).await.topics[0].partitions.clone();
    let codes: Vec<_> = answers.iter().map(|answer| code(answer.error_code)).collect();
    assert_eq!(
        codes,
        [
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidRequest,
            ErrorCode::UnknownTopicOrPartition
        ]
    );
    broker.stop().await;
}
