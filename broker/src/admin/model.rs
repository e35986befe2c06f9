//! The shapes of answers. Names and types are promised to clients: fields are added, not changed.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use takhin_cluster as cluster;
use takhin_cluster::{ConcernKind, Findings};

use super::shape::{Shape, Shapes, shape};

shape! {
    /// This broker.
    Node {
        /// Broker id.
        id: i32,
        /// Cluster id, 22 characters.
        cluster_id: String,
        /// Release that it runs.
        version: String,
        /// Rack, if it has one.
        rack: Option<String>,
        /// UUID that the process drew when it began: another one after each restart.
        incarnation: String,
        /// Whether it is to lead nothing.
        draining: bool,
        /// Whether it is the controller.
        controller: bool,
        /// Replicas on this broker.
        replicas: usize,
        /// Partitions that it leads.
        leaders: usize,
        /// The file system of its data directory; missing if that cannot be read.
        disk: Option<Disk>,
        /// Whether it is ready for clients, as `/readyz` says.
        ready: bool,
        /// Why it is not ready.
        not_ready: Vec<NotReady>,
    }
}

shape! {
    /// The file system of a data directory.
    Disk {
        /// Its size in bytes.
        total_bytes: u64,
        /// Bytes that are used, by whomever.
        used_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
        /// Free bytes below which records are refused (`storage.min_free_space`).
        min_free_bytes: u64,
        /// Whether records are refused now.
        refuses_records: bool,
    }
}

shape! {
    /// A check that fails.
    NotReady {
        /// Name of the check.
        check: String,
        /// Why it fails.
        reason: String,
    }
}

shape! {
    /// Whether the cluster is healthy.
    ClusterHealth {
        /// Whether nothing is wrong.
        healthy: bool,
        /// Id of the broker that sees it so.
        seen_by: i32,
        /// Id of the controller; missing if there is none.
        controller: Option<i32>,
        /// What is wrong, the gravest first; up to 20 of each kind.
        reasons: Vec<Reason>,
        /// How many reasons there are of each kind that there is.
        counts: BTreeMap<&'static str, usize>,
        /// Whether there are more reasons than are listed.
        truncated: bool,
    }
}

shape! {
    /// One thing that is wrong.
    Reason {
        /// What it is about, for programs.
        kind: Kind,
        /// Id of the broker that it is about.
        broker: Option<i32>,
        /// The partition that it is about.
        partition: Option<TopicPartition>,
        /// The same for people.
        message: String,
    }
}

shape! {
    /// A partition.
    TopicPartition {
        /// Name of the topic.
        topic: String,
        /// Index of the partition in it.
        partition: i32,
    }
}

shape! {
    /// All registered brokers.
    Brokers {
        /// The brokers, by id.
        brokers: Vec<Broker>,
    }
}

shape! {
    /// Replicas that are being moved.
    Reassignments {
        /// Id of the broker that says so.
        seen_by: i32,
        /// Partitions whose replicas are being changed.
        count: usize,
        /// The first 1000 of them.
        reassignments: Vec<Reassignment>,
    }
}

shape! {
    /// A change of a partition's replicas.
    Reassignment {
        /// The partition.
        partition: TopicPartition,
        /// Id of the broker that leads it; missing if there is none.
        leader: Option<i32>,
        /// Ids of the brokers that are to have its replicas, the preferred leader first.
        target: Vec<i32>,
        /// Replicas that it did not have before.
        adding: Vec<Addition>,
        /// Ids of the brokers whose replicas go.
        removing: Vec<i32>,
    }
}

shape! {
    /// A replica that a partition is being given.
    Addition {
        /// Id of its broker.
        broker: i32,
        /// Bytes of the leader's segments that it lacks, about; missing unless the broker that was asked is the leader.
        lag_bytes: Option<u64>,
    }
}

/// How a broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Alive,
    Silent,
    Draining,
    Decommissioning,
}

impl State {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Alive, "alive"),
        (Self::Silent, "silent"),
        (Self::Draining, "draining"),
        (Self::Decommissioning, "decommissioning"),
    ];
}

impl Shape for State {
    fn schema(_: &mut Shapes) -> Value {
        json!({ "type": "string", "enum": Self::ALL.map(|(_, name)| name) })
    }

    fn value(&self) -> Option<Value> {
        let known = Self::ALL.iter().find(|(state, _)| state == self);
        known.map(|(_, name)| (*name).into())
    }
}

shape! {
    /// A registered broker.
    Broker {
        /// Broker id.
        id: i32,
        /// Rack, if it has one.
        rack: Option<String>,
        /// How it is.
        state: State,
        /// Seconds since it was heard of last, if it is silent.
        silent_seconds: Option<u64>,
        /// Whether it is to lead nothing; also said of one that is silent.
        draining: bool,
        /// Whether it is to lose all its replicas; also said of one that is silent.
        decommissioning: bool,
        /// Whether it is the controller.
        controller: bool,
        /// Replicas that are placed on it.
        replicas: usize,
        /// Partitions that it leads.
        leaders: usize,
        /// Release that it runs; missing if it did not say.
        version: Option<String>,
        /// The file system of its data directory; missing if it did not say.
        disk: Option<Disk>,
    }
}

shape! {
    /// How far a broker is drained.
    Drain {
        /// Broker id.
        broker: i32,
        /// Whether it is to lead nothing.
        draining: bool,
        /// Whether it is to lead nothing and leads nothing.
        done: bool,
        /// Partitions that it still leads.
        leaders: usize,
        /// Whether it is still the controller.
        controller: bool,
        /// What is wrong, the gravest first; up to 20 of each kind.
        reasons: Vec<Reason>,
        /// How many reasons there are of each kind that there is.
        counts: BTreeMap<&'static str, usize>,
        /// Whether there are more reasons than are listed.
        truncated: bool,
    }
}

shape! {
    /// How far a broker is decommissioned.
    Decommission {
        /// Broker id.
        broker: i32,
        /// Whether it is to lose all its replicas.
        decommissioning: bool,
        /// Whether it is to lose them and has nothing any more: it may be stopped for good.
        done: bool,
        /// Replicas that it still has.
        replicas: usize,
        /// Those of them that are on their way to other brokers.
        moving: usize,
        /// Bytes of the logs that it still has; missing if it did not say.
        bytes: Option<u64>,
        /// Partitions that it still leads.
        leaders: usize,
        /// Whether it still votes on the metadata.
        voter: bool,
        /// Whether it is still the controller.
        controller: bool,
        /// Why replicas cannot leave at the moment, the gravest first; up to 20 of each kind.
        reasons: Vec<Reason>,
        /// How many reasons there are of each kind that there is.
        counts: BTreeMap<&'static str, usize>,
        /// Whether there are more reasons than are listed.
        truncated: bool,
    }
}

shape! {
    /// Whether a broker may be stopped now.
    RestartSafety {
        /// Broker id.
        broker: i32,
        /// Whether nobody would notice.
        safe: bool,
        /// Whether some of the reasons may pass. If it is neither safe nor helps to wait, the reasons belong to the placement.
        waiting_helps: bool,
        /// Partitions that it leads; their clients wait for an election if it is stopped now.
        leaders: usize,
        /// What is wrong, the gravest first; up to 20 of each kind.
        reasons: Vec<Reason>,
        /// How many reasons there are of each kind that there is.
        counts: BTreeMap<&'static str, usize>,
        /// Whether there are more reasons than are listed.
        truncated: bool,
    }
}

/// What a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(ConcernKind);

impl Shape for Kind {
    fn schema(_: &mut Shapes) -> Value {
        let texts = ConcernKind::ALL
            .iter()
            .map(|kind| format!("- `{}`: {}", kind.name(), kind.text()));
        let text = texts.collect::<Vec<_>>().join("\n");
        let names: Vec<&str> = ConcernKind::ALL.iter().map(|kind| kind.name()).collect();
        // No closed list: newer releases may have more.
        json!({ "type": "string", "description": text, "examples": names })
    }

    fn value(&self) -> Option<Value> {
        Some(self.0.name().into())
    }
}

impl From<cluster::DiskReport> for Disk {
    fn from(disk: cluster::DiskReport) -> Self {
        Self {
            total_bytes: disk.total,
            used_bytes: disk.total.saturating_sub(disk.free),
            free_bytes: disk.free,
            min_free_bytes: disk.floor,
            refuses_records: disk.is_full,
        }
    }
}

/// The reasons that are listed.
pub(super) fn reasons(findings: &Findings) -> Vec<Reason> {
    let reason = |concern: &cluster::Concern| Reason {
        kind: Kind(concern.kind),
        broker: concern.broker,
        partition: concern
            .partition
            .clone()
            .map(|(topic, partition)| TopicPartition { topic, partition }),
        message: concern.message.clone(),
    };
    findings.concerns().map(reason).collect()
}

/// How many there are of each kind.
pub(super) fn counts(findings: &Findings) -> BTreeMap<&'static str, usize> {
    let counts = findings.counts().iter();
    counts.map(|(kind, count)| (kind.name(), *count)).collect()
}
