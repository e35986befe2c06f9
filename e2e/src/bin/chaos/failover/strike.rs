//! What is done to a leader, and taken back after the measurement.

use std::collections::{BTreeSet, VecDeque};
use std::fs;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::disk::{Frozen, Mount};
use takhin_e2e::{Broker, kcat, wait};

use super::{Kind, PULSE};
use crate::stage::{LIMIT, Stage};

/// The least that XFS takes.
const DISK: u64 = 300 << 20;
/// Groups that ended by an error.
const FAILURES: &str = "takhin_raft_group_failures_total";

/// Who is hit.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) broker: usize,
    /// Those of the topic that is measured that it leads, and that have to go elsewhere.
    pub(super) partitions: Vec<usize>,
}

/// What strikes need beside the stage.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    /// Partitions with a file system of their own on their leader; the first is the next to fail.
    disks: VecDeque<(Target, Mount)>,
}

/// What has to be done after a fault.
pub(super) enum Undo {
    Start,
    Thaw,
    Melt(Frozen),
    /// The file system of the partition works again. So many groups had failed on the broker before.
    Mend(f64),
    Ready,
    Undrain,
}

impl Strikes {
    /// Gives one partition that each broker leads a file system of its own there, so that it can fail alone.
    /// `directories` is what the directories of the topic's partitions begin with.
    pub(super) fn give_disks(&mut self, stage: &mut Stage, directories: &str) -> Result<()> {
        for broker in 0..stage.brokers.len() {
            let (_, led) = leaders(stage)?.swap_remove(broker);
            let partition = *led.first().context("a broker that leads nothing")?;
            stage.brokers[broker].stop()?;
            let partitions = stage.brokers[broker].data_dir().join("partitions");
            let mount = Mount::xfs_over(&partitions.join(format!("{directories}-{partition}")), DISK)?;
            let target = Target {
                broker,
                partitions: vec![partition],
            };
            self.disks.push_back((target, mount));
            stage.start(&[broker])?;
            super::wait_balanced(stage)?;
        }
        Ok(())
    }

    /// Who is to be hit.
    pub(super) fn target(&mut self, stage: &Stage, kind: Kind) -> Result<Target> {
        if kind == Kind::Failed {
            self.disks.rotate_left(1);
            let (target, _) = self.disks.front().context("no partition has a disk of its own")?;
            return Ok(target.clone());
        }
        let most = leaders(stage)?.into_iter().max_by_key(|(_, led)| led.len());
        let (broker, mut partitions) = most.context("there are no brokers")?;
        if kind == Kind::FrozenDisk {
            // What has a file system of its own is not frozen with the broker's.
            let own = self.disks.iter().filter(|(target, _)| target.broker == broker);
            let own: Vec<usize> = own.flat_map(|(target, _)| target.partitions.clone()).collect();
            partitions.retain(|partition| !own.contains(partition));
        }
        ensure!(!partitions.is_empty(), "nobody leads a partition");
        Ok(Target { broker, partitions })
    }

    pub(super) fn strike(&mut self, stage: &mut Stage, kind: Kind, target: &Target) -> Result<Undo> {
        let broker = &mut stage.brokers[target.broker];
        Ok(match kind {
            Kind::Killed => {
                broker.kill();
                Undo::Start
            }
            Kind::Restarted => {
                broker.kill();
                broker.start_process()?;
                Undo::Ready
            }
            Kind::Hung => {
                broker.freeze()?;
                Undo::Thaw
            }
            Kind::FrozenDisk => Undo::Melt(stage.disks[target.broker].freeze()?),
            Kind::Failed => {
                let failures = broker.metric(FAILURES)?;
                self.disk()?.cut_power()?;
                Undo::Mend(failures)
            }
            Kind::Drained | Kind::Rolling => {
                let id = broker.node_id();
                stage.ask(target.broker, "POST", &format!("/v1/brokers/{id}/drain"))?;
                Undo::Undrain
            }
        })
    }

    pub(super) fn take_back(&mut self, undo: Undo, stage: &mut Stage, target: &Target) -> Result<()> {
        let broker = &mut stage.brokers[target.broker];
        match undo {
            Undo::Start => stage.start(&[target.broker]),
            Undo::Thaw => broker.thaw(),
            Undo::Melt(frozen) => {
                drop(frozen);
                Ok(())
            }
            Undo::Mend(before) => {
                self.disk()?.replace()?;
                ensure!(broker.metric(FAILURES)? > before, "no group has failed");
                Ok(())
            }
            Undo::Ready => broker.wait_ready(),
            Undo::Undrain => {
                let id = broker.node_id();
                let path = format!("/v1/brokers/{id}/undrain");
                stage.ask(target.broker, "POST", &path).map(drop)
            }
        }
    }

    fn disk(&mut self) -> Result<&mut Mount> {
        let (_, disk) = self
            .disks
            .front_mut()
            .context("no partition has a disk of its own")?;
        Ok(disk)
    }
}

/// Waits until others lead the partitions, unless the broker may lead again by itself.
pub(super) fn wait_moved(stage: &Stage, kind: Kind, target: &Target) -> Result<()> {
    if kind == Kind::Restarted {
        return Ok(());
    }
    let id = stage.brokers[target.broker].node_id();
    let others = stage.brokers.iter().filter(|broker| broker.node_id() != id);
    let others: Vec<String> = others.map(Broker::bootstrap).collect();
    let (id, others) = (i32::try_from(id)?, others.join(","));
    wait::until("others to lead", LIMIT, || {
        let placements = kcat::placements(&others, PULSE)?;
        let leader = |partition: &usize| placements.get(*partition).map_or(-1, |p| p.leader);
        let mut leaders = target.partitions.iter().map(leader);
        Ok(leaders.all(|leader| leader >= 0 && leader != id))
    })
}

/// What each broker leads of the topic that is measured.
fn leaders(stage: &Stage) -> Result<Vec<(usize, Vec<usize>)>> {
    let placements = stage.placements(PULSE)?;
    let of = |(place, broker): (usize, &Broker)| {
        let id = i32::try_from(broker.node_id()).ok();
        let led = placements
            .iter()
            .enumerate()
            .filter(|(_, placement)| Some(placement.leader) == id);
        (place, led.map(|(partition, _)| partition).collect())
    };
    Ok(stage.brokers.iter().enumerate().map(of).collect())
}

/// What the directories of each topic's partitions begin with.
pub(super) fn topics(stage: &Stage) -> Result<BTreeSet<String>> {
    let mut topics = BTreeSet::new();
    for broker in &stage.brokers {
        for directory in fs::read_dir(broker.data_dir().join("partitions"))? {
            let name = directory?.file_name();
            let name = name.to_string_lossy();
            topics.extend(name.rsplit_once('-').map(|(topic, _)| topic.to_owned()));
        }
    }
    Ok(topics)
}
