//! Who takes part in the metadata group: every registered broker receives its log, three or five of them vote.
//!
//! Kept by the controller, one change at a time; one that another controller has left half done is brought to its end. A voter that is gone for good, or is being decommissioned, is replaced by
//! another broker; one that comes back in time stays. A controller that is to go passes its role on first (`drain.rs`), and
//! the next one takes its vote. Who is unregistered receives no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Cluster, node_number};
use crate::metadata::Image;
use crate::raft::{Members, Voter};

/// How often the members are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Voters of a cluster that has as many brokers, unless it was founded with more.
const VOTERS: usize = 3;

/// Silence of a voter after which another broker takes its place.
const REPLACE_AFTER: Duration = Duration::from_secs(300);

/// Silence of a broker that rules it out as a new voter.
const ABSENT: Duration = Duration::from_secs(2);

/// Keeps the members of the metadata group until the node stops.
pub(super) async fn keep(cluster: Arc<Cluster>) {
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(LOOK) => {}
        }
        if !cluster.is_controller() {
            continue;
        }
        let Some(members) = cluster.metadata_group.members() else {
            continue;
        };
        // One that is known to be gone keeps its place for as long as any other silence.
        let silence = |node: u64| i32::try_from(node).map_or(Duration::MAX, |id| cluster.silence(id));
        let change = plan(cluster.host.node, &cluster.image(), &members, silence);
        let result = match change {
            None => continue,
            Some(Change::Receive(node, voter)) => cluster.metadata_group.add_receiver(node, voter).await,
            Some(Change::Drop(nodes)) => cluster.metadata_group.remove_receivers(nodes).await,
            Some(Change::Vote(voters)) => cluster.metadata_group.set_voters(voters, true).await,
        };
        if let Err(reason) = result {
            tracing::warn!(reason, "members of the metadata group not changed");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// This broker is to receive the log.
    Receive(u64, Voter),
    /// These receive for nothing.
    Drop(BTreeSet<u64>),
    /// These are to vote.
    Vote(BTreeSet<u64>),
}

/// The next change, if one is wanted. `node` is the controller.
fn plan(node: u64, image: &Image, members: &Members, silence: impl Fn(u64) -> Duration) -> Option<Change> {
    if let Some(voters) = &members.half_changed {
        return Some(Change::Vote(voters.clone()));
    }
    let brokers: BTreeMap<u64, Voter> = image
        .brokers
        .values()
        .filter(|broker| !broker.rpc.is_empty())
        .map(|broker| {
            let directory = broker.directory;
            (node_number(broker.id), Voter { directory })
        })
        .collect();
    let is_voter = |node: &u64| members.voters.contains(node);
    let idle = members
        .nodes
        .iter()
        .filter(|(node, voter)| brokers.get(*node) != Some(*voter) && !is_voter(node));
    let idle: BTreeSet<u64> = idle.map(|(node, _)| *node).collect();
    if !idle.is_empty() {
        return Some(Change::Drop(idle));
    }
    let new = brokers
        .iter()
        .find(|(node, _)| !members.nodes.contains_key(*node));
    if let Some((node, voter)) = new {
        return Some(Change::Receive(*node, voter.clone()));
    }
    if members.is_changing {
        return None;
    }
    let leaving: BTreeSet<u64> = image.decommissioning.iter().copied().map(node_number).collect();
    let spare = brokers.keys().copied().find(|node| {
        !is_voter(node)
            && !leaving.contains(node)
            && members.up_to_date.contains(node)
            && silence(*node) < ABSENT
    });
    next_voters(node, members, &leaving, brokers.len(), spare, silence).map(Change::Vote)
}

/// Who is to vote, if that is to change: `spare` could.
fn next_voters(
    node: u64,
    members: &Members,
    leaving: &BTreeSet<u64>,
    brokers: usize,
    spare: Option<u64>,
    silence: impl Fn(u64) -> Duration,
) -> Option<BTreeSet<u64>> {
    let mut voters = members.voters.clone();
    let goes = voters
        .iter()
        .copied()
        .find(|voter| leaving.contains(voter) && *voter != node);
    if let Some(goes) = goes {
        voters.remove(&goes);
        match spare {
            Some(spare) => drop(voters.insert(spare)),
            // Three never become two; one that had got a second vote to hand its own on gives it up.
            None if voters.len() >= VOTERS || voters.len() == 1 => {}
            None => return None,
        }
        return Some(voters);
    }
    let spare = spare?;
    let gone = voters.iter().copied().find(|node| silence(*node) > REPLACE_AFTER);
    // A controller that is to go, and alone votes, can pass its role on to nobody yet.
    let is_alone = leaving.contains(&node) && voters.len() == 1;
    let are_few = voters.len() < VOTERS && brokers >= VOTERS;
    match gone {
        Some(gone) => voters.remove(&gone),
        None if are_few || is_alone => true,
        None => return None,
    };
    voters.insert(spare);
    Some(voters)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::metadata::BrokerInfo;

    fn voter(node: u64) -> Voter {
        Voter {
            directory: Uuid::from_u128(node.into()),
        }
    }

    fn image(ids: &[i32]) -> Image {
        let broker = |id: &i32| BrokerInfo {
            id: *id,
            rack: None,
            endpoints: Vec::new(),
            rpc: format!("host{id}:33145"),
            directory: voter(node_number(*id)).directory,
        };
        Image {
            brokers: ids.iter().map(|id| (*id, broker(id))).collect(),
            ..Image::default()
        }
    }

    fn members(voters: &[u64], nodes: &[u64]) -> Members {
        Members {
            voters: voters.iter().copied().collect(),
            nodes: nodes.iter().map(|node| (*node, voter(*node))).collect(),
            up_to_date: nodes.iter().copied().collect(),
            is_changing: false,
            half_changed: None,
        }
    }

    fn next(image: &Image, members: &Members, gone: &[u64]) -> Option<Change> {
        plan(1, image, members, |node| match gone.contains(&node) {
            true => REPLACE_AFTER * 2,
            false => Duration::ZERO,
        })
    }

    #[test]
    fn a_new_broker_receives_and_then_votes_while_voters_are_few() {
        let three = image(&[1, 2, 3]);
        assert_eq!(
            next(&three, &members(&[1], &[1]), &[]),
            Some(Change::Receive(2, voter(2)))
        );
        assert_eq!(
            next(&three, &members(&[1], &[1, 2, 3]), &[]),
            Some(Change::Vote([1, 2].into()))
        );
        assert_eq!(next(&image(&[1, 2]), &members(&[1], &[1, 2]), &[]), None);
        assert_eq!(
            next(&image(&[1, 2, 3, 4]), &members(&[1, 2, 3], &[1, 2, 3, 4]), &[]),
            None
        );
    }

    #[test]
    fn a_voter_gone_for_good_is_replaced_by_one_that_is_there() {
        let four = image(&[1, 2, 3, 4]);
        let all = members(&[1, 2, 3], &[1, 2, 3, 4]);
        assert_eq!(next(&four, &all, &[2]), Some(Change::Vote([1, 3, 4].into())));
        assert_eq!(next(&four, &all, &[2, 4]), None);
        let mut behind = members(&[1, 2, 3], &[1, 2, 3, 4]);
        behind.up_to_date.remove(&4);
        assert_eq!(next(&four, &behind, &[2]), None);
        let changing = Members {
            is_changing: true,
            ..all
        };
        assert_eq!(next(&four, &changing, &[2]), None);
        let half_changed = Members {
            half_changed: Some([1, 2, 4].into()),
            ..changing
        };
        let finish = Some(Change::Vote([1, 2, 4].into()));
        assert_eq!(next(&four, &half_changed, &[2]), finish, "first what was begun");
    }

    #[test]
    fn a_voter_that_is_decommissioned_hands_its_vote_on() {
        let mut four = image(&[1, 2, 3, 4]);
        four.decommissioning = [2].into();
        let all = members(&[1, 2, 3], &[1, 2, 3, 4]);
        assert_eq!(next(&four, &all, &[]), Some(Change::Vote([1, 3, 4].into())));
        assert_eq!(next(&four, &all, &[4]), None, "two voters are too few");
        let after = members(&[1, 3, 4], &[1, 2, 3, 4]);
        assert_eq!(next(&four, &after, &[]), None);
        assert_eq!(next(&four, &after, &[3]), None, "it gets no vote back");
        // The controller itself passes its role on first.
        four.decommissioning = [1].into();
        assert_eq!(next(&four, &all, &[]), None);
        let mut five = image(&[1, 2, 3, 4, 5]);
        five.decommissioning = [5].into();
        let all = members(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
        assert_eq!(next(&five, &all, &[]), Some(Change::Vote([1, 2, 3, 4].into())));
        let mut two = image(&[1, 2]);
        two.decommissioning = [1].into();
        assert_eq!(
            next(&two, &members(&[1], &[1, 2]), &[]),
            Some(Change::Vote([1, 2].into())),
            "there must be somebody to pass it on to"
        );
        assert_eq!(next(&two, &members(&[1, 2], &[1, 2]), &[]), None);
        let passed = plan(2, &two, &members(&[1, 2], &[1, 2]), |_| Duration::ZERO);
        assert_eq!(passed, Some(Change::Vote([2].into())));
    }

    #[test]
    fn who_is_unregistered_receives_no_more() {
        let all = members(&[1, 2, 3], &[1, 2, 3, 4]);
        assert_eq!(
            next(&image(&[1, 2, 3]), &all, &[]),
            Some(Change::Drop([4].into()))
        );
        // Another one with its id begins anew.
        let mut other = image(&[1, 2, 3, 4]);
        if let Some(broker) = other.brokers.get_mut(&4) {
            broker.directory = Uuid::from_u128(99);
        }
        assert_eq!(next(&other, &all, &[]), Some(Change::Drop([4].into())));
        assert!(matches!(
            next(&other, &members(&[1, 2, 3], &[1, 2, 3]), &[]),
            Some(Change::Receive(4, _))
        ));
    }
}
