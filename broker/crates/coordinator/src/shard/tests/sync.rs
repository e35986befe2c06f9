use super::*;

#[test]
fn who_does_not_belong_to_the_generation_gets_no_assignment() {
    let mut rig = Rig::new();
    let ask = |rig: &mut Rig, request: &SyncGroupRequest| {
        let ticket = rig.sync(request);
        rig.synced(ticket).0
    };
    assert_eq!(ask(&mut rig, &sync("who", 1, &[])), ErrorCode::UnknownMemberId);
    let no_group = sync("who", 1, &[]).with_group_id(GroupId(text("")));
    assert_eq!(ask(&mut rig, &no_group), ErrorCode::InvalidGroupId);
    let ids = rig.stable(2);
    assert_eq!(ask(&mut rig, &sync("who", 1, &[])), ErrorCode::UnknownMemberId);
    assert_eq!(
        ask(&mut rig, &sync(&ids[1], 2, &[])),
        ErrorCode::IllegalGeneration
    );
    let other = sync(&ids[1], 1, &[]).with_protocol_name(Some(text("other")));
    assert_eq!(ask(&mut rig, &other), ErrorCode::InconsistentGroupProtocol);
    let none = sync(&ids[1], 1, &[]).with_protocol_type(None);
    assert_eq!(ask(&mut rig, &none), ErrorCode::InconsistentGroupProtocol);
    let ticket = rig.call(4, |shard, cx| {
        vec![shard.sync_group(cx, &none.with_protocol_name(None))]
    });
    assert_eq!(
        rig.synced(ticket),
        (ErrorCode::NoError, Bytes::from_static(b"work"))
    );
    rig.join(&join(&ids[0]));
    assert_eq!(
        ask(&mut rig, &sync(&ids[1], 1, &[])),
        ErrorCode::RebalanceInProgress
    );
}

#[test]
fn a_rebalance_sends_those_who_wait_for_the_leader_to_join_again() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    let tickets = [&ids[0], &ids[1]].map(|id| rig.join(&join(id)));
    assert_eq!(tickets.map(|ticket| rig.joined(ticket).generation_id), [2, 2]);
    let waiting = rig.sync(&sync(&ids[1], 2, &[]));
    let again = rig.sync(&sync(&ids[1], 2, &[]));
    assert_eq!(
        rig.synced(waiting).0,
        ErrorCode::RebalanceInProgress,
        "the newer one waits in its place"
    );
    rig.join(&join(""));
    assert_eq!(rig.synced(again).0, ErrorCode::RebalanceInProgress);
    assert_eq!(rig.state(), "PreparingRebalance");
}

#[test]
fn members_that_never_ask_for_the_assignment_are_removed() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    let tickets = [&ids[0], &ids[1]].map(|id| rig.join(&join(id)));
    let _ = tickets.map(|ticket| rig.joined(ticket));
    let leader = rig.sync(&sync(&ids[0], 2, &[]));
    assert_eq!(rig.synced(leader).0, ErrorCode::NoError);
    for _ in 0..6 {
        rig.advance(9_999);
        for id in &ids {
            assert_eq!(rig.heartbeat(id, 2), ErrorCode::NoError);
        }
    }
    rig.advance(6);
    assert_eq!(rig.heartbeat(&ids[1], 2), ErrorCode::UnknownMemberId);
    assert_eq!(rig.heartbeat(&ids[0], 2), ErrorCode::RebalanceInProgress);
    assert_eq!(rig.state(), "PreparingRebalance");
}

#[test]
fn a_leader_that_brings_no_assignment_is_removed() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    let tickets = [&ids[0], &ids[1]].map(|id| rig.join(&join(id)));
    let _ = tickets.map(|ticket| rig.joined(ticket));
    let follower = rig.sync(&sync(&ids[1], 2, &[]));
    for _ in 0..7 {
        rig.advance(9_000);
        rig.heartbeat(&ids[0], 2);
    }
    assert_eq!(rig.synced(follower).0, ErrorCode::RebalanceInProgress);
    assert_eq!(rig.heartbeat(&ids[0], 2), ErrorCode::UnknownMemberId);
    let alone = rig.join(&join(&ids[1]));
    assert_eq!(rig.joined(alone).leader, text(&ids[1]));
}

#[test]
fn an_assignment_that_does_not_fit_a_batch_is_refused_and_the_group_rebalances() {
    let mut rig = Rig::with(GroupConfig {
        max_batch_bytes: 900,
        ..GroupConfig::default()
    });
    let ids = rig.stable(1);
    let ticket = rig.join(&join(&ids[0]));
    rig.joined(ticket);
    let big = "x".repeat(900);
    let mut request = sync(&ids[0], 2, &[(&ids[0], "")]);
    request.assignments[0].assignment = Bytes::from(big);
    let ticket = rig.sync(&request);
    assert_eq!(rig.synced(ticket).0, ErrorCode::UnknownServerError);
    assert_eq!(
        (rig.state(), rig.last_group().unwrap().generation),
        ("PreparingRebalance", 1)
    );
    let ticket = rig.join(&join(&ids[0]));
    assert_eq!(rig.joined(ticket).generation_id, 3);
    let ticket = rig.sync(&sync(&ids[0], 3, &[(&ids[0], "fits")]));
    assert_eq!(
        rig.synced(ticket),
        (ErrorCode::NoError, Bytes::from_static(b"fits"))
    );
}
