//! The status of a cluster: written from scratch in each pass, and sent only when it differs.

mod progress;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use super::assign::node_port;
use super::observe::Seen;
use crate::api::{
    BrokerStatus, ListenerStatus, ListenerType, PAUSE, QuorumStatus, TakhinCluster, TakhinClusterStatus,
};
use crate::build::{Address, MANAGER, Names, balancer_of, listeners};
use crate::control::claims::{capacity, endangered, is_pending};
use crate::control::context::Context;
use crate::control::error::Error;
use crate::control::metrics;
use crate::control::passes::status_key;
use crate::control::topics::is_ready;
use crate::control::written::wordless;
use crate::decide::conditions::{Conditions, Holds, find};

/// Share of a disk in use, in percent, above which the cluster counts as degraded.
const DISK_PERCENT: u64 = 85;

/// Characters of what a rollout waits for.
const MAX_WAITING: usize = 1000;

/// Begins what is said of settings that brokers refuse.
const NOT_APPLIED: &str = "spec.config is not applied: ";

/// What is to be said of a cluster after a pass.
#[derive(Debug, Clone)]
pub(super) struct Report {
    status: TakhinClusterStatus,
    conditions: Conditions,
    now: Timestamp,
    busy: bool,
    step: Option<String>,
    /// Why the rollout takes too long.
    blocked: Option<String>,
    /// Brokers without their data, and what becomes of them.
    lost: Vec<String>,
}

/// A status without what moves while brokers take over from each other: counts, and words with counts in them.
fn lasting(status: &TakhinClusterStatus) -> TakhinClusterStatus {
    let mut status = status.clone();
    for broker in &mut status.brokers {
        broker.leaders = None;
        broker.replicas = None;
    }
    if let Some(rollout) = &mut status.rollout {
        rollout.waiting_for = None;
    }
    wordless(&mut status.conditions);
    status
}

/// The generation that the conditions speak of.
pub(super) fn observed_generation(cluster: &TakhinCluster) -> Option<i64> {
    cluster.status.as_ref()?.observed_generation
}

impl Report {
    pub(super) fn new(cluster: &TakhinCluster, now: Timestamp) -> Self {
        let mut status = cluster.status.clone().unwrap_or_default();
        status.observed_generation = cluster.metadata.generation;
        Self {
            status,
            conditions: Conditions::of(cluster.metadata.generation.unwrap_or(0)),
            now,
            busy: false,
            step: None,
            blocked: None,
            lost: Vec::new(),
        }
    }

    /// Whether something is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// What was done in this pass, for the log.
    pub(super) fn step(&self) -> Option<&str> {
        self.step.as_deref()
    }

    /// Nothing is known of this wish yet; what was known of the last one stays.
    pub(super) fn reconciling(&mut self) {
        self.conditions.keep(&self.status.conditions);
        self.conditions.say(
            "Ready",
            Holds::Unknown,
            "Reconciling",
            "the new spec is being looked at",
        );
    }

    /// Says that nothing is changed, and speaks of the wish that was looked at last from here on: who waits for a newer one must
    /// not take this for it. Returns what is to be told as an event, if that is news.
    pub(super) fn paused(&mut self, cluster: &TakhinCluster) -> Option<String> {
        self.status.observed_generation = observed_generation(cluster);
        self.conditions = Conditions::of(self.status.observed_generation.unwrap_or(0));
        let message = format!("the annotation {PAUSE} is true: nothing is changed");
        let is_news = find(&self.status.conditions, "ReconciliationPaused").is_none();
        self.conditions
            .say("ReconciliationPaused", true, "Annotation", message.clone());
        is_news.then_some(message)
    }

    pub(super) async fn invalid(&mut self, context: &Context, cluster: &TakhinCluster, faults: &[String]) {
        let message = faults.join("; ");
        let before = cluster
            .status
            .as_ref()
            .map_or(&[][..], |status| &status.conditions);
        let said = find(before, "Ready").is_some_and(|ready| ready.message == message);
        self.conditions
            .say("Ready", false, "InvalidSpec", message.clone());
        if !said {
            context
                .event(cluster, EventType::Warning, "InvalidSpec", "Validate", message)
                .await;
        }
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.busy = true;
        let reason = match error {
            Error::NameConflict { .. } => "NameConflict",
            _ => "ReconcileError",
        };
        self.conditions.keep(&self.status.conditions);
        self.conditions.say("Ready", false, reason, error.to_string());
    }

    /// What there is; says Ready, Degraded and all fields but those of a change that is under way.
    pub(super) fn observed(&mut self, cluster: &TakhinCluster, names: &Names, seen: &Seen) {
        let wished = seen.replicas().unwrap_or(0);
        let ready = seen.pods.values().filter(|pod| is_ready(pod)).count();
        let ready = i32::try_from(ready).unwrap_or(i32::MAX);
        self.status.replicas = Some(wished);
        self.status.ready_replicas = Some(ready);
        self.status.brokers_summary = Some(format!("{ready}/{wished}"));
        self.status.selector = Some(names.selector_text());
        self.status.brokers = brokers(cluster, names, seen);
        if let Some(node) = &seen.node {
            self.status.cluster_id = Some(node.cluster_id.clone());
        }
        if let Some(brokers) = &seen.brokers {
            let mut versions = brokers.iter().filter_map(|broker| broker.version.as_ref());
            let first = versions.next();
            self.status.version = first
                .filter(|first| versions.all(|version| version == *first))
                .cloned();
        }
        self.status.quorum = seen.health.as_ref().map(|health| QuorumStatus {
            leader: health.controller,
        });
        let missing = self.listeners(cluster, names, seen);
        metrics::brokers(&names.namespace, &names.cluster, wished, ready);
        self.readiness(cluster, seen, ready, &missing);
        self.degraded(seen);
        if self.conditions.get("Progressing").is_none() {
            self.conditions
                .say("Progressing", false, "Idle", "nothing is under way");
        }
    }

    fn readiness(&mut self, cluster: &TakhinCluster, seen: &Seen, ready: i32, missing: &[String]) {
        // A wish that is refused stays refused, however well the brokers are.
        if self
            .conditions
            .get("Ready")
            .is_some_and(|said| said.status != "True")
        {
            return;
        }
        let wished = seen.replicas().unwrap_or(cluster.spec.replicas);
        let of = format!("{ready} of {wished} brokers ready");
        let unbound: Vec<String> = seen
            .claims
            .values()
            .filter(|claim| is_pending(claim))
            .map(kube::ResourceExt::name_any)
            .collect();
        let quorum = seen.health.as_ref().map(|health| health.controller.is_some());
        // Brokers that are still to come serve nobody yet, and nobody waits for them.
        let members = seen
            .brokers
            .as_ref()
            .and_then(|brokers| i32::try_from(brokers.len()).ok());
        let serving =
            ready > members.map_or(wished, |members| members.min(wished)) / 2 && quorum == Some(true);
        self.busy |= ready < wished;
        let stuck = seen.stuck();
        if !unbound.is_empty() && ready < wished {
            let why = seen.unprovided.as_ref().map_or(stuck, |why| format!(": {why}"));
            let message = format!("{of}; no volume yet for {}{why}", unbound.join(", "));
            self.conditions.say("Ready", false, "StorageNotBound", message);
        } else if !serving && quorum == Some(false) {
            self.conditions.say(
                "Ready",
                false,
                "QuorumLost",
                format!("{of}; the brokers have no controller{stuck}"),
            );
        } else if !serving && !missing.is_empty() {
            // Pods wait for the addresses that they are to tell clients.
            self.busy = true;
            let message = format!("{of}; no address yet from {}{stuck}", missing.join(", "));
            self.conditions.say("Ready", false, "ListenerNotReady", message);
        } else if !serving {
            let silence = seen
                .silence
                .as_deref()
                .map(|why| format!("; {why}"))
                .unwrap_or_default();
            self.conditions
                .say("Ready", false, "BrokersNotReady", format!("{of}{silence}{stuck}"));
        } else if !missing.is_empty() {
            self.busy = true;
            let message = format!("{of}; no address yet from {}", missing.join(", "));
            self.conditions.say("Ready", false, "ListenerNotReady", message);
        } else {
            self.conditions
                .say("Ready", true, "Serving", format!("{of}, quorum healthy{stuck}"));
        }
    }

    fn degraded(&mut self, seen: &Seen) {
        let full: Vec<String> =
            seen.brokers
                .iter()
                .flatten()
                .filter(|broker| {
                    broker.disk.as_ref().is_some_and(|disk| {
                        disk.used_bytes / 100 * 100 >= disk.total_bytes / 100 * DISK_PERCENT
                    })
                })
                .map(|broker| format!("broker {}", broker.id))
                .collect();
        let claims: Vec<(&str, String)> = seen.claims.values().filter_map(endangered).collect();
        if let Some((reason, _)) = claims.first().filter(|_| self.lost.is_empty()) {
            let messages = claims.iter().map(|(_, message)| message.clone());
            let others = seen.health.iter().flat_map(|health| &health.reasons);
            let others = others.map(|reason| reason.message.clone()).take(5);
            let message: Vec<String> = messages.chain(others).collect();
            self.conditions.say("Degraded", true, reason, message.join("; "));
            return;
        }
        let Some(health) = &seen.health else {
            let why = seen.silence.clone().unwrap_or_default();
            self.conditions.say("Degraded", Holds::Unknown, "BrokerDown", why);
            return;
        };
        let full = (!full.is_empty()).then(|| {
            format!(
                "more than {DISK_PERCENT} % of the disk in use: {}",
                full.join(", ")
            )
        });
        if !self.lost.is_empty() {
            let message = self.lost.join("; ");
            self.conditions.say("Degraded", true, "DataLost", message);
            return;
        }
        if health.healthy {
            match full {
                Some(message) => self.conditions.say("Degraded", true, "DiskPressure", message),
                None => self
                    .conditions
                    .say("Degraded", false, "Healthy", "nothing is wrong"),
            }
            return;
        }
        let silent = seen
            .brokers
            .iter()
            .flatten()
            .any(|broker| broker.state == "silent");
        // What is missing now is graver than what may be missing soon.
        let reason = if silent { "BrokerDown" } else { "UnderReplicated" };
        let reasons = health.reasons.iter().map(|reason| reason.message.clone()).take(5);
        let reasons: Vec<String> = reasons.chain(full).collect();
        self.conditions.say("Degraded", true, reason, reasons.join("; "));
    }

    /// Where clients connect. Returns the Services that have no address yet.
    fn listeners(&mut self, cluster: &TakhinCluster, names: &Names, seen: &Seen) -> Vec<String> {
        let mut all = Vec::new();
        let mut missing = Vec::new();
        for listener in listeners(&cluster.spec) {
            let bootstrap = names.external_bootstrap(&listener.name);
            let service = seen.services.get(&bootstrap);
            let host_port = match listener.kind {
                ListenerType::Internal => {
                    let host = format!("{}.{}.svc", names.bootstrap(), names.namespace);
                    Some(Address {
                        host,
                        port: listener.port,
                    })
                }
                ListenerType::LoadBalancer => service.and_then(balancer_of).map(|host| Address {
                    host,
                    port: listener.port,
                }),
                ListenerType::NodePort => service.and_then(|service| node_port(service, seen)),
            };
            if host_port.is_none() {
                missing.push(format!("Service {bootstrap}"));
            }
            for (broker, assignment) in &seen.assignments {
                if assignment.missing.contains(&listener.name) {
                    missing.push(format!(
                        "Service {}",
                        names.external_broker(&listener.name, *broker)
                    ));
                }
            }
            let told = seen
                .assignments
                .values()
                .filter_map(|told| told.address_of(&listener.name));
            all.push(ListenerStatus {
                name: listener.name.clone(),
                bootstrap_servers: host_port.map(|address| address.to_string()),
                addresses: told.collect(),
            });
        }
        self.status.listeners = all;
        missing
    }

    /// Says that a broker has lost its data. Returns whether that is news.
    pub(super) fn data_lost(&mut self, cluster: &TakhinCluster, message: String) -> bool {
        self.busy = true;
        self.lost.push(message);
        let before = cluster.status.as_ref();
        let before = before.map_or(&[][..], |status| &status.conditions);
        find(before, "Degraded").is_none_or(|old| old.reason != "DataLost")
    }

    pub(super) fn managed_config(&mut self, names: Vec<String>) {
        self.status.managed_config = names;
    }

    pub(super) fn config_not_applied(&mut self, message: &str) {
        self.busy = true;
        let message = format!("{NOT_APPLIED}{message}");
        self.conditions.say("Ready", false, "ReconcileError", message);
    }

    /// One request that failed is no word on the settings: what was said of this wish stays, and they are asked again. Of a wish
    /// that was never seen to hold it is not said that it does.
    pub(super) fn config_not_known(&mut self, cluster: &TakhinCluster, message: &str) {
        self.busy = true;
        let before = cluster.status.as_ref();
        let before = before.map_or(&[][..], |status| &status.conditions);
        let old = find(before, "Ready").filter(|old| old.observed_generation == cluster.metadata.generation);
        match old {
            Some(old) if old.status == "True" => {}
            Some(old) if old.message.starts_with(NOT_APPLIED) => {
                let message = old.message.clone();
                self.conditions.say("Ready", false, "ReconcileError", message);
            }
            _ => {
                let message = format!("whether spec.config is applied is not known yet: {message}");
                self.conditions
                    .say("Ready", Holds::Unknown, "Reconciling", message);
            }
        }
    }

    /// Writes what differs; where that are counts and no more, not before `pause` has gone by since it was written last.
    pub(super) async fn write(
        mut self,
        context: &Context,
        cluster: &TakhinCluster,
        pause: Duration,
    ) -> Result<(), Error> {
        if let Some(message) = self.blocked.take() {
            self.conditions.say("Degraded", true, "RolloutBlocked", message);
        }
        if let Some(waiting) = self
            .status
            .rollout
            .as_mut()
            .and_then(|rollout| rollout.waiting_for.as_mut())
        {
            // Many brokers have many names, and the field has an end: a longer one would keep the whole status from being written.
            *waiting = waiting.chars().take(MAX_WAITING).collect();
        }
        let before = cluster
            .status
            .as_ref()
            .map_or(&[][..], |status| &status.conditions);
        self.status.conditions = self.conditions.since(before, self.now);
        let ready = find(&self.status.conditions, "Ready").is_some_and(|ready| ready.status == "True");
        let namespace = cluster.namespace().unwrap_or_default();
        metrics::ready("TakhinCluster", &namespace, &cluster.name_any(), ready);
        if cluster.status.as_ref() == Some(&self.status) {
            return Ok(());
        }
        let key = status_key("TakhinCluster", &namespace, &cluster.name_any());
        let is_told = cluster.status.as_ref().map(lasting) == Some(lasting(&self.status));
        if is_told && context.written.within(&key, context.env.clock.instant(), pause) {
            return Ok(());
        }
        let of = |conditions| find(conditions, "Degraded").filter(|said| said.reason == "DiskPressure");
        let full = of(&self.status.conditions).filter(|_| of(before).is_none());
        if let Some(full) = full.map(|said| said.message.clone()) {
            context
                .event(cluster, EventType::Warning, "DiskPressure", "Observe", full)
                .await;
        }
        let api: Api<TakhinCluster> = Api::namespaced(context.client.clone(), &namespace);
        let patch = json!({
            "apiVersion": TakhinCluster::api_version(&()),
            "kind": TakhinCluster::kind(&()),
            "metadata": { "name": cluster.name_any() },
            "status": self.status,
        });
        metrics::patched("TakhinCluster");
        let parameters = PatchParams::apply(MANAGER).force();
        match api
            .patch_status(&cluster.name_any(), &parameters, &Patch::Apply(&patch))
            .await
        {
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

fn brokers(cluster: &TakhinCluster, names: &Names, seen: &Seen) -> Vec<BrokerStatus> {
    let all = listeners(&cluster.spec);
    let inside = all
        .iter()
        .find(|listener| listener.kind == ListenerType::Internal)
        .map(|listener| listener.port);
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let broker = |(id, pod): (&i32, &k8s_openapi::api::core::v1::Pod)| {
        let said = seen.brokers.iter().flatten().find(|said| said.id == *id);
        BrokerStatus {
            id: *id,
            pod: pod.name_any(),
            ready: is_ready(pod),
            state: said.map(|said| said.state.clone()),
            address: inside.map(|port| {
                let host = names.pod_host(&pod.name_any());
                Address { host, port }.to_string()
            }),
            leaders: said.map(|said| count(said.leaders)),
            replicas: said.map(|said| count(said.replicas)),
            rack: said
                .and_then(|said| said.rack.clone())
                .filter(|rack| !rack.is_empty()),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            storage: seen
                .claims
                .get(id)
                .filter(|claim| capacity(claim).is_some())
                .and_then(|claim| {
                    Some(
                        claim
                            .status
                            .as_ref()?
                            .capacity
                            .as_ref()?
                            .get("storage")?
                            .0
                            .clone(),
                    )
                }),
        }
    };
    seen.pods.iter().map(broker).collect()
}

#[cfg(test)]
mod tests;
