//! Judgements by value: one cluster in which all is well, and what a single change of it means.

use takhin_config::topic::TopicConfig;

use super::*;
use crate::metadata::{BrokerInfo, PartitionInfo, Reassignment};

const METADATA: PartitionId = PartitionId {
    topic_id: Uuid::from_u128(1),
    index: 0,
};

fn id(index: i32) -> PartitionId {
    PartitionId {
        topic_id: Uuid::from_u128(9),
        index,
    }
}

fn word(leader: i32, in_sync: &[i32]) -> Leadership {
    Leadership {
        leader,
        epoch: 1,
        in_sync: in_sync.to_vec(),
    }
}

/// Brokers 1 to `brokers`, three of them voters, with a topic of these replicas: all in sync, the first leads.
fn survey(brokers: i32, partitions: &[&[i32]]) -> Survey {
    let broker = |id: i32| BrokerInfo {
        id,
        rack: None,
        endpoints: Vec::new(),
        rpc: String::new(),
        directory: Uuid::nil(),
    };
    let placed = partitions.iter().map(|replicas| PartitionInfo {
        replicas: replicas.to_vec(),
        ..PartitionInfo::default()
    });
    let topic = TopicInfo {
        name: "t".to_owned(),
        id: id(0).topic_id,
        partitions: placed.collect(),
        overrides: BTreeMap::new(),
        config: Arc::default(),
    };
    let ids = 1..=brokers;
    let disk = DiskReport {
        total: 1000,
        free: 500,
        floor: 100,
        is_full: false,
    };
    let report = BrokerReport {
        disk: Some(disk),
        ..BrokerReport::default()
    };
    let words = (0..).zip(partitions).map(|(index, r)| (id(index), word(r[0], r)));
    Survey {
        image: Arc::new(Image {
            brokers: ids.clone().map(|id| (id, broker(id))).collect(),
            topics: [("t".to_owned(), Arc::new(topic))].into(),
            ..Image::default()
        }),
        controller: 1,
        reports: ids.clone().map(|id| (id, report.clone())).collect(),
        voters: ids.clone().take(3).collect(),
        metadata: METADATA,
        words: words.collect(),
        silence: ids.map(|id| (id, Duration::ZERO)).collect(),
    }
}

fn silence(survey: &mut Survey, broker: i32) {
    survey.silence.insert(broker, Duration::from_secs(7));
    survey.reports.remove(&broker);
}

fn min_in_sync(survey: &mut Survey, wanted: u16) {
    let config = Arc::new(TopicConfig {
        min_insync_replicas: wanted,
        ..TopicConfig::default()
    });
    let image = Arc::make_mut(&mut survey.image);
    for topic in image.topics.values_mut() {
        Arc::make_mut(topic).config = Arc::clone(&config);
    }
}

fn kinds(findings: &Findings) -> Vec<(ConcernKind, usize)> {
    findings
        .counts()
        .iter()
        .map(|(kind, count)| (*kind, *count))
        .collect()
}

fn restart(survey: &Survey, broker: i32) -> Vec<(ConcernKind, usize)> {
    kinds(&survey.restart_safety(broker).unwrap().findings)
}

#[test]
fn a_cluster_in_which_all_is_well() {
    let survey = survey(4, &[&[1, 2, 3], &[2, 3, 4]]);
    assert_eq!(kinds(&survey.health()), []);
    for broker in 1..=4 {
        assert!(survey.restart_safety(broker).unwrap().is_safe());
    }
    assert_eq!(survey.restart_safety(5), None);
    let loads = survey.loads();
    assert_eq!(
        loads[&2],
        Load {
            replicas: 2,
            leaders: 1
        }
    );
    assert_eq!(
        loads[&4],
        Load {
            replicas: 1,
            leaders: 0
        }
    );
}

#[test]
fn a_broker_that_is_gone_is_named_and_keeps_the_others_up() {
    let mut survey = survey(4, &[&[1, 2, 3], &[2, 3, 4]]);
    silence(&mut survey, 2);
    let health = survey.health();
    assert_eq!(
        kinds(&health),
        [
            (ConcernKind::PartitionOffline, 1),
            (ConcernKind::BrokerSilent, 1),
            (ConcernKind::PartitionUnderReplicated, 1),
            (ConcernKind::ControllerMarginLost, 1),
        ]
    );
    let silent = health
        .concerns()
        .find(|concern| concern.broker == Some(2))
        .unwrap();
    assert_eq!(silent.message, "broker 2 has not been heard of for 7 s");
    let offline = health.concerns().next().unwrap();
    assert_eq!(offline.partition, Some(("t".to_owned(), 1)));
    // The broker that is gone may be stopped, for all that is known of the partition that it does not lead.
    assert_eq!(restart(&survey, 2), [(ConcernKind::PartitionOffline, 1)]);
    survey.words.insert(id(1), word(3, &[3, 4]));
    assert_eq!(restart(&survey, 2), []);
    assert_eq!(
        restart(&survey, 3),
        [
            (ConcernKind::ControllerMajorityAtRisk, 1),
            (ConcernKind::PartitionMajorityAtRisk, 2),
            (ConcernKind::BrokerSilent, 1),
        ]
    );
    silence(&mut survey, 1);
    let kinds = kinds(&survey.health());
    assert!(kinds.contains(&(ConcernKind::NoController, 1)), "{kinds:?}");
    assert!(
        kinds.contains(&(ConcernKind::ControllerMajorityLost, 1)),
        "{kinds:?}"
    );
}

#[test]
fn replicas_out_of_sync_count_by_what_writes_need() {
    let mut survey = survey(5, &[&[1, 2, 3, 4, 5]]);
    survey.words.insert(id(0), word(1, &[1, 2, 3]));
    assert_eq!(
        kinds(&survey.health()),
        [(ConcernKind::PartitionUnderReplicated, 1)]
    );
    assert_eq!(restart(&survey, 1), [(ConcernKind::PartitionMajorityAtRisk, 1)]);
    // Enough are left, and yet it is better to wait.
    assert_eq!(restart(&survey, 4), [(ConcernKind::ReplicaBehind, 1)]);
    min_in_sync(&mut survey, 4);
    assert_eq!(
        kinds(&survey.health()),
        [
            (ConcernKind::PartitionUnderMinIsr, 1),
            (ConcernKind::PartitionUnderReplicated, 1)
        ]
    );
    assert_eq!(restart(&survey, 4), [(ConcernKind::PartitionMinIsrAtRisk, 1)]);
}

#[test]
fn what_a_leader_has_just_said_counts_more_than_its_word() {
    let mut survey = survey(4, &[&[1, 2, 3], &[1, 2, 4]]);
    survey.reports.get_mut(&1).unwrap().behind = vec![(id(0).topic_id, 0, vec![2])];
    assert_eq!(restart(&survey, 3), [(ConcernKind::PartitionMajorityAtRisk, 1)]);
    assert_eq!(restart(&survey, 2), []);
    assert_eq!(restart(&survey, 4), []);
    survey.reports.get_mut(&1).unwrap().behind = vec![(METADATA.topic_id, 0, vec![3])];
    assert_eq!(restart(&survey, 2), [(ConcernKind::ControllerMajorityAtRisk, 1)]);
    survey.reports.get_mut(&1).unwrap().has_more_behind = true;
    assert_eq!(restart(&survey, 4), [(ConcernKind::ReplicaBehind, 1)]);
}

#[test]
fn what_is_unknown_means_no() {
    let mut survey = survey(4, &[&[1, 2, 3]]);
    survey.reports.remove(&4);
    assert_eq!(restart(&survey, 1), [(ConcernKind::BrokerUnknown, 1)]);
    survey.reports.insert(
        4,
        BrokerReport {
            closed: 3,
            ..BrokerReport::default()
        },
    );
    assert_eq!(restart(&survey, 1), [(ConcernKind::BrokerNotOpen, 1)]);
    assert_eq!(restart(&survey, 4), [], "its own replicas matter to nobody");
    survey.reports.get_mut(&4).unwrap().closed = 0;
    survey.words.clear();
    assert_eq!(restart(&survey, 1), [(ConcernKind::PartitionOffline, 1)]);
    survey.voters.clear();
    assert!(restart(&survey, 4).contains(&(ConcernKind::NoController, 1)));
}

#[test]
fn waiting_does_not_help_where_replicas_are_too_few() {
    let mut survey = survey(4, &[&[4], &[3, 4]]);
    let safety = survey.restart_safety(4).unwrap();
    assert_eq!(kinds(&safety.findings), [(ConcernKind::NoSpareReplica, 2)]);
    assert!(!safety.is_safe() && !safety.waiting_helps());
    silence(&mut survey, 2);
    let safety = survey.restart_safety(4).unwrap();
    assert!(safety.waiting_helps(), "the silent broker may come back");
    let mut alone = self::survey(1, &[&[1]]);
    alone.voters = [1].into();
    assert_eq!(kinds(&alone.health()), []);
    let safety = alone.restart_safety(1).unwrap();
    assert_eq!(
        kinds(&safety.findings),
        [(ConcernKind::NoSpareReplica, 1), (ConcernKind::NoSpareVoter, 1)]
    );
    assert!(!safety.waiting_helps());
}

#[test]
fn disks_are_told_before_they_are_full() {
    let mut survey = survey(3, &[]);
    let mut with = |broker: i32, free: u64, is_full: bool| {
        let disk = survey.reports.get_mut(&broker).unwrap().disk.as_mut().unwrap();
        (disk.free, disk.is_full) = (free, is_full);
    };
    with(1, 399, false);
    with(2, 105, true);
    with(3, 400, false);
    let health = survey.health();
    assert_eq!(
        kinds(&health),
        [(ConcernKind::DiskFull, 1), (ConcernKind::DiskLow, 1)]
    );
    let brokers: Vec<_> = health.concerns().map(|concern| concern.broker).collect();
    assert_eq!(brokers, [Some(2), Some(1)]);
}

#[test]
fn a_drain_is_done_when_nothing_is_led() {
    let mut survey = survey(3, &[&[1, 2, 3], &[1, 2], &[2, 3, 1]]);
    let progress = survey.drain_progress(1).unwrap();
    assert_eq!(
        (progress.is_draining, progress.leaders, progress.is_controller),
        (false, 2, true)
    );
    let image = Arc::make_mut(&mut survey.image);
    image.draining = [1, 2].into();
    let progress = survey.drain_progress(1).unwrap();
    assert_eq!(kinds(&progress.held), [(ConcernKind::NoSuccessor, 1)]);
    assert!(!progress.is_done());
    survey.words.insert(id(0), word(3, &[3]));
    survey.words.insert(id(1), word(-1, &[1, 2]));
    assert!(
        !survey.drain_progress(1).unwrap().is_done(),
        "it is the controller"
    );
    survey.controller = 3;
    assert!(survey.drain_progress(1).unwrap().is_done());
}

#[test]
fn a_broker_is_decommissioned_when_it_has_nothing() {
    let mut survey = survey(4, &[&[4, 1], &[4, 2], &[4, 3], &[1, 2, 3, 4], &[4, 1]]);
    let move_to = |survey: &mut Survey, index: usize, target: &[i32], is_automatic| {
        let image = Arc::make_mut(&mut survey.image);
        let topic = Arc::make_mut(image.topics.get_mut("t").unwrap());
        let placement = &mut topic.partitions[index];
        placement.is_automatic = is_automatic;
        placement.reassignment = Some(Reassignment {
            id: Uuid::nil(),
            target: target.to_vec(),
            original: placement.replicas.clone(),
        });
    };
    assert!(!survey.decommission_progress(4).unwrap().is_decommissioning);
    Arc::make_mut(&mut survey.image).decommissioning = [4].into();
    move_to(&mut survey, 0, &[2, 1], true);
    move_to(&mut survey, 1, &[4, 1], false);
    survey.words.remove(&id(4));
    let progress = survey.decommission_progress(4).unwrap();
    assert_eq!((progress.replicas, progress.moving, progress.leaders), (5, 1, 3));
    assert_eq!(
        kinds(&progress.held),
        [
            (ConcernKind::PartitionOffline, 1),
            (ConcernKind::NoPlace, 1),
            (ConcernKind::MovedByHand, 1)
        ]
    );
    let mut empty = self::survey(4, &[&[1, 2, 3]]);
    assert!(!empty.decommission_progress(4).unwrap().is_done());
    Arc::make_mut(&mut empty.image).decommissioning = [4].into();
    assert!(empty.decommission_progress(4).unwrap().is_done());
    empty.voters.insert(4);
    assert!(!empty.decommission_progress(4).unwrap().is_done());
    empty.voters.clear();
    assert!(!empty.decommission_progress(4).unwrap().is_done(), "it may vote");
    assert_eq!(empty.decommission_progress(5), None);
}

#[test]
fn many_concerns_are_counted_and_some_told() {
    let partitions: Vec<&[i32]> = vec![&[1, 2, 3]; 50];
    let mut survey = survey(3, &partitions);
    survey.words.clear();
    let health = survey.health();
    assert_eq!(kinds(&health), [(ConcernKind::PartitionOffline, 50)]);
    assert_eq!(health.concerns().count(), 20);
    assert!(health.is_truncated());
}

#[test]
fn replicas_that_are_moved_are_not_missing() {
    let mut survey = survey(4, &[&[1, 2, 3]]);
    let image = Arc::make_mut(&mut survey.image);
    for topic in image.topics.values_mut() {
        let placement = &mut Arc::make_mut(topic).partitions[0];
        placement.replicas = vec![1, 2, 3, 4];
        placement.reassignment = Some(Reassignment {
            id: Uuid::nil(),
            target: vec![1, 2, 4],
            original: vec![1, 2, 3],
        });
    }
    assert_eq!(kinds(&survey.health()), []);
    // Those that vote at the moment are told by nobody but the leader.
    assert_eq!(restart(&survey, 3), [(ConcernKind::ReplicaMoving, 1)]);
    assert!(survey.restart_safety(3).unwrap().waiting_helps());
    survey.words.insert(id(0), word(1, &[1, 2]));
    assert_eq!(
        kinds(&survey.health()),
        [(ConcernKind::PartitionUnderReplicated, 1)]
    );
}
