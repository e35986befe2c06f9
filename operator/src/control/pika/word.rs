//! What is said of a source: from its metrics and probe to a status, by value, and what of it is written.

use std::cmp::Ordering;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use super::readings::Readings;
use super::volume::Volume;
use crate::api::{PAUSE, PikaSource, PikaSourceStatus, SnapshotMode};
use crate::build::{MANAGER, cdc_topics};
use crate::control::context::Context;
use crate::control::error::Error;
use crate::control::metrics;
use crate::control::passes::status_key;
use crate::control::pods::stuck;
use crate::control::written::wordless;
use crate::decide::conditions::{Conditions, Holds};

/// Seconds behind which a source counts as late.
const LATE_SECONDS: i64 = 300;

/// What stays true until something else is found: a pass that does not come to look at it leaves it as it was said.
const KEPT: [&str; 4] = [
    "SnapshotComplete",
    "StorageExpanded",
    "SourceConnected",
    "SinkConnected",
];

/// What is to be said of a source after a pass.
pub(super) struct Word {
    status: PikaSourceStatus,
    conditions: Conditions,
    /// When the data set is to be taken.
    mode: SnapshotMode,
    /// The size that the volume is to have.
    wished: Option<String>,
    /// Why there is no volume.
    no_volume: Option<String>,
}

/// Why a Deployment gets no pod: a quota, or rules of the namespace.
fn refused(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    failure.message.clone()
}

fn by_type(one: &Condition, other: &Condition) -> Ordering {
    one.type_.cmp(&other.type_)
}

/// A status without what is another with each look at a source in use: how far it is, and what is said in words of that.
fn lasting(status: &PikaSourceStatus) -> PikaSourceStatus {
    let mut status = status.clone();
    status.position = None;
    status.lag_bytes = None;
    status.lag_seconds = None;
    wordless(&mut status.conditions);
    let late = |condition: &&mut Condition| condition.type_ == "Ready" && condition.reason == "Lagging";
    if let Some(late) = status.conditions.iter_mut().find(late) {
        late.reason = "Streaming".to_owned();
    }
    status
}

/// What is wrong with the brokers, by the words of `takhin-cdc` (`cdc/src/sink/error.rs`).
fn sink_reason(problem: &str) -> &'static str {
    let is_of_topic = problem.starts_with("topic ") || problem.starts_with("cannot create topic ");
    match problem.contains("AUTHORIZATION_FAILED") {
        true => "SinkNotAuthorized",
        false if is_of_topic => "TopicNotReady",
        false => "SinkUnreachable",
    }
}

/// What is wrong with the master, by the words of `takhin-cdc` (`cdc/src/source/error.rs`).
fn source_reason(problem: &str) -> &'static str {
    if problem.starts_with("position ") && problem.contains(" is lost: ") {
        "PositionLost"
    } else if problem.starts_with("snapshot.mode is ") {
        "InvalidSpec"
    } else if problem.contains("password") {
        "SourceAuthFailed"
    } else {
        "SourceUnreachable"
    }
}

impl Word {
    pub(super) fn of(source: &PikaSource) -> Self {
        let mut status = source.status.clone().unwrap_or_default();
        status.observed_generation = source.metadata.generation;
        let (snapshot, binlog) = cdc_topics(&source.spec);
        status.topic = Some(match snapshot == binlog {
            true => snapshot,
            false => format!("{snapshot},{binlog}"),
        });
        Self {
            status,
            conditions: Conditions::of(source.metadata.generation.unwrap_or(0)),
            no_volume: None,
            mode: source.spec.snapshot_mode(),
            wished: source.spec.storage.as_ref().map(|storage| storage.size.clone()),
        }
    }

    pub(super) fn ready(&mut self, holds: impl Into<Holds>, reason: &str, message: &str) {
        self.conditions.say("Ready", holds, reason, message);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.conditions
            .get("Ready")
            .is_some_and(|ready| ready.status == "True")
    }

    /// What it does, by what was said last.
    pub(super) fn phase(&self) -> Option<&str> {
        self.status.phase.as_deref()
    }

    /// Speaks of the wish that was looked at last from here on: who waits for a newer one must not take this for it.
    pub(super) fn reconciliation_paused(&mut self, source: &PikaSource) {
        let before = source.status.as_ref();
        self.status.observed_generation = before.and_then(|status| status.observed_generation);
        self.conditions = Conditions::of(self.status.observed_generation.unwrap_or(0));
        let message = format!("the annotation {PAUSE} is true: nothing is changed");
        self.conditions
            .say("ReconciliationPaused", true, "Annotation", message);
    }

    /// It stands still, or is about to: a pod on its way out may still write.
    pub(super) fn paused(&mut self, pods: &[Pod]) {
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let has_ended = |pod: &Pod| matches!(phase(pod).as_deref(), Some("Succeeded" | "Failed"));
        if !pods.iter().all(has_ended) {
            self.status.phase = Some("Stopping".to_owned());
            let message = "spec.paused is true; the pod is being stopped";
            self.ready(false, "WorkloadNotReady", message);
            return;
        }
        self.status.phase = Some("Paused".to_owned());
        let then = match self.mode {
            SnapshotMode::Always => "it begins with the data set again (spec.startFrom.mode is always)",
            _ => "it goes on from its position",
        };
        self.ready(false, "Paused", &format!("spec.paused is true; {then}"));
    }

    /// How the volume is, where there is to be one.
    pub(super) fn volume(&mut self, volume: Option<Volume>) {
        let kind = "StorageExpanded";
        match volume {
            None => {}
            Some(Volume::Pending { claim, why }) => {
                // What was said was said of another volume.
                self.status.conditions.retain(|condition| condition.type_ != kind);
                // Why a pod has no node says more than that a volume waits for that.
                self.no_volume = why.map(|why| format!("no volume yet for {claim}: {why}"));
            }
            Some(Volume::Forbidden { claim, why }) => {
                let message = format!("spec.storage: claim {claim} may not be made: {why}");
                self.no_volume = Some(message.clone());
                self.conditions.say(kind, false, "ClaimRefused", message);
            }
            Some(Volume::Endangered { reason, message }) => {
                self.no_volume = Some(message.clone());
                self.conditions.say(kind, false, reason, message);
            }
            Some(Volume::Whole) => {
                self.conditions
                    .say(kind, true, "Expanded", "the volume has the wished size");
            }
            Some(Volume::Larger { has }) => {
                let message = format!(
                    "the volume has {has}, and spec.storage.size is {}: it stays so, because volumes cannot shrink",
                    self.wished.as_deref().unwrap_or_default()
                );
                self.conditions.say(kind, true, "Expanded", message);
            }
            Some(Volume::Resizing) => self.conditions.say(kind, false, "Resizing", "the volume grows"),
            Some(Volume::Refused { class }) => {
                let class = match class.as_str() {
                    "" => "the claim has no storage class, and without one volumes do not grow".to_owned(),
                    class => format!(
                        "storage class {class} does not let volumes grow: set its allowVolumeExpansion if its provisioner can"
                    ),
                };
                let message = format!(
                    "spec.storage.size {}: {class}; or make another PikaSource",
                    self.wished.as_deref().unwrap_or_default()
                );
                self.conditions.say(kind, false, "ResizeNotSupported", message);
            }
            Some(Volume::Denied { why }) => {
                let wished = self.wished.as_deref().unwrap_or_default();
                let message = format!("spec.storage.size {wished}: the volume may not grow: {why}");
                self.conditions.say(kind, false, "ResizeRefused", message);
            }
            Some(Volume::Restart) => {
                let message = match self.mode {
                    SnapshotMode::Always => {
                        "the file system grows when the pod starts again, and spec.startFrom.mode is always: delete the pod \
                         when the data set may be taken again"
                    }
                    _ => {
                        "the file system grows when the pod starts again, which waits only for a data set that is being taken"
                    }
                };
                self.conditions.say(kind, false, "RestartRequired", message);
            }
        }
    }

    /// What Kubernetes says of the Deployment and its pods.
    pub(super) fn workload(&mut self, deployment: Option<&Deployment>, pods: &[Pod]) {
        let spec = deployment.and_then(|deployment| deployment.spec.as_ref());
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        self.status.replicas = Some(spec.and_then(|spec| spec.replicas).unwrap_or(0));
        self.status.ready_replicas = Some(status.and_then(|status| status.ready_replicas).unwrap_or(0));
        let containers = pods
            .iter()
            .filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref())
            .flatten();
        self.status.restarts = Some(containers.map(|container| container.restart_count).sum());
    }

    /// No pod runs, and why, if that is known.
    pub(super) fn not_running(&mut self, deployment: Option<&Deployment>, pods: &[Pod]) {
        self.status.phase = Some("Pending".to_owned());
        let why = self
            .no_volume
            .clone()
            .or_else(|| pods.iter().find_map(stuck))
            .or_else(|| refused(deployment?));
        let message = why.map_or_else(
            || "no pod runs yet".to_owned(),
            |why| format!("no pod runs: {why}"),
        );
        self.ready(false, "WorkloadNotReady", &message);
    }

    /// The pod that runs is that of an earlier wish, and is to go.
    pub(super) fn reconciling(&mut self) {
        self.status.phase = Some("Pending".to_owned());
        let message = "the pod of the new spec is to come";
        self.ready(Holds::Unknown, "Reconciling", message);
    }

    /// What the process says: its metrics, and whether and why it is not ready.
    pub(super) fn said(&mut self, readings: &Readings, probe: &(bool, String)) {
        if let Some(position) = readings.position() {
            self.status.position = Some(position);
        }
        self.status.lag_bytes = readings.max("takhin_cdc_lag_bytes");
        self.status.lag_seconds = readings.max("takhin_cdc_lag_seconds");
        let (is_ready, reasons) = probe;
        let of = |check: &str| {
            reasons
                .lines()
                .find_map(|line| line.strip_prefix(check)?.strip_prefix(": "))
        };
        let sink = of("sink");
        let source = of("source");
        let say = |kind: &str, problem: Option<&str>, conditions: &mut Conditions| match problem {
            None => conditions.say(kind, true, "Connected", "connected"),
            Some(problem) => conditions.say(kind, false, "NotConnected", problem),
        };
        say("SinkConnected", sink, &mut self.conditions);
        say("SourceConnected", source, &mut self.conditions);
        let mut phase = readings.phase();
        // It has left the master, since there is nothing more to be done.
        if self.mode == SnapshotMode::InitialOnly && *is_ready && phase.is_none() && readings.has_databases()
        {
            phase = Some("complete");
        }
        self.status.phase = Some(match phase {
            Some("snapshot") => "Snapshot".to_owned(),
            Some("streaming") => "Streaming".to_owned(),
            Some("complete") => "Complete".to_owned(),
            _ => "Connecting".to_owned(),
        });
        self.snapshot(phase);
        let lag = self.status.lag_seconds.unwrap_or(0);
        match (is_ready, phase) {
            (false, _) => {
                let (reason, problem) = match sink {
                    Some(problem) => (sink_reason(problem), problem),
                    None => {
                        let problem = source.unwrap_or_else(|| reasons.trim());
                        (source_reason(problem), problem)
                    }
                };
                // It speaks of its own file; here the wish decides.
                let message = match reason {
                    "PositionLost" => format!("{problem} (here: spec.startFrom.mode: when_needed)"),
                    "InvalidSpec" => format!("{problem} (here: spec.startFrom.mode)"),
                    _ => problem.to_owned(),
                };
                self.ready(false, reason, &message);
            }
            (true, Some("snapshot")) => self.ready(true, "Snapshotting", "the data set is being taken"),
            (true, Some("complete")) => {
                let message = "the data set is written, and spec.startFrom.mode is initial_only: changes are not followed";
                self.ready(true, "SnapshotComplete", message);
            }
            (true, Some("streaming")) if lag > LATE_SECONDS => {
                self.ready(true, "Lagging", &format!("{lag} s behind the source"));
            }
            (true, Some("streaming")) => {
                let file = self.status.position.as_ref().map_or(0, |position| position.file);
                self.ready(true, "Streaming", &format!("following binlog {file}"));
            }
            (true, _) => self.ready(
                Holds::Unknown,
                "WorkloadNotReady",
                "connected, and no database is followed yet",
            ),
        }
    }

    /// Whether the data set was taken, where that is known.
    fn snapshot(&mut self, phase: Option<&str>) {
        let kind = "SnapshotComplete";
        match phase {
            Some("snapshot") => {
                self.conditions
                    .say(kind, false, "Snapshotting", "the data set is being taken")
            }
            Some("streaming") if self.mode == SnapshotMode::NoData => {
                let message = "spec.startFrom.mode is no_data: changes alone are taken";
                self.conditions.say(kind, true, "NotWanted", message);
            }
            Some("streaming") => {
                self.conditions
                    .say(kind, true, "Complete", "the data set was taken, changes follow");
            }
            Some("complete") => self
                .conditions
                .say(kind, true, "Complete", "the data set was taken"),
            _ => {}
        }
    }

    /// Writes what differs; where that is how far it is and no more, not before `pause` has gone by since it was written last.
    pub(super) async fn write(
        mut self,
        context: &Context,
        source: &PikaSource,
        namespace: &str,
        pause: Duration,
    ) -> Result<(), Error> {
        let name = source.name_any();
        metrics::ready("PikaSource", namespace, &name, self.is_ready());
        let before = source
            .status
            .as_ref()
            .map_or(&[][..], |status| &status.conditions);
        let mut status = self.status;
        status
            .conditions
            .retain(|condition| KEPT.contains(&condition.type_.as_str()));
        self.conditions.keep(&status.conditions);
        status.conditions = self.conditions.since(before, context.now());
        // In which order something was said, and the API server has it, is no difference.
        status.conditions.sort_by(by_type);
        let mut told = source.status.clone();
        if let Some(told) = &mut told {
            told.conditions.sort_by(by_type);
        }
        if told.as_ref() == Some(&status) {
            return Ok(());
        }
        let key = status_key("PikaSource", namespace, &name);
        let is_told = told.as_ref().map(lasting) == Some(lasting(&status));
        if is_told && context.written.within(&key, context.env.clock.instant(), pause) {
            return Ok(());
        }
        let api: Api<PikaSource> = Api::namespaced(context.client.clone(), namespace);
        let patch = json!({
            "apiVersion": PikaSource::api_version(&()),
            "kind": PikaSource::kind(&()),
            "metadata": { "name": name },
            "status": status,
        });
        metrics::patched("PikaSource");
        let parameters = PatchParams::apply(MANAGER).force();
        match api.patch_status(&name, &parameters, &Patch::Apply(&patch)).await {
            Ok(_) => {
                context.written.note(key, context.env.clock.instant());
                Ok(())
            }
            // It was deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
