//! What is said of what is under way: restarts, more or fewer brokers, volumes that grow.

use super::Report;
use crate::api::{RolloutStatus, TakhinCluster};
use crate::control::cluster::act::leaving;
use crate::control::cluster::volumes::Growth;
use crate::decide::conditions::find;
use crate::decide::roll::{self, Step, queue};
use crate::decide::scale::Plan;

/// How long the restart of one broker may take unless the wish says otherwise.
const ROLLOUT_TIMEOUT: i64 = 600;

impl Report {
    /// The step of a rolling restart.
    pub(in crate::control::cluster) fn rolling(
        &mut self,
        cluster: &TakhinCluster,
        observed: &roll::Observed,
        step: &Step,
    ) {
        let before = cluster.status.as_ref().and_then(|status| status.rollout.clone());
        let (current, until) = match step {
            Step::Done => {
                self.status.rollout = None;
                return;
            }
            Step::Begin { pod, .. } => (Some(pod.clone()), None),
            Step::Wait { pod, until } => (observed.current.clone(), Some(format!("{pod} waits for {until}"))),
            Step::Drain { .. } | Step::Undrain { .. } | Step::ReplaceIfSafe { .. } => {
                (observed.current.clone(), None)
            }
            Step::Replace { pod, .. } => (Some(pod.clone()), None),
        };
        self.busy = true;
        if !matches!(step, Step::Wait { .. }) {
            self.step = Some(format!("{step:?}"));
        }
        let due = queue(observed);
        // Waiting for a pod that nobody has to restart is no rollout.
        if due.is_empty() && current.is_none() {
            self.status.rollout = None;
            return;
        }
        let same = before.filter(|before| before.current == current && before.phase == "RollingUpdate");
        let since = same
            .and_then(|before| before.since)
            .unwrap_or_else(|| self.now.to_string());
        let remaining: Vec<String> = due
            .iter()
            .map(|pod| pod.name.clone())
            .filter(|pod| Some(pod) != current.as_ref())
            .collect();
        let message = match (&current, &until) {
            (Some(pod), Some(until)) => format!("restarting {pod}; {until}; {} more", remaining.len()),
            (Some(pod), None) => format!("restarting {pod}; {} more", remaining.len()),
            (None, until) => until.clone().unwrap_or_default(),
        };
        self.conditions.say("Progressing", true, "RollingUpdate", message);
        let limit = cluster
            .spec
            .rollout
            .as_ref()
            .and_then(|rollout| rollout.timeout_seconds);
        let limit = limit.unwrap_or(ROLLOUT_TIMEOUT);
        if observed.since.as_secs() > u64::try_from(limit).unwrap_or(0) && current == observed.current {
            let waits = until.clone().unwrap_or_else(|| "its turn".to_owned());
            self.blocked = Some(format!("the restart takes longer than {limit} s: {waits}"));
        }
        self.status.rollout = Some(RolloutStatus {
            phase: "RollingUpdate".to_owned(),
            current,
            remaining,
            since: Some(since),
            waiting_for: until,
        });
    }

    /// The broker says that it may not be stopped now.
    pub(in crate::control::cluster) fn roll_waits(&mut self, why: String) {
        self.step = None;
        if let Some(rollout) = &mut self.status.rollout {
            rollout.waiting_for = Some(why);
        }
    }

    /// Says why brokers cannot go. Returns whether that is news.
    pub(in crate::control::cluster) fn scale_down_blocked(
        &mut self,
        cluster: &TakhinCluster,
        reason: &str,
        message: &str,
    ) -> bool {
        let before = cluster
            .status
            .as_ref()
            .map_or(&[][..], |status| &status.conditions);
        let news = find(before, "ScaleDownBlocked").is_none_or(|old| old.reason != reason);
        self.conditions.say("ScaleDownBlocked", true, reason, message);
        news
    }

    /// How far a smaller or larger cluster is.
    pub(in crate::control::cluster) fn scaling(&mut self, cluster: &TakhinCluster, plan: &Plan) {
        let wished = cluster.spec.replicas;
        let have = self.status.replicas.unwrap_or(0);
        let ready = self.status.ready_replicas.unwrap_or(0);
        let is_rolling = self
            .conditions
            .get("Progressing")
            .is_some_and(|said| said.reason == "RollingUpdate");
        if plan.replicas > wished {
            self.busy = true;
            let waits = plan.waiting_for.clone();
            let message = format!(
                "{} to go{}",
                leaving(plan, wished),
                waits
                    .as_ref()
                    .map(|waits| format!("; waiting for {waits}"))
                    .unwrap_or_default()
            );
            if !is_rolling {
                self.conditions.say("Progressing", true, "ScalingDown", message);
                self.phase("ScalingDown", waits);
            }
        } else if ready < wished && !is_rolling && have >= wished && self.was_smaller(cluster, have) {
            self.conditions.say(
                "Progressing",
                true,
                "ScalingUp",
                format!("{ready} of {wished} brokers ready"),
            );
            self.phase("ScalingUp", None);
        }
    }

    /// Whether brokers are missing because there were fewer before.
    fn was_smaller(&self, cluster: &TakhinCluster, have: i32) -> bool {
        let before = cluster.status.as_ref();
        let rollout = before.and_then(|status| status.rollout.as_ref());
        rollout.is_some_and(|rollout| rollout.phase == "ScalingUp")
            || before.and_then(|status| status.replicas).unwrap_or(0) < have
    }

    fn phase(&mut self, phase: &str, waiting_for: Option<String>) {
        self.status.rollout = Some(RolloutStatus {
            phase: phase.to_owned(),
            current: None,
            remaining: Vec::new(),
            since: None,
            waiting_for,
        });
    }

    /// How far volumes are.
    pub(in crate::control::cluster) fn volumes(&mut self, growth: &Growth) {
        if !growth.refused.is_empty() {
            let message = format!(
                "the storage class does not let volumes grow (allowVolumeExpansion): {}",
                growth.refused.join(", ")
            );
            self.conditions
                .say("StorageExpanded", false, "ResizeNotSupported", message);
        } else if let Some(why) = growth.denied.first() {
            let message = format!(
                "spec.storage.size: {} volumes may not grow: {why}",
                growth.denied.len()
            );
            self.conditions
                .say("StorageExpanded", false, "ResizeRefused", message);
        } else if !growth.restart.is_empty() {
            self.busy = true;
            self.conditions.say(
                "StorageExpanded",
                false,
                "RestartRequired",
                "file systems grow when their brokers restart",
            );
        } else if !growth.resizing.is_empty() {
            self.busy = true;
            let message = format!("growing: {}", growth.resizing.join(", "));
            self.conditions
                .say("StorageExpanded", false, "Resizing", message.clone());
            if self
                .conditions
                .get("Progressing")
                .is_none_or(|said| said.status == "False")
            {
                self.conditions
                    .say("Progressing", true, "VolumeExpansion", message);
            }
        } else {
            self.conditions.say(
                "StorageExpanded",
                true,
                "Expanded",
                "all volumes have the wished size",
            );
        }
    }
}
