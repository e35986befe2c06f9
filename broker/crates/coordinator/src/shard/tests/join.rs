use super::*;

#[test]
fn the_first_generation_waits_for_members_and_goes_to_the_log_with_its_assignment() {
    let mut rig = Rig::new();
    let first = rig.join(&join(""));
    assert!(
        matches!(&rig.log[..], [Record::Classic(ClassicRecord { value: Some(value), .. })]
        if *value == GroupMetadata { current_state_timestamp: 1_000_000, ..GroupMetadata::default() })
    );
    rig.advance(2_000);
    let second = rig.join(&join(""));
    assert_eq!(rig.state(), "PreparingRebalance");
    // The second came within the first 3 s, so there are 3 s more.
    rig.advance(3_999);
    assert!(rig.waits(first) && rig.waits(second));
    rig.advance(1);
    assert_eq!(rig.state(), "CompletingRebalance");
    let [leader, follower] = [first, second].map(|ticket| rig.joined(ticket));
    let [leader_id, follower_id] = [0, 1].map(|n| format!("app-{}", Uuid::from_u128(n)));
    let expected = JoinGroupResponse::default()
        .with_generation_id(1)
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_leader(text(&leader_id))
        .with_member_id(text(&follower_id));
    assert_eq!(follower, expected);
    let members: Vec<_> = leader
        .members
        .iter()
        .map(|member| (member.member_id.as_str(), &member.metadata))
        .collect();
    let metadata = subscription(&["t"]);
    assert_eq!(
        members,
        [(leader_id.as_str(), &metadata), (follower_id.as_str(), &metadata)]
    );

    assert_eq!(
        rig.log.len(),
        1,
        "nothing more is written before there is an assignment"
    );
    let waiting = rig.sync(&sync(&follower_id, 1, &[]));
    assert!(rig.waits(waiting));
    let ticket = rig.sync(&sync(&leader_id, 1, &[(&follower_id, "all")]));
    assert_eq!(rig.synced(ticket), (ErrorCode::NoError, Bytes::new()));
    assert_eq!(
        rig.synced(waiting),
        (ErrorCode::NoError, Bytes::from_static(b"all"))
    );
    let written = rig.last_group().unwrap();
    assert_eq!((rig.log.len(), rig.state()), (2, "Stable"));
    assert_eq!(
        (written.generation, written.leader.as_deref()),
        (1, Some(leader_id.as_str()))
    );
    assert_eq!(written.members[1].assignment, "all");
    assert_eq!(written.members[1].subscription, metadata);
    assert_eq!(
        (
            written.members[1].session_timeout,
            written.members[1].rebalance_timeout
        ),
        (10_000, 60_000)
    );
    assert_eq!(
        (&*written.members[1].client_id, &*written.members[1].client_host),
        ("app", "/10.0.0.7")
    );
}

#[test]
fn the_first_generation_waits_no_longer_than_the_rebalance_timeout() {
    let mut rig = Rig::new();
    let first = rig.join(&join("").with_rebalance_timeout_ms(7_000));
    for _ in 0..3 {
        rig.join(&join("").with_rebalance_timeout_ms(7_000));
        assert!(rig.waits(first));
        rig.advance(2_334);
    }
    assert!(!rig.waits(first));
}

#[test]
fn a_new_member_is_given_its_id_first_and_holds_the_barrier_open() {
    let mut rig = Rig::new();
    let ids = rig.stable(1);
    let ticket = rig.join_at(4, &join(""));
    let response = rig.joined(ticket);
    assert_eq!(code(response.error_code), ErrorCode::MemberIdRequired);
    assert_eq!(
        (response.generation_id, response.protocol_name.as_deref()),
        (-1, Some(""))
    );
    assert_eq!(rig.state(), "Stable");
    let leader = rig.join(&join(&ids[0]));
    assert!(rig.waits(leader), "the pending member has not come yet");
    let second = rig.join_at(4, &join(&response.member_id));
    assert_eq!(rig.joined(second).generation_id, 2);
    assert_eq!(rig.joined(leader).members.len(), 2);
}

#[test]
fn a_given_out_member_id_expires_with_the_session() {
    let mut rig = Rig::new();
    let ids = rig.stable(1);
    let ticket = rig.join_at(4, &join(""));
    let pending = rig.joined(ticket).member_id;
    let leader = rig.join(&join(&ids[0]));
    rig.advance(9_999);
    assert!(rig.waits(leader));
    rig.advance(1);
    assert_eq!(rig.joined(leader).members.len(), 1);
    let late = rig.join_at(4, &join(&pending));
    assert_eq!(code(rig.joined(late).error_code), ErrorCode::UnknownMemberId);
}

#[test]
fn the_protocol_that_all_have_and_most_want_is_chosen() {
    let mut rig = Rig::new();
    let lists: [&[&str]; 3] = [&["x", "a", "b"], &["b", "a"], &["y", "b", "a"]];
    let tickets = lists.map(|list| rig.join(&with_protocols(join(""), list)));
    let stranger = rig.join(&with_protocols(join(""), &["x"]));
    assert_eq!(
        code(rig.joined(stranger).error_code),
        ErrorCode::InconsistentGroupProtocol
    );
    let other = rig.join(&join("").with_protocol_type(text("connect")));
    assert_eq!(
        code(rig.joined(other).error_code),
        ErrorCode::InconsistentGroupProtocol
    );
    rig.advance(6_000);
    for ticket in tickets {
        assert_eq!(rig.joined(ticket).protocol_name.as_deref(), Some("b"));
    }
    assert_eq!(
        rig.shard.groups[b"g".as_slice()].protocol_type(),
        text("consumer")
    );
}

#[test]
fn refused_joins_leave_no_group_behind() {
    let mut rig = Rig::with(GroupConfig {
        max_groups: 1,
        ..GroupConfig::default()
    });
    let long = "g".repeat(40_000);
    for (request, error) in [
        (
            join("").with_protocols(Vec::new()),
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            join("").with_protocol_type(text("")),
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            join("").with_protocol_type(text(&long)),
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            with_protocols(join(""), &[&long]),
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            join("").with_group_id(GroupId(text(""))),
            ErrorCode::InvalidGroupId,
        ),
        (
            join("").with_group_id(GroupId(text(&long))),
            ErrorCode::InvalidGroupId,
        ),
        (
            join("").with_session_timeout_ms(5_999),
            ErrorCode::InvalidSessionTimeout,
        ),
        (
            join("").with_session_timeout_ms(1_800_001),
            ErrorCode::InvalidSessionTimeout,
        ),
        (
            join("").with_session_timeout_ms(-1),
            ErrorCode::InvalidSessionTimeout,
        ),
        (join("who"), ErrorCode::UnknownMemberId),
        (with_instance(join(""), &long), ErrorCode::InvalidRequest),
    ] {
        let ticket = rig.join_at(9, &request);
        assert_eq!(code(rig.joined(ticket).error_code), error, "{request:?}");
        assert!(rig.log.is_empty() && rig.shard.groups.is_empty());
    }
    rig.join(&join(""));
    let ticket = rig.join(&join("").with_group_id(GroupId(text("h"))));
    assert_eq!(
        code(rig.joined(ticket).error_code),
        ErrorCode::GroupMaxSizeReached
    );
}

#[test]
fn a_followers_join_changes_nothing_unless_its_metadata_does() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    let ticket = rig.join(&join(&ids[1]));
    let response = rig.joined(ticket);
    assert_eq!(
        (response.generation_id, response.members.len(), rig.state()),
        (1, 0, "Stable")
    );

    let follower = rig.join(&with_protocols(join(&ids[1]), &["range", "other"]));
    assert!(rig.waits(follower));
    assert_eq!(rig.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
    let leader = rig.join(&join(&ids[0]));
    assert_eq!(rig.joined(follower).generation_id, 2);
    // The answer was lost: the same generation again, with the members for the leader.
    let again = rig.join(&join(&ids[0]));
    assert_eq!(rig.joined(leader), rig.joined(again));
    assert_eq!(rig.state(), "CompletingRebalance");
    // A changed mind begins another rebalance.
    rig.join(&join(&ids[1]));
    assert_eq!(rig.state(), "PreparingRebalance");
}

#[test]
fn a_join_of_the_leader_rebalances_and_who_does_not_come_is_dropped() {
    let mut rig = Rig::new();
    let ids = rig.stable(3);
    let leader = rig.join(&join(&ids[0]));
    let second = rig.join(&join(&ids[1]));
    for _ in 0..6 {
        rig.advance(9_999);
        assert_eq!(rig.heartbeat(&ids[2], 1), ErrorCode::RebalanceInProgress);
    }
    assert!(rig.waits(leader));
    rig.advance(6);
    assert_eq!(rig.joined(leader).members.len(), 2);
    assert_eq!(rig.joined(second).generation_id, 2);
    assert_eq!(rig.heartbeat(&ids[2], 1), ErrorCode::UnknownMemberId);
}

#[test]
fn another_leader_is_elected_if_the_leader_does_not_come() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    let follower = rig.join(&with_protocols(join(&ids[1]), &["range", "other"]));
    rig.advance(10_000);
    let response = rig.joined(follower);
    assert_eq!((response.leader, response.members.len()), (text(&ids[1]), 1));
}

#[test]
fn a_repeated_join_answers_the_one_before() {
    let mut rig = Rig::new();
    let ids = rig.stable(2);
    let first = rig.join(&join(&ids[0]));
    let again = rig.join(&join(&ids[0]));
    assert_eq!(code(rig.joined(first).error_code), ErrorCode::RebalanceInProgress);
    assert!(rig.waits(again));
}

#[test]
fn a_full_group_turns_away_new_members_and_the_last_to_rejoin() {
    let config = GroupConfig {
        max_group_size: 2,
        ..GroupConfig::default()
    };
    let mut rig = Rig::with(config);
    let ids = rig.stable(2);
    let third = rig.join(&join(""));
    assert_eq!(code(rig.joined(third).error_code), ErrorCode::GroupMaxSizeReached);
    rig.join(&join(&ids[0]));
    rig.shard.config.max_group_size = 1;
    let leader = rig.join(&join(&ids[0]));
    assert!(rig.waits(leader), "one that waits already may ask again");
    let late = rig.join(&join(&ids[1]));
    assert_eq!(code(rig.joined(late).error_code), ErrorCode::GroupMaxSizeReached);
    assert_eq!(rig.joined(leader).members.len(), 1, "nobody else is waited for");
}

#[test]
fn a_group_has_a_bound_in_bytes() {
    let config = GroupConfig {
        max_group_bytes: 2_000,
        ..GroupConfig::default()
    };
    let mut rig = Rig::with(config);
    let big = |id: &str, size: usize| {
        let mut request = join(id);
        request.protocols[0].metadata = Bytes::from(vec![0; size]);
        request
    };
    let ticket = rig.join(&big("", 2_000));
    assert_eq!(
        code(rig.joined(ticket).error_code),
        ErrorCode::GroupMaxSizeReached
    );
    let ids = rig.stable_with(&[big("", 900)]);
    let ticket = rig.join(&big("", 900));
    assert_eq!(
        code(rig.joined(ticket).error_code),
        ErrorCode::GroupMaxSizeReached
    );
    let ticket = rig.join(&big(&ids[0], 1_000));
    assert_eq!(
        rig.joined(ticket).generation_id,
        2,
        "what it had before is not counted twice"
    );
    // Member ids that were given out count as well.
    let answers: Vec<ErrorCode> = (0..4)
        .map(|_| {
            let ticket = rig.join_at(4, &join(""));
            code(rig.joined(ticket).error_code)
        })
        .collect();
    assert_eq!(answers.first(), Some(&ErrorCode::MemberIdRequired));
    assert_eq!(answers.last(), Some(&ErrorCode::GroupMaxSizeReached));
}

#[test]
fn version_0_rebalances_within_the_session_timeout() {
    let mut rig = Rig::new();
    let ticket = rig.join_at(0, &join("").with_rebalance_timeout_ms(-1));
    rig.advance(3_000);
    let member_id = rig.joined(ticket).member_id;
    rig.sync(&sync(&member_id, 1, &[]));
    assert_eq!(rig.last_group().unwrap().members[0].rebalance_timeout, 10_000);
}

#[test]
fn a_client_id_of_any_length_makes_a_member_id_that_can_be_written() {
    let mut rig = Rig::new();
    rig.client_id = "é".repeat(16_000);
    let ids = rig.stable(1);
    assert!(ids[0].len() < 600);
}

#[test]
fn nothing_that_is_kept_holds_on_to_a_request() {
    let mut rig = Rig::new();
    let ids = rig.stable(1);
    let request = join(&ids[0]);
    let ticket = rig.join(&request);
    rig.joined(ticket);
    let mut assignment = sync(&ids[0], 2, &[(&ids[0], "")]);
    assignment.assignments[0].assignment = Bytes::from(vec![1; 9]);
    rig.sync(&assignment);
    let written = rig.last_group().unwrap();
    let kept = &written.members[0];
    assert_eq!(
        (kept.member_id.as_str(), &kept.assignment),
        (&*ids[0], &assignment.assignments[0].assignment)
    );
    assert_ne!(kept.member_id.as_ptr(), request.member_id.as_ptr());
    assert_ne!(kept.subscription.as_ptr(), request.protocols[0].metadata.as_ptr());
    assert_ne!(
        kept.assignment.as_ptr(),
        assignment.assignments[0].assignment.as_ptr()
    );
}
