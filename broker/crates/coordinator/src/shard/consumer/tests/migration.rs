//! Groups that change their kind.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use takhin_protocol::messages::leave_group_request::MemberIdentity;
use takhin_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use takhin_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};

use super::bench::{Bench, GROUP, has, join, stay, text};
use super::tools::{commit, fetch};
use crate::config::GroupConfig;
use crate::outcome::Reply;

/// Rebalances of empty groups do not wait.
fn bench(topics: &[(&str, i32)]) -> Bench {
    let config = GroupConfig {
        initial_rebalance_delay: Duration::ZERO,
        ..GroupConfig::default()
    };
    Bench::with(config, topics)
}

/// Partitions by topic name.
type Named<'a> = &'a [(&'a str, &'a [i32])];

fn put_partitions(out: &mut BytesMut, owned: Named<'_>) {
    out.put_i32(i32::try_from(owned.len()).unwrap());
    for (topic, partitions) in owned {
        put_text(out, topic);
        out.put_i32(i32::try_from(partitions.len()).unwrap());
        partitions.iter().for_each(|partition| out.put_i32(*partition));
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).unwrap());
    out.put_slice(text.as_bytes());
}

/// A subscription of version 1.
fn subscription(topics: &[&str], owned: Named<'_>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(1);
    out.put_i32(i32::try_from(topics.len()).unwrap());
    topics.iter().for_each(|topic| put_text(&mut out, topic));
    out.put_i32(-1);
    put_partitions(&mut out, owned);
    out.freeze()
}

/// An assignment of version 1.
fn assignment(owned: Named<'_>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(1);
    put_partitions(&mut out, owned);
    out.put_i32(-1);
    out.freeze()
}

fn classic_join(member: &str, owned: Named<'_>) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(subscription(&["t"], owned));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocols(vec![protocol])
}

/// Version 3 needs no member id first.
fn joined(bench: &mut Bench, request: &JoinGroupRequest) -> JoinGroupResponse {
    let mut replies = bench.call(3, |shard, cx| shard.join_group(cx, request));
    replies.extend(bench.advance(Duration::ZERO));
    match replies.pop() {
        Some((_, Reply::JoinGroup(response))) => response,
        other => panic!("{other:?}"),
    }
}

fn synced(
    bench: &mut Bench,
    member: &str,
    generation: i32,
    gives: &[(&str, Named<'_>)],
) -> (ErrorCode, Bytes) {
    let gives = gives.iter().map(|(member, owned)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member))
            .with_assignment(assignment(owned))
    });
    let request = SyncGroupRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_generation_id(generation)
        .with_assignments(gives.collect());
    match bench.ask(3, |shard, cx| shard.sync_group(cx, &request)) {
        Reply::SyncGroup(response) => (
            ErrorCode::from_code(response.error_code).unwrap(),
            response.assignment,
        ),
        other => panic!("{other:?}"),
    }
}

fn beat(bench: &mut Bench, member: &str, generation: i32) -> ErrorCode {
    let request = HeartbeatRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_generation_id(generation);
    match bench.ask(3, |shard, cx| shard.heartbeat(cx, &request)) {
        Reply::Heartbeat(response) => ErrorCode::from_code(response.error_code).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn leave(bench: &mut Bench, member: &str) -> ErrorCode {
    let request = LeaveGroupRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_members(vec![MemberIdentity::default().with_member_id(text(member))]);
    match bench.ask(3, |shard, cx| shard.leave_group(cx, &request)) {
        Reply::LeaveGroup(response) => ErrorCode::from_code(response.members[0].error_code).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A classic group whose only member has both partitions of `t`; its id and generation.
fn classic_of_one(bench: &mut Bench) -> (String, i32) {
    let response = joined(bench, &classic_join("", &[]));
    let (id, generation) = (response.member_id.to_string(), response.generation_id);
    let (code, _) = synced(bench, &id, generation, &[(id.as_str(), &[("t", &[0, 1])])]);
    assert_eq!(code, ErrorCode::NoError);
    assert_eq!((bench.kind(), bench.state()), ("Classic", "Stable"));
    (id, generation)
}

#[test]
fn an_empty_classic_group_becomes_a_consumer_group_and_keeps_its_offsets() {
    let mut bench = bench(&[("t", 2)]);
    commit(&mut bench, 8, "", -1);
    let (id, _) = classic_of_one(&mut bench);
    assert_eq!(leave(&mut bench, &id), ErrorCode::NoError);
    let first = bench.log.len();
    let told = bench.beat(&join("a", &["t"]));
    assert_eq!(bench.told(&told), (1, has(&[("t", &[0, 1])])));
    assert_eq!(bench.kinds(first)[..3], ["-Classic", "Member", "Group"]);
    bench.fail_over();
    assert_eq!(fetch(&mut bench, None, -1), (ErrorCode::NoError, Some(7)));
    assert_eq!(bench.kind(), "Consumer");
}

#[test]
fn an_empty_consumer_group_becomes_a_classic_group_and_keeps_its_offsets() {
    let mut bench = bench(&[("t", 2)]);
    bench.beat(&join("a", &["t"]));
    commit(&mut bench, 9, "a", 1);
    bench.beat(&stay("a", -1));
    // A refused join changes nothing.
    let unknown = joined(&mut bench, &classic_join("x", &[]));
    assert_eq!(unknown.error_code, ErrorCode::UnknownMemberId as i16);
    let none = joined(&mut bench, &classic_join("", &[]).with_protocols(Vec::new()));
    assert_eq!(none.error_code, ErrorCode::InconsistentGroupProtocol as i16);
    assert_eq!(bench.kind(), "Consumer");
    bench.fail_over();

    classic_of_one(&mut bench);
    bench.fail_over();
    assert_eq!((bench.kind(), bench.state()), ("Classic", "Stable"));
    assert_eq!(fetch(&mut bench, None, -1), (ErrorCode::NoError, Some(7)));
}

#[test]
fn a_classic_group_with_members_is_taken_over_online() {
    let mut bench = bench(&[("t", 2)]);
    let (id, generation) = classic_of_one(&mut bench);

    let told = bench.beat(&join("~new", &["t"]));
    assert_eq!(bench.told(&told), (generation + 1, has(&[])));
    assert_eq!((bench.kind(), bench.state()), ("Consumer", "Reconciling"));
    bench.fail_over();

    // The classic member is called to join, gives up partition 1, and the other gets it.
    assert_eq!(beat(&mut bench, &id, generation), ErrorCode::RebalanceInProgress);
    let response = joined(&mut bench, &classic_join(&id, &[("t", &[0, 1])]));
    assert_eq!((response.error_code, response.generation_id), (0, generation));
    assert_eq!(response.protocol_name, Some(text("range")));
    let told = synced(&mut bench, &id, generation, &[]);
    assert_eq!(told, (ErrorCode::NoError, assignment(&[("t", &[0])])));
    assert_eq!(beat(&mut bench, &id, generation), ErrorCode::RebalanceInProgress);
    let told = bench_beat(&mut bench, generation + 1);
    assert_eq!(bench.told(&told).1, None);

    let response = joined(&mut bench, &classic_join(&id, &[("t", &[0])]));
    assert_eq!(response.generation_id, generation + 1);
    let told = synced(&mut bench, &id, generation + 1, &[]);
    assert_eq!(told, (ErrorCode::NoError, assignment(&[("t", &[0])])));
    assert_eq!(beat(&mut bench, &id, generation + 1), ErrorCode::NoError);
    let told = bench_beat(&mut bench, generation + 1);
    assert_eq!(bench.told(&told).1, has(&[("t", &[1])]));
    assert_eq!(bench.state(), "Stable");

    assert_eq!(beat(&mut bench, &id, generation), ErrorCode::IllegalGeneration);
    assert_eq!(
        beat(&mut bench, "~new", generation + 1),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        synced(&mut bench, &id, generation, &[]).0,
        ErrorCode::IllegalGeneration
    );
    assert_eq!(commit(&mut bench, 8, &id, generation + 1), ErrorCode::NoError);
    assert_eq!(
        commit(&mut bench, 8, &id, generation),
        ErrorCode::IllegalGeneration
    );
    assert_eq!(leave(&mut bench, "~new"), ErrorCode::UnknownMemberId);
    bench.fail_over();

    // Its own session timeout holds for the classic member.
    bench.advance(Duration::from_secs(29));
    assert_eq!(bench.state(), "Stable");
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.state(), "Assigning");
}

fn bench_beat(bench: &mut Bench, epoch: i32) -> takhin_protocol::messages::ConsumerGroupHeartbeatResponse {
    bench.beat(&stay("~new", epoch))
}

#[test]
fn who_waits_in_a_classic_group_is_called_to_join_the_new_one() {
    let mut bench = bench(&[("t", 2)]);
    let (id, generation) = classic_of_one(&mut bench);
    // A second member waits for the first to join again.
    let waiting = classic_join("", &[]);
    assert_eq!(bench.call(3, |shard, cx| shard.join_group(cx, &waiting)), []);
    let request = join("~new", &["t"]);
    let replies = bench.call(1, |shard, cx| shard.consumer_group_heartbeat(cx, &request));
    let code = |reply: &Reply| match reply {
        Reply::JoinGroup(response) => response.error_code,
        Reply::ConsumerGroupHeartbeat(response) => response.error_code,
        other => panic!("{other:?}"),
    };
    let codes: Vec<i16> = replies.iter().map(|(_, reply)| code(reply)).collect();
    assert_eq!(codes, [ErrorCode::RebalanceInProgress as i16, 0]);
    assert_eq!(beat(&mut bench, &id, generation), ErrorCode::RebalanceInProgress);
    bench.fail_over();
}

#[test]
fn a_classic_member_joins_a_consumer_group_and_takes_it_back() {
    let mut bench = bench(&[("t", 2)]);
    bench.beat(&join("~new", &["t"]));
    let request = classic_join("", &[]);
    let reply = bench.ask(4, |shard, cx| shard.join_group(cx, &request));
    let Reply::JoinGroup(response) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(response.error_code, ErrorCode::MemberIdRequired as i16);
    let id = response.member_id.to_string();
    let response = joined(&mut bench, &classic_join(&id, &[]));
    assert_eq!((response.error_code, response.generation_id), (0, 2));
    assert_eq!(
        synced(&mut bench, &id, 2, &[]),
        (ErrorCode::NoError, assignment(&[]))
    );

    // Another protocol type does not get in, nor does one with no protocol in common.
    let connect = classic_join("", &[]).with_protocol_type(text("connect"));
    assert_eq!(
        joined(&mut bench, &connect).error_code,
        ErrorCode::InconsistentGroupProtocol as i16
    );
    let mut other = classic_join("", &[]);
    other.protocols[0].name = text("other");
    assert_eq!(
        joined(&mut bench, &other).error_code,
        ErrorCode::InconsistentGroupProtocol as i16
    );

    // The last member of the consumer protocol goes: the rest is a classic group that rebalances.
    commit(&mut bench, 8, &id, 2);
    let first = bench.log.len();
    bench.beat(&stay("~new", -1));
    assert_eq!((bench.kind(), bench.state()), ("Classic", "PreparingRebalance"));
    assert_eq!(bench.kinds(first).last().map(String::as_str), Some("Classic"));
    assert_eq!(beat(&mut bench, &id, 3), ErrorCode::RebalanceInProgress);
    let response = joined(&mut bench, &classic_join(&id, &[]));
    assert_eq!((response.error_code, response.generation_id), (0, 4));
    assert_eq!(response.leader, text(&id));
    bench.fail_over();
    assert_eq!((bench.kind(), bench.state()), ("Classic", "Stable"));
    assert_eq!(fetch(&mut bench, None, -1), (ErrorCode::NoError, Some(7)));
}

#[test]
fn the_last_consumer_member_may_be_fenced_too() {
    let mut bench = bench(&[("t", 2)]);
    bench.beat(&join("~new", &["t"]));
    let response = joined(&mut bench, &classic_join("", &[]));
    let id = response.member_id.to_string();
    synced(&mut bench, &id, 2, &[]);
    bench.advance(Duration::from_secs(29));
    assert_eq!(beat(&mut bench, &id, 2), ErrorCode::NoError);
    bench.advance(Duration::from_secs(16));
    assert_eq!((bench.kind(), bench.state()), ("Classic", "PreparingRebalance"));
    bench.fail_over();
}

#[test]
fn a_classic_member_that_does_not_sync_is_fenced() {
    let mut bench = bench(&[("t", 2)]);
    bench.beat(&join("~new", &["t"]));
    let id = joined(&mut bench, &classic_join("", &[])).member_id.to_string();
    for _ in 0..2 {
        bench.advance(Duration::from_secs(29));
        beat(&mut bench, &id, 2);
        bench.beat(&join("~new", &["t"]));
    }
    assert_ne!(beat(&mut bench, &id, 2), ErrorCode::UnknownMemberId);
    bench.advance(Duration::from_secs(2));
    assert_eq!(beat(&mut bench, &id, 2), ErrorCode::UnknownMemberId);
}

#[test]
fn a_classic_member_that_is_called_and_does_not_join_is_fenced() {
    let mut bench = bench(&[("t", 2)]);
    bench.beat(&join("~new", &["t"]));
    let id = joined(&mut bench, &classic_join("", &[])).member_id.to_string();
    synced(&mut bench, &id, 2, &[]);
    bench.topics.set("t", 3);
    for _ in 0..3 {
        bench.beat(&join("~new", &["t"]));
        // Only the first call counts.
        assert_eq!(beat(&mut bench, &id, 2), ErrorCode::RebalanceInProgress);
        bench.advance(Duration::from_secs(20));
    }
    assert_eq!(beat(&mut bench, &id, 2), ErrorCode::UnknownMemberId);
}

#[test]
fn a_group_of_another_protocol_is_left_alone() {
    let mut bench = bench(&[("t", 2)]);
    let connect = classic_join("", &[]).with_protocol_type(text("connect"));
    joined(&mut bench, &connect);
    assert_eq!(bench.refused(&join("a", &["t"])), ErrorCode::GroupIdNotFound);
    assert_eq!(bench.refused(&stay("a", 1)), ErrorCode::GroupIdNotFound);
    let mut malformed = classic_join("", &[]);
    malformed.group_id.0 = text("m");
    malformed.protocols[0].metadata = Bytes::from_static(b"\0");
    joined(&mut bench, &malformed);
    let mut request = join("a", &["t"]);
    request.group_id.0 = text("m");
    assert_eq!(bench.refused(&request), ErrorCode::GroupIdNotFound);
    assert_eq!(bench.kind(), "Classic");
}
