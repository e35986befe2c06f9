use super::*;

fn describe(rig: &mut Rig, version: i16) -> describe_groups_response::DescribedGroup {
    let ticket = rig.call(version, |shard, cx| vec![shard.describe_groups(cx, "g")]);
    match rig.take(ticket) {
        Reply::DescribeGroups(mut response) => response.groups.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stable_group_is_described_with_assignments_and_another_without() {
    let mut rig = Rig::new();
    let ids = rig.stable_with(&[with_instance(join(""), "one"), join("")]);
    let group = describe(&mut rig, 5);
    assert_eq!(
        (&**group.group_id, &*group.group_state, group.error_code),
        ("g", "Stable", 0)
    );
    assert_eq!(
        (&*group.protocol_type, &*group.protocol_data),
        ("consumer", "range")
    );
    assert_eq!(group.authorized_operations, i32::MIN);
    let member = group
        .members
        .iter()
        .find(|member| *member.member_id == *ids[0])
        .unwrap();
    assert_eq!((&*member.client_id, &*member.client_host), ("app", "/10.0.0.7"));
    assert_eq!(member.group_instance_id.as_deref(), Some("one"));
    assert_eq!(
        (&member.member_metadata, &*member.member_assignment),
        (&subscription(&["t"]), b"work".as_slice())
    );
    rig.join(&join(&ids[1]));
    rig.join(&join(""));
    let group = describe(&mut rig, 0);
    assert_eq!(
        (&*group.group_state, &*group.protocol_data, group.members.len()),
        ("PreparingRebalance", "", 3)
    );
    assert!(
        group
            .members
            .iter()
            .all(|member| member.member_metadata.is_empty() && member.member_assignment.is_empty())
    );
}

#[test]
fn a_missing_group_is_dead() {
    let mut rig = Rig::new();
    let group = describe(&mut rig, 5);
    assert_eq!((&*group.group_state, group.error_code), ("Dead", 0));
    let group = describe(&mut rig, 6);
    assert_eq!(
        (&*group.group_state, code(group.error_code)),
        ("Dead", ErrorCode::GroupIdNotFound)
    );
    assert_eq!(group.error_message.as_deref(), Some("Group g not found."));
}

fn list(rig: &mut Rig, states: &[&str], types: &[&str]) -> Vec<(String, String, String, String)> {
    let request = ListGroupsRequest::default()
        .with_states_filter(states.iter().map(|name| text(name)).collect())
        .with_types_filter(types.iter().map(|name| text(name)).collect());
    let ticket = rig.call(5, |shard, cx| vec![shard.list_groups(cx, &request)]);
    let Reply::ListGroups(response) = rig.take(ticket) else {
        panic!()
    };
    let groups = response.groups.iter().map(|group| {
        let texts = [
            &group.group_id.0,
            &group.protocol_type,
            &group.group_state,
            &group.group_type,
        ];
        texts.map(|text| text.to_string()).into()
    });
    groups.collect()
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut rig = Rig::new();
    rig.stable(1);
    rig.commit(
        8,
        &commit("", -1, &[("t", 0, 1)]).with_group_id(GroupId(text("h"))),
    );
    let row = |row: [&str; 4]| <(String, String, String, String)>::from(row.map(str::to_owned));
    let [stable, simple] = [
        row(["g", "consumer", "Stable", "Classic"]),
        row(["h", "", "Empty", "Classic"]),
    ];
    assert_eq!(list(&mut rig, &[], &[]), [stable.clone(), simple.clone()]);
    assert_eq!(list(&mut rig, &["STABLE", "nonsense"], &["classic"]), [stable]);
    assert_eq!(list(&mut rig, &["Empty"], &[]), [simple]);
    assert_eq!(list(&mut rig, &["nonsense"], &[]), []);
    assert_eq!(list(&mut rig, &[], &["consumer"]), []);
    for version in 0..5 {
        rig.call(version, |shard, cx| {
            vec![shard.list_groups(cx, &ListGroupsRequest::default())]
        });
    }
}

fn delete(rig: &mut Rig) -> ErrorCode {
    let ticket = rig.call(2, |shard, cx| shard.delete_groups(cx, "g"));
    let Reply::DeleteGroups(response) = rig.take(ticket) else {
        panic!()
    };
    assert_eq!(response.results[0].group_id.as_str(), "g");
    code(response.results[0].error_code)
}

#[test]
fn a_group_without_members_is_deleted_with_its_offsets() {
    let mut rig = Rig::with(GroupConfig {
        max_batch_bytes: 1_000,
        ..GroupConfig::default()
    });
    rig.topics.0.insert("t".to_owned(), 100);
    assert_eq!(delete(&mut rig), ErrorCode::GroupIdNotFound);
    let ids = rig.stable(1);
    assert_eq!(delete(&mut rig), ErrorCode::NonEmptyGroup);
    for partition in 0..100 {
        rig.commit(8, &commit(&ids[0], 1, &[("t", partition, 1)]));
    }
    rig.leave(&[(&ids[0], None)]);
    let pending = rig.join_at(4, &join(""));
    let pending = rig.joined(pending).member_id;
    assert_eq!(delete(&mut rig), ErrorCode::NoError);
    assert_eq!((rig.state(), rig.committed().len()), ("Dead", 0));
    let late = rig.join_at(4, &join(&pending));
    assert_eq!(code(rig.joined(late).error_code), ErrorCode::UnknownMemberId);
    rig.advance(60_000);
    rig.fail_over();
    assert_eq!((rig.state(), rig.committed().len()), ("Dead", 0));
}

#[test]
fn a_group_that_nobody_joined_is_forgotten_at_the_next_check() {
    let mut rig = Rig::new();
    rig.join_at(4, &join(""));
    rig.fail_over();
    assert_eq!(rig.state(), "Empty", "it is known that it exists");
    rig.advance(600_000);
    assert_eq!((rig.state(), rig.log.len()), ("Dead", 2));
}

#[test]
fn metrics_see_members_rebalances_and_what_was_committed() {
    let mut rig = Rig::new();
    let ids = rig.stable(1);
    rig.commit(8, &commit(&ids[0], 1, &[("t", 1, 5), ("u", 0, 6)]));
    rig.commit(8, &commit("nobody", 1, &[("t", 1, 7)]));
    rig.commit(8, &commit(&ids[0], 1, &[("missing", 0, 7)]));
    let counted = |rig: &Rig| {
        let view = rig.shard.groups().next().unwrap();
        let counts = (view.rebalances(), view.commits(), view.topics());
        (view.id().to_owned(), view.members(), view.state(), counts)
    };
    assert_eq!(counted(&rig), ("g".to_owned(), 1, "Stable", (1, 2, 2)));
    let view = rig.shard.groups().next().unwrap();
    let offsets: Vec<_> = view
        .offsets()
        .map(|(topic, offsets)| (topic, offsets.collect::<Vec<_>>()))
        .collect();
    assert_eq!(offsets, [("t", vec![(1, 5)]), ("u", vec![(0, 6)])]);
    rig.leave(&[(&ids[0], None)]);
    assert_eq!(counted(&rig), ("g".to_owned(), 0, "Empty", (2, 2, 2)));
    rig.fail_over();
    assert_eq!(counted(&rig), ("g".to_owned(), 0, "Empty", (2, 0, 2)));
    rig.commit(8, &commit("", -1, &[("t", 1, 8)]));
    assert_eq!(counted(&rig).3.1, 1);
    assert_eq!(delete(&mut rig), ErrorCode::NoError);
    assert_eq!(rig.shard.groups().count(), 0);
    rig.commit(8, &commit("", -1, &[("t", 1, 9)]));
    assert_eq!(counted(&rig).3, (0, 1, 1), "another group of the name");
}
