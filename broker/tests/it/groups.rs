//! Classic groups: members, offsets, tools; through restarts and power cuts.

use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use takhin_broker::Node;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::delete_topics_request::DeleteTopicState;
use takhin_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use takhin_protocol::messages::leave_group_request::MemberIdentity;
use takhin_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use takhin_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use takhin_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions;
use takhin_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use takhin_protocol::messages::{
    DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, StrBytes, SyncGroupRequest,
};
use takhin_runtime::sim::{CrashMode, Sim};
use uuid::Uuid;

use crate::support::{Broker, Client, code, config, text, topic};

const AT_ONCE: &str = "kafka.groups.initial_rebalance_delay=0s";

/// Asks until the coordinator is known. Returns its port.
pub(crate) async fn find(client: &mut Client, group: &str) -> i32 {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    loop {
        let found = client.call(4, &request).await.coordinators.remove(0);
        match code(found.error_code) {
            ErrorCode::NoError => return found.port,
            other => assert!(other.retriable(), "{other:?}"),
        }
    }
}

async fn join(client: &mut Client, group: &str, member: &str) -> JoinGroupResponse {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"subscription"));
    let request = JoinGroupRequest::default()
        .with_group_id(text(group).into())
        .with_member_id(text(member))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    client.call(9, &request).await
}

/// Joins as the only member and brings the assignment. Returns member id and generation.
async fn join_alone(client: &mut Client, group: &str) -> (StrBytes, i32) {
    let told = join(client, group, "").await;
    assert_eq!(code(told.error_code), ErrorCode::MemberIdRequired);
    let joined = join(client, group, &told.member_id).await;
    assert_eq!(code(joined.error_code), ErrorCode::NoError);
    assert_eq!((&joined.leader, joined.members.len()), (&told.member_id, 1));
    let mine = SyncGroupRequestAssignment::default()
        .with_member_id(told.member_id.clone())
        .with_assignment(Bytes::from_static(b"all of it"));
    let request = SyncGroupRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id(joined.generation_id)
        .with_member_id(told.member_id.clone())
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(vec![mine]);
    let synced = client.call(5, &request).await;
    assert_eq!(
        (synced.error_code, &synced.assignment[..]),
        (0, &b"all of it"[..])
    );
    (told.member_id, joined.generation_id)
}

async fn heartbeat(client: &mut Client, group: &str, member: &str, generation: i32) -> ErrorCode {
    let request = HeartbeatRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id(generation)
        .with_member_id(text(member));
    code(client.call(4, &request).await.error_code)
}

async fn commit(
    client: &mut Client,
    group: &str,
    member: (&str, i32),
    partition: i32,
    offset: i64,
) -> ErrorCode {
    let request = commit_request(group, member, partition, offset);
    code(client.call(8, &request).await.topics[0].partitions[0].error_code)
}

/// For version 8.
pub(crate) fn commit_request(
    group: &str,
    member: (&str, i32),
    partition: i32,
    offset: i64,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(3)
        .with_committed_metadata(Some(text("a note")));
    let committed = OffsetCommitRequestTopic::default()
        .with_name(topic("t"))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(text(group).into())
        .with_member_id(text(member.0))
        .with_generation_id_or_member_epoch(member.1)
        .with_topics(vec![committed])
}

/// The group's offset for partition 0 of `t`, once its coordinator has it.
async fn fetch(client: &mut Client, group: &str) -> OffsetFetchResponsePartitions {
    let request = fetch_request(group);
    loop {
        let mut answer = client.call(8, &request).await.groups.remove(0);
        match code(answer.error_code) {
            ErrorCode::NoError => return answer.topics.remove(0).partitions.remove(0),
            other => assert!(other.retriable(), "{other:?}"),
        }
    }
}

/// Asks for partition 0 of `t`, in version 8.
pub(crate) fn fetch_request(group: &str) -> OffsetFetchRequest {
    let topics = OffsetFetchRequestTopics::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![0]);
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(text(group).into())
        .with_topics(Some(vec![topics]));
    OffsetFetchRequest::default().with_groups(vec![asked])
}

async fn delete_topic(client: &mut Client, id: Uuid) {
    let topic = DeleteTopicState::default().with_topic_id(id);
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(20_000);
    assert_eq!(client.call(6, &request).await.responses[0].error_code, 0);
}

async fn state(client: &mut Client, group: &str) -> String {
    let request = DescribeGroupsRequest::default().with_groups(vec![text(group).into()]);
    client.call(5, &request).await.groups[0].group_state.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_lives_through_a_restart_and_dies_when_told() {
    let mut broker = Broker::with(&[AT_ONCE]).await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    let port = find(&mut client, "g").await;
    assert!(broker.address().ends_with(&format!(":{port}")));
    let (member, generation) = join_alone(&mut client, "g").await;
    assert_eq!(
        heartbeat(&mut client, "g", &member, generation).await,
        ErrorCode::NoError
    );
    let committed = commit(&mut client, "g", (&member, generation), 0, 42).await;
    assert_eq!(committed, ErrorCode::NoError);

    broker.restart().await;
    let mut client = broker.client().await;
    let fetched = fetch(&mut client, "g").await;
    assert_eq!(
        (fetched.committed_offset, fetched.committed_leader_epoch),
        (42, 3)
    );
    assert_eq!(fetched.metadata.as_deref(), Some("a note"));
    assert_eq!(state(&mut client, "g").await, "Stable");
    assert_eq!(
        heartbeat(&mut client, "g", &member, generation).await,
        ErrorCode::NoError
    );

    let listed = loop {
        let listed = client.call(4, &ListGroupsRequest::default()).await;
        // Other shards than this group's may still be loading.
        if code(listed.error_code) != ErrorCode::CoordinatorLoadInProgress {
            break listed;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((listed.error_code, listed.groups.len()), (0, 1));
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![text("g").into()]);
    let refused = client.call(2, &delete).await;
    assert_eq!(code(refused.results[0].error_code), ErrorCode::NonEmptyGroup);
    let leaving = MemberIdentity::default().with_member_id(member.clone());
    let leave = LeaveGroupRequest::default()
        .with_group_id(text("g").into())
        .with_members(vec![leaving]);
    assert_eq!(client.call(5, &leave).await.members[0].error_code, 0);
    assert_eq!(state(&mut client, "g").await, "Empty");
    assert_eq!(client.call(2, &delete).await.results[0].error_code, 0);
    assert_eq!(fetch(&mut client, "g").await.committed_offset, -1);
    assert_eq!(client.call(4, &ListGroupsRequest::default()).await.groups, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_members_groups_and_topics_change_nothing() {
    let broker = Broker::with(&[AT_ONCE]).await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    // Before anybody asked for a coordinator there is none.
    assert_eq!(
        heartbeat(&mut client, "g", "m", 1).await,
        ErrorCode::NotCoordinator
    );
    find(&mut client, "g").await;
    let (member, generation) = join_alone(&mut client, "g").await;
    let me = (&member[..], generation);
    assert_eq!(
        heartbeat(&mut client, "none", &member, 1).await,
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        heartbeat(&mut client, "g", "stranger", generation).await,
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        heartbeat(&mut client, "g", &member, generation + 1).await,
        ErrorCode::IllegalGeneration
    );
    assert_eq!(
        commit(&mut client, "g", (&member, generation + 1), 0, 7).await,
        ErrorCode::IllegalGeneration
    );
    assert_eq!(
        commit(&mut client, "g", ("", -1), 0, 7).await,
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        commit(&mut client, "g", me, 9, 7).await,
        ErrorCode::UnknownTopicOrPartition
    );
    assert_eq!(fetch(&mut client, "g").await.committed_offset, -1);
    assert_eq!(
        join(&mut client, "", "").await.error_code,
        ErrorCode::InvalidGroupId as i16
    );
    assert_eq!(state(&mut client, "g").await, "Stable");
}

/// Offsets of a deleted topic go with it; a topic of the same name begins without them.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_takes_its_offsets_along() {
    let broker = Broker::with(&[AT_ONCE]).await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    find(&mut client, "g").await;
    assert_eq!(commit(&mut client, "g", ("", -1), 0, 7).await, ErrorCode::NoError);
    assert_eq!(fetch(&mut client, "g").await.committed_offset, 7);
    delete_topic(&mut client, id).await;
    client.create("t", 1, &[]).await;
    while fetch(&mut client, "g").await.committed_offset != -1 {}
}

/// Acknowledged offsets survive a power cut at any moment; never is one there that was not sent.
#[test]
fn acknowledged_offsets_survive_power_cuts() {
    for seed in 1..=4u64 {
        let mut sim = Sim::new(seed);
        // Last offset sent, last offset acknowledged.
        let seen = Arc::new(Mutex::new((-1i64, -1i64)));
        for life in 0..4u64 {
            let seen = Arc::clone(&seen);
            sim.run(move |env| async move {
                let lifetime = Duration::from_millis(300 + (seed * 37 + life * 101) % 400);
                let until = env.clock.instant() + lifetime;
                // Cut off in the middle of whatever it does.
                let _ = tokio::time::timeout_at(until, commit_upwards(env, seen)).await;
            });
            sim.crash(CrashMode::Power);
        }
        assert!(
            seen.lock().unwrap().1 > 0,
            "seed {seed}: nothing was ever committed"
        );
    }
}

async fn commit_upwards(env: takhin_runtime::Env, seen: Arc<Mutex<(i64, i64)>>) {
    let settings = ["kafka.groups.offsets_topic_partitions=2"];
    let node = Node::start(env.clone(), config("/data", &settings))
        .await
        .unwrap();
    let mut client = Client::connect(&env, &node.addresses()[0].1.to_string()).await;
    let (mut sent, acknowledged) = *seen.lock().unwrap();
    if sent == -1 {
        client.create("t", 1, &[]).await;
    }
    find(&mut client, "g").await;
    let found = fetch(&mut client, "g").await.committed_offset;
    assert!(
        (acknowledged..=sent).contains(&found),
        "{acknowledged} <= {found} <= {sent}"
    );
    loop {
        sent += 1;
        seen.lock().unwrap().0 = sent;
        if commit(&mut client, "g", ("", -1), 0, sent).await == ErrorCode::NoError {
            seen.lock().unwrap().1 = sent;
        }
    }
}

/// A shard is served although whoever keeps the shards sees a new topic before its partitions are open.
#[test]
fn groups_find_their_shard_in_a_topic_that_was_just_made() {
    let answered = Sim::new(1).run(|env| async move {
        let node = Node::start(env.clone(), config("/data", &[])).await.unwrap();
        let mut client = Client::connect(&env, &node.addresses()[0].1.to_string()).await;
        // Files of a deleted topic keep whoever opens partitions busy: it looks out for the next change last of all.
        let id = client.create("t", 1, &[]).await;
        delete_topic(&mut client, id).await;
        find(&mut client, "g").await;
        // Virtual time, in which nothing else happens to the metadata.
        let fetched = fetch(&mut client, "g");
        env.clock.timeout(Duration::from_secs(60), fetched).await.is_ok()
    });
    assert!(answered, "NOT_COORDINATOR for a minute");
}
