use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn topic(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// Topics by their numbers of partitions, members by the numbers of their topics.
fn group(topics: &[i32], members: &[(&str, &[u128])]) -> Subscriptions {
    Subscriptions {
        members: members
            .iter()
            .map(|(id, topics)| {
                let subscriber = Subscriber {
                    topics: topics.iter().copied().map(topic).collect(),
                    ..Subscriber::default()
                };
                ((*id).to_owned(), subscriber)
            })
            .collect(),
        topics: (0..).map(topic).zip(topics.iter().copied()).collect(),
    }
}

fn remember(group: &mut Subscriptions, assignment: &BTreeMap<String, Partitions>) {
    for (id, member) in &mut group.members {
        member.previous = assignment.get(id).cloned().unwrap_or_default();
    }
}

fn owned(assignment: &BTreeMap<String, Partitions>, member: &str) -> Vec<(u128, Vec<i32>)> {
    assignment[member]
        .iter()
        .map(|(topic, partitions)| (topic.as_u128(), partitions.iter().copied().collect()))
        .collect()
}

fn load(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

#[test]
fn range_gives_the_same_ranges_of_topics_that_are_alike() {
    let group = group(&[3, 3], &[("a", &[0, 1]), ("b", &[0, 1])]);
    let assignment = Assignor::Range.assign(&group);
    assert_eq!(owned(&assignment, "a"), [(0, vec![0, 1]), (1, vec![0, 1])]);
    assert_eq!(owned(&assignment, "b"), [(0, vec![2]), (1, vec![2])]);
}

#[test]
fn range_cuts_each_topic_among_its_own_subscribers() {
    let group = group(&[3, 4, 1], &[("a", &[0, 1, 2]), ("b", &[0, 2]), ("c", &[1])]);
    let assignment = Assignor::Range.assign(&group);
    assert_eq!(
        owned(&assignment, "a"),
        [(0, vec![0, 1]), (1, vec![0, 1]), (2, vec![0])]
    );
    assert_eq!(owned(&assignment, "b"), [(0, vec![2])]);
    assert_eq!(owned(&assignment, "c"), [(1, vec![2, 3])]);
}

#[test]
fn range_gives_static_members_the_same_after_a_restart() {
    let mut group = group(&[3], &[("m1", &[0]), ("m2", &[0]), ("m3", &[0])]);
    group.members.get_mut("m3").unwrap().instance_id = Some("i1".to_owned());
    group.members.get_mut("m2").unwrap().instance_id = Some("i2".to_owned());
    let assignment = Assignor::Range.assign(&group);
    assert_eq!(owned(&assignment, "m3"), [(0, vec![0])]);
    assert_eq!(owned(&assignment, "m2"), [(0, vec![1])]);
    assert_eq!(owned(&assignment, "m1"), [(0, vec![2])]);

    let replaced = group.members.remove("m3").unwrap();
    group.members.insert("m0".to_owned(), replaced);
    let assignment = Assignor::Range.assign(&group);
    assert_eq!(owned(&assignment, "m0"), [(0, vec![0])]);
    assert_eq!(owned(&assignment, "m1"), [(0, vec![2])]);
}

#[test]
fn uniform_moves_only_what_is_over_the_share() {
    let mut before = group(&[6], &[("a", &[0]), ("b", &[0])]);
    let assignment = Assignor::Uniform.assign(&before);
    assert_eq!(owned(&assignment, "a"), [(0, vec![0, 2, 4])]);
    assert_eq!(owned(&assignment, "b"), [(0, vec![1, 3, 5])]);

    before.members.insert("c".to_owned(), before.members["a"].clone());
    remember(&mut before, &assignment);
    let assignment = Assignor::Uniform.assign(&before);
    assert_eq!(owned(&assignment, "a"), [(0, vec![0, 2])]);
    assert_eq!(owned(&assignment, "b"), [(0, vec![1, 3])]);
    assert_eq!(owned(&assignment, "c"), [(0, vec![4, 5])]);
}

#[test]
fn uniform_leaves_the_odd_one_with_whom_has_it() {
    let mut group = group(&[3], &[("a", &[0]), ("b", &[0])]);
    group.members.get_mut("b").unwrap().previous = Partitions::from([(topic(0), BTreeSet::from([0, 2]))]);
    let assignment = Assignor::Uniform.assign(&group);
    assert_eq!(owned(&assignment, "b"), [(0, vec![0, 2])]);
    assert_eq!(owned(&assignment, "a"), [(0, vec![1])]);
}

#[test]
fn uniform_evens_out_unequal_subscriptions() {
    // Only `a` can have topic 1; so the others get the rest of topic 0.
    let group = group(&[4, 2], &[("a", &[0, 1]), ("b", &[0]), ("c", &[0])]);
    let assignment = Assignor::Uniform.assign(&group);
    assert_eq!(owned(&assignment, "a"), [(1, vec![0, 1])]);
    assert_eq!(load(&assignment["b"]), 2);
    assert_eq!(load(&assignment["c"]), 2);
}

#[test]
fn uniform_forgets_what_is_gone() {
    let mut group = group(&[1], &[("a", &[0]), ("b", &[0])]);
    group.members.get_mut("a").unwrap().previous =
        Partitions::from([(topic(0), BTreeSet::from([5])), (topic(9), BTreeSet::from([0]))]);
    // Two members remember the same partition: the first keeps it.
    for member in group.members.values_mut() {
        member.previous.entry(topic(0)).or_default().insert(0);
    }
    let assignment = Assignor::Uniform.assign(&group);
    assert_eq!(owned(&assignment, "a"), [(0, vec![0])]);
    assert_eq!(owned(&assignment, "b"), []);
}

#[derive(Debug, Clone)]
struct Shape {
    topics: Vec<i32>,
    members: Vec<BTreeSet<u128>>,
}

fn shape(homogeneous: bool) -> impl Strategy<Value = Shape> {
    vec(0_i32..12, 1..5).prop_flat_map(move |topics| {
        let all: Vec<u128> = (0..topics.len() as u128).collect();
        let subscription = btree_set(prop::sample::select(all.clone()), 0..=all.len());
        let members = if homogeneous {
            (subscription, 1_usize..8)
                .prop_map(|(topics, n)| vec![topics; n])
                .boxed()
        } else {
            vec(subscription, 1..8).boxed()
        };
        members.prop_map(move |members| Shape {
            topics: topics.clone(),
            members,
        })
    })
}

fn build(shape: &Shape) -> Subscriptions {
    let subscribed: BTreeSet<u128> = shape.members.iter().flatten().copied().collect();
    Subscriptions {
        members: shape
            .members
            .iter()
            .enumerate()
            .map(|(n, topics)| {
                let topics = topics.iter().copied().map(topic).collect();
                (
                    format!("m{n}"),
                    Subscriber {
                        topics,
                        ..Subscriber::default()
                    },
                )
            })
            .collect(),
        topics: (0..)
            .zip(&shape.topics)
            .filter(|(n, _)| subscribed.contains(n))
            .map(|(n, partitions)| (topic(n), *partitions))
            .collect(),
    }
}

fn is_complete(
    group: &Subscriptions,
    assignment: &BTreeMap<String, Partitions>,
) -> Result<(), TestCaseError> {
    prop_assert!(assignment.keys().eq(group.members.keys()));
    let mut seen = BTreeSet::new();
    for (id, partitions) in assignment {
        for (topic, partitions) in partitions {
            prop_assert!(group.members[id].topics.contains(topic), "{id} did not subscribe");
            prop_assert!(!partitions.is_empty());
            for partition in partitions {
                prop_assert!(seen.insert((*topic, *partition)), "two owners");
            }
        }
    }
    let all = group
        .topics
        .iter()
        .flat_map(|(topic, n)| (0..*n).map(move |partition| (*topic, partition)));
    prop_assert_eq!(seen, all.collect());
    Ok(())
}

/// No partition can move to a subscriber that owns two or more fewer.
fn is_balanced(
    group: &Subscriptions,
    assignment: &BTreeMap<String, Partitions>,
) -> Result<(), TestCaseError> {
    for partitions in assignment.values() {
        for topic in partitions.keys() {
            for (other, member) in &group.members {
                if member.topics.contains(topic) {
                    prop_assert!(load(partitions) <= load(&assignment[other]) + 1, "{assignment:?}");
                }
            }
        }
    }
    Ok(())
}

fn len(partitions: &BTreeSet<i32>) -> i32 {
    i32::try_from(partitions.len()).unwrap()
}

proptest! {
    #[test]
    fn uniform_is_complete_and_balanced_and_then_rests(
        first in any::<bool>().prop_flat_map(shape),
        second in any::<bool>().prop_flat_map(shape),
    ) {
        let before = build(&first);
        let assignment = Assignor::Uniform.assign(&before);
        is_complete(&before, &assignment)?;
        is_balanced(&before, &assignment)?;

        let mut after = build(&second);
        remember(&mut after, &assignment);
        let assignment = Assignor::Uniform.assign(&after);
        is_complete(&after, &assignment)?;
        is_balanced(&after, &assignment)?;

        remember(&mut after, &assignment);
        prop_assert_eq!(Assignor::Uniform.assign(&after), assignment);
    }

    /// With equal subscriptions a member keeps all that its share has room for.
    #[test]
    fn uniform_keeps_a_full_share(first in shape(true), members in 1_usize..8) {
        let assignment = Assignor::Uniform.assign(&build(&first));
        let mut after = build(&Shape { members: vec![first.members[0].clone(); members], ..first });
        remember(&mut after, &assignment);
        let next = Assignor::Uniform.assign(&after);
        let share = after.topics.values().map(|n| usize::try_from(*n).unwrap()).sum::<usize>() / members;
        for (id, member) in &after.members {
            let kept: usize = member.previous.iter().map(|(topic, before)| {
                next[id].get(topic).map_or(0, |now| now.intersection(before).count())
            }).sum();
            prop_assert!(kept >= load(&member.previous).min(share));
        }
    }

    #[test]
    fn range_is_complete_and_even_in_each_topic(shape in any::<bool>().prop_flat_map(shape)) {
        let group = build(&shape);
        let assignment = Assignor::Range.assign(&group);
        is_complete(&group, &assignment)?;
        for (topic, partitions) in &group.topics {
            let counts: Vec<i32> = group.members.iter().filter(|(_, member)| member.topics.contains(topic))
                .map(|(id, _)| assignment[id].get(topic).map_or(0, len)).collect();
            let share = partitions / i32::try_from(counts.len()).unwrap();
            prop_assert!(counts.iter().all(|n| (share..=share + 1).contains(n)), "{counts:?}");
            for owned in assignment.values().filter_map(|owned| owned.get(topic)) {
                prop_assert_eq!(owned.last().unwrap() - owned.first().unwrap() + 1, len(owned));
            }
        }
    }
}
