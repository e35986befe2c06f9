//! What is said of a source: from its metrics and probe to a status, by value, and what of it is written.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use super::volume::Volume;
use crate::api::{PAUSE, PikaPosition, PikaSource, PikaSourceStatus, SnapshotMode};
use crate::build::{MANAGER, cdc_topics};
use crate::control::context::Context;
use crate::control::error::Error;
use crate::control::metrics;
use crate::control::pods::stuck;
use crate::decide::conditions::{Conditions, Holds, find};

/// Seconds behind which a source counts as late.
const LATE_SECONDS: i64 = 300;

/// Series that are read of one page of metrics; more are passed over.
const MAX_SERIES: usize = 10_000;

/// Values of metrics by name and labels.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Readings(Vec<(String, BTreeMap<String, String>, f64)>);

impl Readings {
    /// Reads OpenMetrics; lines that are none are passed over.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(series).take(MAX_SERIES).collect())
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a BTreeMap<String, String>, i64)> {
        let named = self.0.iter().filter(move |(found, ..)| found == name);
        // Whole numbers by their meaning; what is larger than i64 is cut.
        #[allow(clippy::cast_possible_truncation, reason = "`as` cuts at the bounds of i64")]
        named.map(|(_, labels, value)| (labels, *value as i64))
    }

    fn max(&self, name: &str) -> Option<i64> {
        self.of(name).map(|(_, value)| value).max()
    }

    /// What the databases are doing: the least far of them.
    fn phase(&self) -> Option<&str> {
        let phases = || self.of("takhin_cdc_phase").filter(|(_, value)| *value == 1);
        let of = |wanted: &str| {
            phases().find_map(|(labels, _)| labels.get("phase").filter(|phase| *phase == wanted))
        };
        of("snapshot").or_else(|| of("streaming")).map(String::as_str)
    }

    /// The position of the first database.
    fn position(&self) -> Option<PikaPosition> {
        let (labels, file) = self
            .of("takhin_cdc_source_position_filenum")
            .min_by_key(|(labels, _)| labels.get("db").cloned())?;
        let offsets = self.of("takhin_cdc_source_position_offset");
        let offset = offsets
            .into_iter()
            .find(|(found, _)| found.get("db") == labels.get("db"))?
            .1;
        Some(PikaPosition { file, offset })
    }
}

/// One line: `name{label="value",...} number`.
fn series(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series.to_owned(), BTreeMap::new(), value));
    };
    let labels = labels.strip_suffix('}')?;
    let pairs = labels.split("\",").filter_map(|pair| {
        let (label, value) = pair.split_once("=\"")?;
        Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some((name.to_owned(), pairs.collect(), value))
}

/// What is to be said of a source after a pass.
pub(super) struct Word {
    status: PikaSourceStatus,
    conditions: Conditions,
    /// Whether there is to be no data set.
    takes_none: bool,
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
        let start = source.spec.start_from.as_ref();
        Self {
            status,
            conditions: Conditions::of(source.metadata.generation.unwrap_or(0)),
            no_volume: None,
            takes_none: start.is_some_and(|start| start.mode == SnapshotMode::NoData),
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

    pub(super) fn reconciliation_paused(&mut self) {
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
        self.ready(
            false,
            "Paused",
            "spec.paused is true; it goes on from its position",
        );
    }

    /// How the volume is, where there is to be one.
    pub(super) fn volume(&mut self, volume: Option<Volume>) {
        let kind = "StorageExpanded";
        match volume {
            None => {}
            Some(Volume::Pending { claim, why }) => {
                // Why a pod has no node says more than that a volume waits for that.
                self.no_volume = why.map(|why| format!("no volume yet for {claim}: {why}"));
            }
            Some(Volume::Whole) => {
                self.conditions
                    .say(kind, true, "Expanded", "the volume has the wished size");
            }
            Some(Volume::Resizing) => self.conditions.say(kind, false, "Resizing", "the volume grows"),
            Some(Volume::Refused { class }) => {
                let message = format!(
                    "spec.storage.size: storage class {class} does not let volumes grow (allowVolumeExpansion)"
                );
                self.conditions.say(kind, false, "ResizeNotSupported", message);
            }
            Some(Volume::Restart) => {
                let message =
                    "the file system grows when the pod starts again: delete the pod, or pause the source";
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
        let phase = readings.phase();
        self.status.phase = Some(match phase {
            Some("snapshot") => "Snapshot".to_owned(),
            Some("streaming") => "Streaming".to_owned(),
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
                    _ => problem.to_owned(),
                };
                self.ready(false, reason, &message);
            }
            (true, Some("snapshot")) => self.ready(true, "Snapshotting", "the data set is being taken"),
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

    /// Whether the data set was taken. While there is no connection that is as it was said before.
    fn snapshot(&mut self, phase: Option<&str>) {
        let kind = "SnapshotComplete";
        match phase {
            Some("snapshot") => {
                self.conditions
                    .say(kind, false, "Snapshotting", "the data set is being taken")
            }
            Some("streaming") if self.takes_none => {
                let message = "spec.startFrom.mode is no_data: changes alone are taken";
                self.conditions.say(kind, true, "NotWanted", message);
            }
            Some("streaming") => {
                self.conditions
                    .say(kind, true, "Complete", "the data set was taken, changes follow");
            }
            _ => {
                let before = find(&self.status.conditions, kind).cloned();
                self.conditions.keep(before.as_slice());
            }
        }
    }

    /// Writes what differs.
    pub(super) async fn write(
        self,
        context: &Context,
        source: &PikaSource,
        namespace: &str,
    ) -> Result<(), Error> {
        let name = source.name_any();
        metrics::ready("PikaSource", namespace, &name, self.is_ready());
        let before = source
            .status
            .as_ref()
            .map_or(&[][..], |status| &status.conditions);
        let mut status = self.status;
        status.conditions = self.conditions.since(before, context.now());
        if source.status.as_ref() == Some(&status) {
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
            Ok(_) => Ok(()),
            // It was deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# HELP takhin_cdc_phase x.
takhin_cdc_phase{db=\"db0\",phase=\"snapshot\"} 0
takhin_cdc_phase{db=\"db0\",phase=\"streaming\"} 1
takhin_cdc_source_position_filenum{db=\"db1\"} 9
takhin_cdc_source_position_filenum{db=\"db0\"} 14
takhin_cdc_source_position_offset{db=\"db0\"} 884213
takhin_cdc_lag_bytes{db=\"db0\"} 1204
takhin_cdc_lag_seconds{db=\"db0\"} 1
nonsense
# EOF
";

    fn word() -> Word {
        let spec = json!({
            "clusterRef": { "name": "prod" },
            "source": { "host": "pika", "port": 9221 },
            "sink": { "topicPrefix": "p", "mode": "Dual" },
        });
        Word::of(&PikaSource::new(
            "profiles",
            serde_json::from_value(spec).unwrap(),
        ))
    }

    fn reason_of(word: &Word) -> (String, String) {
        let ready = word.conditions.get("Ready").unwrap();
        (ready.status.clone(), ready.reason.clone())
    }

    #[test]
    fn a_source_that_follows_is_told_with_position_and_lag() {
        let mut word = word();
        word.said(&Readings::parse(METRICS), &(true, "ok\n".to_owned()));
        assert_eq!(word.status.topic.as_deref(), Some("p.snapshot,p.binlog"));
        assert_eq!(word.status.phase.as_deref(), Some("Streaming"));
        assert_eq!(
            word.status.position,
            Some(PikaPosition {
                file: 14,
                offset: 884_213
            })
        );
        assert_eq!(
            (word.status.lag_bytes, word.status.lag_seconds),
            (Some(1204), Some(1))
        );
        assert_eq!(reason_of(&word), ("True".to_owned(), "Streaming".to_owned()));
    }

    #[test]
    fn what_it_lacks_is_told_in_its_own_words() {
        for (text, reason, sink, source) in [
            ("sink: not connected", "SinkUnreachable", "False", "True"),
            (
                "sink: topic p.binlog is missing: create it",
                "TopicNotReady",
                "False",
                "True",
            ),
            (
                "sink: cannot create topic p.binlog: POLICY_VIOLATION",
                "TopicNotReady",
                "False",
                "True",
            ),
            (
                "sink: cannot write to p: TOPIC_AUTHORIZATION_FAILED; grant this client",
                "SinkNotAuthorized",
                "False",
                "True",
            ),
            (
                "source: cannot connect to pika:9221: refused",
                "SourceUnreachable",
                "True",
                "False",
            ),
            (
                "source: wrong password: pika:9221 refuses what is in source.password_file",
                "SourceAuthFailed",
                "True",
                "False",
            ),
            (
                "source: position 3:17 of db0 is lost: the master has deleted it; set source.on_position_lost",
                "PositionLost",
                "True",
                "False",
            ),
        ] {
            let mut word = word();
            word.said(&Readings::default(), &(false, format!("{text}\n")));
            assert_eq!(
                reason_of(&word),
                ("False".to_owned(), reason.to_owned()),
                "{text}"
            );
            let is = |kind: &str| word.conditions.get(kind).unwrap().status.clone();
            assert_eq!(
                (is("SinkConnected").as_str(), is("SourceConnected").as_str()),
                (sink, source)
            );
        }
    }

    #[test]
    fn what_it_does_is_told_by_its_phase_and_lag() {
        let reading = |phase: &str, lag: i64| {
            let text = format!(
                "takhin_cdc_phase{{db=\"db0\",phase=\"{phase}\"}} 1\ntakhin_cdc_lag_seconds{{db=\"db0\"}} {lag}\n"
            );
            Readings::parse(&text)
        };
        let ready = (true, "ok\n".to_owned());
        let (mut word, mut next) = (word(), word());
        let snapshot = |word: &Word| {
            let said = word.conditions.get("SnapshotComplete").unwrap();
            (said.status.clone(), said.reason.clone())
        };
        let words = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        word.said(&reading("snapshot", 0), &ready);
        assert_eq!(reason_of(&word), words("True", "Snapshotting"));
        assert_eq!(snapshot(&word), words("False", "Snapshotting"));
        word.said(&reading("streaming", LATE_SECONDS + 1), &ready);
        assert_eq!(reason_of(&word), words("True", "Lagging"));
        assert_eq!(snapshot(&word), words("True", "Complete"));
        word.said(&reading("streaming", 0), &ready);
        assert_eq!(reason_of(&word), words("True", "Streaming"));
        word.takes_none = true;
        word.said(&reading("streaming", 0), &ready);
        assert_eq!(snapshot(&word), words("True", "NotWanted"));
        // A connection that is lost does not make the data set incomplete.
        next.status.conditions = vec![word.conditions.get("SnapshotComplete").unwrap().clone()];
        next.said(
            &reading("connecting", 0),
            &(false, "source: refused\n".to_owned()),
        );
        assert_eq!(snapshot(&next), words("True", "NotWanted"));
        next.not_running(None, &[]);
        assert_eq!(reason_of(&next), words("False", "WorkloadNotReady"));
        let pod = |phase: &str| {
            serde_json::from_value(serde_json::json!({ "status": { "phase": phase } })).unwrap()
        };
        next.paused(&[pod("Failed"), pod("Running")]);
        assert_eq!(reason_of(&next), words("False", "WorkloadNotReady"));
        next.paused(&[pod("Failed")]);
        assert_eq!(reason_of(&next), words("False", "Paused"));
        next.reconciliation_paused();
        let said = next.conditions.get("ReconciliationPaused").unwrap();
        assert_eq!(said.reason, "Annotation");
    }

    #[test]
    fn why_no_pod_runs_is_told() {
        let told = |deployment: serde_json::Value, pod: serde_json::Value| {
            let mut word = word();
            let deployment: Deployment = serde_json::from_value(deployment).unwrap();
            let pods: Vec<Pod> = serde_json::from_value(pod).unwrap();
            word.not_running(Some(&deployment), &pods);
            assert_eq!(
                reason_of(&word),
                ("False".to_owned(), "WorkloadNotReady".to_owned())
            );
            word.conditions.get("Ready").unwrap().message.clone()
        };
        let quota = json!({ "type": "ReplicaFailure", "status": "True", "message": "exceeded quota: few" });
        let nothing = json!({});
        assert_eq!(told(nothing.clone(), json!([])), "no pod runs yet");
        assert_eq!(
            told(json!({ "status": { "conditions": [quota] } }), json!([])),
            "no pod runs: exceeded quota: few"
        );
        let condition = json!({ "type": "PodScheduled", "status": "False", "message": "0/3 nodes" });
        let unscheduled = json!([{ "status": { "phase": "Pending", "conditions": [condition] } }]);
        assert_eq!(
            told(nothing.clone(), unscheduled),
            "no pod runs: it has no node: 0/3 nodes"
        );
        let state = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
        let container = json!({
            "name": "cdc", "image": "x", "imageID": "", "ready": false, "restartCount": 1, "state": state,
        });
        let ends = json!([{ "status": { "phase": "Running", "containerStatuses": [container] } }]);
        assert_eq!(told(nothing, ends), "no pod runs: CrashLoopBackOff: back-off 10s");
    }

    #[test]
    fn a_lost_position_is_told_with_what_to_do_in_the_resource() {
        let mut word = word();
        let said = "source: position 3:17 of db0 is lost: deleted; set source.on_position_lost".to_owned();
        word.said(&Readings::default(), &(false, said));
        let ready = word.conditions.get("Ready").unwrap();
        assert_eq!(ready.reason, "PositionLost");
        assert!(
            ready
                .message
                .ends_with("(here: spec.startFrom.mode: when_needed)"),
            "{}",
            ready.message
        );
    }
}
