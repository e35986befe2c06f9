//! The steps that change what brokers do: leaving the cluster, restarting.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Api, Resource as _, ResourceExt as _};
use tracing::{info, warn};

use super::assign;
use super::dynamic::client;
use super::observe::Seen;
use super::status::Report;
use crate::api::{RESTART, SKIP_SCALE_DOWN_CHECK, TakhinCluster};
use crate::broker_api::{AdminError, BrokerApi, VOTER_NEEDED};
use crate::build::{CONFIG_HASH, Names};
use crate::control::claims::{is_leaving, needs_restart_of};
use crate::control::context::Context;
use crate::control::error::Error;
use crate::control::pods::stuck;
use crate::control::topics::is_ready;
use crate::decide::roll::{self, PodState, Step};
use crate::decide::scale::{self, Plan, list};

/// How long leaders may take to leave a broker unless the wish says otherwise.
const DRAIN_TIMEOUT: i64 = 60;

/// Topics that are named where there are too many replicas for a smaller cluster.
const NAMED: usize = 10;

/// Has brokers leave that are to go, keeps those that are wished for again, forgets those that are gone; then the plan is
/// what follows from that. What brokers say against it is told in the status.
pub(super) async fn leave(
    context: &Context,
    cluster: &TakhinCluster,
    seen: &mut Seen,
    plan: &mut Plan,
    report: &mut Report,
) {
    unchecked(context, cluster, seen, plan).await;
    let Some(admin) = seen.admin.clone() else {
        return;
    };
    for broker in &plan.recommission {
        said(
            admin.recommission(*broker).await.map(drop),
            "recommission",
            *broker,
        );
    }
    unregister(context, cluster, seen, plan).await;
    renew(context, cluster, seen, &admin, plan, report).await;
    if plan.decommission.is_empty() {
        return;
    }
    if let Some(message) = too_many_replicas(context, cluster, seen).await {
        // Nobody moves for a wish that cannot be fulfilled.
        for broker in &plan.decommission {
            let is_leaving = |one: &&crate::broker_api::Broker| one.id == *broker && one.decommissioning;
            if seen.brokers.iter().flatten().find(is_leaving).is_some() {
                said(
                    admin.recommission(*broker).await.map(drop),
                    "recommission",
                    *broker,
                );
            }
        }
        blocked(context, cluster, report, "ReplicationFactorTooHigh", message).await;
        plan.waiting_for = None;
        plan.decommission.clear();
        plan.replicas = seen.replicas().unwrap_or(plan.replicas);
        return;
    }
    decommission(context, cluster, seen, &admin, plan, report).await;
    let waiting_for = plan.waiting_for.take();
    *plan = scale::decide(&seen.scaling(cluster));
    plan.waiting_for = plan
        .waiting_for
        .take()
        .or(waiting_for)
        .filter(|_| plan.replicas > cluster.spec.replicas);
}

/// Has the cluster forget brokers that have nothing any more.
async fn unregister(context: &Context, cluster: &TakhinCluster, seen: &Seen, plan: &Plan) {
    if plan.unregister.is_empty() {
        return;
    }
    let Some(client) = client(context, cluster, seen) else {
        return;
    };
    let lost = seen.lost();
    for broker in &plan.unregister {
        if let Err(error) = client.unregister_broker(*broker).await {
            warn!(broker, %error, "broker not unregistered");
            continue;
        }
        if lost.contains(broker) {
            begin_anew(context, cluster, seen, *broker).await;
            continue;
        }
        let note = format!("broker {broker} has left the cluster");
        let kind = (EventType::Normal, "ScaleDownCompleted", "ScaleDown");
        let about = of_pod(cluster, seen, *broker);
        context.event_about(cluster, Some(about), kind, note).await;
    }
}

/// A broker that has lost its data is known no longer: its pod, which ended and waits for long until it tries again, is made
/// anew, and joins as any other.
async fn begin_anew(context: &Context, cluster: &TakhinCluster, seen: &Seen, broker: i32) {
    let names = Names::of(cluster, &context.options.domain);
    let reasons = ["DataLost".to_owned()];
    if let Err(error) = replace(context, cluster, &names, seen, &names.pod(broker), &reasons).await {
        // It tries again by itself.
        warn!(broker, %error, "pod not replaced");
    }
}

/// Has the replicas of brokers that have lost their data made elsewhere, where there is room for them.
async fn renew(
    context: &Context,
    cluster: &TakhinCluster,
    seen: &Seen,
    admin: &BrokerApi,
    plan: &Plan,
    report: &mut Report,
) {
    for broker in &plan.renew {
        let goes_on = match admin.decommission(*broker).await {
            Ok(progress) => {
                let why = progress.reasons.first();
                let why = why.map(|why| format!(" ({})", why.message)).unwrap_or_default();
                format!(
                    "its replicas are made on other brokers, then it begins anew; {} left{why}",
                    progress.replicas
                )
            }
            Err(AdminError::Refused {
                status: 409, detail, ..
            }) => format!(
                "give it that volume again, or raise spec.replicas to {} until it is back: it can begin anew once its \
                 replicas are on other brokers, but {detail}",
                cluster.spec.replicas.saturating_add(1)
            ),
            Err(error) => error.to_string(),
        };
        let pod = format!("{}-{broker}", cluster.name_any());
        let note =
            format!("broker {broker} has lost its data: {pod} has another volume than before; {goes_on}");
        if report.data_lost(cluster, note.clone()) {
            let kind = (EventType::Warning, "DataLost", "Observe");
            let about = of_pod(cluster, seen, *broker);
            context.event_about(cluster, Some(about), kind, note).await;
        }
    }
}

/// Tells of brokers that go with what they have, because somebody insists. They are gone from the StatefulSet with this pass.
async fn unchecked(context: &Context, cluster: &TakhinCluster, seen: &Seen, plan: &Plan) {
    let scaling = seen.scaling(cluster);
    let Some(have) = scaling
        .replicas
        .filter(|have| scaling.skip_check && plan.replicas < *have)
    else {
        return;
    };
    let going: Vec<i32> = (plan.replicas..have).collect();
    let note = format!(
        "the annotation {SKIP_SCALE_DOWN_CHECK} is true: with whatever only they have, {} go",
        list(&going)
    );
    context
        .event(
            cluster,
            EventType::Warning,
            "ScaleDownUnchecked",
            "ScaleDown",
            note,
        )
        .await;
}

async fn decommission(
    context: &Context,
    cluster: &TakhinCluster,
    seen: &mut Seen,
    admin: &BrokerApi,
    plan: &Plan,
    report: &mut Report,
) {
    for broker in &plan.decommission {
        match admin.decommission(*broker).await {
            Ok(progress) => {
                if progress.done {
                    seen.empty.push(*broker);
                } else if let Some(reason) = progress.reasons.first() {
                    let message = format!("broker {broker}: {}", reason.message);
                    blocked(context, cluster, report, "PartitionsRemaining", message).await;
                }
            }
            Err(AdminError::Refused {
                status: 409,
                problem,
                detail,
            }) => {
                let reason = match problem == VOTER_NEEDED {
                    true => "LastController",
                    false => "ReplicationFactorTooHigh",
                };
                blocked(context, cluster, report, reason, detail).await;
            }
            Err(error) => warn!(broker, %error, "broker not decommissioned"),
        }
    }
}

async fn blocked(
    context: &Context,
    cluster: &TakhinCluster,
    report: &mut Report,
    reason: &str,
    message: String,
) {
    if report.scale_down_blocked(cluster, reason, &message) {
        context
            .event(
                cluster,
                EventType::Warning,
                "ScaleDownBlocked",
                "ScaleDown",
                message,
            )
            .await;
    }
}

fn said(answer: Result<(), AdminError>, what: &str, broker: i32) {
    if let Err(error) = answer {
        warn!(broker, %error, "{what} not done");
    }
}

/// Topics that have more replicas than there would be brokers.
async fn too_many_replicas(context: &Context, cluster: &TakhinCluster, seen: &Seen) -> Option<String> {
    let left = usize::try_from(cluster.spec.replicas).ok()?;
    let topics = match client(context, cluster, seen)?.describe_topics(None).await {
        Ok(topics) => topics,
        Err(error) => {
            warn!(%error, "topics not read");
            return None;
        }
    };
    let mut wide: Vec<&str> = topics
        .iter()
        // Internal ones are made smaller by the cluster itself.
        .filter(|topic| !topic.name.starts_with("__"))
        .filter(|topic| {
            topic
                .partitions
                .iter()
                .any(|partition| partition.replicas.len() > left)
        })
        .map(|topic| topic.name.as_str())
        .collect();
    if wide.is_empty() {
        return None;
    }
    wide.sort_unstable();
    let count = wide.len();
    wide.truncate(NAMED);
    Some(format!(
        "{left} brokers are too few for the replicas of {count} topics ({}{}): lower their replication factor or leave \
         spec.replicas larger",
        wide.join(", "),
        if count > NAMED { ", ..." } else { "" }
    ))
}

/// The next step of a rolling restart. A broker that does not answer is no failure of the cluster: it is asked again.
pub(super) async fn roll(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
    seen: &Seen,
    plan: &Plan,
    report: &mut Report,
) -> Result<(), Error> {
    let observed = observed(context, cluster, names, seen, plan);
    let step = roll::decide(&observed);
    report.rolling(cluster, &observed, &step);
    if let Some(claim) = taken_by(seen, &step) {
        let claim = claim.name_any();
        report.roll_waits(format!(
            "claim {claim} to be there or gone: it is being deleted, and a restart would take its volume; delete the pod if it may go"
        ));
        return Ok(());
    }
    let admin = || seen.admin.as_ref();
    match &step {
        Step::Done | Step::Wait { .. } | Step::Begin { .. } => {}
        Step::Drain { broker } => {
            if let Some(admin) = admin() {
                match admin.drain(*broker).await {
                    Ok(_) => info!(broker, cluster = names.cluster, "draining"),
                    Err(error) => report.roll_waits(format!("broker {broker} to be drained: {error}")),
                }
            }
        }
        Step::Undrain { broker } => {
            if let Some(admin) = admin() {
                match admin.undrain(*broker).await {
                    Ok(_) => info!(broker, cluster = names.cluster, "no longer draining"),
                    Err(error) => {
                        report.roll_waits(format!("broker {broker} to be no longer drained: {error}"))
                    }
                }
            }
        }
        Step::Replace { pod, reasons } => replace(context, cluster, names, seen, pod, reasons).await?,
        Step::ReplaceIfSafe { pod, broker, reasons } => {
            if may_restart(context, cluster, seen, *broker, report).await {
                replace(context, cluster, names, seen, pod, reasons).await?;
            }
        }
    }
    Ok(())
}

/// Whether a broker may be restarted now, by its own word; one that cannot be asked may. Tells why not, and that clients will notice.
pub(super) async fn may_restart(
    context: &Context,
    cluster: &TakhinCluster,
    seen: &Seen,
    broker: i32,
    report: &mut Report,
) -> bool {
    let Some(admin) = seen.admin.as_ref() else {
        return true;
    };
    let safety = match admin.restart_safety(broker).await {
        Ok(safety) => safety,
        Err(error) => {
            report.roll_waits(format!(
                "a word on whether broker {broker} may be restarted: {error}"
            ));
            return false;
        }
    };
    let why: Vec<&str> = safety
        .reasons
        .iter()
        .map(|reason| reason.message.as_str())
        .take(3)
        .collect();
    if !safety.safe && safety.waiting_helps {
        report.roll_waits(why.join("; "));
        return false;
    }
    if !safety.safe {
        let note = format!(
            "broker {broker} is restarted although it will be noticed: {}",
            why.join("; ")
        );
        let kind = (EventType::Warning, "UnsafeRestart", "Restart");
        let about = of_pod(cluster, seen, broker);
        context.event_about(cluster, Some(about), kind, note).await;
    }
    true
}

/// The claim that would go, with all that is on its volume, with the pod that a step ends or is about to end.
fn taken_by<'a>(seen: &'a Seen, step: &Step) -> Option<&'a PersistentVolumeClaim> {
    let broker = match step {
        Step::Drain { broker } | Step::ReplaceIfSafe { broker, .. } => broker,
        Step::Replace { pod, .. } => seen.pods.iter().find(|(_, found)| found.name_any() == *pod)?.0,
        Step::Done | Step::Begin { .. } | Step::Undrain { .. } | Step::Wait { .. } => return None,
    };
    seen.claims.get(broker).filter(|claim| is_leaving(claim))
}

async fn replace(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
    seen: &Seen,
    pod: &str,
    reasons: &[String],
) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &names.namespace);
    let found = seen.pods.values().find(|found| found.name_any() == pod);
    let uid = found.and_then(kube::ResourceExt::uid);
    // Not one that has taken its place meanwhile.
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(pod, &parameters).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    info!(pod, reasons = reasons.join(","), "pod deleted for a restart");
    let note = format!("{pod} is restarted: {}", reasons.join(", "));
    let kind = (EventType::Normal, "BrokerRestarted", "Restart");
    let about = found.map(|pod| pod.object_ref(&()));
    context.event_about(cluster, about, kind, note).await;
    Ok(())
}

/// The pod of a broker, which may be gone, as a part of the cluster that something is told of.
fn of_pod(cluster: &TakhinCluster, seen: &Seen, broker: i32) -> ObjectReference {
    seen.pods.get(&broker).map_or_else(
        || ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(format!("{}-{broker}", cluster.name_any())),
            namespace: cluster.namespace(),
            ..ObjectReference::default()
        },
        |pod| pod.object_ref(&()),
    )
}

fn observed(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
    seen: &Seen,
    plan: &Plan,
) -> roll::Observed {
    let staying = plan.replicas.min(cluster.spec.replicas);
    let pods: Vec<roll::Pod> = seen
        .pods
        .iter()
        .filter(|(broker, _)| **broker < staying)
        .map(|(broker, pod)| roll::Pod {
            broker: *broker,
            name: pod.name_any(),
            state: state(pod),
            reasons: reasons(seen, *broker, pod),
        })
        .collect();
    let before = cluster.status.as_ref().and_then(|status| status.rollout.as_ref());
    let current = before
        .filter(|rollout| rollout.phase == "RollingUpdate")
        .and_then(|rollout| rollout.current.clone())
        .filter(|pod| names.broker_of(pod).is_some_and(|broker| broker < staying));
    let since = before
        .and_then(|rollout| rollout.since.as_deref())
        .and_then(|since| since.parse::<k8s_openapi::jiff::Timestamp>().ok());
    let seconds = since.map_or(0, |since| context.now().as_second() - since.as_second());
    let rollout = cluster.spec.rollout.clone().unwrap_or_default();
    let whole = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    roll::Observed {
        pods,
        wished: usize::try_from(staying).unwrap_or(0),
        words: seen.words(),
        current,
        since: whole(seconds),
        drain_timeout: whole(rollout.drain_timeout_seconds.unwrap_or(DRAIN_TIMEOUT)),
    }
}

/// How a pod is.
fn state(pod: &Pod) -> PodState {
    if pod.metadata.deletion_timestamp.is_some() {
        return PodState::Terminating;
    }
    if is_ready(pod) {
        return PodState::Ready;
    }
    if let Some(why) = stuck(pod) {
        return PodState::NotRunning(why);
    }
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Running") => PodState::NotReady,
        phase => PodState::NotRunning(format!("it is {}", phase.unwrap_or("new"))),
    }
}

/// Why a pod has to be replaced.
fn reasons(seen: &Seen, broker: i32, pod: &Pod) -> Vec<String> {
    let mut reasons = assign::reasons(pod, seen.assignments.get(&broker));
    let Some(set) = &seen.set else {
        return reasons;
    };
    if let Some(revision) = update_revision(set)
        && pod.labels().get("controller-revision-hash").map(String::as_str) != Some(revision)
    {
        reasons.push(what_changed(set, pod).to_owned());
    } else if pod.annotations().get(RESTART) != template_annotation(set, RESTART) {
        reasons.push("RestartRequested".to_owned());
    }
    let claim = seen.claims.get(&broker);
    if claim.is_some_and(|claim| needs_restart_of(pod, claim)) {
        reasons.push("VolumeExpansion".to_owned());
    }
    reasons
}

/// The revision that pods are to have, once the StatefulSet controller has seen the template.
fn update_revision(set: &StatefulSet) -> Option<&str> {
    let status = set.status.as_ref()?;
    if status.observed_generation != set.metadata.generation {
        return None;
    }
    status.update_revision.as_deref()
}

fn what_changed(set: &StatefulSet, pod: &Pod) -> &'static str {
    let differs = |name: &str| template_annotation(set, name) != pod.annotations().get(name);
    if differs(CONFIG_HASH) {
        "ConfigChanged"
    } else if differs(RESTART) {
        "RestartRequested"
    } else {
        "SpecChanged"
    }
}

fn template_annotation<'a>(set: &'a StatefulSet, name: &str) -> Option<&'a String> {
    let template = &set.spec.as_ref()?.template;
    template.metadata.as_ref()?.annotations.as_ref()?.get(name)
}

/// Brokers that are to go, for people.
pub(super) fn leaving(plan: &Plan, wished: i32) -> String {
    list(&(wished..plan.replicas).collect::<Vec<_>>())
}
