//! Joining, reconciling, leaving, being fenced.

use std::sync::Arc;
use std::time::Duration;

use takhin_protocol::ErrorCode;

use super::bench::{Bench, Cluster, GROUP, has, join, stay, text};
use crate::config::{GroupConfig, GroupOverrides};

/// Two members that share topic `t` of four partitions: `a` has 0 and 1, `b` 2 and 3, both at epoch 2.
fn pair() -> Bench {
    let mut bench = Bench::new(&[("t", 4)]);
    bench.beat(&join("a", &["t"]));
    bench.beat(&join("b", &["t"]));
    bench.beat(&stay("a", 1));
    let told = bench.beat(&bench.own("a", 1, &[("t", &[0, 1])]));
    assert_eq!(bench.told(&told), (2, None));
    let told = bench.beat(&stay("b", 2));
    assert_eq!(bench.told(&told), (2, has(&[("t", &[2, 3])])));
    assert_eq!(bench.state(), "Stable");
    bench
}

#[test]
fn the_first_member_gets_everything() {
    let mut bench = Bench::new(&[("t", 2)]);
    let told = bench.beat(&join("a", &["t", "missing"]));
    assert_eq!(bench.told(&told), (1, has(&[("t", &[0, 1])])));
    assert_eq!(
        (told.member_id, told.heartbeat_interval_ms),
        (Some(text("a")), 5000)
    );
    assert_eq!(
        bench.kinds(0),
        ["Member", "Group", "Target", "TargetEpoch", "Current"]
    );
    assert_eq!((bench.state(), bench.kind()), ("Stable", "Consumer"));

    // Nothing has changed: nothing is written or told, but to a member that says everything anew.
    let told = bench.beat(&stay("a", 1));
    assert_eq!(bench.told(&told), (1, None));
    let mut full = join("a", &["t", "missing"]).with_member_epoch(1);
    full.topic_partitions = bench.own("a", 1, &[("t", &[0, 1])]).topic_partitions;
    let told = bench.beat(&full);
    assert_eq!(bench.told(&told), (1, has(&[("t", &[0, 1])])));
    assert_eq!(bench.log.len(), 5);
}

#[test]
fn a_partition_is_given_up_before_another_gets_it() {
    let mut bench = Bench::new(&[("t", 2)]);
    bench.beat(&join("a", &["t"]));
    // The group has moved on; partition 1 is to be b's, and still a's.
    let told = bench.beat(&join("b", &["t"]));
    assert_eq!(bench.told(&told), (2, has(&[])));
    assert_eq!(bench.state(), "Reconciling");

    let told = bench.beat(&stay("a", 1));
    assert_eq!(bench.told(&told), (1, has(&[("t", &[0])])));
    let told = bench.beat(&bench.own("a", 1, &[("t", &[0, 1])]));
    assert_eq!(bench.told(&told), (1, None));
    let told = bench.beat(&stay("b", 2));
    assert_eq!(bench.told(&told), (2, None));

    let told = bench.beat(&bench.own("a", 1, &[("t", &[0])]));
    assert_eq!(bench.told(&told), (2, None));
    let told = bench.beat(&stay("b", 2));
    assert_eq!(bench.told(&told), (2, has(&[("t", &[1])])));
    assert_eq!(bench.state(), "Stable");
    bench.fail_over();
    assert_eq!(bench.state(), "Stable");
}

#[test]
fn a_request_is_checked_before_the_group() {
    let mut bench = Bench::new(&[("t", 1)]);
    let good = || join("a", &["t"]);
    let long = "x".repeat(0x8000);
    let mut no_group = good();
    no_group.group_id.0 = text("");
    let mut owns = good();
    owns.topic_partitions = bench.own("a", 0, &[("t", &[0])]).topic_partitions;
    for (request, what) in [
        (no_group, "group id"),
        (good().with_member_id(text("")), "member id in version 1"),
        (
            good().with_member_id(text(&long)),
            "member id too long for the log",
        ),
        (good().with_instance_id(Some(text(""))), "instance id"),
        (good().with_rack_id(Some(text(""))), "rack id"),
        (good().with_rebalance_timeout_ms(-1), "rebalance timeout"),
        (good().with_topic_partitions(None), "null owned partitions"),
        (owns, "owned partitions"),
        (good().with_subscribed_topic_names(None), "subscription"),
        (stay("a", -2), "static leave without instance id"),
        (stay("a", -3), "epoch"),
    ] {
        assert_eq!(bench.refused(&request), ErrorCode::InvalidRequest, "{what}");
    }
    let assignor = good().with_server_assignor(Some(text("sticky")));
    assert_eq!(bench.refused(&assignor), ErrorCode::UnsupportedAssignor);
    let regex = good().with_subscribed_topic_regex(Some(text("(")));
    assert_eq!(bench.refused(&regex), ErrorCode::InvalidRegularExpression);
    assert_eq!(bench.refused(&stay("a", 1)), ErrorCode::GroupIdNotFound);
    assert_eq!(bench.refused(&stay("a", -1)), ErrorCode::GroupIdNotFound);
    assert_eq!(bench.state(), "Dead");
}

#[test]
fn version_0_lets_the_coordinator_make_the_member_id() {
    let mut bench = Bench::new(&[("t", 1)]);
    let request = join("", &["t"]);
    let reply = bench.ask(0, |shard, cx| shard.consumer_group_heartbeat(cx, &request));
    let crate::Reply::ConsumerGroupHeartbeat(response) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(response.member_id.unwrap().len(), 36);
    assert_eq!(response.error_code, 0);
}

#[test]
fn epochs_fence() {
    let mut bench = pair();
    assert_eq!(bench.refused(&stay("nobody", 1)), ErrorCode::UnknownMemberId);
    assert_eq!(bench.refused(&stay("a", 3)), ErrorCode::FencedMemberEpoch);
    // One behind, as after a lost reply: only with nothing that it should not have.
    assert_eq!(bench.refused(&stay("a", 1)), ErrorCode::FencedMemberEpoch);
    let too_much = bench.own("a", 1, &[("t", &[0, 2])]);
    assert_eq!(bench.refused(&too_much), ErrorCode::FencedMemberEpoch);
    let told = bench.beat(&bench.own("a", 1, &[("t", &[0])]));
    assert_eq!(bench.told(&told), (2, None));
    // Who begins anew is the same member with the same partitions.
    let told = bench.beat(&join("a", &["t"]));
    assert_eq!(bench.told(&told), (2, has(&[("t", &[0, 1])])));
}

#[test]
fn a_member_that_leaves_makes_room() {
    let mut bench = pair();
    let first = bench.log.len();
    let told = bench.beat(&stay("b", -1));
    assert_eq!(bench.told(&told), (-1, None));
    assert_eq!(bench.kinds(first), ["-Current", "-Target", "-Member", "Group"]);
    assert_eq!(bench.state(), "Assigning");
    let told = bench.beat(&stay("a", 2));
    assert_eq!(bench.told(&told), (3, has(&[("t", &[0, 1, 2, 3])])));
    bench.beat(&stay("a", -1));
    assert_eq!(bench.state(), "Empty");
    assert_eq!(bench.refused(&stay("a", -1)), ErrorCode::UnknownMemberId);
    bench.fail_over();
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn silence_ends_a_session() {
    let mut bench = pair();
    bench.advance(Duration::from_secs(44));
    bench.beat(&stay("a", 2));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.state(), "Assigning");
    assert_eq!(bench.refused(&stay("b", 2)), ErrorCode::UnknownMemberId);
    // Sessions begin anew with a new leader.
    bench.fail_over();
    bench.advance(Duration::from_secs(44));
    bench.beat(&stay("a", 2));
}

#[test]
fn who_does_not_give_up_in_its_time_is_fenced() {
    let mut bench = Bench::new(&[("t", 2)]);
    bench.beat(&join("a", &["t"]).with_rebalance_timeout_ms(20_000));
    bench.beat(&join("b", &["t"]));
    bench.beat(&stay("a", 1));
    bench.advance(Duration::from_secs(19));
    let told = bench.beat(&bench.own("a", 1, &[("t", &[0, 1])]));
    assert_eq!(bench.told(&told), (1, None));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.refused(&stay("a", 1)), ErrorCode::UnknownMemberId);
    let told = bench.beat(&stay("b", 2));
    assert_eq!(bench.told(&told), (3, has(&[("t", &[0, 1])])));

    // With a new leader the time begins anew; who gives up in it stays.
    bench.beat(&join("a", &["t"]).with_rebalance_timeout_ms(20_000));
    bench.beat(&stay("b", 3));
    bench.fail_over();
    bench.beat(&bench.own("b", 3, &[("t", &[0])]));
    bench.advance(Duration::from_secs(44));
    bench.beat(&stay("b", 4));
}

#[test]
fn a_static_member_comes_back_to_its_partitions() {
    let mut bench = Bench::new(&[("t", 4)]);
    let i = || Some(text("i"));
    bench.beat(&join("a", &["t"]).with_instance_id(i()));
    bench.beat(&join("b", &["t"]));
    bench.beat(&stay("a", 1).with_instance_id(i()));
    bench.beat(&bench.own("a", 1, &[("t", &[0, 1])]).with_instance_id(i()));
    bench.beat(&stay("b", 2));

    let again = join("c", &["t"]).with_instance_id(i());
    assert_eq!(bench.refused(&again), ErrorCode::UnreleasedInstanceId);
    assert_eq!(
        bench.refused(&stay("c", 2).with_instance_id(i())),
        ErrorCode::FencedInstanceId
    );
    assert_eq!(
        bench.refused(&stay("c", -2).with_instance_id(i())),
        ErrorCode::FencedInstanceId
    );
    let unknown = stay("a", 2).with_instance_id(Some(text("other")));
    assert_eq!(bench.refused(&unknown), ErrorCode::UnknownMemberId);

    let told = bench.beat(&stay("a", -2).with_instance_id(i()));
    assert_eq!(bench.told(&told), (-2, None));
    let told = bench.beat(&stay("b", 2));
    assert_eq!(bench.told(&told), (2, None));
    let told = bench.beat(&again);
    assert_eq!(bench.told(&told), (2, has(&[("t", &[0, 1])])));
    assert_eq!(bench.state(), "Stable");
    assert_eq!(
        bench.refused(&stay("a", 2).with_instance_id(i())),
        ErrorCode::FencedInstanceId
    );
    // The old member's session does not end the new one's.
    bench.advance(Duration::from_secs(44));
    bench.beat(&stay("c", 2).with_instance_id(i()));
    bench.fail_over();

    // Under the same id too; and who does not come back is gone with its session.
    bench.beat(&stay("c", -2).with_instance_id(i()));
    let told = bench.beat(&join("c", &["t"]).with_instance_id(i()));
    assert_eq!(bench.told(&told), (2, has(&[("t", &[0, 1])])));
    bench.beat(&stay("c", -2).with_instance_id(i()));
    bench.advance(Duration::from_secs(44));
    bench.beat(&stay("b", 2));
    bench.advance(Duration::from_secs(1));
    let told = bench.beat(&stay("b", 2));
    assert_eq!(bench.told(&told).1, has(&[("t", &[0, 1, 2, 3])]));
}

#[test]
fn topics_and_subscriptions_may_change() {
    let mut bench = Bench::new(&[("t", 1), ("u", 1)]);
    bench.beat(&join("a", &["t"]));
    bench.topics.set("t", 2);
    let told = bench.beat(&stay("a", 1));
    assert_eq!(bench.told(&told), (2, has(&[("t", &[0, 1])])));
    // A topic that is nobody's concern changes nothing.
    bench.topics.set("u", 2);
    let told = bench.beat(&stay("a", 2));
    assert_eq!(bench.told(&told), (2, None));
    bench.fail_over();
    let told = bench.beat(&stay("a", 2));
    assert_eq!(bench.told(&told), (2, None));

    let mut request = stay("a", 2);
    request.subscribed_topic_names = join("a", &["u"]).subscribed_topic_names;
    let told = bench.beat(&request);
    assert_eq!(bench.told(&told), (2, has(&[])));
    let told = bench.beat(&bench.own("a", 2, &[]));
    assert_eq!(bench.told(&told), (3, has(&[("u", &[0, 1])])));

    let before: Cluster = bench.topics.clone();
    bench.topics.delete("u");
    let told = bench.beat(&stay("a", 3));
    assert_eq!(bench.told(&told), (3, has(&[])));
    drop(before);
}

#[test]
fn a_topic_that_nobody_reads_any_more_changes_nothing() {
    let mut bench = Bench::new(&[("t", 1), ("u", 1)]);
    bench.beat(&join("a", &["t"]));
    bench.beat(&join("b", &["u"]));
    bench.beat(&stay("a", 1));
    bench.beat(&stay("b", -1));
    let told = bench.beat(&stay("a", 2));
    assert_eq!(bench.told(&told), (3, None));
    bench.topics.set("u", 2);
    let told = bench.beat(&stay("a", 3));
    assert_eq!(bench.told(&told), (3, None));
}

#[test]
fn a_regular_expression_follows_the_topics() {
    let mut bench = Bench::new(&[("ab", 1), ("b", 1)]);
    let regex = |regex: &str| {
        join("a", &[])
            .with_subscribed_topic_names(None)
            .with_subscribed_topic_regex(Some(text(regex)))
    };
    let told = bench.beat(&regex("a.*"));
    assert_eq!(bench.told(&told), (1, has(&[("ab", &[0])])));
    assert_eq!(
        bench.kinds(0),
        ["Member", "Regex", "Group", "Target", "TargetEpoch", "Current"]
    );

    bench.topics.set("ac", 1);
    let told = bench.beat(&stay("a", 1));
    assert_eq!(bench.told(&told), (2, has(&[("ab", &[0]), ("ac", &[0])])));
    bench.fail_over();

    // Names and expression add up; the empty expression is none, and what nobody uses is forgotten.
    let first = bench.log.len();
    let mut names = stay("a", 2).with_subscribed_topic_regex(Some(text("")));
    names.subscribed_topic_names = join("a", &["b"]).subscribed_topic_names;
    let told = bench.beat(&names);
    assert_eq!(bench.told(&told), (2, has(&[])));
    assert_eq!(bench.kinds(first)[..3], ["Member", "-Regex", "Group"]);
    bench.fail_over();
}

#[test]
fn the_assignor_is_chosen_by_vote() {
    let mut bench = Bench::new(&[("t", 4)]);
    let range = || Some(text("range"));
    bench.beat(&join("a", &["t"]).with_server_assignor(Some(text("uniform"))));
    bench.beat(&join("b", &["t"]).with_server_assignor(range()));
    bench.beat(&join("c", &["t"]).with_server_assignor(range()));
    bench.beat(&stay("a", 1));
    let told = bench.beat(&bench.own("a", 1, &[]));
    // Uniform would have left 0, 1 and two others; range cuts 0 and 1 for the first.
    assert_eq!(bench.told(&told), (3, None));
    let told = bench.beat(&join("a", &["t"]));
    assert_eq!(bench.told(&told), (3, has(&[("t", &[0, 1])])));
    let told = bench.beat(&stay("c", 3));
    assert_eq!(bench.told(&told).1, has(&[("t", &[3])]));
}

/// Settings of the group under test.
#[derive(Debug)]
struct Own;

impl GroupOverrides for Own {
    fn session_timeout(&self, group: &str) -> Option<Duration> {
        (group == GROUP).then_some(Duration::from_secs(50))
    }

    fn heartbeat_interval(&self, group: &str) -> Option<Duration> {
        (group == GROUP).then_some(Duration::from_secs(7))
    }
}

#[test]
fn what_is_set_for_a_group_holds_from_the_next_heartbeat_on() {
    let config = |of_groups| GroupConfig {
        of_groups,
        ..GroupConfig::default()
    };
    let mut bench = Bench::new(&[("t", 1)]);
    let joined = bench.beat(&join("a", &["t"]));
    assert_eq!(joined.heartbeat_interval_ms, 5000);
    bench.shard.configure(config(Arc::new(Own)));
    bench.advance(Duration::from_millis(44_999));
    assert_eq!(bench.beat(&stay("a", 1)).heartbeat_interval_ms, 7000);
    bench.advance(Duration::from_millis(49_999));
    assert_eq!(bench.state(), "Stable");
    bench.fail_over();
    bench.advance(Duration::from_millis(49_999));
    assert_eq!(bench.state(), "Stable", "a new leader gives as long");
    bench.beat(&stay("a", 1));
    bench.shard.configure(config(Arc::new(())));
    bench.advance(Duration::from_millis(49_999));
    assert_eq!(bench.beat(&stay("a", 1)).heartbeat_interval_ms, 5000);
    bench.advance(Duration::from_secs(45));
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn a_full_group_takes_no_more() {
    let config = GroupConfig {
        consumer_max_size: 1,
        ..GroupConfig::default()
    };
    let mut bench = Bench::with(config, &[("t", 1)]);
    bench.beat(&join("a", &["t"]));
    assert_eq!(bench.refused(&join("b", &["t"])), ErrorCode::GroupMaxSizeReached);
    bench.beat(&join("a", &["t"]));

    let config = GroupConfig {
        max_group_bytes: 1400,
        ..GroupConfig::default()
    };
    let mut bench = Bench::with(config, &[("t", 1)]);
    bench.beat(&join("a", &["t"]));
    let long = "x".repeat(1000);
    assert_eq!(
        bench.refused(&join("b", &[&long])),
        ErrorCode::GroupMaxSizeReached
    );
    let mut grown = stay("a", 1);
    grown.subscribed_topic_names = join("a", &[&long, "t"]).subscribed_topic_names;
    assert_eq!(bench.refused(&grown), ErrorCode::GroupMaxSizeReached);
}

#[test]
fn what_does_not_fit_a_batch_changes_nothing() {
    let config = GroupConfig {
        max_batch_bytes: 3000,
        ..GroupConfig::default()
    };
    let mut bench = Bench::with(config, &[("t", 100)]);
    bench.beat(&join("a", &["t"]));
    bench.topics.set("t", 1000);
    assert_eq!(bench.refused(&stay("a", 1)), ErrorCode::UnknownServerError);
    bench.fail_over();
    bench.topics.set("t", 120);
    let told = bench.beat(&stay("a", 1));
    assert_eq!(bench.told(&told).0, 2);
}
