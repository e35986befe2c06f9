//! The next step of a member towards its target: pure, and the place where two owners would come from.
//!
//! Source: KIP-848, "Member state machine"; Kafka's `CurrentAssignmentBuilder`.

use uuid::Uuid;

use super::{collect, slots};
use crate::records::{CurrentAssignment, MemberState, Partitions};

/// What the target assignment wants of a member.
pub(super) struct Target<'a> {
    pub(super) epoch: i32,
    pub(super) partitions: &'a Partitions,
}

/// The member is in a state that this code does not know. It has to give up everything and join again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnknownState;

/// Takes `current` as far towards `target` as it goes.
///
/// `claimed` is what the member says it owns, `None` if it said nothing; `is_owned` tells whether a member, this one
/// included, has a partition or has still to give it up.
pub(super) fn step(
    current: &CurrentAssignment,
    target: &Target<'_>,
    claimed: Option<&Partitions>,
    is_owned: impl Fn(Uuid, i32) -> bool,
) -> Result<CurrentAssignment, UnknownState> {
    let epoch = match current.state {
        MemberState::Stable if current.epoch == target.epoch => return Ok(current.clone()),
        MemberState::Stable | MemberState::UnreleasedPartitions => current.epoch,
        MemberState::UnrevokedPartitions if holds_any(claimed, &current.revoking) => {
            return Ok(current.clone());
        }
        // What it was to give up is given up.
        MemberState::UnrevokedPartitions => current.epoch.saturating_add(1),
        MemberState::Unknown if claimed.is_some_and(Partitions::is_empty) => target.epoch,
        MemberState::Unknown => return Err(UnknownState),
    };
    Ok(towards(current, epoch, target, claimed, is_owned))
}

fn towards(
    current: &CurrentAssignment,
    epoch: i32,
    target: &Target<'_>,
    claimed: Option<&Partitions>,
    is_owned: impl Fn(Uuid, i32) -> bool,
) -> CurrentAssignment {
    let wanted = |slot: &(Uuid, i32)| contains(target.partitions, slot);
    let kept = collect(slots(&current.assigned).filter(wanted));
    let revoking = collect(slots(&current.assigned).filter(|slot| !wanted(slot)));
    let next = |epoch, state, assigned, revoking| CurrentAssignment {
        epoch,
        previous_epoch: current.epoch,
        state,
        assigned,
        revoking,
    };
    if !revoking.is_empty() && holds_any(claimed, &revoking) {
        return next(epoch, MemberState::UnrevokedPartitions, kept, revoking);
    }
    let missing = || slots(target.partitions).filter(|slot| !contains(&kept, slot));
    let unreleased = missing().any(|(topic, partition)| is_owned(topic, partition));
    let free = missing().filter(|(topic, partition)| !is_owned(*topic, *partition));
    let assigned = collect(slots(&kept).chain(free));
    let state = if unreleased {
        MemberState::UnreleasedPartitions
    } else {
        MemberState::Stable
    };
    next(target.epoch, state, assigned, Partitions::new())
}

/// Whether the member still has one of `partitions`. A member that says nothing is believed to have them all.
fn holds_any(claimed: Option<&Partitions>, partitions: &Partitions) -> bool {
    claimed.is_none_or(|claimed| slots(claimed).any(|slot| contains(partitions, &slot)))
}

pub(super) fn contains(partitions: &Partitions, (topic, partition): &(Uuid, i32)) -> bool {
    partitions
        .get(topic)
        .is_some_and(|partitions| partitions.contains(partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(of: &[i32]) -> Partitions {
        collect(of.iter().map(|partition| (Uuid::from_u128(1), *partition)))
    }

    fn current(state: MemberState, epoch: i32, assigned: &[i32], revoking: &[i32]) -> CurrentAssignment {
        CurrentAssignment {
            epoch,
            previous_epoch: epoch - 1,
            state,
            assigned: partitions(assigned),
            revoking: partitions(revoking),
        }
    }

    /// From `current` with the target epoch 9; `owned` are partitions that somebody has.
    fn stepped(
        from: &CurrentAssignment,
        target: &[i32],
        claimed: Option<&[i32]>,
        owned: &[i32],
    ) -> CurrentAssignment {
        let target = Target {
            epoch: 9,
            partitions: &partitions(target),
        };
        let claimed = claimed.map(partitions);
        step(from, &target, claimed.as_ref(), |_, partition| {
            owned.contains(&partition)
        })
        .unwrap()
    }

    use MemberState::{Stable, UnreleasedPartitions, UnrevokedPartitions};

    #[test]
    fn a_member_first_gives_up_and_then_gets() {
        let first = stepped(&current(Stable, 5, &[1, 2], &[]), &[2, 3], None, &[1, 2]);
        assert_eq!(
            first,
            CurrentAssignment {
                previous_epoch: 5,
                ..current(UnrevokedPartitions, 5, &[2], &[1])
            }
        );

        // It does not say what it has, or says that it still has what it must give up.
        assert_eq!(stepped(&first, &[2, 3], None, &[1, 2]), first);
        assert_eq!(stepped(&first, &[2, 3], Some(&[1, 2]), &[1, 2]), first);

        let second = stepped(&first, &[2, 3], Some(&[2]), &[1, 2]);
        assert_eq!(
            second,
            CurrentAssignment {
                previous_epoch: 5,
                ..current(Stable, 9, &[2, 3], &[])
            }
        );
    }

    #[test]
    fn a_partition_of_another_is_waited_for() {
        let waiting = stepped(&current(Stable, 5, &[], &[]), &[1, 2], Some(&[]), &[2]);
        assert_eq!(
            waiting,
            CurrentAssignment {
                previous_epoch: 5,
                ..current(UnreleasedPartitions, 9, &[1], &[])
            }
        );
        let done = stepped(&waiting, &[1, 2], None, &[1]);
        assert_eq!(
            done,
            CurrentAssignment {
                previous_epoch: 9,
                ..current(Stable, 9, &[1, 2], &[])
            }
        );
    }

    #[test]
    fn what_a_member_has_just_given_up_is_not_free_in_the_same_step() {
        // The target wants partition 1 back; it is this member's own to give up.
        let from = current(UnrevokedPartitions, 5, &[2], &[1]);
        let next = stepped(&from, &[1, 2], Some(&[2]), &[1, 2]);
        assert_eq!(
            (next.state, next.assigned),
            (UnreleasedPartitions, partitions(&[2]))
        );
    }

    #[test]
    fn a_member_that_never_took_its_partitions_need_not_give_them_up() {
        let next = stepped(&current(Stable, 5, &[1], &[]), &[2], Some(&[]), &[1]);
        assert_eq!(
            next,
            CurrentAssignment {
                previous_epoch: 5,
                ..current(Stable, 9, &[2], &[])
            }
        );
    }

    #[test]
    fn an_acknowledgement_towards_a_newer_target_goes_one_epoch_only() {
        let next = stepped(
            &current(UnrevokedPartitions, 5, &[2, 3], &[1]),
            &[3],
            Some(&[2, 3]),
            &[1, 2, 3],
        );
        assert_eq!(
            next,
            CurrentAssignment {
                previous_epoch: 5,
                ..current(UnrevokedPartitions, 6, &[3], &[2])
            }
        );
    }

    #[test]
    fn an_unknown_state_is_left_with_nothing_only() {
        let from = current(MemberState::Unknown, 5, &[1], &[]);
        let target = Target {
            epoch: 9,
            partitions: &partitions(&[1]),
        };
        assert_eq!(step(&from, &target, None, |_, _| false), Err(UnknownState));
        assert_eq!(stepped(&from, &[1], Some(&[]), &[1]).state, Stable);
    }
}
