//! Gathers what [`Survey`] judges: every broker that is there is asked how it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::exchange;
use super::{Cluster, METADATA_TOPIC_ID};
use crate::links::{Class, Kind};
use crate::partition::PartitionId;
use crate::survey::{BrokerReport, DiskReport, Survey};

/// How long a broker may take to say how it is.
const ANSWER: Duration = Duration::from_secs(1);

/// Partitions with a replica that is behind, in one report; that there are more is all that is said of the others.
const MAX_BEHIND: usize = 1000;

/// Silence of a broker that was never heard of, however short this one runs: nothing is known of it.
const NEVER_HEARD: Duration = Duration::from_secs(2);

impl Cluster {
    /// The cluster as this broker sees it now; takes a second at most.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn survey(&self) -> Survey {
        let image = self.image();
        let others = image.brokers.keys().copied().filter(|id| *id != self.node_id());
        let asked = join_all(others.map(async |id| Some((id, self.ask_report(id).await?))));
        let (own, asked) = tokio::join!(self.report(), asked);
        let mut reports: BTreeMap<i32, BrokerReport> = asked.into_iter().flatten().collect();
        reports.insert(self.node_id(), own);
        let silence = image.brokers.keys().map(|id| (*id, self.silence(*id))).collect();
        let voters = self.metadata_group.voters().unwrap_or_default().into_iter();
        let voters: BTreeSet<i32> = voters.filter_map(|id| i32::try_from(id).ok()).collect();
        Survey {
            controller: self.controller_id(),
            reports,
            voters,
            metadata: PartitionId {
                topic_id: METADATA_TOPIC_ID,
                index: 0,
            },
            words: self.exchange.leaders.words(),
            silence,
            image,
        }
    }

    /// How long a broker has not been heard of: at least the silence that counts as gone if it is known to be.
    pub(super) fn silence(&self, id: i32) -> Duration {
        if id == self.node_id() {
            return Duration::ZERO;
        }
        let links = &self.host.links;
        let (judged, heard) = match u32::try_from(id) {
            Ok(node) => (links.silence(node), links.last_heard(node)),
            Err(_) => (None, None),
        };
        let running = self.begun.elapsed();
        match judged {
            Some(judged) if judged < NEVER_HEARD => judged,
            Some(_) | None => heard.unwrap_or(running).max(NEVER_HEARD),
        }
    }

    pub(super) async fn ask_report(&self, id: i32) -> Option<BrokerReport> {
        let node = u32::try_from(id).ok()?;
        if self.silence(id) >= NEVER_HEARD {
            return None;
        }
        let links = &self.host.links;
        let asked = links.call(node, Class::Control, 0, Kind::Report, vec![Bytes::new()], ANSWER);
        let answered = asked.await.map_err(|error| error.to_string());
        let report = answered.and_then(|body| serde_json::from_slice(&body).map_err(|e| e.to_string()));
        let report = report.map_err(|reason| tracing::debug!(broker = id, reason, "no report"));
        let mut report: BrokerReport = report.ok()?;
        report.ahead_ms = report.clock_ms.map(|theirs| theirs - self.env.clock.now_ms());
        Some(report)
    }

    /// How this broker is.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn report(&self) -> BrokerReport {
        let partitions = self.partitions();
        let is_closed = |partition: &Arc<_>| {
            let partition: &crate::Partition = partition;
            partition.log().is_none() || partition.offline_reason().is_some()
        };
        let (behind, has_more_behind) = self.behind();
        BrokerReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_starting: self.reconciled.get() < 0,
            closed: partitions.iter().filter(|partition| is_closed(partition)).count(),
            log_bytes: partitions
                .iter()
                .filter_map(|partition| partition.log())
                .map(|log| log.stats().bytes)
                .sum(),
            disk: self.disk_report().await,
            clock_ms: Some(self.env.clock.now_ms()),
            ahead_ms: None,
            behind,
            has_more_behind,
        }
    }

    async fn disk_report(&self) -> Option<DiskReport> {
        let (disk, path) = (Arc::clone(&self.env.disk), self.options.data_dir.clone());
        let space = self.env.tasks.blocking(move || disk.space(&path)).await.ok()?;
        Some(DiskReport {
            total: space.total,
            free: space.free,
            floor: self.options.min_free_bytes,
            is_full: self.disk_gate.is_low(),
        })
    }

    /// Of the groups led here, those with voters that lack more than what is under way; and whether there are more.
    fn behind(&self) -> (Vec<(uuid::Uuid, i32, Vec<i32>)>, bool) {
        let mut found = Vec::new();
        for group in self.all_groups() {
            let members = group.spec.partition.leadership().and_then(|_| group.members());
            let Some(members) = members else { continue };
            let late = members.voters.difference(&members.up_to_date);
            let late = late.copied().filter(|node| *node != self.host.node);
            let late: Vec<i32> = late.filter_map(|node| i32::try_from(node).ok()).collect();
            if late.is_empty() {
                continue;
            }
            if found.len() == MAX_BEHIND {
                return (found, true);
            }
            found.push((group.spec.id.topic_id, group.spec.id.index, late));
        }
        (found, false)
    }

    /// What another broker asks: how this one is.
    pub(crate) async fn tell_report(&self) -> Result<Bytes, String> {
        exchange::encode(&self.report().await)
    }
}
