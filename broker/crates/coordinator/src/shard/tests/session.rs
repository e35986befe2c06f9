use super::*;

#[test]
fn heartbeats_keep_a_member_and_say_what_it_is_to_do() {
    let mut rig = Rig::new();
    assert_eq!(rig.heartbeat("who", 1), ErrorCode::UnknownMemberId);
    let ids = rig.stable(2);
    assert_eq!(rig.heartbeat("who", 1), ErrorCode::UnknownMemberId);
    assert_eq!(rig.heartbeat(&ids[0], 2), ErrorCode::IllegalGeneration);
    for _ in 0..4 {
        rig.advance(9_999);
        assert_eq!(rig.heartbeat(&ids[0], 1), ErrorCode::NoError);
        assert_eq!(rig.heartbeat(&ids[1], 1), ErrorCode::NoError);
    }
    let tickets = [&ids[0], &ids[1]].map(|id| rig.join(&join(id)));
    let _ = tickets.map(|ticket| rig.joined(ticket));
    assert_eq!(rig.state(), "CompletingRebalance");
    assert_eq!(rig.heartbeat(&ids[0], 2), ErrorCode::NoError);
}

#[test]
fn a_silent_member_is_removed_and_an_abandoned_group_is_written_down_as_empty() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    rig.advance(9_999);
    assert_eq!(rig.heartbeat(&ids[0], 1), ErrorCode::NoError);
    rig.advance(1);
    assert_eq!(rig.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
    assert_eq!(rig.heartbeat(&ids[1], 1), ErrorCode::UnknownMemberId);
    rig.advance(10_000);
    let expected = GroupMetadata {
        protocol_type: text("consumer"),
        generation: 2,
        current_state_timestamp: rig.now.wall_ms,
        ..GroupMetadata::default()
    };
    assert_eq!((rig.state(), rig.last_group()), ("Empty", Some(expected)));
}

#[test]
fn a_member_that_waits_in_the_barrier_is_alive() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    let waiting = rig.join(&join(&ids[0]));
    for _ in 0..5 {
        rig.advance(9_000);
        assert_eq!(rig.heartbeat(&ids[1], 1), ErrorCode::RebalanceInProgress);
    }
    let other = rig.join(&join(&ids[1]));
    assert_eq!(
        [waiting, other].map(|ticket| rig.joined(ticket).generation_id),
        [2, 2]
    );
    let waiting = rig.sync(&sync(&ids[1], 2, &[]));
    for _ in 0..5 {
        rig.advance(9_000);
        assert_eq!(rig.heartbeat(&ids[0], 2), ErrorCode::NoError);
    }
    rig.sync(&sync(&ids[0], 2, &[]));
    assert_eq!(rig.synced(waiting).0, ErrorCode::NoError);
    rig.advance(9_999);
    assert_eq!(
        rig.heartbeat(&ids[1], 2),
        ErrorCode::NoError,
        "its session began with the answer"
    );
}

#[test]
fn a_new_member_that_waits_too_long_is_forgotten() {
    let config = GroupConfig {
        new_member_join_timeout: Duration::from_secs(20),
        ..GroupConfig::default()
    };
    let mut rig = Rig::with(config);
    let ids = rig.stable(1);
    let new = rig.join(&join(""));
    rig.advance(9_000);
    rig.heartbeat(&ids[0], 1);
    rig.advance(9_000);
    rig.heartbeat(&ids[0], 1);
    assert!(rig.waits(new));
    rig.advance(2_000);
    let response = rig.joined(new);
    assert_eq!(
        (code(response.error_code), &*response.member_id),
        (ErrorCode::UnknownMemberId, "")
    );
}

#[test]
fn members_leave_at_once_and_each_is_answered() {
    use ErrorCode::{NoError, UnknownMemberId};
    let mut rig = Rig::new();
    assert_eq!(rig.leave(&[("who", None)]), [UnknownMemberId]);
    let ids = rig.stable(3);
    let ticket = rig.join_at(4, &join(""));
    let pending = rig.joined(ticket).member_id.to_string();
    let codes = rig.leave(&[
        (&ids[0], None),
        ("who", None),
        (&pending, None),
        ("", Some("nobody")),
        (&ids[1], None),
    ]);
    assert_eq!(
        codes,
        [NoError, UnknownMemberId, NoError, UnknownMemberId, NoError]
    );
    let ticket = rig.join(&join(&ids[2]));
    let response = rig.joined(ticket);
    assert_eq!((response.generation_id, response.members.len()), (2, 1));
    let last = LeaveGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(text(&ids[2]));
    for expected in [NoError, UnknownMemberId] {
        let ticket = rig.call(1, |shard, cx| vec![shard.leave_group(cx, &last)]);
        let Reply::LeaveGroup(response) = rig.take(ticket) else {
            panic!()
        };
        assert_eq!((code(response.error_code), response.members.len()), (expected, 0));
    }
    assert_eq!((rig.state(), rig.last_group().unwrap().generation), ("Empty", 3));
}

#[test]
fn whoever_leaves_while_it_waits_is_answered() {
    let mut rig = Rig::new();
    let ids = rig.stable(3);
    let leaving = rig.join(&with_protocols(join(&ids[1]), &["range", "other"]));
    let staying = rig.join(&join(&ids[0]));
    rig.leave(&[(&ids[1], None), (&ids[2], None)]);
    assert_eq!(code(rig.joined(leaving).error_code), ErrorCode::UnknownMemberId);
    assert_eq!(
        rig.joined(staying).members.len(),
        1,
        "its leaving completes the barrier"
    );
    let ticket = rig.sync(&sync(&ids[0], 2, &[]));
    assert_eq!(rig.synced(ticket).0, ErrorCode::NoError);
}

#[test]
fn a_new_leader_of_the_shard_knows_members_and_begins_their_sessions() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    let waiting = rig.join(&join(&ids[0]));
    rig.advance(9_999);
    let dropped = rig.fail_over();
    let [(ticket, Reply::JoinGroup(response))] = &dropped[..] else {
        panic!("{dropped:?}")
    };
    assert_eq!(
        (*ticket, code(response.error_code)),
        (waiting, ErrorCode::NotCoordinator)
    );
    assert_eq!(rig.state(), "Stable");
    rig.advance(9_999);
    for id in &ids {
        assert_eq!(rig.heartbeat(id, 1), ErrorCode::NoError);
    }
    let ticket = rig.sync(&sync(&ids[1], 1, &[]));
    assert_eq!(
        rig.synced(ticket),
        (ErrorCode::NoError, Bytes::from_static(b"work"))
    );
    rig.advance(10_000);
    assert_eq!((rig.state(), rig.last_group().unwrap().generation), ("Empty", 2));
    rig.fail_over();
    assert_eq!(rig.state(), "Empty");
}

#[test]
fn a_group_that_is_too_large_when_loaded_rebalances() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    rig.shard.config.max_group_size = 1;
    rig.fail_over();
    assert_eq!(rig.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
    let first = rig.join(&join(&ids[1]));
    let second = rig.join(&join(&ids[0]));
    assert_eq!(
        code(rig.joined(second).error_code),
        ErrorCode::GroupMaxSizeReached
    );
    assert_eq!(rig.joined(first).members.len(), 1);
}

#[test]
fn a_log_without_a_leader_is_no_trap() {
    let mut rig = Rig::new();
    let ids = rig.stable(1);
    let Some(Record::Classic(record)) = rig.log.last_mut() else {
        panic!()
    };
    record.value.as_mut().unwrap().leader = None;
    rig.fail_over();
    let ticket = rig.join(&with_protocols(join(&ids[0]), &["range", "other"]));
    assert_eq!(rig.joined(ticket).leader, text(&ids[0]));
}
