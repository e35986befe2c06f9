//! What tools and offsets see of consumer groups.

use std::time::Duration;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use takhin_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use takhin_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use takhin_protocol::messages::{
    ConsumerGroupDescribeResponse, GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, TopicName,
};

use super::bench::{Bench, GROUP, join, stay, text};
use crate::outcome::Reply;

fn described(bench: &mut Bench, group: &str) -> ConsumerGroupDescribeResponse {
    match bench.ask(1, |shard, cx| shard.consumer_group_describe(cx, group)) {
        Reply::ConsumerGroupDescribe(response) => response,
        other => panic!("{other:?}"),
    }
}

pub(super) fn commit(bench: &mut Bench, version: i16, member: &str, epoch: i32) -> ErrorCode {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text("t")))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(epoch)
        .with_retention_time_ms(-1)
        .with_topics(vec![topic]);
    match bench.ask(version, |shard, cx| shard.offset_commit(cx, &request)) {
        Reply::OffsetCommit(response) => {
            ErrorCode::from_code(response.topics[0].partitions[0].error_code).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// The code, and the committed offset if there is one.
pub(super) fn fetch(bench: &mut Bench, member: Option<&str>, epoch: i32) -> (ErrorCode, Option<i64>) {
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(member.map(text))
        .with_member_epoch(epoch)
        .with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    match bench.ask(9, |shard, cx| shard.offset_fetch(cx, &request)) {
        Reply::OffsetFetch(response) => {
            let group = &response.groups[0];
            let offset = group
                .topics
                .first()
                .map(|topic| topic.partitions[0].committed_offset);
            (ErrorCode::from_code(group.error_code).unwrap(), offset)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_is_described_with_its_members() {
    let mut bench = Bench::new(&[("t", 2), ("u", 1)]);
    bench.beat(&join("a", &["t", "u"]).with_rack_id(Some(text("r"))));
    bench.beat(
        &join("b", &["t"])
            .with_instance_id(Some(text("i")))
            .with_subscribed_topic_regex(Some(text("u"))),
    );
    bench.topics.delete("u");

    let response = described(&mut bench, GROUP);
    let group = &response.groups[0];
    assert_eq!((group.error_code, group.group_state.as_str()), (0, "Reconciling"));
    assert_eq!((group.group_epoch, group.assignment_epoch), (2, 2));
    assert_eq!(group.assignor_name.as_str(), "uniform");
    let [a, b] = group.members.as_slice() else {
        panic!("{group:?}");
    };
    assert_eq!((a.member_id.as_str(), a.member_epoch, a.member_type), ("a", 1, 1));
    assert_eq!(
        (a.client_id.as_str(), a.client_host.as_str()),
        ("client", "/10.0.0.1")
    );
    assert_eq!(a.rack_id, Some(text("r")));
    assert_eq!(
        (b.instance_id.clone(), b.subscribed_topic_regex.clone()),
        (Some(text("i")), Some(text("u")))
    );
    // Topic `u` is gone and has no name any more.
    let of = |assignment: &takhin_protocol::messages::consumer_group_describe_response::Assignment| {
        let topics = assignment.topic_partitions.iter();
        topics
            .map(|topic| (topic.topic_name.to_string(), topic.partitions.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&a.assignment), [("t".to_owned(), vec![0, 1])]);
    let targets = [of(&a.target_assignment), of(&b.target_assignment)].concat();
    assert_eq!(
        targets
            .iter()
            .map(|(_, partitions)| partitions.len())
            .sum::<usize>(),
        2
    );

    let missing = &described(&mut bench, "other").groups[0];
    assert_eq!(missing.error_code, ErrorCode::GroupIdNotFound as i16);
}

#[test]
fn the_apis_of_classic_groups_know_it_by_name_only() {
    let mut bench = Bench::new(&[("t", 1)]);
    bench.beat(&join("a", &["t"]));
    let list = |bench: &mut Bench, states: &[&str], types: &[&str]| {
        let request = ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|state| text(state)).collect())
            .with_types_filter(types.iter().map(|kind| text(kind)).collect());
        match bench.ask(5, |shard, cx| shard.list_groups(cx, &request)) {
            Reply::ListGroups(response) => response.groups,
            other => panic!("{other:?}"),
        }
    };
    let groups = list(&mut bench, &["stable"], &["consumer"]);
    assert_eq!(groups[0].group_type.as_str(), "Consumer");
    assert_eq!(groups[0].group_state.as_str(), "Stable");
    assert_eq!(groups[0].protocol_type.as_str(), "consumer");
    assert_eq!(list(&mut bench, &[], &["classic"]), []);
    assert_eq!(list(&mut bench, &["Assigning"], &[]), []);

    for (version, code) in [(5, 0), (6, ErrorCode::GroupIdNotFound as i16)] {
        let reply = bench.ask(version, |shard, cx| shard.describe_groups(cx, GROUP));
        let Reply::DescribeGroups(response) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(
            (
                response.groups[0].group_state.as_str(),
                response.groups[0].error_code
            ),
            ("Dead", code)
        );
    }
}

#[test]
fn commits_and_fetches_carry_the_member_epoch() {
    let mut bench = Bench::new(&[("t", 1)]);
    bench.beat(&join("a", &["t"]));
    assert_eq!(commit(&mut bench, 9, "a", 1), ErrorCode::NoError);
    assert_eq!(commit(&mut bench, 8, "a", 1), ErrorCode::UnsupportedVersion);
    assert_eq!(commit(&mut bench, 9, "a", 0), ErrorCode::StaleMemberEpoch);
    assert_eq!(commit(&mut bench, 9, "b", 1), ErrorCode::UnknownMemberId);
    assert_eq!(commit(&mut bench, 9, "", -1), ErrorCode::UnknownMemberId);
    assert_eq!(fetch(&mut bench, Some("a"), 1), (ErrorCode::NoError, Some(7)));
    assert_eq!(fetch(&mut bench, None, -1), (ErrorCode::NoError, Some(7)));
    assert_eq!(
        fetch(&mut bench, Some("a"), 2),
        (ErrorCode::StaleMemberEpoch, None)
    );
    assert_eq!(
        fetch(&mut bench, Some("b"), 1),
        (ErrorCode::UnknownMemberId, None)
    );
    bench.beat(&stay("a", -1));
    assert_eq!(commit(&mut bench, 8, "", -1), ErrorCode::NoError);
}

#[test]
fn only_what_nobody_reads_may_be_deleted() {
    let mut bench = Bench::new(&[("t", 1), ("u", 1)]);
    bench.beat(&join("a", &["t"]));
    commit(&mut bench, 9, "a", 1);
    let topics = ["t", "u"].map(|name| {
        OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(vec![OffsetDeleteRequestPartition::default()])
    });
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_topics(topics.to_vec());
    let reply = bench.ask(0, |shard, cx| shard.offset_delete(cx, &request));
    let Reply::OffsetDelete(response) = reply else {
        panic!("{reply:?}");
    };
    let codes: Vec<i16> = response
        .topics
        .iter()
        .map(|topic| topic.partitions[0].error_code)
        .collect();
    assert_eq!(codes, [ErrorCode::GroupSubscribedToTopic as i16, 0]);

    let delete = |bench: &mut Bench| {
        let reply = bench.ask(2, |shard, cx| shard.delete_groups(cx, GROUP).remove(0));
        let Reply::DeleteGroups(response) = reply else {
            panic!("{reply:?}");
        };
        ErrorCode::from_code(response.results[0].error_code).unwrap()
    };
    assert_eq!(delete(&mut bench), ErrorCode::NonEmptyGroup);
    bench.beat(&stay("a", -1));
    let first = bench.log.len();
    assert_eq!(delete(&mut bench), ErrorCode::NoError);
    assert_eq!(bench.kinds(first), ["Offset", "-TargetEpoch", "-Group"]);
    bench.fail_over();
    assert_eq!(bench.state(), "Dead");
}

#[test]
fn offsets_expire_when_nobody_reads_them_and_the_empty_group_with_them() {
    let mut bench = Bench::new(&[("t", 1), ("u", 1)]);
    let hour = Duration::from_secs(3600);
    bench.beat(&join("a", &["t"]));
    commit(&mut bench, 9, "a", 1);
    for _ in 0..8 * 24 * 90 {
        bench.advance(Duration::from_secs(40));
        bench.beat(&stay("a", 1));
    }
    assert_eq!(fetch(&mut bench, None, -1).1, Some(7));
    bench.beat(&stay("a", -1));
    bench.advance(hour);
    assert_eq!(bench.state(), "Dead");
    bench.fail_over();
}
