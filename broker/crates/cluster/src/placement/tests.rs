//! Plans carried out until there is nothing left to do, over many clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use takhin_config::live::Settings;
use uuid::Uuid;

use super::planner::Move;
use super::*;
use crate::metadata::{BrokerInfo, Image, MetadataRecord, Origin, PartitionInfo, Reassignment};

const INTERNAL: &str = "__consumer_offsets";

/// More rounds than any plan of these clusters takes.
const ROUNDS: usize = 400;

struct World {
    image: Image,
    origin: Origin,
    fitness: Fitnesses,
    max_moves: usize,
    /// Replicas that were copied.
    copied: usize,
}

impl World {
    /// Brokers 0, 1, ... in these racks; rack 0 is none.
    fn new(racks: &[usize]) -> Self {
        let origin = Origin {
            broker: 0,
            settings: Arc::new(Settings::default()),
        };
        let mut world = Self {
            image: Image::first(&origin),
            origin,
            fitness: Fitnesses::new(),
            max_moves: 5,
            copied: 0,
        };
        for (id, rack) in (0..).zip(racks) {
            world.join(id, *rack);
        }
        world
    }

    fn replay(&mut self, record: &MetadataRecord) {
        self.image.replay(record, &self.origin);
    }

    fn join(&mut self, id: i32, rack: usize) {
        let broker = BrokerInfo {
            id,
            rack: (rack > 0).then(|| format!("rack-{rack}")),
            endpoints: Vec::new(),
            rpc: String::new(),
            directory: Uuid::nil(),
        };
        self.replay(&MetadataRecord::RegisterBroker { broker });
        self.fitness.insert(id, Fitness::Fit);
    }

    fn decommission(&mut self, broker: i32) {
        self.replay(&MetadataRecord::DecommissionBroker {
            broker,
            decommissioning: true,
        });
        self.fitness.insert(broker, Fitness::Leaving);
    }

    fn topic(&mut self, name: &str, partitions: Vec<Vec<i32>>) {
        self.replay(&MetadataRecord::CreateTopic {
            name: name.to_owned(),
            id: Uuid::from_u128(u128::from(self.image.version)),
            partitions,
            overrides: BTreeMap::new(),
        });
    }

    fn spread_topic(&mut self, name: &str, count: usize, width: usize) {
        let fitness = self.fitness.clone();
        let image = self.image.clone();
        let mut spread = Spread::new(&image, &fitness, &[]);
        let placed = (0..count).map(|_| spread.place(width)).collect();
        self.topic(name, placed);
    }

    fn plan(&self) -> Plan {
        plan(&View {
            image: &self.image,
            fitness: &self.fitness,
            has_leader: &|_, _| true,
            max_moves: self.max_moves,
            is_enabled: true,
        })
    }

    fn partition(&self, topic_id: Uuid, index: i32) -> PartitionInfo {
        let topic = self.image.topic_by_id(topic_id).unwrap();
        topic.partitions[usize::try_from(index).unwrap()].clone()
    }

    fn partitions(&self) -> impl Iterator<Item = &PartitionInfo> {
        self.image.topics.values().flat_map(|topic| &topic.partitions)
    }

    /// Begins a change as the controller does.
    fn begin(&mut self, next: &Move, automatic: bool) {
        let before = self.partition(next.topic_id, next.index);
        let original = before.reassignment.as_ref().map(|moving| moving.original.clone());
        let original = original.unwrap_or_else(|| before.replicas.clone());
        let as_set = |ids: &[i32]| ids.iter().copied().collect::<BTreeSet<_>>();
        let is_there = before.reassignment.is_none() && as_set(&original) == as_set(&next.replicas);
        let mut replicas = next.replicas.clone();
        replicas.extend(before.replicas.iter().filter(|id| !next.replicas.contains(id)));
        self.copied += next.replicas.iter().filter(|id| !original.contains(id)).count();
        self.replay(&MetadataRecord::ReassignPartition {
            id: next.topic_id,
            index: next.index,
            replicas,
            added: Vec::new(),
            reassignment: (!is_there).then(|| Reassignment {
                id: Uuid::nil(),
                target: next.replicas.clone(),
                original,
            }),
            automatic,
        });
    }

    fn finish(&mut self, (topic_id, index): (Uuid, i32)) {
        let moving = self.partition(topic_id, index).reassignment.unwrap();
        self.replay(&MetadataRecord::ReassignPartition {
            id: topic_id,
            index,
            replicas: moving.target,
            added: Vec::new(),
            reassignment: None,
            automatic: false,
        });
    }

    /// What holds of every plan.
    fn check(&self, next: &Move) -> Result<(), TestCaseError> {
        let before = self.partition(next.topic_id, next.index);
        let is_known = |id: &i32| before.replicas.contains(id);
        let mut distinct = next.replicas.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(
            distinct.len(),
            next.replicas.len(),
            "twice on a broker: {:?}",
            next
        );
        let factor = before.replication_factor();
        prop_assert!(next.replicas.len() >= factor, "fewer replicas: {:?}", next);
        for id in next.replicas.iter().filter(|id| !is_known(id)) {
            prop_assert!(
                self.fitness[id].is_there(),
                "onto {:?}: {:?}",
                self.fitness[id],
                next
            );
        }
        Ok(())
    }

    /// Carries out plans until nothing is left to do, each change lasting for up to three rounds; whether all is even.
    fn settle(&mut self, mut pace: impl FnMut() -> bool) -> Result<bool, TestCaseError> {
        for _ in 0..ROUNDS {
            let plan = self.plan();
            let moves = plan.moves.iter().filter(|next| self.copies(next)).count();
            prop_assert!(moves + self.image.reassigning.len() <= self.max_moves);
            for next in &plan.moves {
                self.check(next)?;
                self.begin(next, true);
            }
            let under_way: Vec<(Uuid, i32)> = self.image.reassigning.iter().copied().collect();
            if plan.moves.is_empty() && under_way.is_empty() {
                return Ok(plan.is_even);
            }
            for moving in under_way {
                if pace() {
                    self.finish(moving);
                }
            }
        }
        prop_assert!(false, "no end");
        Ok(false)
    }

    fn copies(&self, next: &Move) -> bool {
        let before = self.partition(next.topic_id, next.index);
        next.replicas.iter().any(|id| !before.replicas.contains(id))
    }

    fn counts(&self, of: impl Fn(&PartitionInfo) -> Vec<i32>) -> BTreeMap<i32, usize> {
        let mut counts: BTreeMap<i32, usize> = self.image.staying().map(|id| (id, 0)).collect();
        for id in self.partitions().flat_map(of) {
            *counts.entry(id).or_default() += 1;
        }
        counts
    }

    fn replicas(&self) -> BTreeMap<i32, usize> {
        self.counts(|partition| partition.replicas.clone())
    }

    fn leads(&self) -> BTreeMap<i32, usize> {
        self.counts(|partition| vec![partition.replicas[0]])
    }

    fn rack(&self, id: i32) -> String {
        self.image.brokers[&id]
            .rack
            .clone()
            .unwrap_or_else(|| id.to_string())
    }

    fn racks_of(&self, ids: impl Iterator<Item = i32>) -> usize {
        ids.map(|id| self.rack(id)).collect::<BTreeSet<_>>().len()
    }
}

fn differ_by_one(counts: &BTreeMap<i32, usize>) -> bool {
    counts.values().max().unwrap() - counts.values().min().unwrap() <= 1
}

proptest! {
    #[test]
    fn replicas_become_even_after_brokers_came_and_while_some_leave(
        racks in proptest::collection::vec(0_usize..4, 1..7),
        come in proptest::collection::vec(0_usize..4, 0..4),
        leave in proptest::collection::btree_set(0_i32..10, 0..4),
        topics in proptest::collection::vec((1_usize..12, 1_usize..5), 1..4),
        paces in proptest::collection::vec(any::<bool>(), 7),
        max_moves in 1_usize..9,
    ) {
        let mut world = World::new(&racks);
        world.max_moves = max_moves;
        let widest = topics.iter().map(|(_, width)| (*width).min(racks.len())).max().unwrap();
        for (i, (count, width)) in topics.iter().enumerate() {
            world.spread_topic(&format!("t{i}"), *count, (*width).min(racks.len()));
        }
        world.spread_topic(INTERNAL, 4, 1);
        for (id, rack) in (racks.len()..).zip(&come) {
            world.join(i32::try_from(id).unwrap(), *rack);
        }
        for id in leave {
            let stay = world.image.staying().filter(|other| *other != id).count();
            if world.image.brokers.contains_key(&id) && stay >= widest {
                world.decommission(id);
            }
        }
        let mut paces = paces.iter().cycle();
        // Two of the paces at least go on.
        let mut round = 0;
        let is_even = world.settle(|| { round += 1; round % 3 == 0 || *paces.next().unwrap() })?;
        prop_assert_eq!(is_even, world.image.rebalance_due.is_some());
        let staying: BTreeSet<i32> = world.image.staying().collect();
        let groups = world.racks_of(staying.iter().copied());
        for partition in world.partitions() {
            prop_assert!(partition.replicas.iter().all(|id| staying.contains(id)));
            let used = world.racks_of(partition.replicas.iter().copied());
            prop_assert_eq!(used, partition.replicas.len().min(groups), "{:?}", partition.replicas);
        }
        if world.image.rebalance_due.is_some() {
            let internal = world.image.topic(INTERNAL).unwrap();
            for partition in &internal.partitions {
                prop_assert_eq!(partition.replicas.len(), staying.len().min(3));
            }
            if groups == staying.len() {
                let replicas = world.replicas();
                prop_assert!(differ_by_one(&replicas), "replicas {:?}", replicas);
            }
        }
    }

    #[test]
    fn leaders_are_even_where_all_topics_have_as_many_replicas(
        brokers in 2_usize..8, come in 1_usize..4, count in 1_usize..40, width in 1_usize..4
    ) {
        let mut world = World::new(&vec![0; brokers]);
        world.spread_topic("t", count, width.min(brokers));
        for id in brokers..brokers + come {
            world.join(i32::try_from(id).unwrap(), 0);
        }
        prop_assert!(world.settle(|| true)?);
        let (replicas, leads) = (world.replicas(), world.leads());
        prop_assert!(differ_by_one(&replicas), "replicas {:?}", replicas);
        prop_assert!(differ_by_one(&leads), "leads {:?}", leads);
        // Nothing is copied but what the new brokers hold.
        let held: usize = (brokers..brokers + come).map(|id| replicas[&i32::try_from(id).unwrap()]).sum();
        prop_assert_eq!(world.copied, held);
    }

    #[test]
    fn nothing_goes_to_brokers_that_are_not_fit(
        fits in proptest::collection::vec(0_usize..5, 3..8), count in 1_usize..12, leave in any::<bool>()
    ) {
        let kinds = [Fitness::Fit, Fitness::Full, Fitness::Draining, Fitness::Absent, Fitness::Gone];
        let mut world = World::new(&[0, 0, 0]);
        world.spread_topic("t", count, 2);
        for (id, fit) in (3..).zip(&fits) {
            world.join(id, 0);
            world.fitness.insert(id, kinds[*fit]);
        }
        if leave {
            world.decommission(0);
        }
        let is_even = world.settle(|| true)?;
        let replicas = world.replicas();
        for (id, fit) in (3..).zip(&fits) {
            // Full and draining ones only take what would have no other place.
            prop_assert!(kinds[*fit] == Fitness::Fit || replicas[&id] == 0, "{:?}", replicas);
        }
        let all_there = fits.iter().all(|fit| kinds[*fit].is_there());
        prop_assert_eq!(is_even, all_there);
    }
}

#[test]
fn what_somebody_has_placed_since_stays_and_leaves_only_with_its_broker() {
    let mut world = World::new(&[0, 0, 0]);
    world.spread_topic("old", 6, 2);
    world.join(3, 0);
    world.topic("new", vec![vec![0, 1]; 6]);
    let old = world.image.topic("old").unwrap().clone();
    let chosen = Move {
        topic_id: old.id,
        index: 0,
        replicas: vec![2, 0],
    };
    world.begin(&chosen, false);
    assert!(world.plan().moves.iter().all(|next| next.index != 0));
    if !world.image.reassigning.is_empty() {
        world.finish((old.id, 0));
    }
    assert!(world.settle(|| true).unwrap());
    let replicas = |world: &World, topic: &str, index: usize| {
        world.image.topic(topic).unwrap().partitions[index]
            .replicas
            .clone()
    };
    assert_eq!(replicas(&world, "old", 0), [2, 0]);
    for index in 0..6 {
        assert_eq!(replicas(&world, "new", index), [0, 1]);
    }
    assert!(world.replicas()[&3] > 0);
    world.replay(&MetadataRecord::Rebalanced {});
    world.topic("newer", vec![vec![0, 1]; 4]);
    assert_eq!(world.plan(), Plan::default(), "nothing is due");
    world.decommission(0);
    assert!(world.settle(|| true).unwrap());
    assert_eq!(world.replicas().get(&0), None);
}

#[test]
fn brokers_leave_while_the_cluster_is_not_to_rebalance() {
    let mut world = World::new(&[0, 0, 0]);
    world.spread_topic("t", 3, 2);
    world.join(3, 0);
    world.decommission(0);
    let planned = plan(&View {
        image: &world.image,
        fitness: &world.fitness,
        has_leader: &|_, index| index != 2,
        max_moves: 9,
        is_enabled: false,
    });
    let before: Vec<Vec<i32>> = world
        .partitions()
        .map(|partition| partition.replicas.clone())
        .collect();
    let leaves = (0_i32..)
        .zip(&before)
        .filter(|(_, replicas)| replicas.contains(&0));
    let leaves: Vec<i32> = leaves
        .map(|(index, _)| index)
        .filter(|index| *index != 2)
        .collect();
    assert_eq!(
        planned.moves.iter().map(|next| next.index).collect::<Vec<_>>(),
        leaves
    );
    assert!(!planned.is_even);
}

#[test]
fn nothing_leaves_for_a_place_that_there_is_not() {
    let mut world = World::new(&[0, 0, 0]);
    world.spread_topic("t", 3, 3);
    world.decommission(0);
    assert_eq!(world.plan(), Plan::default());
    world.join(3, 0);
    world.fitness.insert(3, Fitness::Absent);
    assert_eq!(world.plan(), Plan::default());
    world.fitness.insert(3, Fitness::Fit);
    assert_eq!(world.plan().moves.len(), 3);
}

#[test]
fn what_the_cluster_moves_to_a_broker_that_is_gone_goes_elsewhere() {
    let mut world = World::new(&[0, 0, 0]);
    world.max_moves = 1;
    world.spread_topic("t", 3, 2);
    world.join(3, 0);
    let first = world.plan().moves;
    assert!(first.len() == 1 && first[0].replicas.contains(&3));
    world.begin(&first[0], true);
    world.fitness.insert(3, Fitness::Absent);
    assert_eq!(world.plan().moves, [], "it may come back");
    world.fitness.insert(3, Fitness::Gone);
    let back = world.plan().moves;
    assert_eq!((back.len(), back[0].index), (1, first[0].index));
    assert!(!back[0].replicas.contains(&3));
    world.begin(&back[0], true);
    assert!(!world.settle(|| true).unwrap(), "not while a broker is missing");
    assert_eq!(world.replicas()[&3], 0);
    // Of somebody else's, nothing is taken back.
    world.begin(&first[0], false);
    assert_eq!(world.plan().moves, []);
}
