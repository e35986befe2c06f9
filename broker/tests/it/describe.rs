//! What the cluster tells administrators: directories, topics by the page, producers, quorum, elections, resources
//! (reference M13, O2 to O5, O8).

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use takhin_protocol::messages::describe_log_dirs_response::DescribeLogDirsTopic;
use takhin_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use takhin_protocol::messages::elect_leaders_request::TopicPartitions;
use takhin_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use takhin_protocol::messages::{
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, ElectLeadersRequest, ListConfigResourcesRequest,
    ListPartitionReassignmentsRequest, describe_producers_request, describe_quorum_request,
};

use crate::fetch::produce;
use crate::support::{Broker, altered, batch, code, topic};

fn sizes(topics: &[DescribeLogDirsTopic]) -> Vec<(String, i32, bool)> {
    let all = topics.iter().flat_map(|topic| {
        let name = topic.name.to_string();
        topic
            .partitions
            .iter()
            .map(move |p| (name.clone(), p.partition_index, p.partition_size > 0))
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_directory_shows_its_space_and_every_replica() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("b", 2, &[]).await;
    client.create("a", 1, &[]).await;
    produce(&mut client, id, 1, batch(&["x".repeat(1000).as_str()]).to_bytes()).await;
    for version in 1..=4 {
        let all = DescribeLogDirsRequest::default().with_topics(None);
        let response = client.call(version, &all).await;
        let [dir] = &response.results[..] else {
            panic!("{response:?}")
        };
        assert_eq!((response.error_code, dir.error_code), (0, 0));
        assert_eq!(
            *dir.log_dir,
            *broker.config.node.data_dir.to_str().unwrap(),
            "the absolute path"
        );
        let named: Vec<_> = sizes(&dir.topics)
            .into_iter()
            .map(|(name, i, _)| (name, i))
            .collect();
        assert_eq!(named, [("a".into(), 0), ("b".into(), 0), ("b".into(), 1)]);
        let written = &dir.topics[1].partitions[1];
        assert!(written.partition_size > 1000, "{written:?}");
        assert!(!written.is_future_key && written.offset_lag == 0);
        if version >= 4 {
            assert!(0 < dir.usable_bytes && dir.usable_bytes <= dir.total_bytes);
        }
    }
    let some = |name: &str, partitions: &[i32]| {
        DescribableLogDirTopic::default()
            .with_topic(topic(name))
            .with_partitions(partitions.to_vec())
    };
    let asked = vec![some("b", &[1, 1, 7, -1]), some("missing", &[0]), some("a", &[])];
    let request = DescribeLogDirsRequest::default().with_topics(Some(asked));
    let dirs = client.call(4, &request).await.results;
    assert_eq!(sizes(&dirs[0].topics), [("b".into(), 1, true)]);
    let nothing = DescribeLogDirsRequest::default().with_topics(Some(Vec::new()));
    let dirs = client.call(4, &nothing).await.results;
    assert!(dirs[0].topics.is_empty() && dirs[0].total_bytes > 0);
    broker.stop().await;
}

/// A topic and a partition of it.
type Place = (String, i32);

/// Topics with their partitions, and where the next page begins.
fn page(response: &DescribeTopicPartitionsResponse) -> (Vec<(String, Vec<i32>)>, Option<Place>) {
    let topics = response.topics.iter().map(|topic| {
        let indexes = topic.partitions.iter().map(|p| p.partition_index).collect();
        (topic.name.as_ref().unwrap().to_string(), indexes)
    });
    let next = response
        .next_cursor
        .as_ref()
        .map(|c| (c.topic_name.to_string(), c.partition_index));
    (topics.collect(), next)
}

fn pages_of(names: &[&str], limit: i32, from: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
    let names = names
        .iter()
        .map(|name| TopicRequest::default().with_name(topic(name)));
    DescribeTopicPartitionsRequest::default()
        .with_topics(names.collect())
        .with_response_partition_limit(limit)
        .with_cursor(from.map(|(name, index)| {
            Cursor::default()
                .with_topic_name(topic(name))
                .with_partition_index(index)
        }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_described_page_by_page() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    for (name, partitions) in [("c", 1), ("a", 3), ("b", 2)] {
        client.create(name, partitions, &[]).await;
    }
    // All topics, two partitions a page: nothing twice, nothing left out.
    let (mut from, mut seen) = (None::<Place>, Vec::new());
    for pages in 0.. {
        assert!(pages < 10, "the pages do not end: {seen:?}");
        let start = from.as_ref().map(|(name, index)| (name.as_str(), *index));
        let (topics, next) = page(&client.call(0, &pages_of(&[], 2, start)).await);
        let partitions = topics
            .into_iter()
            .flat_map(|(name, indexes)| indexes.into_iter().map(move |index| (name.clone(), index)));
        let partitions: Vec<_> = partitions.collect();
        assert!(partitions.len() <= 2);
        seen.extend(partitions);
        match next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    let expected = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("c", 0)];
    assert_eq!(seen, expected.map(|(name, index)| (name.to_owned(), index)));
    // A page that is full at a topic's end says where the next topic begins.
    let (_, next) = page(&client.call(0, &pages_of(&[], 3, None)).await);
    assert_eq!(next, Some(("b".to_owned(), 0)));
    // Named topics come sorted, once, with an error of their own; the cursor may name one that is gone.
    let named = pages_of(&["c", "missing", "a", "a", "b ad"], 2000, Some(("aa", 1)));
    let response = client.call(0, &named).await;
    let codes: Vec<_> = response
        .topics
        .iter()
        .map(|t| (t.name.as_ref().unwrap().to_string(), code(t.error_code)))
        .collect();
    let expected = [
        ("b ad", ErrorCode::InvalidTopicException),
        ("c", ErrorCode::NoError),
        ("missing", ErrorCode::UnknownTopicOrPartition),
    ];
    assert_eq!(codes, expected.map(|(name, code)| (name.to_owned(), code)));
    let partition = &response.topics[1].partitions[0];
    assert_eq!((partition.leader_id.0, partition.error_code), (1, 0));
    assert_eq!(partition.isr_nodes, partition.replica_nodes);
    assert!(!response.topics[1].topic_id.is_nil());
    let nowhere = client.call(0, &pages_of(&["c"], 10, Some(("a", -1)))).await;
    assert_eq!(code(nowhere.topics[0].error_code), ErrorCode::InvalidRequest);
    let limits = client.call(0, &pages_of(&["a"], -5, None)).await;
    assert_eq!(page(&limits).0[0].1, [0], "at least one partition comes");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_names_the_producers_it_remembers() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 2, &[]).await;
    for sequence in [0, 2] {
        let idempotent = altered(&batch(&["a", "b"]), |b| {
            b.header.producer_id = 7;
            b.header.producer_epoch = 3;
            b.header.base_sequence = sequence;
            b.header.max_timestamp = b.header.base_timestamp;
        });
        produce(&mut client, id, 0, idempotent).await;
    }
    produce(&mut client, id, 0, batch(&["nobody's"]).to_bytes()).await;
    let of = |name: &str, partitions: &[i32]| {
        describe_producers_request::TopicRequest::default()
            .with_name(topic(name))
            .with_partition_indexes(partitions.to_vec())
    };
    let request =
        DescribeProducersRequest::default().with_topics(vec![of("t", &[0, 1, 2, 0]), of("missing", &[0])]);
    let response = client.call(0, &request).await;
    let t = &response.topics[0].partitions;
    assert_eq!(t.len(), 3, "each partition once");
    let [producer] = &t[0].active_producers[..] else {
        panic!("{t:?}")
    };
    assert_eq!(
        (
            producer.producer_id.0,
            producer.producer_epoch,
            producer.last_sequence
        ),
        (7, 3, 3)
    );
    assert!(producer.last_timestamp > 0 && producer.current_txn_start_offset == -1);
    assert!(t[1].error_code == 0 && t[1].active_producers.is_empty());
    assert_eq!(code(t[2].error_code), ErrorCode::UnknownTopicOrPartition);
    let missing = &response.topics[1].partitions[0];
    assert_eq!(code(missing.error_code), ErrorCode::UnknownTopicOrPartition);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controllers_quorum_is_the_metadata_group() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let of = |name: &str, index: i32| {
        let partition = describe_quorum_request::PartitionData::default().with_partition_index(index);
        let named = describe_quorum_request::TopicData::default()
            .with_topic_name(topic(name))
            .with_partitions(vec![partition]);
        DescribeQuorumRequest::default().with_topics(vec![named])
    };
    let mut end = 0;
    for version in 0..=2 {
        let response = client.call(version, &of("__cluster_metadata", 0)).await;
        assert_eq!(response.error_code, 0);
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id.0), (0, 1));
        assert!(partition.leader_epoch >= 1);
        let [voter] = &partition.current_voters[..] else {
            panic!("{partition:?}")
        };
        assert_eq!(
            (voter.replica_id.0, voter.log_end_offset),
            (1, partition.high_watermark)
        );
        assert!(partition.high_watermark > end, "grows with every change");
        end = partition.high_watermark;
        if version >= 1 {
            assert!(voter.last_caught_up_timestamp > 0);
        }
        if version >= 2 {
            assert!(!voter.replica_directory_id.is_nil());
            assert_eq!(response.nodes[0].node_id.0, 1);
            assert_eq!(&*response.nodes[0].listeners[0].name, "INTERNAL");
        }
        client.create(&format!("t{version}"), 1, &[]).await;
        for (name, index) in [("t0", 0), ("__cluster_metadata", 1)] {
            let other = client.call(version, &of(name, index)).await;
            let partition = &other.topics[0].partitions[0];
            assert_eq!(
                (partition.partition_index, code(partition.error_code)),
                (index, ErrorCode::UnknownTopicOrPartition)
            );
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn led_partitions_need_no_election_and_nothing_is_on_its_way() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("t", 2, &[]).await;
    let named = |name: &str, partitions: &[i32]| {
        TopicPartitions::default()
            .with_topic(topic(name))
            .with_partitions(partitions.to_vec())
    };
    for version in 0..=2 {
        let asked = vec![named("t", &[0, 5, 0]), named("missing", &[0])];
        let request = ElectLeadersRequest::default()
            .with_topic_partitions(Some(asked))
            .with_timeout_ms(1000);
        let response = client.call(version, &request).await;
        let results = response.replica_election_results.iter();
        let codes: Vec<_> = results
            .flat_map(|topic| topic.partition_result.iter().map(|p| code(p.error_code)))
            .collect();
        let expected = [
            ErrorCode::ElectionNotNeeded,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownTopicOrPartition,
        ];
        assert_eq!((response.error_code, codes), (0, expected.to_vec()));
        let all = ElectLeadersRequest::default().with_topic_partitions(None);
        let response = client.call(version, &all).await;
        assert!(response.error_code == 0 && response.replica_election_results.is_empty());
    }
    let unknown = ElectLeadersRequest::default()
        .with_election_type(2)
        .with_topic_partitions(None);
    assert_eq!(
        code(client.call(2, &unknown).await.error_code),
        ErrorCode::InvalidRequest
    );
    let moving = ListPartitionReassignmentsTopics::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![0]);
    for topics in [None, Some(vec![moving])] {
        let request = ListPartitionReassignmentsRequest::default().with_topics(topics);
        let response = client.call(0, &request).await;
        assert!(response.error_code == 0 && response.topics.is_empty());
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_with_configurations_are_listed_by_type() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.create("b", 1, &[]).await;
    client.create("a", 1, &[]).await;
    let old = client.call(0, &ListConfigResourcesRequest::default()).await;
    assert!(old.error_code == 0 && old.config_resources.is_empty());
    let (topics, brokers) = (["2 a", "2 b"], ["4 1"]);
    let cases = [
        (vec![], [&topics[..], &brokers].concat()),
        (vec![2], topics.to_vec()),
        (vec![4, 4], brokers.to_vec()),
        (vec![16, 32], vec![]),
    ];
    for (types, expected) in cases {
        let request = ListConfigResourcesRequest::default().with_resource_types(types.clone());
        let response = client.call(1, &request).await;
        assert_eq!(response.error_code, 0);
        let listed: Vec<_> = response
            .config_resources
            .iter()
            .map(|r| format!("{} {}", r.resource_type, &*r.resource_name))
            .collect();
        assert_eq!(listed, expected, "{types:?}");
    }
    for unsupported in [0, 8, 99] {
        let request = ListConfigResourcesRequest::default().with_resource_types(vec![2, unsupported]);
        let response = client.call(1, &request).await;
        assert_eq!(code(response.error_code), ErrorCode::UnsupportedVersion);
        assert!(response.config_resources.is_empty());
    }
    broker.stop().await;
}
