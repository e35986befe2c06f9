//! AlterConfigs, IncrementalAlterConfigs and what DescribeConfigs then shows (reference C1 to C6).

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::create_topics_request::CreatableTopic;
use takhin_protocol::messages::describe_configs_request::DescribeConfigsResource;
use takhin_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use takhin_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use takhin_protocol::messages::metadata_request::MetadataRequestTopic;
use takhin_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use takhin_protocol::messages::{
    AlterConfigsRequest, ConsumerGroupHeartbeatRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest, ListOffsetsRequest,
    MetadataRequest, ProduceRequest, alter_configs_request as whole,
    incremental_alter_configs_request as single,
};

use crate::support::{Broker, Client, altered, batch, code, text, topic};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

type Edit<'a> = (&'a str, i8, Option<&'a str>);

fn resource(kind: i8, name: &str, edits: &[Edit<'_>]) -> single::AlterConfigsResource {
    let configs = edits.iter().map(|(key, operation, value)| {
        single::AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    single::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect())
}

/// Edits one resource. Returns code and message.
async fn edit(client: &mut Client, kind: i8, name: &str, edits: &[Edit<'_>]) -> (ErrorCode, String) {
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource(kind, name, edits)]);
    let response = client.call(1, &request).await;
    let [answer] = &response.responses[..] else {
        panic!("{response:?}")
    };
    assert_eq!(
        (answer.resource_type, &*answer.resource_name),
        (kind, name),
        "the answer names the resource"
    );
    let message = answer.error_message.as_deref().unwrap_or_default();
    (code(answer.error_code), message.to_owned())
}

async fn set(client: &mut Client, kind: i8, name: &str, key: &str, value: &str) {
    let done = edit(client, kind, name, &[(key, SET, Some(value))]).await;
    assert_eq!(done, (ErrorCode::NoError, String::new()));
}

fn replacement(kind: i8, name: &str, configs: &[(&str, Option<&str>)]) -> whole::AlterConfigsResource {
    let configs = configs.iter().map(|(key, value)| {
        whole::AlterableConfig::default()
            .with_name(text(key))
            .with_value(value.map(text))
    });
    whole::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect())
}

async fn replace(
    client: &mut Client,
    version: i16,
    resources: Vec<whole::AlterConfigsResource>,
) -> Vec<ErrorCode> {
    let request = AlterConfigsRequest::default().with_resources(resources);
    let answers = client.call(version, &request).await.responses;
    answers.iter().map(|answer| code(answer.error_code)).collect()
}

async fn describe(client: &mut Client, kind: i8, name: &str) -> Vec<DescribeConfigsResourceResult> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let mut result = client.call(4, &request).await.results.remove(0);
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    std::mem::take(&mut result.configs)
}

/// Value and source of one setting.
async fn shown(client: &mut Client, kind: i8, name: &str, key: &str) -> (String, i8) {
    let configs = describe(client, kind, name).await;
    let config = configs.iter().find(|config| &*config.name == key).unwrap();
    (config.value.as_deref().unwrap().to_owned(), config.config_source)
}

/// What a produce of `size` bytes to partition 0 of the topic is answered.
async fn produce(client: &mut Client, name: &str, size: usize) -> ErrorCode {
    let records = batch(&["x".repeat(size).as_str()]).to_bytes();
    let data = PartitionProduceData::default().with_records(Some(records));
    let named = TopicProduceData::default()
        .with_name(topic(name))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(20_000)
        .with_topic_data(vec![named]);
    let response = client.call(12, &request).await;
    code(response.responses[0].partition_responses[0].error_code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topics_limit_falls_and_rises_while_records_come_and_survives_a_restart() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[("retention.ms", "1000000")]).await;
    assert_eq!(produce(&mut client, "t", 5000).await, ErrorCode::NoError);
    set(&mut client, TOPIC, "t", "max.message.bytes", "1000").await;
    assert_eq!(produce(&mut client, "t", 5000).await, ErrorCode::MessageTooLarge);
    assert_eq!(produce(&mut client, "t", 500).await, ErrorCode::NoError);
    broker.restart().await;
    let mut client = broker.client().await;
    assert_eq!(produce(&mut client, "t", 5000).await, ErrorCode::MessageTooLarge);
    assert_eq!(
        shown(&mut client, TOPIC, "t", "max.message.bytes").await,
        ("1000".to_owned(), 1)
    );
    // Deleting falls back; what was not named stays.
    let deleted = edit(&mut client, TOPIC, "t", &[("max.message.bytes", DELETE, None)]).await;
    assert_eq!(deleted.0, ErrorCode::NoError);
    assert_eq!(produce(&mut client, "t", 5000).await, ErrorCode::NoError);
    assert_eq!(
        shown(&mut client, TOPIC, "t", "retention.ms").await,
        ("1000000".to_owned(), 1)
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_forgets_what_is_not_named() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[("retention.ms", "1000000")]).await;
    for version in 0..=2 {
        let size = (1000 + version).to_string();
        let resource = replacement(TOPIC, "t", &[("max.message.bytes", Some(&size))]);
        assert_eq!(
            replace(&mut client, version, vec![resource]).await,
            [ErrorCode::NoError]
        );
        assert_eq!(
            shown(&mut client, TOPIC, "t", "max.message.bytes").await,
            (size, 1)
        );
        assert_eq!(shown(&mut client, TOPIC, "t", "retention.ms").await.1, 5);
    }
    let only_checked = AlterConfigsRequest::default()
        .with_resources(vec![replacement(TOPIC, "t", &[])])
        .with_validate_only(true);
    assert_eq!(client.call(2, &only_checked).await.responses[0].error_code, 0);
    assert_eq!(shown(&mut client, TOPIC, "t", "max.message.bytes").await.1, 1);
    let wrong = vec![
        replacement(TOPIC, "t", &[("retention.ms", None)]),
        replacement(TOPIC, "missing", &[]),
        replacement(TOPIC, "t ", &[]),
        replacement(TOPIC, "", &[]),
        replacement(BROKER, "2", &[]),
        replacement(BROKER, "x", &[]),
        replacement(16, "group", &[]),
        replacement(BROKER, "1", &[("node.id", Some("3"))]),
        replacement(
            BROKER,
            "",
            &[("num.partitions", Some("3")), ("num.partitions", Some("4"))],
        ),
    ];
    let expected = [
        ErrorCode::InvalidRequest,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::InvalidTopicException,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
    ];
    assert_eq!(replace(&mut client, 2, wrong).await, expected);
    broker.stop().await;
}

const GOOD: Edit<'_> = ("retention.ms", SET, Some("5"));

/// Edits that are refused, with the code, and what the message names.
const MISTAKES: &[(i8, &str, &[Edit<'_>], ErrorCode, &str)] = &[
    (
        TOPIC,
        "t",
        &[GOOD, ("retention.msx", SET, Some("1"))],
        ErrorCode::InvalidConfig,
        "retention.msx",
    ),
    (
        TOPIC,
        "t",
        &[GOOD, ("segment.bytes", SET, Some("x"))],
        ErrorCode::InvalidConfig,
        "segment.bytes",
    ),
    (
        TOPIC,
        "t",
        &[GOOD, ("segment.ms", APPEND, Some("1"))],
        ErrorCode::InvalidConfig,
        "segment.ms",
    ),
    (
        TOPIC,
        "t",
        &[GOOD, ("segment.ms", SUBTRACT, Some("1"))],
        ErrorCode::InvalidConfig,
        "segment.ms",
    ),
    (
        TOPIC,
        "t",
        &[GOOD, ("cleanup.policy", APPEND, Some("x"))],
        ErrorCode::InvalidConfig,
        "cleanup.policy",
    ),
    (
        TOPIC,
        "t",
        &[GOOD, ("segment.ms", SET, None)],
        ErrorCode::InvalidRequest,
        "segment.ms",
    ),
    (
        TOPIC,
        "t",
        &[GOOD, GOOD],
        ErrorCode::InvalidRequest,
        "retention.ms",
    ),
    (
        TOPIC,
        "t",
        &[GOOD, ("segment.ms", 9, Some("1"))],
        ErrorCode::InvalidRequest,
        "segment.ms",
    ),
    (
        TOPIC,
        "missing",
        &[GOOD],
        ErrorCode::UnknownTopicOrPartition,
        "topic",
    ),
    (TOPIC, "t ", &[GOOD], ErrorCode::InvalidTopicException, "name"),
    (
        BROKER,
        "1",
        &[("broker.rack", SET, Some("a"))],
        ErrorCode::InvalidRequest,
        "broker.rack",
    ),
    (
        BROKER,
        "",
        &[("num.partitions", SET, Some("0"))],
        ErrorCode::InvalidConfig,
        "num.partitions",
    ),
    (
        BROKER,
        "",
        &[("nonsense.key", SET, Some("0"))],
        ErrorCode::InvalidConfig,
        "nonsense.key",
    ),
    (
        BROKER,
        "7",
        &[("num.partitions", SET, Some("3"))],
        ErrorCode::InvalidRequest,
        "7",
    ),
    (
        8,
        "1",
        &[("root", SET, Some("DEBUG"))],
        ErrorCode::InvalidRequest,
        "8",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_is_named_and_leaves_the_whole_resource_as_it_was() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    for (kind, name, edits, expected, named) in MISTAKES {
        let (code, message) = edit(&mut client, *kind, name, edits).await;
        assert_eq!(code, *expected, "{edits:?}");
        assert!(message.contains(named), "{message:?} does not name {named:?}");
    }
    assert_eq!(shown(&mut client, TOPIC, "t", "retention.ms").await.1, 5);
    // One resource's failure does not touch the others; a resource may be named once.
    client.create("u", 1, &[]).await;
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
        resource(TOPIC, "missing", &[GOOD]),
        resource(TOPIC, "u", &[GOOD]),
        resource(TOPIC, "t", &[GOOD]),
        resource(TOPIC, "t", &[GOOD]),
    ]);
    let answers = client.call(0, &request).await.responses;
    let codes: Vec<_> = answers.iter().map(|answer| code(answer.error_code)).collect();
    let expected = [
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::NoError,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
    ];
    assert_eq!(codes, expected);
    assert_eq!(shown(&mut client, TOPIC, "u", "retention.ms").await.1, 1);
    assert_eq!(shown(&mut client, TOPIC, "t", "retention.ms").await.1, 5);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validation_alone_changes_nothing_and_lists_take_items() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    let checked = |edits: &[Edit<'_>]| {
        IncrementalAlterConfigsRequest::default()
            .with_resources(vec![resource(TOPIC, "t", edits)])
            .with_validate_only(true)
    };
    let good = client
        .call(1, &checked(&[("retention.ms", SET, Some("5"))]))
        .await;
    let bad = client
        .call(1, &checked(&[("retention.ms", SET, Some("x"))]))
        .await;
    assert_eq!(
        [good, bad].map(|response| code(response.responses[0].error_code)),
        [ErrorCode::NoError, ErrorCode::InvalidConfig]
    );
    assert_eq!(shown(&mut client, TOPIC, "t", "retention.ms").await.1, 5);
    let steps = [
        (APPEND, "compact", "delete,compact"),
        (APPEND, "compact,delete", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
        (SUBTRACT, "delete", "compact"),
    ];
    for (operation, items, expected) in steps {
        let done = edit(
            &mut client,
            TOPIC,
            "t",
            &[("cleanup.policy", operation, Some(items))],
        )
        .await;
        assert_eq!(done, (ErrorCode::NoError, String::new()));
        assert_eq!(
            shown(&mut client, TOPIC, "t", "cleanup.policy").await,
            (expected.to_owned(), 1)
        );
    }
    // The topic compacts now: it takes no record without a key.
    assert_eq!(produce(&mut client, "t", 10).await, ErrorCode::InvalidRecord);
    broker.stop().await;
}

async fn partitions(client: &mut Client, name: &str) -> i32 {
    let new = CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(-1)
        .with_replication_factor(-1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new])
        .with_timeout_ms(20_000);
    let response = client.call(7, &request).await;
    assert_eq!(response.topics[0].error_code, 0);
    response.topics[0].num_partitions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_are_told_one_by_one_or_all_together() {
    let mut broker = Broker::with(&["kafka.num_partitions=2"]).await;
    let mut client = broker.client().await;
    assert_eq!(partitions(&mut client, "a").await, 2);
    set(&mut client, BROKER, "", "num.partitions", "3").await;
    assert_eq!(partitions(&mut client, "b").await, 3);
    set(&mut client, BROKER, "1", "num.partitions", "4").await;
    assert_eq!(partitions(&mut client, "c").await, 4);
    broker.restart().await;
    let mut client = broker.client().await;
    assert_eq!(partitions(&mut client, "d").await, 4);
    let own = describe(&mut client, BROKER, "1").await;
    let config = own.iter().find(|c| &*c.name == "num.partitions").unwrap();
    let chain: Vec<_> = config
        .synonyms
        .iter()
        .map(|s| (s.value.as_deref().unwrap(), s.source))
        .collect();
    assert_eq!(chain, [("4", 2), ("3", 3), ("2", 4), ("1", 5)]);
    assert!(!config.read_only);
    let all = describe(&mut client, BROKER, "").await;
    let all: Vec<_> = all
        .iter()
        .map(|c| (&*c.name, c.value.as_deref().unwrap(), c.config_source))
        .collect();
    assert_eq!(all, [("num.partitions", "3", 3)]);
    let deleted = edit(&mut client, BROKER, "1", &[("num.partitions", DELETE, None)]).await;
    assert_eq!(deleted.0, ErrorCode::NoError);
    assert_eq!(partitions(&mut client, "e").await, 3);
    assert_eq!(
        replace(&mut client, 2, vec![replacement(BROKER, "", &[])]).await,
        [ErrorCode::NoError]
    );
    assert_eq!(partitions(&mut client, "f").await, 2);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_follow_what_their_broker_is_told_unless_they_say_otherwise() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("own", 1, &[("max.message.bytes", "100000")]).await;
    client.create("default", 1, &[]).await;
    set(&mut client, BROKER, "", "message.max.bytes", "1000").await;
    assert_eq!(produce(&mut client, "own", 5000).await, ErrorCode::NoError);
    assert_eq!(
        produce(&mut client, "default", 5000).await,
        ErrorCode::MessageTooLarge
    );
    assert_eq!(
        shown(&mut client, TOPIC, "default", "max.message.bytes").await,
        ("1000".to_owned(), 3)
    );
    set(&mut client, BROKER, "1", "message.max.bytes", "10000").await;
    assert_eq!(produce(&mut client, "default", 5000).await, ErrorCode::NoError);
    assert_eq!(
        shown(&mut client, TOPIC, "default", "max.message.bytes").await,
        ("10000".to_owned(), 2)
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_stops_creating_topics_deleting_them_and_taking_connections_when_told() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    set(&mut client, BROKER, "1", "auto.create.topics.enable", "false").await;
    let wanted = MetadataRequestTopic::default().with_name(Some(topic("missing")));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(true);
    let answer = client.call(9, &request).await;
    assert_eq!(
        code(answer.topics[0].error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    client.create("t", 1, &[]).await;
    set(&mut client, BROKER, "1", "delete.topic.enable", "false").await;
    for (version, expected) in [
        (1, ErrorCode::InvalidRequest),
        (5, ErrorCode::TopicDeletionDisabled),
    ] {
        let request = DeleteTopicsRequest::default().with_topic_names(vec![topic("t")]);
        let refused = client.call(version, &request).await;
        assert_eq!(code(refused.responses[0].error_code), expected);
    }
    set(&mut client, BROKER, "1", "max.connections", "1").await;
    let mut refused = broker.client().await;
    assert!(refused.receive().await.is_none(), "a second connection is closed");
    set(&mut client, BROKER, "1", "max.connections", "2").await;
    broker.client().await.ping().await;
    broker.stop().await;
}

async fn log_start(client: &mut Client, name: &str) -> i64 {
    let partition = ListOffsetsPartition::default()
        .with_timestamp(-2)
        .with_current_leader_epoch(-1);
    let wanted = ListOffsetsTopic::default()
        .with_name(topic(name))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![wanted]);
    client.call(7, &request).await.topics[0].partitions[0].offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_goes_by_what_the_topic_says_now() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    // Old records lie in the active segment, which nothing closes by itself.
    let never = [("retention.ms", "-1"), ("segment.ms", "9223372036854775807")];
    let id = client.create("t", 1, &never).await;
    let old = altered(&batch(&["old"]), |b| {
        b.header.base_timestamp = 1000;
        b.header.max_timestamp = 1000;
    });
    for _ in 0..3 {
        crate::fetch::produce(&mut client, id, 0, old.clone()).await;
    }
    set(&mut client, BROKER, "", "log.retention.check.interval.ms", "1").await;
    set(&mut client, TOPIC, "t", "segment.ms", "1").await;
    assert_eq!(log_start(&mut client, "t").await, 0, "nothing expires yet");
    set(&mut client, TOPIC, "t", "retention.ms", "1000").await;
    let expired = async {
        while log_start(&mut client, "t").await != 3 {
            tokio::task::yield_now().await;
        }
    };
    let clock = &broker.env.clock;
    let limit = std::time::Duration::from_secs(30);
    clock
        .timeout(limit, expired)
        .await
        .expect("old records stay although they have expired");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgement_by_all_goes_by_how_many_replicas_the_topic_asks_for_now() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    assert_eq!(produce(&mut client, "t", 10).await, ErrorCode::NoError);
    set(&mut client, TOPIC, "t", "min.insync.replicas", "2").await;
    assert_eq!(produce(&mut client, "t", 10).await, ErrorCode::NotEnoughReplicas);
    set(&mut client, TOPIC, "t", "min.insync.replicas", "1").await;
    assert_eq!(produce(&mut client, "t", 10).await, ErrorCode::NoError);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_offsets_are_always_flushed() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    crate::groups::find(&mut client, "g").await;
    let offsets = "__consumer_offsets";
    let cached = edit(
        &mut client,
        TOPIC,
        offsets,
        &[("takhin.durability", SET, Some("cached"))],
    )
    .await;
    assert_eq!(cached.0, ErrorCode::InvalidConfig, "{}", cached.1);
    set(&mut client, TOPIC, offsets, "segment.bytes", "1048576").await;
    let durability = shown(&mut client, TOPIC, offsets, "takhin.durability").await;
    assert_eq!(durability.0, "flushed");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_show_what_their_broker_tells_them() {
    let mut broker = Broker::with(&["kafka.groups.consumer_session_timeout=30s"]).await;
    let mut client = broker.client().await;
    let session = shown(&mut client, GROUP, "any", "consumer.session.timeout.ms").await;
    assert_eq!(session.0, "30000");
    let heartbeat = shown(&mut client, GROUP, "any", "consumer.heartbeat.interval.ms").await;
    assert_eq!(heartbeat.0, "5000");
    broker.stop().await;
}

/// The heartbeat interval that a member is told when it joins, or stays with this epoch.
async fn told_interval(client: &mut Client, epoch: i32) -> i32 {
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(text("member"))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(if epoch == 0 { 60_000 } else { -1 })
        .with_subscribed_topic_names((epoch == 0).then(|| vec![topic("t")]))
        .with_topic_partitions((epoch == 0).then(Vec::new));
    loop {
        let answer = client.call(1, &request).await;
        match code(answer.error_code) {
            ErrorCode::NoError => return answer.heartbeat_interval_ms,
            other => assert!(other.retriable(), "{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_groups_own_settings_are_kept_shown_and_told_to_its_members() {
    const SESSION: &str = "consumer.session.timeout.ms";
    const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    crate::groups::find(&mut client, "g").await;
    assert_eq!(told_interval(&mut client, 0).await, 5000);
    let both = [(SESSION, SET, Some("50000")), (HEARTBEAT, SET, Some("7000"))];
    assert_eq!(edit(&mut client, GROUP, "g", &both).await.0, ErrorCode::NoError);
    assert_eq!(told_interval(&mut client, 1).await, 7000, "at the next heartbeat");
    let refusals = [
        ("g", (SESSION, SET, Some("44999")), ErrorCode::InvalidConfig),
        ("g", (SESSION, APPEND, Some("1")), ErrorCode::InvalidConfig),
        (
            "g",
            ("share.isolation.level", SET, Some("x")),
            ErrorCode::InvalidConfig,
        ),
        ("", (SESSION, SET, Some("50000")), ErrorCode::InvalidRequest),
    ];
    for (group, refused, expected) in refusals {
        let answer = edit(&mut client, GROUP, group, &[refused]).await;
        assert_eq!(answer.0, expected, "{}", answer.1);
    }
    broker.restart().await;
    let mut client = broker.client().await;
    assert_eq!(told_interval(&mut client, 1).await, 7000);
    for (key, own) in [(SESSION, "50000"), (HEARTBEAT, "7000")] {
        assert_eq!(shown(&mut client, GROUP, "g", key).await, (own.to_owned(), 8));
    }
    let request = ListConfigResourcesRequest::default().with_resource_types(vec![GROUP]);
    let listed = client.call(1, &request).await.config_resources;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].resource_type, &*listed[0].resource_name), (GROUP, "g"));
    let kept = replacement(GROUP, "g", &[(SESSION, Some("51000"))]);
    assert_eq!(replace(&mut client, 2, vec![kept]).await, [ErrorCode::NoError]);
    assert_eq!(told_interval(&mut client, 1).await, 5000);
    assert_eq!(
        shown(&mut client, GROUP, "g", HEARTBEAT).await,
        ("5000".to_owned(), 5)
    );
    let deleted = edit(&mut client, GROUP, "g", &[(SESSION, DELETE, None)]).await;
    assert_eq!(deleted.0, ErrorCode::NoError);
    assert!(client.call(1, &request).await.config_resources.is_empty());
    broker.stop().await;
}
