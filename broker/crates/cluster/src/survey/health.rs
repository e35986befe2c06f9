//! Is the cluster healthy?

use super::findings::{ConcernKind, Findings};
use super::{DiskReport, MAX_SKEW, Seen, Survey};

/// A disk is low when less than this many times the floor is free.
const LOW: u64 = 4;

impl Survey {
    /// All that is wrong with the cluster; nothing, and it is healthy.
    pub fn health(&self) -> Findings {
        let mut findings = Findings::default();
        self.look_at_controller(&mut findings);
        for broker in self.image.brokers.keys() {
            self.look_at_broker(*broker, &mut findings);
        }
        for seen in self.partitions() {
            look_at_partition(&seen, &mut findings);
        }
        findings
    }

    fn look_at_controller(&self, findings: &mut Findings) {
        if self.controller < 0 || !self.is_there(self.controller) {
            findings.cluster(ConcernKind::NoController, || {
                "no broker is the controller: metadata cannot be changed".to_owned()
            });
        }
        let (voters, there) = (self.voters.len(), self.voters_there());
        let majority = voters / 2 + 1;
        if there < majority {
            findings.cluster(ConcernKind::ControllerMajorityLost, || {
                format!("{there} of {voters} voters of the metadata group are there; {majority} are needed")
            });
        } else if voters > 2 && there == majority {
            findings.cluster(ConcernKind::ControllerMarginLost, || {
                format!("{there} of {voters} voters of the metadata group are there, and {majority} are needed: none may go")
            });
        }
    }

    fn look_at_broker(&self, broker: i32, findings: &mut Findings) {
        if let Some(silence) = self.silent_for(broker) {
            findings.broker(ConcernKind::BrokerSilent, broker, || {
                format!(
                    "broker {broker} has not been heard of for {} s",
                    silence.as_secs()
                )
            });
            return;
        }
        let Some(report) = self.reports.get(&broker) else {
            findings.broker(ConcernKind::BrokerUnknown, broker, || {
                format!("broker {broker} does not say how it is")
            });
            return;
        };
        if report.is_starting || report.closed > 0 {
            findings.broker(ConcernKind::BrokerNotOpen, broker, || {
                not_open(broker, report.closed)
            });
        }
        if let Some(disk) = report.disk {
            look_at_disk(broker, disk, findings);
        }
        if let Some(ahead) = report.ahead_ms.filter(|ahead| is_skewed(*ahead)) {
            findings.broker(ConcernKind::ClockSkew, broker, || {
                format!(
                    "the clock of broker {broker} is {} that of the broker that was asked: synchronize them",
                    skew(ahead)
                )
            });
        }
    }
}

/// Whether clocks that differ by so many milliseconds are wrong.
pub(crate) fn is_skewed(ahead_ms: i64) -> bool {
    u128::from(ahead_ms.unsigned_abs()) > MAX_SKEW.as_millis()
}

/// How far a clock is before or behind another one, in words.
pub(crate) fn skew(ahead_ms: i64) -> String {
    let seconds = ahead_ms.unsigned_abs() / 1000;
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!("{seconds} s {side}")
}

/// What is told of a broker that has `closed` replicas that are not open.
pub(super) fn not_open(broker: i32, closed: usize) -> String {
    match closed {
        0 => format!("broker {broker} is starting"),
        closed => format!("{closed} replicas on broker {broker} are not open"),
    }
}

fn look_at_disk(broker: i32, disk: DiskReport, findings: &mut Findings) {
    let DiskReport {
        free, floor, total, ..
    } = disk;
    if disk.is_full {
        findings.broker(ConcernKind::DiskFull, broker, || {
            format!(
                "broker {broker} refuses records: {free} of {total} bytes are free, storage.min_free_space is {floor}"
            )
        });
    } else if free < floor.saturating_mul(LOW) {
        findings.broker(ConcernKind::DiskLow, broker, || {
            format!("{free} of {total} bytes are free on broker {broker}; below {floor} it refuses records")
        });
    }
}

fn look_at_partition(seen: &Seen<'_>, findings: &mut Findings) {
    let (name, index) = (&seen.topic.name, seen.index);
    let (in_sync, all, needed) = (seen.in_sync.len(), seen.factor, seen.needed());
    if seen.leader.is_none() {
        findings.partition(ConcernKind::PartitionOffline, seen, || {
            format!(
                "{name}-{index} has no leader; its replicas are on brokers {:?}",
                seen.replicas
            )
        });
        return;
    }
    if in_sync < needed {
        findings.partition(ConcernKind::PartitionUnderMinIsr, seen, || {
            format!(
                "{in_sync} replicas of {name}-{index} are in sync, {needed} are needed to write with acks=all"
            )
        });
    }
    if in_sync < all {
        findings.partition(ConcernKind::PartitionUnderReplicated, seen, || {
            format!(
                "{in_sync} of {all} replicas of {name}-{index} are in sync: {:?}",
                seen.in_sync
            )
        });
    }
}
