//! Static members (KIP-345).

use super::*;

fn static_join(member_id: &str) -> JoinGroupRequest {
    with_instance(join(member_id), "one")
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_former_self_is_fenced() {
    let mut rig = Rig::new();
    let ids = rig.stable_with(&[join(""), static_join("")]);
    assert!(ids[1].starts_with("one-"));
    let records = rig.log.len();
    let changed = with_instance(with_protocols(join(""), &["range", "other"]), "one");
    let ticket = rig.join(&changed);
    let response = rig.joined(ticket);
    let new_id = response.member_id.to_string();
    assert_ne!(new_id, ids[1]);
    assert_eq!(
        (response.generation_id, response.leader.as_str(), rig.state()),
        (1, ids[0].as_str(), "Stable")
    );
    assert_eq!(rig.log.len(), records + 1);
    let mut written: Vec<_> = rig
        .last_group()
        .unwrap()
        .members
        .into_iter()
        .map(|member| member.member_id)
        .collect();
    written.sort();
    assert_eq!(written, [text(&ids[0]), text(&new_id)]);
    let ticket = rig.sync(&sync(&new_id, 1, &[]).with_group_instance_id(Some(text("one"))));
    assert_eq!(
        rig.synced(ticket),
        (ErrorCode::NoError, Bytes::from_static(b"work"))
    );

    // Everything that names the instance with the old id is fenced; without the instance the id is just unknown.
    let instance = || Some(text("one"));
    let ticket = rig.join(&static_join(&ids[1]));
    assert_eq!(code(rig.joined(ticket).error_code), ErrorCode::FencedInstanceId);
    let ticket = rig.sync(&sync(&ids[1], 1, &[]).with_group_instance_id(instance()));
    assert_eq!(rig.synced(ticket).0, ErrorCode::FencedInstanceId);
    let old = commit(&ids[1], 1, &[("t", 0, 1)]).with_group_instance_id(instance());
    assert_eq!(rig.commit(8, &old), [ErrorCode::FencedInstanceId]);
    assert_eq!(
        rig.leave(&[(&ids[1], Some("one"))]),
        [ErrorCode::FencedInstanceId]
    );
    let beat = HeartbeatRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(text(&ids[1]))
        .with_generation_id(1)
        .with_group_instance_id(instance());
    let ticket = rig.call(4, |shard, cx| vec![shard.heartbeat(cx, &beat)]);
    assert_eq!(
        rig.take(ticket),
        crate::group::classic::replies::heartbeat(ErrorCode::FencedInstanceId)
    );
    assert_eq!(rig.heartbeat(&ids[1], 1), ErrorCode::UnknownMemberId);
    let stranger = with_instance(join(&ids[0]), "two");
    let ticket = rig.join(&stranger);
    assert_eq!(code(rig.joined(ticket).error_code), ErrorCode::UnknownMemberId);
}

#[test]
fn a_static_leader_that_comes_back_is_told_not_to_assign() {
    let mut rig = Rig::new();
    let ids = rig.stable_with(&[static_join(""), join("")]);
    let ticket = rig.join_at(9, &static_join(""));
    let response = rig.joined(ticket);
    assert!(response.skip_assignment);
    assert_eq!(
        (&response.leader, response.members.len()),
        (&response.member_id, 2)
    );
    // Before version 9 it must not believe that it leads (KIP-814).
    let ticket = rig.join_at(8, &static_join(""));
    let older = rig.joined(ticket);
    assert_eq!((&older.leader, older.members.len()), (&response.member_id, 0));
    assert_ne!(older.leader, older.member_id);
    assert_eq!(rig.last_group().unwrap().leader, Some(older.member_id));
    assert_eq!((rig.state(), ids.len()), ("Stable", 2));
}

#[test]
fn a_static_member_whose_return_changes_the_protocol_causes_a_rebalance() {
    let mut rig = Rig::new();
    let both = ["range", "other"];
    let requests = [
        with_instance(with_protocols(join(""), &both), "one"),
        with_protocols(join(""), &both),
    ];
    rig.stable_with(&requests);
    let ticket = rig.join(&with_instance(with_protocols(join(""), &["other"]), "one"));
    assert!(rig.waits(ticket));
    assert_eq!(rig.state(), "PreparingRebalance");
}

#[test]
fn a_static_member_that_comes_back_during_a_rebalance_takes_the_place_of_its_former_self() {
    let mut rig = Rig::new();
    let ids = rig.stable_with(&[static_join(""), join("")]);
    let former = rig.join(&static_join(&ids[0]));
    let new = rig.join(&static_join(""));
    let fenced = rig.joined(former);
    assert_eq!(
        (code(fenced.error_code), &*fenced.member_id),
        (ErrorCode::FencedInstanceId, ids[0].as_str())
    );
    let other = rig.join(&join(&ids[1]));
    let response = rig.joined(new);
    assert_eq!((response.generation_id, response.members.len()), (2, 2));
    assert_eq!(rig.joined(other).leader, response.member_id);

    // In the second phase the leader may have assigned to the old id already.
    let former = rig.sync(&sync(&ids[1], 2, &[]));
    let again = rig.join(&static_join(""));
    assert!(rig.waits(again));
    assert_eq!(rig.synced(former).0, ErrorCode::RebalanceInProgress);
    assert_eq!(rig.state(), "PreparingRebalance");
}

#[test]
fn a_static_member_that_waits_for_its_assignment_is_fenced_there() {
    let mut rig = Rig::new();
    let ids = rig.stable_with(&[join(""), static_join("")]);
    let tickets = [join(&ids[0]), static_join(&ids[1])].map(|request| rig.join(&request));
    let _ = tickets.map(|ticket| rig.joined(ticket));
    let waiting = rig.sync(&sync(&ids[1], 2, &[]));
    rig.join(&static_join(""));
    assert_eq!(rig.synced(waiting).0, ErrorCode::FencedInstanceId);
}

#[test]
fn static_members_outlast_a_rebalance_that_they_miss_until_their_session_ends() {
    let mut rig = Rig::new();
    let request = static_join("").with_session_timeout_ms(200_000);
    let ids = rig.stable_with(&[join(""), request]);
    let leader = rig.join(&join(&ids[0]));
    rig.advance(59_999);
    assert!(rig.waits(leader));
    rig.advance(1);
    assert_eq!(rig.joined(leader).members.len(), 2);
    assert_eq!(rig.heartbeat(&ids[1], 2), ErrorCode::NoError);
}

#[test]
fn a_rebalance_to_which_only_static_members_are_left_and_nobody_comes_ends_with_their_sessions() {
    let mut rig = Rig::new();
    let request = static_join("")
        .with_session_timeout_ms(100_000)
        .with_rebalance_timeout_ms(0);
    let ids = rig.stable_with(&[join(""), request]);
    rig.leave(&[(&ids[0], None)]);
    rig.advance(99_000);
    assert_eq!(rig.state(), "PreparingRebalance");
    rig.advance(1_000);
    assert_eq!(rig.state(), "Empty");
}

#[test]
fn tools_remove_static_members_by_instance() {
    let mut rig = Rig::new();
    let ids = rig.stable_with(&[join(""), static_join("")]);
    assert_eq!(rig.leave(&[("", Some("one"))]), [ErrorCode::NoError]);
    assert_eq!(rig.heartbeat(&ids[1], 1), ErrorCode::UnknownMemberId);
    assert_eq!(rig.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_new_leader_of_the_shard_knows_instances() {
    let mut rig = Rig::new();
    let ids = rig.stable_with(&[join(""), static_join("")]);
    rig.fail_over();
    let ticket = rig.join(&static_join(""));
    assert_eq!(rig.joined(ticket).generation_id, 1);
    let ticket = rig.join(&static_join(&ids[1]));
    assert_eq!(code(rig.joined(ticket).error_code), ErrorCode::FencedInstanceId);
}
