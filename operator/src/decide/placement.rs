//! Where replicas go when a topic is to have more or fewer of them.

use std::collections::{BTreeMap, BTreeSet};

use takhin_client::PartitionDescription;

/// Brokers that replicas may go to, with their racks.
pub type Racks = BTreeMap<i32, Option<String>>;

/// The replicas of those partitions that have not `wished` of them, preferred leaders kept. `None` if there are too few
/// brokers.
///
/// More: brokers in racks that the partition is not in yet come first, then those with the fewest replicas of the topic.
/// Fewer: replicas that are not in sync go first, then those from the end.
pub fn with_factor(
    partitions: &[PartitionDescription],
    wished: usize,
    brokers: &Racks,
) -> Option<Vec<(i32, Vec<i32>)>> {
    let mut load: BTreeMap<i32, usize> = brokers.keys().map(|broker| (*broker, 0)).collect();
    for replica in partitions.iter().flat_map(|partition| &partition.replicas) {
        *load.entry(*replica).or_default() += 1;
    }
    let mut moves = Vec::new();
    for partition in partitions
        .iter()
        .filter(|partition| partition.replicas.len() != wished)
    {
        let mut replicas = partition.replicas.clone();
        while replicas.len() > wished {
            let gone = remove(partition, &mut replicas);
            load.entry(gone)
                .and_modify(|count| *count = count.saturating_sub(1));
        }
        while replicas.len() < wished {
            let new = add(&replicas, brokers, &load)?;
            *load.entry(new).or_default() += 1;
            replicas.push(new);
        }
        moves.push((partition.index, replicas));
    }
    Some(moves)
}

fn remove(partition: &PartitionDescription, replicas: &mut Vec<i32>) -> i32 {
    let behind = replicas
        .iter()
        .rposition(|replica| !partition.in_sync.contains(replica));
    // `wished` is at least 1, so that there are two here at least.
    let last = replicas.len().saturating_sub(1);
    replicas.remove(behind.unwrap_or(last))
}

fn add(replicas: &[i32], brokers: &Racks, load: &BTreeMap<i32, usize>) -> Option<i32> {
    let taken: BTreeSet<&str> = replicas
        .iter()
        .filter_map(|replica| brokers.get(replica)?.as_deref())
        .collect();
    let free = brokers.iter().filter(|(broker, _)| !replicas.contains(broker));
    let best = free.min_by_key(|(broker, rack)| {
        let same_rack = rack.as_deref().is_some_and(|rack| taken.contains(rack));
        (same_rack, load.get(broker).copied().unwrap_or(0), **broker)
    });
    best.map(|(broker, _)| *broker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(index: i32, replicas: &[i32], in_sync: &[i32]) -> PartitionDescription {
        PartitionDescription {
            index,
            leader: replicas.first().copied(),
            replicas: replicas.to_vec(),
            in_sync: in_sync.to_vec(),
        }
    }

    #[test]
    fn new_replicas_go_to_other_racks_and_to_whoever_has_least() {
        let rack = |name: &str| Some(name.to_owned());
        let brokers = Racks::from([(0, rack("a")), (1, rack("a")), (2, rack("b")), (3, rack("c"))]);
        let partitions = [
            partition(0, &[0], &[0]),
            partition(1, &[1], &[1]),
            partition(2, &[2, 3], &[2, 3]),
        ];
        let moves = with_factor(&partitions, 2, &brokers).unwrap();
        assert_eq!(moves, [(0, vec![0, 2]), (1, vec![1, 3])]);
        assert_eq!(with_factor(&partitions, 5, &brokers), None);
    }

    #[test]
    fn replicas_that_are_behind_go_first_and_the_preferred_leader_stays() {
        let brokers = Racks::from([(0, None), (1, None), (2, None)]);
        let partitions = [
            partition(0, &[0, 1, 2], &[0, 2]),
            partition(1, &[1, 2, 0], &[1, 2, 0]),
        ];
        let moves = with_factor(&partitions, 2, &brokers).unwrap();
        assert_eq!(moves, [(0, vec![0, 2]), (1, vec![1, 2])]);
    }
}
