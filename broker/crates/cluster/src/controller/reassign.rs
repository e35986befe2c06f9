//! Changes of replicas (KIP-455): what is asked for and what was done, as records.
//!
//! Invariant: a partition's `replicas` name every broker that may be a member of its group. A broker deletes its replica
//! when it is not among them; so one that goes stays there until the group's leader has said that it is out, also when a
//! change is cancelled or takes the place of another.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Controller, TopicError};
use crate::metadata::{Image, MetadataRecord, Reassignment};

/// A change of one partition's replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaChange {
    /// The topic.
    pub topic_id: Uuid,
    /// Index of the partition.
    pub index: i32,
    /// The replicas that there are to be, preferred leader first; `None` goes back to what they were.
    pub replicas: Option<Vec<i32>>,
    /// Whether there may be more or fewer of them than there were.
    pub may_resize: bool,
}

/// Replicas that a partition's group has come to consist of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) topic_id: Uuid,
    pub(crate) index: i32,
    /// [`Reassignment::id`]: word of an earlier one may come late, when the group has long become another.
    pub(crate) reassignment: Uuid,
}

impl Controller {
    /// Begins or cancels changes of replicas; the outcome of each, in order. All that can be made are made together.
    pub(crate) async fn reassign(
        &self,
        changes: &[ReplicaChange],
    ) -> Result<Vec<Result<(), TopicError>>, TopicError> {
        let _turn = self.turn.lock().await;
        let image = self.image();
        let draw = || Uuid::from_bytes(self.env.rng.uuid());
        let mut seen = BTreeSet::new();
        let mut records = Vec::new();
        let outcomes = changes.iter().map(|change| {
            if !seen.insert((change.topic_id, change.index)) {
                let message = "the partition is named twice".to_owned();
                return Err(TopicError::Replicas(message));
            }
            records.extend(plan(&image, change, false, draw)?);
            Ok(())
        });
        let outcomes = outcomes.collect();
        if !records.is_empty() {
            self.commit_in_turn(&records).await?;
        }
        Ok(outcomes)
    }

    /// Ends changes of replicas that are done; one that is to be another by now goes on.
    pub(crate) async fn reassigned(&self, moved: &[Moved]) -> Result<(), TopicError> {
        let _turn = self.turn.lock().await;
        let image = self.image();
        let records: Vec<_> = moved.iter().filter_map(|moved| done(&image, moved)).collect();
        if !records.is_empty() {
            self.commit_in_turn(&records).await?;
        }
        Ok(())
    }
}

fn done(image: &Image, moved: &Moved) -> Option<MetadataRecord> {
    let placement = image.partition(moved.topic_id, moved.index)?;
    let moving = placement.reassignment.as_ref()?;
    (moving.id == moved.reassignment).then(|| MetadataRecord::ReassignPartition {
        id: moved.topic_id,
        index: moved.index,
        replicas: moving.target.clone(),
        added: Vec::new(),
        reassignment: None,
        automatic: false,
    })
}

/// The record of a change, which the cluster makes by itself if `automatic`; none if the replicas are, or are to be, as asked
/// already.
pub(super) fn plan(
    image: &Image,
    change: &ReplicaChange,
    automatic: bool,
    draw: impl Fn() -> Uuid,
) -> Result<Option<MetadataRecord>, TopicError> {
    let placement = image
        .partition(change.topic_id, change.index)
        .ok_or(TopicError::Unknown)?;
    let moving = placement.reassignment.as_ref();
    let original = moving.map_or(&placement.replicas, |moving| &moving.original);
    let target = match &change.replicas {
        Some(target) => {
            check(image, target, &placement.replicas)?;
            if !change.may_resize && target.len() != original.len() {
                return Err(TopicError::ReplicationFactor {
                    before: original.len(),
                    after: target.len(),
                });
            }
            target
        }
        None if moving.is_some() => original,
        None => return Err(TopicError::NoReassignment),
    };
    if moving.map_or(&placement.replicas, |moving| &moving.target) == target {
        return Ok(None);
    }
    let mut replicas = target.clone();
    replicas.extend(placement.replicas.iter().filter(|id| !target.contains(id)));
    let is_new = |id: &&i32| !placement.replicas.contains(id);
    let added = target.iter().filter(is_new).map(|id| (*id, draw())).collect();
    let same = |a: &[i32], b: &[i32]| a.len() == b.len() && a.iter().all(|id| b.contains(id));
    // Another order alone is there at once.
    let is_there = moving.is_none() && same(target, &placement.replicas);
    Ok(Some(MetadataRecord::ReassignPartition {
        id: change.topic_id,
        index: change.index,
        replicas,
        added,
        reassignment: (!is_there).then(|| Reassignment {
            id: draw(),
            target: target.clone(),
            original: original.clone(),
        }),
        automatic,
    }))
}

fn check(image: &Image, target: &[i32], before: &[i32]) -> Result<(), TopicError> {
    let refuse = |message: String| Err(TopicError::Replicas(message));
    if target.is_empty() {
        return refuse("the list of replicas is empty".to_owned());
    }
    for (i, broker) in target.iter().enumerate() {
        if target[..i].contains(broker) {
            return refuse(format!("the list of replicas names broker {broker} twice"));
        }
        if !image.brokers.contains_key(broker) {
            return refuse(format!("no broker {broker} is registered"));
        }
        if image.decommissioning.contains(broker) && !before.contains(broker) {
            return refuse(format!("broker {broker} is being decommissioned"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use takhin_config::live::Settings;

    use super::*;
    use crate::metadata::PartitionInfo;
    use crate::metadata::{BrokerInfo, Origin};

    const TOPIC: Uuid = Uuid::from_u128(7);

    struct World {
        image: Image,
        origin: Origin,
        drawn: Cell<u128>,
    }

    impl World {
        fn new() -> Self {
            let origin = Origin {
                broker: 1,
                settings: Arc::new(Settings::default()),
            };
            let mut world = Self {
                image: Image::first(&origin),
                origin,
                drawn: Cell::new(99),
            };
            for id in 1..=5 {
                let broker = BrokerInfo {
                    id,
                    rack: None,
                    endpoints: Vec::new(),
                    rpc: String::new(),
                    directory: Uuid::from_u128(id.unsigned_abs().into()),
                };
                world.replay(&MetadataRecord::RegisterBroker { broker });
            }
            world.replay(&MetadataRecord::CreateTopic {
                name: "t".into(),
                id: TOPIC,
                partitions: vec![vec![1, 2, 3]],
                overrides: BTreeMap::new(),
            });
            world
        }

        fn replay(&mut self, record: &MetadataRecord) {
            self.image.replay(record, &self.origin);
        }

        fn ask(&mut self, replicas: Option<&[i32]>) -> Result<bool, TopicError> {
            let change = ReplicaChange {
                topic_id: TOPIC,
                index: 0,
                replicas: replicas.map(<[i32]>::to_vec),
                may_resize: true,
            };
            let drawn = &self.drawn;
            let draw = || Uuid::from_u128(drawn.replace(drawn.get() + 1));
            let record = plan(&self.image, &change, false, draw)?;
            if let Some(record) = &record {
                let read = MetadataRecord::decode(&record.encode()).unwrap();
                self.replay(&read);
            }
            Ok(record.is_some())
        }

        /// The number of the change that is under way.
        fn moving(&self) -> Uuid {
            self.now().reassignment.as_ref().unwrap().id
        }

        fn finish(&mut self, reassignment: Uuid) -> bool {
            let moved = Moved {
                topic_id: TOPIC,
                index: 0,
                reassignment,
            };
            let record = done(&self.image, &moved);
            if let Some(record) = &record {
                self.replay(record);
            }
            record.is_some()
        }

        fn now(&self) -> &PartitionInfo {
            self.image.partition(TOPIC, 0).unwrap()
        }

        /// All replicas, those that are added, those that go.
        fn listed(&self) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
            let now = self.now();
            let moving = now.reassignment.as_ref().unwrap();
            (
                now.replicas.clone(),
                moving.adding(),
                moving.removing(&now.replicas),
            )
        }
    }

    #[test]
    fn replicas_that_go_stay_until_the_group_is_without_them() {
        let mut world = World::new();
        assert!(world.ask(Some(&[4, 2, 1])).unwrap());
        assert_eq!(world.listed(), (vec![4, 2, 1, 3], vec![4], vec![3]));
        assert_eq!(world.image.reassigning.len(), 1);
        assert!(!world.finish(Uuid::from_u128(1)), "some other change");
        assert!(world.finish(world.moving()));
        let now = world.now();
        assert_eq!((&now.replicas, &now.reassignment), (&vec![4, 2, 1], &None));
        assert_eq!(now.voters.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(now.voters[&4], Uuid::from_u128(99));
        assert!(now.founders.is_empty() && world.image.reassigning.is_empty());
    }

    #[test]
    fn a_change_in_the_middle_of_another_goes_back_to_what_was_before_both() {
        let mut world = World::new();
        world.ask(Some(&[4, 2, 3])).unwrap();
        assert!(!world.ask(Some(&[4, 2, 3])).unwrap(), "asked twice");
        world.ask(Some(&[5, 2])).unwrap();
        assert_eq!(world.listed(), (vec![5, 2, 4, 3, 1], vec![5], vec![4, 3, 1]));
        world.ask(None).unwrap();
        assert_eq!(world.listed(), (vec![1, 2, 3, 5, 4], vec![], vec![5, 4]));
        assert!(world.finish(world.moving()));
        assert_eq!(world.now().replicas, [1, 2, 3]);
        assert_eq!(world.now().founders.len(), 3);
        assert_eq!(world.ask(None), Err(TopicError::NoReassignment));
    }

    #[test]
    fn late_word_of_an_earlier_change_ends_no_other() {
        let mut world = World::new();
        world.ask(Some(&[4])).unwrap();
        let earlier = world.moving();
        world.ask(None).unwrap();
        world.ask(Some(&[4])).unwrap();
        assert!(!world.finish(earlier), "the group may be on its way back");
        assert_eq!(world.now().replicas, [4, 1, 2, 3]);
    }

    #[test]
    fn a_replica_that_comes_back_is_another_voter() {
        let mut world = World::new();
        world.ask(Some(&[1, 2])).unwrap();
        world.finish(world.moving());
        world.ask(Some(&[1, 2, 3])).unwrap();
        let directory = world.image.brokers[&3].directory;
        assert_ne!(world.now().voters[&3], directory);
        assert!(world.now().founders.is_empty());
    }

    #[test]
    fn another_order_is_there_at_once() {
        let mut world = World::new();
        assert!(world.ask(Some(&[3, 1, 2])).unwrap());
        let now = world.now();
        assert_eq!((&now.replicas, &now.reassignment), (&vec![3, 1, 2], &None));
        assert_eq!(now.founders.len(), 3);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut world = World::new();
        for wrong in [&[][..], &[1, 1], &[1, 9], &[-1]] {
            assert!(
                matches!(world.ask(Some(wrong)), Err(TopicError::Replicas(_))),
                "{wrong:?}"
            );
        }
        let mut change = ReplicaChange {
            topic_id: TOPIC,
            index: 0,
            replicas: Some(vec![1, 2]),
            may_resize: false,
        };
        let refused = plan(&world.image, &change, false, Uuid::nil);
        assert!(matches!(
            refused,
            Err(TopicError::ReplicationFactor { before: 3, after: 2 })
        ));
        world.image.decommissioning = [3, 4].into();
        assert!(world.ask(Some(&[3, 2, 1])).unwrap(), "it is there already");
        let refused = world.ask(Some(&[4, 2, 1])).unwrap_err();
        assert_eq!(
            refused,
            TopicError::Replicas("broker 4 is being decommissioned".to_owned())
        );
        change.index = 1;
        assert_eq!(
            plan(&world.image, &change, false, Uuid::nil),
            Err(TopicError::Unknown)
        );
    }
}
