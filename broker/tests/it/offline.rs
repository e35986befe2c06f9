//! Replicas on brokers that are gone: tools show them as offline.

use std::time::Duration;

use takhin_protocol::messages::describe_topic_partitions_request::TopicRequest;
use takhin_protocol::messages::metadata_request::MetadataRequestTopic;
use takhin_protocol::messages::{BrokerId, DescribeTopicPartitionsRequest, MetadataRequest};

use crate::coordinators::{Brokers, NAMES, with_brokers};
use crate::replaced::{TOPIC, create};
use crate::support::topic;

/// The offline replicas of the only partition, as both requests have them.
async fn offline(brokers: &Brokers, asked: usize) -> Option<Vec<i32>> {
    let ids = |nodes: &[BrokerId]| nodes.iter().map(|id| id.0).collect::<Vec<_>>();
    let wanted = MetadataRequestTopic::default().with_name(Some(topic(TOPIC)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    let answer = brokers.ask(asked, 5, &request).await?;
    let metadata = ids(&answer.topics.first()?.partitions.first()?.offline_replicas);
    let wanted = TopicRequest::default().with_name(topic(TOPIC));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![wanted])
        .with_response_partition_limit(10);
    let answer = brokers.ask(asked, 0, &request).await?;
    let described = ids(&answer.topics.first()?.partitions.first()?.offline_replicas);
    // Between the two the broker may have been missed.
    (metadata == described).then_some(metadata)
}

#[test]
fn replicas_on_a_broker_that_is_gone_are_offline() {
    with_brokers(54, |brokers, net| async move {
        let clock = brokers.env.clock.clone();
        let _ = create(&brokers).await;
        let pause = || clock.sleep(Duration::from_millis(100));
        assert_eq!(offline(&brokers, 0).await, Some(Vec::new()));
        for name in &NAMES[..2] {
            net.partition(name, NAMES[2]);
        }
        let told = loop {
            match offline(&brokers, 0).await {
                Some(told) if !told.is_empty() => break told,
                _ => pause().await,
            }
        };
        assert_eq!(told, [3]);
        // Who hears of nobody does not take all others for gone.
        assert_eq!(offline(&brokers, 2).await, Some(Vec::new()));
        net.heal_all();
        while offline(&brokers, 0).await != Some(Vec::new()) {
            pause().await;
        }
    });
}
