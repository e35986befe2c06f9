use takhin_client::{ConfigValue, PartitionDescription};

use super::*;
use crate::api::ClusterRef;

fn spec(partitions: Option<i32>, factor: Option<i32>, config: &[(&str, &str)]) -> TopicSpec {
    TopicSpec {
        cluster_ref: ClusterRef {
            name: "prod".to_owned(),
            namespace: None,
        },
        topic_name: None,
        partitions,
        replication_factor: factor,
        deletion_policy: None,
        config: map(config),
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn topic(partitions: i32, replicas: &[i32]) -> TopicDescription {
    let partition = |index| PartitionDescription {
        index,
        leader: replicas.first().copied(),
        replicas: replicas.to_vec(),
        in_sync: replicas.to_vec(),
    };
    TopicDescription {
        name: "orders".to_owned(),
        id: [7; 16],
        partitions: (0..partitions).map(partition).collect(),
    }
}

fn brokers(count: i32) -> Racks {
    (0..count).map(|broker| (broker, None)).collect()
}

fn configs(pairs: &[(&str, &str, bool)]) -> Configs {
    let one = |(name, value, is_own): &(&str, &str, bool)| {
        let value = ConfigValue {
            value: Some((*value).to_owned()),
            is_own: *is_own,
        };
        ((*name).to_owned(), value)
    };
    pairs.iter().map(one).collect()
}

fn found<'a>(topic: Option<&'a TopicDescription>, brokers: &'a Racks) -> Found<'a> {
    Found {
        topic,
        configs: None,
        moving: 0,
        brokers,
    }
}

#[test]
fn what_is_missing_is_made_with_what_the_resource_says_and_no_more() {
    let (spec, three) = (spec(Some(6), None, &[("retention.ms", "1")]), brokers(3));
    let todo = decide("orders", &spec, &BTreeMap::new(), found(None, &three));
    let create = todo.create.unwrap();
    assert_eq!((create.partitions, create.replication_factor), (Some(6), None));
    assert_eq!(create.configs, [("retention.ms".to_owned(), "1".to_owned())]);
}

#[test]
fn partitions_grow_and_never_shrink_and_absent_ones_are_nobodys_business() {
    let (three, twelve) = (brokers(3), topic(12, &[0, 1, 2]));
    let decide = |partitions| {
        decide(
            "orders",
            &spec(partitions, None, &[]),
            &BTreeMap::new(),
            found(Some(&twelve), &three),
        )
    };
    assert_eq!(decide(Some(20)).grow, Some(20));
    assert_eq!(decide(None), Todo::default());
    let refused = decide(Some(6));
    assert!(refused.is_nothing());
    let message = "spec.partitions is 6, and the topic has 12: partitions cannot be removed; set it to 12 or more, or make another topic";
    assert_eq!(
        refused.problem,
        Some(("PartitionDecreaseNotSupported", message.to_owned()))
    );
}

#[test]
fn managed_settings_are_brought_back_and_others_left_alone() {
    let (three, there) = (brokers(3), topic(1, &[0]));
    let is = configs(&[
        ("retention.ms", "5", true),
        ("cleanup.policy", "delete", false),
        ("max.message.bytes", "9", true),
        ("segment.bytes", "7", true),
        ("flush.ms", "3", false),
    ]);
    let spec = spec(None, None, &[("retention.ms", "1"), ("cleanup.policy", "delete")]);
    // Two were managed before: one is still the topic's own, the other was taken back already.
    let before = map(&[("max.message.bytes", "9"), ("flush.ms", "3")]);
    let mut found = found(Some(&there), &three);
    found.configs = Some(&is);
    let todo = decide("orders", &spec, &before, found);
    let expected = [
        ("cleanup.policy", Some("delete")),
        ("retention.ms", Some("1")),
        ("max.message.bytes", None),
    ];
    let changes: Vec<_> = todo
        .configs
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_deref()))
        .collect();
    assert_eq!(changes, expected);
    assert_eq!(managed_keys(&spec, &before).len(), 4);
}

#[test]
fn replicas_are_moved_once_at_a_time_and_only_to_brokers_that_there_are() {
    let (three, there) = (brokers(3), topic(2, &[0]));
    let wish = spec(None, Some(3), &[]);
    let todo = decide("orders", &wish, &BTreeMap::new(), found(Some(&there), &three));
    assert_eq!(todo.moves.len(), 2);
    let moving = Found {
        moving: 1,
        ..found(Some(&there), &three)
    };
    assert!(decide("orders", &wish, &BTreeMap::new(), moving).is_nothing());
    let two = brokers(2);
    for topic in [Some(&there), None] {
        let todo = decide("orders", &wish, &BTreeMap::new(), found(topic, &two));
        assert!(todo.is_nothing());
        let (reason, message) = todo.problem.unwrap();
        assert_eq!(reason, "InvalidReplicationFactor");
        assert!(
            message.contains("is 3") && message.contains("has 2 brokers"),
            "{message}"
        );
    }
}

#[test]
fn ids_are_written_as_kafka_writes_them() {
    assert_eq!(topic_id(&[0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(topic_id(&[255; 16]), "_____________________w");
    assert_eq!(
        topic_id(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        "AQIDBAUGBwgJCgsMDQ4PEA"
    );
}
