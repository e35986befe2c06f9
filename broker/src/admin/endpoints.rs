//! What each endpoint does.

use takhin_cluster::{Cluster, Survey};

use super::Context;
use super::model;
use super::problem::{self, Problem};
use super::routes::Endpoint;
use super::shape::Shape;

/// Changes of replicas that are listed.
const MAX_REASSIGNMENTS: usize = 1000;

/// Carries a request out; returns the answer's JSON.
pub(super) async fn answer(
    cx: &Context,
    endpoint: Endpoint,
    parameters: &[String],
) -> Result<String, Problem> {
    let cluster = &cx.broker.cluster;
    match endpoint {
        Endpoint::Node => json(&node(cx).await),
        Endpoint::Health => json(&health(&cluster.survey().await, cluster.node_id())),
        Endpoint::Reassignments => json(&reassignments(cluster)),
        Endpoint::Brokers => json(&brokers(&cluster.survey().await)),
        Endpoint::Drain => change(cx, broker_id(parameters)?, true).await,
        Endpoint::Undrain => change(cx, broker_id(parameters)?, false).await,
        Endpoint::DrainProgress => drain(&cluster.survey().await, broker_id(parameters)?),
        Endpoint::Decommission => decommission(cx, broker_id(parameters)?, true).await,
        Endpoint::Recommission => decommission(cx, broker_id(parameters)?, false).await,
        Endpoint::DecommissionProgress => leaving(&cluster.survey().await, broker_id(parameters)?),
        Endpoint::RestartSafety => restart_safety(&cluster.survey().await, broker_id(parameters)?),
    }
}

fn json(shape: &impl Shape) -> Result<String, Problem> {
    Ok(shape.text())
}

fn broker_id(parameters: &[String]) -> Result<i32, Problem> {
    let given = parameters.first().map_or("", String::as_str);
    let id = given.parse().ok().filter(|id| *id >= 0);
    id.ok_or_else(|| problem::broker_id(given))
}

async fn node(cx: &Context) -> model::Node {
    let cluster = &cx.broker.cluster;
    let (image, id) = (cluster.image(), cluster.node_id());
    let report = cluster.report().await;
    let partitions = cluster.partitions();
    let leaders = partitions
        .iter()
        .filter(|partition| partition.leadership().is_some());
    let ready = cx.health.ready();
    let not_ready = ready.checks.into_iter().filter_map(|(check, outcome)| {
        let reason = outcome.reason?;
        Some(model::NotReady { check, reason })
    });
    model::Node {
        id,
        cluster_id: image.cluster_id.clone(),
        version: report.version,
        rack: cx.broker.config.node.rack.clone(),
        incarnation: cluster.incarnation().to_string(),
        draining: image.draining.contains(&id),
        controller: cluster.controller_id() == id,
        replicas: partitions.len(),
        leaders: leaders.count(),
        disk: report.disk.map(Into::into),
        ready: ready.ok,
        not_ready: not_ready.collect(),
    }
}

fn health(survey: &Survey, seen_by: i32) -> model::ClusterHealth {
    let findings = survey.health();
    model::ClusterHealth {
        healthy: findings.is_empty(),
        seen_by,
        controller: Some(survey.controller).filter(|id| *id >= 0),
        reasons: model::reasons(&findings),
        counts: model::counts(&findings),
        truncated: findings.is_truncated(),
    }
}

fn reassignments(cluster: &Cluster) -> model::Reassignments {
    let addition = |added: &takhin_cluster::Addition| model::Addition {
        broker: added.broker,
        lag_bytes: added.lag_bytes,
    };
    let reassignment = |moving: takhin_cluster::Move| model::Reassignment {
        adding: moving.adding.iter().map(addition).collect(),
        partition: model::TopicPartition {
            topic: moving.topic,
            partition: moving.partition,
        },
        leader: Some(moving.leader).filter(|id| *id >= 0),
        target: moving.target,
        removing: moving.removing,
    };
    let moves = cluster.moves(MAX_REASSIGNMENTS);
    model::Reassignments {
        seen_by: cluster.node_id(),
        count: cluster.image().reassigning.len(),
        reassignments: moves.into_iter().map(reassignment).collect(),
    }
}

fn brokers(survey: &Survey) -> model::Brokers {
    let loads = survey.loads();
    let broker = |known: &takhin_cluster::BrokerInfo| {
        let id = known.id;
        let (load, report) = (
            loads.get(&id).copied().unwrap_or_default(),
            survey.reports.get(&id),
        );
        let (silence, draining) = (survey.silent_for(id), survey.image.draining.contains(&id));
        let is_leaving = survey.image.decommissioning.contains(&id);
        let state = match (silence, is_leaving, draining) {
            (Some(_), ..) => model::State::Silent,
            (None, true, _) => model::State::Decommissioning,
            (None, false, true) => model::State::Draining,
            (None, false, false) => model::State::Alive,
        };
        model::Broker {
            id,
            rack: known.rack.clone(),
            state,
            silent_seconds: silence.map(|silence| silence.as_secs()),
            draining,
            decommissioning: is_leaving,
            controller: survey.controller == id,
            replicas: load.replicas,
            leaders: load.leaders,
            version: report.map(|report| report.version.clone()),
            disk: report.and_then(|report| report.disk).map(Into::into),
        }
    };
    model::Brokers {
        brokers: survey.image.brokers.values().map(broker).collect(),
    }
}

async fn change(cx: &Context, id: i32, draining: bool) -> Result<String, Problem> {
    let cluster = &cx.broker.cluster;
    let changed = cluster.set_draining(id, draining).await;
    changed.map_err(|error| problem::not_changed(&error))?;
    tracing::info!(broker = id, draining, "asked for over the admin API");
    drain(&cluster.survey().await, id)
}

fn drain(survey: &Survey, id: i32) -> Result<String, Problem> {
    let progress = survey
        .drain_progress(id)
        .ok_or_else(|| problem::unknown_broker(id))?;
    json(&model::Drain {
        broker: id,
        draining: progress.is_draining,
        done: progress.is_done(),
        leaders: progress.leaders,
        controller: progress.is_controller,
        reasons: model::reasons(&progress.held),
        counts: model::counts(&progress.held),
        truncated: progress.held.is_truncated(),
    })
}

async fn decommission(cx: &Context, id: i32, decommissioning: bool) -> Result<String, Problem> {
    let cluster = &cx.broker.cluster;
    let changed = cluster.set_decommissioning(id, decommissioning).await;
    changed.map_err(|error| problem::not_changed(&error))?;
    tracing::info!(broker = id, decommissioning, "asked for over the admin API");
    leaving(&cluster.survey().await, id)
}

fn leaving(survey: &Survey, id: i32) -> Result<String, Problem> {
    let progress = survey
        .decommission_progress(id)
        .ok_or_else(|| problem::unknown_broker(id))?;
    json(&model::Decommission {
        broker: id,
        decommissioning: progress.is_decommissioning,
        done: progress.is_done(),
        replicas: progress.replicas,
        moving: progress.moving,
        bytes: progress.bytes,
        leaders: progress.leaders,
        voter: progress.is_voter,
        controller: progress.is_controller,
        reasons: model::reasons(&progress.held),
        counts: model::counts(&progress.held),
        truncated: progress.held.is_truncated(),
    })
}

fn restart_safety(survey: &Survey, id: i32) -> Result<String, Problem> {
    let safety = survey
        .restart_safety(id)
        .ok_or_else(|| problem::unknown_broker(id))?;
    json(&model::RestartSafety {
        broker: id,
        safe: safety.is_safe(),
        waiting_helps: safety.waiting_helps(),
        leaders: survey.loads().get(&id).map_or(0, |load| load.leaders),
        reasons: model::reasons(&safety.findings),
        counts: model::counts(&safety.findings),
        truncated: safety.findings.is_truncated(),
    })
}
