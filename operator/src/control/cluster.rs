//! The TakhinCluster controller: validate, build, apply, then at most one disruptive step, then the status.

mod act;
mod assign;
mod children;
mod dynamic;
mod observe;
mod refused;
mod status;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt as _};
use takhin_runtime::Shutdown;
use takhin_runtime::telemetry::health::Flag;
use tracing::info;

use self::status::Report;
use super::context::{Context, Known, api, in_each_namespace};
use super::error::Error;
use super::passes;
use crate::api::{CLUSTER_LABEL, PAUSE, TakhinCluster, annotated};
use crate::build::{MANAGER, Names, node_file};
use crate::decide::scale;

/// Name of the controller.
const CONTROLLER: &str = "takhincluster";

/// Kind of the resources.
const KIND: &str = "TakhinCluster";

/// Pause between two looks at a cluster in which nothing happens.
const IDLE: Duration = Duration::from_secs(30);

/// Pause between two looks at a cluster in which something is under way.
const BUSY: Duration = Duration::from_secs(3);

/// Runs until `shutdown`. `ready` passes when the resources of all namespaces are known.
pub async fn run(context: Arc<Context>, shutdown: Shutdown, ready: Flag) {
    let run = |namespace, known| run_one(Arc::clone(&context), shutdown.clone(), namespace, known);
    in_each_namespace(&context, ready, run).await;
}

async fn run_one(context: Arc<Context>, shutdown: Shutdown, namespace: Option<String>, all: Known) {
    let client = &context.client;
    let namespace = namespace.as_deref();
    let ours = || watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
    let of_cluster = || watcher::Config::default().labels(CLUSTER_LABEL);
    let config = Config::default()
        .concurrency(context.options.concurrency)
        .debounce(Duration::from_millis(200));
    let controller = Controller::new(
        api::<TakhinCluster>(client, namespace),
        watcher::Config::default(),
    )
    .owns(api::<StatefulSet>(client, namespace), ours())
    .owns(api::<Service>(client, namespace), ours())
    .owns(api::<ConfigMap>(client, namespace), ours())
    .owns(api::<PodDisruptionBudget>(client, namespace), ours())
    .watches(api::<Pod>(client, namespace), of_cluster(), |pod| {
        cluster_of(&pod)
    })
    .watches(
        api::<PersistentVolumeClaim>(client, namespace),
        of_cluster(),
        |claim| cluster_of(&claim),
    )
    .with_config(config);
    let store = controller.store();
    let known = async {
        // The only error is that the watch has ended, which the process does not outlive.
        let _ = store.wait_until_ready().await;
        all.pass();
        std::future::pending::<()>().await;
    };
    let stopping = async move { shutdown.wait().await };
    let passes = controller
        .graceful_shutdown_on(stopping)
        .run(reconcile, on_error, Arc::clone(&context))
        .for_each(|done| {
            if let Err(error) = done {
                passes::noted(&context, (CONTROLLER, KIND), &error);
            }
            std::future::ready(())
        });
    tokio::select! {
        () = passes => {}
        () = known => {}
    }
}

fn cluster_of<K: Resource>(object: &K) -> Option<ObjectRef<TakhinCluster>> {
    let name = object.labels().get(CLUSTER_LABEL)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

async fn reconcile(cluster: Arc<TakhinCluster>, context: Arc<Context>) -> Result<Action, Error> {
    let pass = Box::pin(pass(&cluster, &context));
    passes::run(&context, (CONTROLLER, KIND), cluster.as_ref(), pass).await
}

fn on_error(cluster: Arc<TakhinCluster>, _: &Error, context: Arc<Context>) -> Action {
    passes::again(&context, CONTROLLER, cluster.as_ref())
}

async fn pass(cluster: &TakhinCluster, context: &Context) -> Result<Action, Error> {
    let names = Names::of(cluster, &context.options.domain);
    if cluster.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it.
        passes::forget(context, KIND, (&names.namespace, &names.cluster));
        return Ok(Action::await_change());
    }
    let mut report = Report::new(cluster, context.now());
    let seen = status::observed_generation(cluster);
    let is_paused = annotated(cluster, PAUSE, "true");
    if !is_paused && seen.is_some() && seen != cluster.metadata.generation {
        // Whoever waits for Ready must not take the word on an older wish for one on this.
        let mut first = Report::new(cluster, context.now());
        first.reconciling();
        first.write(context, cluster, BUSY).await?;
    }
    let done = match is_paused {
        true => paused(cluster, context, &names, &mut report).await,
        false => work(cluster, context, &names, &mut report).await,
    };
    let done = match done {
        Err(error) => refused(cluster, context, &names, &mut report, error).await,
        done => done,
    };
    if let Err(error) = &done {
        report.failed(error);
    }
    let pause = if report.is_busy() { BUSY } else { IDLE };
    report.write(context, cluster, pause).await?;
    done?;
    Ok(Action::requeue(pause))
}

/// A wish whose children Kubernetes refuses is wrong, and trying again does not mend it: that is said, and waits for another wish.
/// It is looked at as often as any cluster, because a port that somebody else has may become free.
async fn refused(
    cluster: &TakhinCluster,
    context: &Context,
    names: &Names,
    report: &mut Report,
    error: Error,
) -> Result<(), Error> {
    let Some(faults) = refused::faults(cluster, names, &error) else {
        return Err(error);
    };
    let seen = observe::observe(context, cluster, names).await?;
    report.observed(cluster, names, &seen);
    report.invalid(context, cluster, &faults).await;
    Ok(())
}

async fn paused(
    cluster: &TakhinCluster,
    context: &Context,
    names: &Names,
    report: &mut Report,
) -> Result<(), Error> {
    let seen = observe::observe(context, cluster, names).await?;
    if let Some(news) = report.paused(cluster) {
        context
            .event(cluster, EventType::Normal, "Paused", "Pause", news)
            .await;
    }
    report.observed(cluster, names, &seen);
    Ok(())
}

async fn work(
    cluster: &TakhinCluster,
    context: &Context,
    names: &Names,
    report: &mut Report,
) -> Result<(), Error> {
    children::ensure_token(context, cluster, names).await?;
    let mut seen = observe::observe(context, cluster, names).await?;
    let mut plan = scale::decide(&seen.scaling(cluster));
    let mut file = match node_file(&cluster.spec, names, plan.replicas.max(cluster.spec.replicas)) {
        Ok(file) => file,
        Err(faults) => {
            report.observed(cluster, names, &seen);
            report.invalid(context, cluster, &faults).await;
            return Ok(());
        }
    };
    if !seen.lost().is_empty() {
        // A broker that comes is to take the replicas of the lost one: moves for evenness that are begun before would count on
        // the lost one being there, and wait for it.
        file.keep_replicas();
    }
    act::leave(context, cluster, &mut seen, &mut plan, report).await;
    seen.services = children::apply(context, cluster, names, &file, plan.replicas).await?;
    let growth = volumes::grow(context, cluster, names, &seen).await?;
    let set = Box::pin(children::apply_set(context, cluster, names, &file, plan.replicas));
    seen.set = Some(set.await?);
    assign::assign(context, cluster, names, &mut seen).await?;
    act::roll(context, cluster, names, &seen, &plan, report).await?;
    dynamic::set(context, cluster, names, &seen, &file, report).await;
    report.observed(cluster, names, &seen);
    report.volumes(&growth);
    report.scaling(cluster, &plan);
    info_once(cluster, report);
    Ok(())
}

fn info_once(cluster: &TakhinCluster, report: &Report) {
    if let Some(step) = report.step() {
        info!(
            namespace = cluster.namespace(),
            name = cluster.name_any(),
            step,
            "step taken"
        );
    }
}

#[cfg(test)]
mod tests;
