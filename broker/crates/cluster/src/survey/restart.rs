//! May a broker be stopped now?
//!
//! Yes, if nobody would notice: every partition that it has a replica of keeps enough replicas in sync, every other broker
//! is there and has caught up, and the controller's group keeps a majority. What is unknown means no.
//!
//! Some partitions cannot be written without the broker, however long one waits: those with too few replicas. They are told
//! as concerns that do not pass (`ConcernKind::passes`), so that a program may wait for the others and then stop the broker.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::{ConcernKind, Findings};
use super::health::not_open;
use super::{Seen, Survey};
use crate::partition::PartitionId;

/// Whether a broker may be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartSafety {
    /// Why not; nothing, and it may.
    pub findings: Findings,
}

impl RestartSafety {
    /// Whether nobody notices if the broker is stopped.
    pub fn is_safe(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether some of the reasons against it may pass.
    pub fn waiting_helps(&self) -> bool {
        self.findings.counts().keys().any(|kind| kind.passes())
    }
}

/// The brokers whose replicas of a partition lack records, as leaders have just said.
type Behind<'a> = BTreeMap<PartitionId, &'a [i32]>;

impl Survey {
    /// Whether broker `id` may be stopped now; `None` if no such broker is registered.
    pub fn restart_safety(&self, id: i32) -> Option<RestartSafety> {
        if !self.image.brokers.contains_key(&id) {
            return None;
        }
        let mut findings = Findings::default();
        let behind = self.behind();
        self.look_at_others(id, &mut findings);
        self.look_at_voters(id, &behind, &mut findings);
        for seen in self.partitions().filter(|seen| seen.replicas.contains(&id)) {
            self.look_without(id, &seen, &behind, &mut findings);
        }
        Some(RestartSafety { findings })
    }

    fn behind(&self) -> Behind<'_> {
        let told = self.reports.values().flat_map(|report| &report.behind);
        told.map(|(topic_id, index, brokers)| {
            let id = PartitionId {
                topic_id: *topic_id,
                index: *index,
            };
            (id, brokers.as_slice())
        })
        .collect()
    }

    fn look_at_others(&self, id: i32, findings: &mut Findings) {
        for (broker, report) in self.image.brokers.keys().map(|id| (*id, self.reports.get(id))) {
            if broker != id
                && let Some(silence) = self.silent_for(broker)
            {
                findings.broker(ConcernKind::BrokerSilent, broker, || {
                    format!(
                        "broker {broker} has not been heard of for {} s",
                        silence.as_secs()
                    )
                });
            } else if let Some(report) = report {
                if broker != id && (report.is_starting || report.closed > 0) {
                    findings.broker(ConcernKind::BrokerNotOpen, broker, || {
                        not_open(broker, report.closed)
                    });
                }
                if report.has_more_behind {
                    let count = report.behind.len();
                    findings.broker(ConcernKind::ReplicaBehind, broker, || {
                        format!(
                            "replicas of more than {count} partitions that broker {broker} leads lack records"
                        )
                    });
                }
            } else if self.is_there(broker) {
                findings.broker(ConcernKind::BrokerUnknown, broker, || {
                    format!("broker {broker} does not say how it is")
                });
            }
        }
    }

    fn look_at_voters(&self, id: i32, behind: &Behind<'_>, findings: &mut Findings) {
        if self.controller < 0 || !self.is_there(self.controller) || self.voters.is_empty() {
            findings.cluster(ConcernKind::NoController, || {
                "no broker is the controller".to_owned()
            });
        }
        if !self.voters.contains(&id) {
            return;
        }
        let (voters, majority) = (self.voters.len(), self.voters.len() / 2 + 1);
        if voters - 1 < majority {
            findings.cluster(ConcernKind::NoSpareVoter, || {
                format!(
                    "without broker {id} the metadata group cannot elect a controller: it has {voters} voters"
                )
            });
            return;
        }
        let behind = behind.get(&self.metadata).copied().unwrap_or_default();
        let fit = |voter: &&i32| **voter != id && self.is_there(**voter) && !behind.contains(voter);
        let left = self.voters.iter().filter(fit).count();
        if left < majority {
            findings.cluster(ConcernKind::ControllerMajorityAtRisk, || {
                format!(
                    "without broker {id} the metadata group has {left} voters that are there and up to date, and needs \
                     {majority}"
                )
            });
        }
    }

    /// Looks at a partition that has a replica on broker `id`.
    fn look_without(&self, id: i32, seen: &Seen<'_>, behind: &Behind<'_>, findings: &mut Findings) {
        let (name, index, needed) = (&seen.topic.name, seen.index, seen.needed());
        if seen.is_moving {
            findings.partition(ConcernKind::ReplicaMoving, seen, || {
                format!("replicas of {name}-{index} are being moved")
            });
            return;
        }
        let others: BTreeSet<i32> = seen
            .replicas
            .iter()
            .copied()
            .filter(|other| *other != id)
            .collect();
        if others.len() < needed {
            findings.partition(ConcernKind::NoSpareReplica, seen, || {
                format!(
                    "{name}-{index} cannot be written without broker {id}: {needed} replicas are needed, {} are elsewhere",
                    others.len()
                )
            });
            return;
        }
        let Some(_) = seen.leader else {
            findings.partition(ConcernKind::PartitionOffline, seen, || {
                format!("{name}-{index} has no leader that could say which replicas are in sync")
            });
            return;
        };
        let behind = behind.get(&seen.id).copied().unwrap_or_default();
        let is_fit = |broker: &&i32| seen.in_sync.contains(broker) && !behind.contains(broker);
        let left: Vec<i32> = others.iter().filter(is_fit).copied().collect();
        let kind = if left.len() < seen.majority() {
            ConcernKind::PartitionMajorityAtRisk
        } else if left.len() < needed {
            ConcernKind::PartitionMinIsrAtRisk
        } else if left.len() < others.len() {
            ConcernKind::ReplicaBehind
        } else {
            return;
        };
        findings.partition(kind, seen, || {
            format!(
                "without broker {id} {name}-{index} has {} of {} replicas in sync and up to date, on brokers {left:?}; \
                 {needed} are needed",
                left.len(),
                seen.replicas.len()
            )
        });
    }
}
