//! Until where the log of a replica in doubt may have reached, by what the others say.

use std::collections::BTreeSet;

use super::answer::{End, Of};
use crate::raft::types::RaftLogId;

/// Until where the log of replica `own` may have reached, which ends at `last` now: `None` as long as that is not known,
/// or a majority can do without it.
#[allow(clippy::option_option, reason = "a log may be empty")]
pub(super) fn farthest(
    own: u64,
    last: Option<RaftLogId>,
    configs: &[BTreeSet<u64>],
    ends: &[(u64, End)],
    may_give_up: bool,
) -> Option<Option<RaftLogId>> {
    if let Some((_, leader)) = ends.iter().find(|(_, end)| end.of == Of::Leader) {
        return Some(leader.last);
    }
    if ends.iter().any(|(_, end)| end.of == Of::Led) {
        // That leader has not answered yet, and may have what nobody else has.
        return None;
    }
    let is_majority = |of: &dyn Fn(u64) -> bool| {
        let has = |config: &BTreeSet<u64>| config.iter().filter(|node| of(**node)).count() > config.len() / 2;
        configs.iter().all(has)
    };
    let said = |node: u64| ends.iter().find(|(other, _)| *other == node).map(|(_, end)| end);
    let has_said = |node: u64| node == own || said(node).is_some();
    let is_sound = |node: u64| said(node).is_some_and(|end| end.of == Of::Sound);
    if is_majority(&is_sound) {
        return None;
    }
    let enough = match may_give_up {
        true => is_majority(&has_said),
        false => configs.iter().flatten().all(|node| has_said(*node)),
    };
    // A replica that has no vote cannot lead, whatever it has.
    let votes = |node: &u64| configs.iter().any(|config| config.contains(node));
    let lasts = ends
        .iter()
        .filter(|(node, _)| votes(node))
        .map(|(_, end)| end.last);
    enough.then(|| lasts.max().flatten().max(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::log_id;

    const OWN: u64 = 3;

    fn at(index: u64) -> Option<RaftLogId> {
        Some(log_id(2, index))
    }

    /// Where the log of the third of three replicas may have reached, which ends at 5.
    #[allow(clippy::option_option, reason = "as what is tested")]
    fn known(ends: &[(u64, Of, u64)], may_give_up: bool) -> Option<Option<RaftLogId>> {
        let end = |(node, of, index): &(u64, Of, u64)| {
            (
                *node,
                End {
                    last: at(*index),
                    of: *of,
                },
            )
        };
        let ends: Vec<_> = ends.iter().map(end).collect();
        farthest(OWN, at(5), &[BTreeSet::from([1, 2, OWN])], &ends, may_give_up)
    }

    #[test]
    fn a_leader_is_believed_and_otherwise_the_farthest_of_all() {
        use Of::{InDoubt, Leader, Led, Sound};
        assert_eq!(known(&[], false), None);
        assert_eq!(known(&[(1, InDoubt, 4), (2, Leader, 7)], false), Some(at(7)));
        assert_eq!(known(&[(1, InDoubt, 4), (2, Sound, 9)], false), Some(at(9)));
        assert_eq!(known(&[(1, InDoubt, 4), (2, InDoubt, 3)], false), Some(at(5)));
        // Those without doubt elect one of themselves.
        assert_eq!(known(&[(1, Sound, 4), (2, Sound, 9)], false), None);
        // The other may have more.
        assert_eq!(known(&[(1, Sound, 9)], false), None);
        assert_eq!(known(&[(1, Sound, 9)], true), Some(at(9)));
        assert_eq!(known(&[], true), None);
        // The leader has not been heard, and may have more than its follower.
        assert_eq!(known(&[(2, Led, 9)], true), None);
        assert_eq!(known(&[(1, Sound, 4), (2, Led, 9)], false), None);
    }

    #[test]
    fn while_voters_change_both_sets_have_a_word() {
        let configs = [BTreeSet::from([1, 2, OWN]), BTreeSet::from([2, OWN, 4])];
        let sound = |node, index| {
            (
                node,
                End {
                    last: at(index),
                    of: Of::Sound,
                },
            )
        };
        let ends = [sound(1, 4), sound(2, 9)];
        assert_eq!(
            farthest(OWN, at(5), &configs, &ends, false),
            None,
            "4 has not answered"
        );
        assert_eq!(farthest(OWN, at(5), &configs, &ends, true), Some(at(9)));
        let ends = [sound(1, 4), sound(2, 9), sound(4, 1)];
        assert_eq!(
            farthest(OWN, at(5), &configs, &ends, false),
            None,
            "they elect a leader"
        );
    }

    #[test]
    fn a_replica_without_a_vote_is_not_waited_for() {
        let end = |node, index| {
            (
                node,
                End {
                    last: at(index),
                    of: Of::InDoubt,
                },
            )
        };
        let ends = [end(1, 4), end(2, 7), end(4, 10)];
        let configs = [BTreeSet::from([1, 2, OWN])];
        assert_eq!(farthest(OWN, at(5), &configs, &ends, false), Some(at(7)));
    }
}
