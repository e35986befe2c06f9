//! Who takes part in the metadata group: every registered broker receives its log, three or five of them vote.
//!
//! Kept by the controller, one change at a time. A voter that is gone for good is replaced by another broker; one that
//! comes back in time stays.

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
        let change = plan(&cluster.image(), &members, silence);
        let result = match change {
            None => continue,
            Some(Change::Receive(node, voter)) => cluster.metadata_group.add_receiver(node, voter).await,
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
    /// These are to vote.
    Vote(BTreeSet<u64>),
}

/// The next change, if one is wanted.
fn plan(image: &Image, members: &Members, silence: impl Fn(u64) -> Duration) -> Option<Change> {
    let brokers: BTreeMap<u64, Voter> = image
        .brokers
        .values()
        .filter(|broker| !broker.rpc.is_empty())
        .map(|broker| {
            let directory = broker.directory;
            (node_number(broker.id), Voter { directory })
        })
        .collect();
    let new = brokers
        .iter()
        .find(|(node, voter)| members.nodes.get(*node) != Some(*voter));
    if let Some((node, voter)) = new
        && !members.voters.contains(node)
    {
        return Some(Change::Receive(*node, voter.clone()));
    }
    if members.is_changing {
        return None;
    }
    let spare = brokers.keys().copied().find(|node| {
        !members.voters.contains(node) && members.up_to_date.contains(node) && silence(*node) < ABSENT
    })?;
    let gone = members
        .voters
        .iter()
        .copied()
        .find(|node| silence(*node) > REPLACE_AFTER);
    let wanted = if members.voters.len() >= VOTERS || brokers.len() < VOTERS {
        members.voters.len()
    } else {
        VOTERS
    };
    let mut voters = members.voters.clone();
    match gone {
        Some(gone) => voters.remove(&gone),
        None if voters.len() < wanted => true,
        None => return None,
    };
    voters.insert(spare);
    Some(Change::Vote(voters))
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
        }
    }

    fn next(image: &Image, members: &Members, gone: &[u64]) -> Option<Change> {
        plan(image, members, |node| match gone.contains(&node) {
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
    }
}
