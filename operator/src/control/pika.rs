//! The PikaSource controller: check references, apply the Deployment of `takhin-cdc`, tell what it says of itself.

mod listing;
mod readings;
mod volume;
mod word;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use kube::api::ListParams;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use takhin_runtime::Shutdown;
use takhin_runtime::telemetry::health::Flag;

use self::readings::Readings;
use self::volume::{Volume, may_restart};
use self::word::Word;
use super::apply::apply;
use super::context::{Context, Known, api, in_each_namespace};
use super::error::Error;
use super::passes;
use super::pods::stuck;
use super::topics::address;
use crate::api::{ListenerType, PAUSE, PikaSource, TakhinCluster, annotated};
use crate::build::{
    Address, CDC_PORT, Names, PIKA_SOURCE_LABEL, Surroundings, cdc_children, cdc_name, cdc_selector,
    listeners, owned,
};

/// Name of the controller.
const CONTROLLER: &str = "pikasource";

/// Kind of the resources.
const KIND: &str = "PikaSource";

/// Pause between two looks at a source that follows.
const LOOK: Duration = Duration::from_secs(30);

/// Pause between two looks at one that does not yet.
const SOON: Duration = Duration::from_secs(5);

/// Runs until `shutdown`. `ready` passes when the resources of all namespaces are known.
pub async fn run(context: Arc<Context>, shutdown: Shutdown, ready: Flag) {
    let run = |namespace, known| run_one(Arc::clone(&context), shutdown.clone(), namespace, known);
    in_each_namespace(&context, ready, run).await;
}

async fn run_one(context: Arc<Context>, shutdown: Shutdown, namespace: Option<String>, all: Known) {
    let client = &context.client;
    let namespace = namespace.as_deref();
    let ours = || watcher::Config::default().labels(PIKA_SOURCE_LABEL);
    let config = Config::default()
        .concurrency(context.options.concurrency)
        .debounce(Duration::from_millis(200));
    let controller = Controller::new(api::<PikaSource>(client, namespace), watcher::Config::default())
        .owns(api::<Deployment>(client, namespace), ours())
        .owns(api::<ConfigMap>(client, namespace), ours())
        .owns(api::<Service>(client, namespace), ours())
        .watches(api::<Pod>(client, namespace), ours(), |pod| {
            let name = pod.labels().get(PIKA_SOURCE_LABEL)?;
            Some(ObjectRef::<PikaSource>::new(name).within(&pod.namespace()?))
        })
        .watches(api::<PersistentVolumeClaim>(client, namespace), ours(), |claim| {
            let name = claim.labels().get(PIKA_SOURCE_LABEL)?;
            Some(ObjectRef::<PikaSource>::new(name).within(&claim.namespace()?))
        })
        .with_config(config);
    let store = controller.store();
    let known = async {
        // The only error is that the watch has ended, which the process does not outlive.
        let _ = store.wait_until_ready().await;
        all.pass();
        std::future::pending::<()>().await;
    };
    let passes = controller
        .graceful_shutdown_on(async move { shutdown.wait().await })
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

async fn reconcile(source: Arc<PikaSource>, context: Arc<Context>) -> Result<Action, Error> {
    let pass = Box::pin(pass(&source, &context));
    passes::run(&context, (CONTROLLER, KIND), source.as_ref(), pass).await
}

fn on_error(source: Arc<PikaSource>, _: &Error, context: Arc<Context>) -> Action {
    passes::again(&context, CONTROLLER, source.as_ref())
}

async fn pass(source: &PikaSource, context: &Context) -> Result<Action, Error> {
    let namespace = source.namespace().unwrap_or_default();
    if source.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it.
        passes::forget(context, KIND, (&namespace, &source.name_any()));
        return Ok(Action::await_change());
    }
    let mut word = Word::of(source);
    let done = work(source, context, &namespace, &mut word).await;
    if let Err(error) = &done {
        let reason = match error {
            Error::NameConflict { .. } => "NameConflict",
            _ => "WorkloadNotReady",
        };
        word.ready(false, reason, &error.to_string());
    }
    let pause = if word.is_ready() { LOOK } else { SOON };
    word.write(context, source, &namespace, pause).await?;
    done?;
    Ok(Action::requeue(pause))
}

async fn work(source: &PikaSource, context: &Context, namespace: &str, word: &mut Word) -> Result<(), Error> {
    let name = source.name_any();
    if annotated(source, PAUSE, "true") {
        word.reconciliation_paused(source);
        return look(context, source, namespace, &name, word).await.map(drop);
    }
    let bootstrap = match references(source, context, namespace).await? {
        Ok(bootstrap) => bootstrap,
        Err((reason, message)) => {
            // What runs already goes on: a reference that is gone is no reason to stop it.
            look(context, source, namespace, &name, word).await?;
            word.ready(false, reason, &message);
            return Ok(());
        }
    };
    let owner = json!(source.controller_owner_ref(&()));
    let balancer = match listing::ensure(context, source, (namespace, &name), &owner).await? {
        Ok(balancer) => balancer,
        Err(message) => {
            look(context, source, namespace, &name, word).await?;
            word.ready(false, "WorkloadNotReady", &message);
            return Ok(());
        }
    };
    let options = &context.options;
    let around = Surroundings {
        bootstrap: &bootstrap,
        image: &options.images.cdc,
        traces: options.traces.as_deref(),
        balancer: balancer.as_deref(),
    };
    let children = cdc_children(source, namespace, &name, around);
    let [account, config, deployment] = match children {
        Ok(children) => children,
        Err(message) => {
            word.ready(false, "WorkloadNotReady", &message);
            return Ok(());
        }
    };
    apply::<ServiceAccount>(context, namespace, &owned(account, &owner)).await?;
    apply::<ConfigMap>(context, namespace, &owned(config, &owner)).await?;
    let volume = volume::ensure(context, source, (namespace, &name), &owner).await?;
    let restarts = volume == Some(Volume::Restart);
    word.volume(volume);
    apply::<Deployment>(context, namespace, &owned(deployment, &owner)).await?;
    let seen = look(context, source, namespace, &name, word).await?;
    if restarts && seen.is_known && may_restart(source.spec.snapshot_mode(), word.phase()) {
        volume::restart(context, source, (namespace, &name), &seen.pods).await?;
    }
    Ok(())
}

/// The address of the cluster's brokers, or what is missing: reason and message.
async fn references(
    source: &PikaSource,
    context: &Context,
    namespace: &str,
) -> Result<Result<String, (&'static str, String)>, Error> {
    let reference = &source.spec.cluster_ref;
    let of = reference.namespace.as_deref().unwrap_or(namespace);
    if let Some(message) = context.options.leaves_out(of) {
        return Ok(Err(("SinkNotAuthorized", message)));
    }
    let clusters: Api<TakhinCluster> = Api::namespaced(context.client.clone(), of);
    let Some(cluster) = clusters.get_opt(&reference.name).await? else {
        let message = format!(
            "spec.clusterRef: there is no TakhinCluster {} in namespace {of}: create it, or name one that there is",
            reference.name
        );
        return Ok(Err(("SinkUnreachable", message)));
    };
    if of != namespace
        && !cluster
            .spec
            .topic_namespaces
            .iter()
            .any(|allowed| allowed == namespace)
    {
        let message = format!(
            "TakhinCluster {of}/{} does not allow namespace {namespace}: add it to its spec.topicNamespaces",
            reference.name
        );
        return Ok(Err(("SinkNotAuthorized", message)));
    }
    if let Some(password) = &source.spec.source.password_secret_ref {
        let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
        let found = secrets.get_opt(&password.name).await?;
        let has =
            found.is_some_and(|secret| secret.data.is_some_and(|data| data.contains_key(&password.key)));
        if !has {
            let message = format!(
                "spec.source.passwordSecretRef: there is no Secret {} with a key {} in namespace {namespace}",
                password.name, password.key
            );
            return Ok(Err(("SourceAuthFailed", message)));
        }
    }
    let names = Names::of(&cluster, &context.options.domain);
    let all = listeners(&cluster.spec);
    let Some(inside) = all
        .iter()
        .find(|listener| listener.kind == ListenerType::Internal)
    else {
        let message = format!(
            "spec.clusterRef: TakhinCluster {} has no listener of type Internal: add one to its spec.listeners",
            reference.name
        );
        return Ok(Err(("SinkUnreachable", message)));
    };
    let address = Address {
        host: names.service_host(&names.bootstrap()),
        port: inside.port,
    };
    Ok(Ok(address.to_string()))
}

/// What there is of a source.
struct Seen {
    pods: Vec<Pod>,
    /// Whether it is known what its process does now, which is nothing where none runs.
    is_known: bool,
}

/// Whether a Deployment has not come to what it is to be: the pods are those of an earlier wish.
fn is_behind(deployment: &Deployment) -> bool {
    let status = deployment.status.as_ref();
    let seen = status.and_then(|status| status.observed_generation).unwrap_or(0);
    let updated = status.and_then(|status| status.updated_replicas).unwrap_or(0);
    seen < deployment.metadata.generation.unwrap_or(0) || updated == 0
}

/// What Deployment, pods and the process itself say.
async fn look(
    context: &Context,
    source: &PikaSource,
    namespace: &str,
    name: &str,
    word: &mut Word,
) -> Result<Seen, Error> {
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    let deployment = deployments.get_opt(&cdc_name(name)).await?;
    let selector: Vec<String> = cdc_selector(name)
        .iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let pods = pods
        .list(&ListParams::default().labels(&selector.join(",")))
        .await?
        .items;
    word.workload(deployment.as_ref(), &pods);

    if source.spec.paused.unwrap_or(false) {
        word.paused(&pods);
        return Ok(Seen {
            pods,
            is_known: false,
        });
    }
    let running = pods.iter().find(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
    });
    let ip = running.and_then(|pod| pod.status.as_ref()?.pod_ip.clone());
    let Some(ip) = ip else {
        word.not_running(deployment.as_ref(), &pods);
        let is_known = running.is_none();
        return Ok(Seen { pods, is_known });
    };
    // What an old pod says is no word on the new wish.
    if deployment.as_ref().is_some_and(is_behind) {
        word.reconciling();
        return Ok(Seen {
            pods,
            is_known: false,
        });
    }
    let at = address(&ip, CDC_PORT);
    let said = async {
        // In this order: what is ready has begun, and what it does is known then.
        let probe = context.http.probe(&at, "/readyz").await?;
        let readings = context.http.text(&at, "/metrics").await?;
        Ok::<_, crate::broker_api::AdminError>((readings, probe))
    };
    match said.await {
        Ok((readings, probe)) => word.said(&Readings::parse(&readings), &probe),
        // A process that ends again and again does not answer either.
        Err(_) if pods.iter().any(|pod| stuck(pod).is_some()) => word.not_running(deployment.as_ref(), &pods),
        Err(error) => {
            word.ready(false, "WorkloadNotReady", &error.to_string());
            return Ok(Seen {
                pods,
                is_known: false,
            });
        }
    }
    Ok(Seen { pods, is_known: true })
}

#[cfg(test)]
mod tests;
