use super::*;

use takhin_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use takhin_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};

use crate::records::{CommittedOffset, OffsetRecord};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn fetch_all(rig: &mut Rig, version: i16) -> OffsetFetchResponse {
    let mut request = OffsetFetchRequest::default();
    if version < 8 {
        request = request.with_group_id(GroupId(text("g"))).with_topics(None);
    } else {
        request.groups = vec![
            OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(text("g")))
                .with_topics(None),
        ];
    }
    let ticket = rig.call(version, |shard, cx| vec![shard.offset_fetch(cx, &request)]);
    match rig.take(ticket) {
        Reply::OffsetFetch(response) => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn anybody_commits_to_a_group_without_members() {
    let mut rig = Rig::new();
    let wanted = [("t", 1, 7), ("t", 2, 7), ("t", -1, 7), ("nope", 0, 7)];
    use ErrorCode::{NoError, UnknownTopicOrPartition as Unknown};
    assert_eq!(
        rig.commit(8, &commit("", -1, &wanted)),
        [NoError, Unknown, Unknown, Unknown]
    );
    let record = OffsetRecord {
        group: text("g"),
        topic: text("t"),
        partition: 1,
        value: Some(CommittedOffset {
            offset: 7,
            leader_epoch: 4,
            metadata: text("note"),
            commit_timestamp: 1_000_000,
            expire_timestamp: None,
            topic_id: Some(rig.topics.by_name("t").unwrap().id),
        }),
    };
    assert_eq!(rig.log, [Record::Offset(record)]);
    assert_eq!((rig.state(), rig.shard.groups.len()), ("Empty", 1));
    assert_eq!(rig.commit(8, &commit("old", -1, &[("u", 0, 1)])), [NoError]);
}

#[test]
fn a_commit_to_unknown_topics_alone_makes_no_group() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.commit(8, &commit("", 5, &[("nope", 0, 7)])),
        [ErrorCode::UnknownTopicOrPartition]
    );
    assert!(rig.shard.groups.is_empty());
}

#[test]
fn members_commit_in_their_generation_only() {
    use ErrorCode::*;
    let mut rig = Rig::new();
    let ask = |rig: &mut Rig, id: &str, generation| rig.commit(8, &commit(id, generation, &[("t", 0, 7)]))[0];
    assert_eq!(ask(&mut rig, "who", 1), IllegalGeneration);
    assert_eq!(
        rig.commit(9, &commit("who", 1, &[("t", 0, 7)])),
        [GroupIdNotFound]
    );
    let ids = rig.stable(2);
    assert_eq!(ask(&mut rig, "", -1), UnknownMemberId);
    assert_eq!(ask(&mut rig, "who", 1), UnknownMemberId);
    assert_eq!(ask(&mut rig, &ids[0], -1), IllegalGeneration);
    assert_eq!(ask(&mut rig, &ids[0], 2), IllegalGeneration);
    assert_eq!(ask(&mut rig, &ids[0], 1), NoError);
    let tickets = [&ids[0], &ids[1]].map(|id| rig.join(&join(id)));
    assert_eq!(rig.state(), "CompletingRebalance");
    assert_eq!(ask(&mut rig, &ids[0], 2), RebalanceInProgress);
    let _ = tickets.map(|ticket| rig.joined(ticket));
    rig.sync(&sync(&ids[0], 2, &[]));
    rig.join(&join(&ids[0]));
    assert_eq!(
        (rig.state(), ask(&mut rig, &ids[1], 2)),
        ("PreparingRebalance", NoError)
    );
    assert_eq!(rig.committed(), [("t".to_owned(), 0, 7)]);
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut rig = Rig::new();
    let ids = rig.stable(1);
    for _ in 0..3 {
        rig.advance(9_999);
        assert_eq!(
            rig.commit(8, &commit(&ids[0], 1, &[("t", 0, 7)])),
            [ErrorCode::NoError]
        );
    }
}

#[test]
fn notes_and_commits_have_bounds() {
    use ErrorCode::*;
    let mut rig = Rig::with(GroupConfig {
        max_batch_bytes: 5_000,
        max_groups: 1,
        ..GroupConfig::default()
    });
    let mut request = commit("", -1, &[("t", 0, 7), ("u", 0, 7)]);
    request.topics[0].partitions[0].committed_metadata = Some(text(&"m".repeat(4097)));
    assert_eq!(rig.commit(8, &request), [OffsetMetadataTooLarge, NoError]);
    let mut many = commit("", -1, &[("t", 0, 7)]);
    many.topics[0].partitions = vec![many.topics[0].partitions[0].clone(); 100];
    assert_eq!(rig.commit(8, &many), [InvalidCommitOffsetSize; 100]);
    assert_eq!(rig.committed(), [("u".to_owned(), 0, 7)]);
    let second = commit("", -1, &[("t", 0, 7)]).with_group_id(GroupId(text("h")));
    assert_eq!(rig.commit(8, &second), [GroupMaxSizeReached]);
    let long = second.with_group_id(GroupId(text(&"g".repeat(40_000))));
    assert_eq!(rig.commit(8, &long), [InvalidGroupId]);
    // No setting makes a note that cannot be written.
    rig.shard.config.offset_metadata_max_bytes = usize::MAX;
    rig.shard.config.max_batch_bytes = usize::MAX;
    request.topics[0].partitions[0].committed_metadata = Some(text(&"m".repeat(32_768)));
    assert_eq!(rig.commit(8, &request), [OffsetMetadataTooLarge, NoError]);
}

#[test]
fn what_was_committed_is_fetched_in_every_shape() {
    let mut rig = Rig::new();
    rig.commit(8, &commit("", -1, &[("t", 1, 7), ("u", 0, 8)]));
    rig.fail_over();
    let all = fetch_all(&mut rig, 7);
    let flat: Vec<_> = all
        .topics
        .iter()
        .map(|topic| (&**topic.name, topic.partitions.clone()))
        .collect();
    assert_eq!(
        flat.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        ["t", "u"]
    );
    let seven = &flat[0].1[0];
    assert_eq!(
        (
            seven.partition_index,
            seven.committed_offset,
            seven.committed_leader_epoch
        ),
        (1, 7, 4)
    );
    assert_eq!((seven.metadata.as_deref(), seven.error_code), (Some("note"), 0));
    let groups = fetch_all(&mut rig, 8).groups;
    assert_eq!(
        (
            &*groups[0].group_id,
            groups[0].topics[1].partitions[0].committed_offset
        ),
        (&text("g"), 8)
    );
}

#[test]
fn what_was_not_committed_is_fetched_as_minus_one() {
    let mut rig = Rig::new();
    rig.commit(8, &commit("", -1, &[("t", 1, 7)]));
    let named = OffsetFetchRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![
            OffsetFetchRequestTopic::default()
                .with_name(TopicName(text("t")))
                .with_partition_indexes(vec![0, 1]),
        ]));
    let ticket = rig.call(1, |shard, cx| vec![shard.offset_fetch(cx, &named)]);
    let Reply::OffsetFetch(response) = rig.take(ticket) else {
        panic!()
    };
    let [none, seven] = &response.topics[0].partitions[..] else {
        panic!("{response:?}")
    };
    assert_eq!(
        (
            none.committed_offset,
            none.committed_leader_epoch,
            none.error_code
        ),
        (-1, -1, 0)
    );
    assert_eq!((none.metadata.as_deref(), seven.committed_offset), (Some(""), 7));

    let topics = || {
        let topic = OffsetFetchRequestTopics::default().with_name(TopicName(text("t")));
        Some(vec![topic.with_partition_indexes(vec![1])])
    };
    let group = |id| {
        OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(id)))
            .with_topics(topics())
    };
    let several = OffsetFetchRequest::default().with_groups(vec![group("missing"), group("g")]);
    let ticket = rig.call(9, |shard, cx| vec![shard.offset_fetch(cx, &several)]);
    let Reply::OffsetFetch(response) = rig.take(ticket) else {
        panic!()
    };
    let offsets = response
        .groups
        .iter()
        .map(|group| group.topics[0].partitions[0].committed_offset);
    assert_eq!(offsets.collect::<Vec<_>>(), [-1, 7]);
    assert!(response.groups.iter().all(|group| group.error_code == 0));
}

fn delete(rig: &mut Rig, offsets: &[(&str, i32)]) -> (ErrorCode, Vec<ErrorCode>) {
    let topics = offsets.iter().map(|(topic, partition)| {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(*partition);
        OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition])
    });
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(topics.collect());
    let ticket = rig.call(0, |shard, cx| vec![shard.offset_delete(cx, &request)]);
    let Reply::OffsetDelete(response) = rig.take(ticket) else {
        panic!()
    };
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    (
        code(response.error_code),
        partitions.map(|partition| code(partition.error_code)).collect(),
    )
}

#[test]
fn offsets_are_deleted_unless_somebody_reads_the_topic() {
    use ErrorCode::*;
    let mut rig = Rig::new();
    assert_eq!(delete(&mut rig, &[("t", 0)]), (GroupIdNotFound, vec![]));
    let ids = rig.stable(1);
    rig.commit(8, &commit(&ids[0], 1, &[("t", 0, 7), ("u", 0, 8)]));
    let asked = [("t", 0), ("u", 0), ("nope", 0)];
    assert_eq!(
        delete(&mut rig, &asked),
        (
            NoError,
            vec![GroupSubscribedToTopic, NoError, UnknownTopicOrPartition]
        )
    );
    assert_eq!(rig.committed(), [("t".to_owned(), 0, 7)]);
    rig.leave(&[(&ids[0], None)]);
    assert_eq!(
        delete(&mut rig, &[("t", 0), ("t", 1)]),
        (NoError, vec![NoError, NoError])
    );
    assert!(rig.committed().is_empty());
    let tombstone = OffsetRecord {
        group: text("g"),
        topic: text("t"),
        partition: 0,
        value: None,
    };
    assert_eq!(rig.log.last(), Some(&Record::Offset(tombstone)));
}

#[test]
fn offsets_of_groups_that_are_not_of_consumers_are_deleted_without_members_only() {
    let mut rig = Rig::new();
    let connect = join("").with_protocol_type(text("connect"));
    let ticket = rig.join(&connect);
    rig.advance(3_000);
    rig.joined(ticket);
    assert_eq!(delete(&mut rig, &[("t", 0)]), (ErrorCode::NonEmptyGroup, vec![]));
    rig.advance(60_000);
    assert_eq!(
        (rig.state(), delete(&mut rig, &[("t", 0)])),
        ("Empty", (ErrorCode::NoError, vec![ErrorCode::NoError]))
    );
}

#[test]
fn offsets_of_a_simple_group_expire_one_by_one_and_then_the_group() {
    let mut rig = Rig::new();
    rig.commit(8, &commit("", -1, &[("t", 0, 7)]));
    rig.advance(DAY_MS);
    rig.commit(8, &commit("", -1, &[("t", 1, 8)]));
    rig.advance(6 * DAY_MS + 600_000 - 1);
    rig.advance(600_001);
    assert_eq!(rig.committed(), [("t".to_owned(), 1, 8)]);
    assert_eq!(rig.state(), "Empty");
    rig.advance(DAY_MS);
    assert_eq!((rig.committed(), rig.state()), (vec![], "Dead"));
    let tombstone = ClassicRecord {
        group: text("g"),
        value: None,
    };
    assert_eq!(rig.log.last(), Some(&Record::Classic(tombstone)));
    rig.fail_over();
    assert_eq!(rig.state(), "Dead");
}

#[test]
fn offsets_of_an_abandoned_group_expire_when_it_has_been_empty_for_long() {
    let mut rig = Rig::new();
    let ids = rig.stable_with(&[join("").with_session_timeout_ms(1_800_000)]);
    rig.commit(8, &commit(&ids[0], 1, &[("t", 0, 7), ("u", 0, 8)]));
    for _ in 0..=7 * 72 {
        rig.advance(1_200_000);
        assert_eq!(rig.heartbeat(&ids[0], 1), ErrorCode::NoError);
    }
    // The group reads `t`, but not `u`.
    assert_eq!(rig.committed(), [("t".to_owned(), 0, 7)]);
    rig.leave(&[(&ids[0], None)]);
    rig.advance(7 * DAY_MS - 1);
    assert_eq!((rig.committed().len(), rig.state()), (1, "Empty"));
    rig.advance(600_001);
    assert_eq!((rig.committed(), rig.state()), (vec![], "Dead"));
}

#[test]
fn a_retention_that_the_client_asks_for_comes_first() {
    let mut rig = Rig::new();
    let request = commit("", -1, &[("t", 0, 7)]).with_retention_time_ms(1_000);
    rig.commit(2, &request);
    rig.commit(8, &commit("", -1, &[("t", 1, 8)]));
    rig.fail_over();
    rig.advance(600_000);
    assert_eq!(rig.committed(), [("t".to_owned(), 1, 8)]);
    let forever = commit("", -1, &[("t", 0, 7)]).with_retention_time_ms(i64::MAX);
    rig.commit(2, &forever);
    rig.advance(8 * DAY_MS);
    assert_eq!(rig.committed(), [("t".to_owned(), 0, 7)]);
}

#[test]
fn many_offsets_expire_in_several_batches() {
    let mut rig = Rig::with(GroupConfig {
        max_batch_bytes: 1_000,
        ..GroupConfig::default()
    });
    rig.topics.0.insert("t".to_owned(), 1_000);
    for partition in 0..200 {
        let group = GroupId(text(if partition % 2 == 0 { "g" } else { "h" }));
        rig.commit(8, &commit("", -1, &[("t", partition, 1)]).with_group_id(group));
    }
    rig.advance(8 * DAY_MS);
    assert!(rig.shard.groups.is_empty() && rig.committed().is_empty());
    assert_eq!(rig.log.len(), 200 + 200 + 2);
}

#[test]
fn offsets_of_deleted_topics_go_with_them() {
    let mut rig = Rig::with(GroupConfig {
        max_batch_bytes: 200,
        ..GroupConfig::default()
    });
    rig.topics.0.insert("t".to_owned(), 20);
    for partition in 0..20 {
        rig.commit(8, &commit("", -1, &[("t", partition, 1)]));
    }
    rig.commit(8, &commit("", -1, &[("u", 0, 1)]));
    let outcomes = rig.shard.topics_deleted(&["t", "nope"]);
    assert!(outcomes.len() > 3);
    outcomes.into_iter().for_each(|outcome| rig.absorb(outcome));
    let left = vec![("u".to_owned(), 0, 1)];
    assert_eq!(rig.committed(), left);
    rig.fail_over();
    assert_eq!(rig.committed(), left);
    assert_eq!(rig.shard.topics_deleted(&["t"]), []);
    // Another was deleted while nobody served the shard.
    assert_eq!(rig.shard.topics_missing(&rig.topics), []);
    rig.topics.0.remove("u");
    let outcomes = rig.shard.topics_missing(&rig.topics);
    outcomes.into_iter().for_each(|outcome| rig.absorb(outcome));
    assert_eq!(rig.committed(), []);
}

/// The shard's log says which topic an offset is of, so that a new leader can tell it from a later one of its name.
#[test]
fn offsets_of_a_topic_made_again_while_nobody_served_the_shard_go_too() {
    let mut rig = Rig::new();
    let expiring = commit("", -1, &[("t", 1, 5)]).with_retention_time_ms(1_000_000);
    rig.commit(8, &commit("", -1, &[("t", 0, 4), ("u", 0, 6)]));
    rig.commit(4, &expiring);
    rig.fail_over();
    assert_eq!(rig.shard.topics_missing(&rig.topics), []);
    // The topics of these tests have their number of partitions for an id.
    rig.topics.0.insert("t".to_owned(), 3);
    let outcomes = rig.shard.topics_missing(&rig.topics);
    outcomes.into_iter().for_each(|outcome| rig.absorb(outcome));
    let left = vec![("t".to_owned(), 1, 5), ("u".to_owned(), 0, 6)];
    assert_eq!(
        rig.committed(),
        left,
        "what expires does not say which topic it is of"
    );
    rig.commit(8, &commit("", -1, &[("t", 0, 9)]));
    rig.fail_over();
    assert_eq!(rig.shard.topics_missing(&rig.topics), []);
    assert_eq!(rig.committed().len(), 3);
}
