//! Where the partitions of a new topic go.

use takhin_cluster::{Fitness, Fitnesses, Image, PartitionInfo, Spread};
use takhin_protocol::ErrorCode;

/// Most partitions that one request may create, as in Kafka's controller.
pub(crate) const MAX_PARTITIONS_PER_REQUEST: usize = 10_000;

/// Why a topic cannot be created as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unplaceable {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl Unplaceable {
    fn new(code: ErrorCode, message: String) -> Self {
        Self { code, message }
    }
}

/// Replicas for each of `partitions` partitions, spread over racks and brokers, preferred leader first.
///
/// # Errors
/// INVALID_PARTITIONS below 1, INVALID_REPLICATION_FACTOR below 1 or if there are not enough brokers (see
/// [`assign_more`]), POLICY_VIOLATION above [`MAX_PARTITIONS_PER_REQUEST`].
pub(crate) fn assign(
    image: &Image,
    fitness: &Fitnesses,
    partitions: i32,
    replication_factor: i16,
) -> Result<Vec<Vec<i32>>, Unplaceable> {
    let count = usize::try_from(partitions).unwrap_or(0);
    if count == 0 {
        let message = "Number of partitions must be larger than 0.".to_owned();
        return Err(Unplaceable::new(ErrorCode::InvalidPartitions, message));
    }
    let width = usize::try_from(replication_factor).unwrap_or(0);
    if width == 0 {
        let message = "Replication factor must be larger than 0.".to_owned();
        return Err(Unplaceable::new(ErrorCode::InvalidReplicationFactor, message));
    }
    assign_more(image, fitness, &[], count, width)
}

/// Replicas for each of `count` partitions that come after the topic's `existing` ones, spread as by [`assign`].
///
/// # Errors
/// INVALID_REPLICATION_FACTOR above the number of brokers that are to stay, and if those that are fenced leave no majority
/// of the replicas: nobody could lead then. POLICY_VIOLATION above [`MAX_PARTITIONS_PER_REQUEST`].
pub(crate) fn assign_more(
    image: &Image,
    fitness: &Fitnesses,
    existing: &[PartitionInfo],
    count: usize,
    width: usize,
) -> Result<Vec<Vec<i32>>, Unplaceable> {
    check_total(count)?;
    check_brokers(image, fitness, width)?;
    let mut spread = Spread::new(image, fitness, existing);
    Ok((0..count).map(|_| spread.place(width)).collect())
}

/// Whether there are brokers for `width` replicas.
fn check_brokers(image: &Image, fitness: &Fitnesses, width: usize) -> Result<(), Unplaceable> {
    let registered = image.brokers.len();
    let count = |so: fn(Fitness) -> bool| {
        let ids = image.brokers.keys();
        ids.filter(|id| fitness.get(id).is_none_or(|fitness| so(*fitness)))
            .count()
    };
    let (usable, there) = (count(Fitness::is_usable), count(Fitness::is_there));
    let why = if width <= usable {
        if there > width / 2 {
            return Ok(());
        }
        format!("only {there} broker(s) are unfenced")
    } else if usable < registered {
        format!("only {usable} broker(s) are registered that are not being decommissioned")
    } else {
        format!("only {registered} broker(s) are registered")
    };
    let message = format!(
        "Unable to replicate the partition {width} time(s): The target replication factor of {width} cannot be reached \
         because {why}."
    );
    Err(Unplaceable::new(ErrorCode::InvalidReplicationFactor, message))
}

/// Whether one request may create `count` partitions.
///
/// # Errors
/// POLICY_VIOLATION, as Kafka's controller answers.
pub(crate) fn check_total(count: usize) -> Result<(), Unplaceable> {
    if count > MAX_PARTITIONS_PER_REQUEST {
        let message = format!(
            "Excessively large number of partitions per request: {count} is more than {MAX_PARTITIONS_PER_REQUEST}."
        );
        return Err(Unplaceable::new(ErrorCode::PolicyViolation, message));
    }
    Ok(())
}

/// Checks replicas that the client chose: partitions 0 to n without gap, the same number of replicas each, known
/// brokers, none twice. Returns them by partition.
///
/// # Errors
/// INVALID_REPLICA_ASSIGNMENT.
pub(crate) fn check_assignment(
    image: &Image,
    chosen: &[(i32, Vec<i32>)],
) -> Result<Vec<Vec<i32>>, Unplaceable> {
    check_total(chosen.len())?;
    let mut by_index = chosen.to_vec();
    by_index.sort_unstable_by_key(|(index, _)| *index);
    for (expected, (index, _)) in (0..).zip(&by_index) {
        if *index != expected {
            let message = "partitions should be a consecutive 0-based integer sequence".to_owned();
            return Err(Unplaceable::new(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    let width = by_index.first().map_or(0, |(_, replicas)| replicas.len());
    for (_, replicas) in &by_index {
        check_replicas(image, replicas, width)?;
    }
    Ok(by_index.into_iter().map(|(_, replicas)| replicas).collect())
}

/// Checks the replicas that the client chose for one partition of a topic with `width` replicas: that many, known
/// brokers that are to stay, none twice.
///
/// # Errors
/// INVALID_REPLICA_ASSIGNMENT.
pub(crate) fn check_replicas(image: &Image, replicas: &[i32], width: usize) -> Result<(), Unplaceable> {
    let refuse = |message: String| Err(Unplaceable::new(ErrorCode::InvalidReplicaAssignment, message));
    if replicas.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".to_owned());
    }
    if replicas.len() != width {
        return refuse(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent \
             with previous partitions, which have {width} replica(s).",
            replicas.len()
        ));
    }
    for (i, broker) in replicas.iter().enumerate() {
        if replicas[..i].contains(broker) {
            return refuse(format!(
                "The manual partition assignment includes broker {broker} more than once."
            ));
        }
        if !image.brokers.contains_key(broker) {
            return refuse(format!(
                "The manual partition assignment includes broker {broker}, but no such broker is registered."
            ));
        }
        if image.decommissioning.contains(broker) {
            return refuse(format!(
                "The manual partition assignment includes broker {broker}, which is being decommissioned."
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use takhin_cluster::BrokerInfo;

    use super::*;

    fn image(brokers: &[i32]) -> Image {
        let broker = |id: &i32| {
            (
                *id,
                BrokerInfo {
                    id: *id,
                    rack: None,
                    endpoints: Vec::new(),
                    rpc: String::new(),
                    directory: uuid::Uuid::nil(),
                },
            )
        };
        Image {
            brokers: brokers.iter().map(broker).collect(),
            ..Image::default()
        }
    }

    #[test]
    fn partitions_are_spread_and_leaders_rotate() {
        let all = Fitnesses::new();
        let placed = assign(&image(&[1, 2, 5]), &all, 4, 2).unwrap();
        assert_eq!(placed, [[1, 2], [5, 1], [2, 5], [1, 5]]);
        let existing = |replicas: &[i32]| PartitionInfo {
            replicas: replicas.to_vec(),
            ..PartitionInfo::default()
        };
        let more = assign_more(&image(&[1, 2, 5]), &all, &[existing(&[1, 2])], 2, 2);
        assert_eq!(more.unwrap(), [[2, 5], [5, 1]]);
        let code = |partitions, factor| {
            assign(&image(&[1, 2]), &all, partitions, factor)
                .unwrap_err()
                .code
        };
        assert_eq!(code(0, 1), ErrorCode::InvalidPartitions);
        assert_eq!(code(1, 3), ErrorCode::InvalidReplicationFactor);
        assert_eq!(code(1, -1), ErrorCode::InvalidReplicationFactor);
        assert_eq!(code(10_001, 1), ErrorCode::PolicyViolation);
    }

    #[test]
    fn brokers_that_are_not_fit_are_taken_last() {
        let image = image(&[1, 2, 3, 4]);
        for unfit in [Fitness::Full, Fitness::Draining] {
            let fitness = [(1, unfit), (3, unfit)].into();
            let assign = |partitions, factor| assign(&image, &fitness, partitions, factor).unwrap();
            assert_eq!(assign(2, 2), [[2, 4], [4, 2]]);
            // As many as are asked for: it is them, or no topic.
            assert_eq!(assign(2, 3), [[2, 4, 3], [4, 2, 1]]);
            assert_eq!(assign(1, 4), [[2, 4, 3, 1]]);
        }
    }

    #[test]
    fn a_topic_that_nobody_could_lead_is_not_made() {
        let image = image(&[1, 2, 3, 4]);
        let fitness = |unfit: Fitness, ids: &[i32]| ids.iter().map(|id| (*id, unfit)).collect::<Fitnesses>();
        let refused =
            |unfit, ids: &[i32], factor| assign(&image, &fitness(unfit, ids), 1, factor).unwrap_err();
        assert_eq!(
            assign(&image, &fitness(Fitness::Absent, &[1, 3]), 1, 3).unwrap(),
            [[2, 4, 3]]
        );
        let few = refused(Fitness::Absent, &[1, 3], 4);
        assert_eq!(few.code, ErrorCode::InvalidReplicationFactor);
        assert!(
            few.message.ends_with("because only 2 broker(s) are unfenced."),
            "{few:?}"
        );
        let leaving = refused(Fitness::Leaving, &[1, 3], 3);
        assert_eq!(leaving.code, ErrorCode::InvalidReplicationFactor);
        assert!(
            leaving
                .message
                .ends_with("because only 2 broker(s) are registered that are not being decommissioned."),
            "{leaving:?}"
        );
        let fewer = assign(&image, &fitness(Fitness::Leaving, &[1, 3]), 1, 2).unwrap();
        assert_eq!(fewer, [[2, 4]]);
    }

    #[test]
    fn a_chosen_assignment_is_complete_even_and_known() {
        let mut image = image(&[1, 2, 4]);
        image.decommissioning = [4].into();
        let check = |chosen: &[(i32, &[i32])]| {
            let chosen: Vec<_> = chosen
                .iter()
                .map(|(index, replicas)| (*index, replicas.to_vec()))
                .collect();
            check_assignment(&image, &chosen)
        };
        assert_eq!(check(&[(1, &[2, 1]), (0, &[1, 2])]).unwrap(), [[1, 2], [2, 1]]);
        let wrong: [&[(i32, &[i32])]; 7] = [
            &[(1, &[1])],
            &[(0, &[1]), (0, &[1])],
            &[(0, &[1]), (1, &[1, 2])],
            &[(0, &[])],
            &[(0, &[1, 1])],
            &[(0, &[3])],
            &[(0, &[4])],
        ];
        for chosen in wrong {
            assert_eq!(
                check(chosen).unwrap_err().code,
                ErrorCode::InvalidReplicaAssignment,
                "{chosen:?}"
            );
        }
    }
}
