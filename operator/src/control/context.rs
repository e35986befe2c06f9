//! What all controllers share: clients, settings, caches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use takhin_runtime::Env;
use takhin_runtime::telemetry::health::Flag;
use tracing::{debug, warn};

use super::apply::Applied;
use super::written::Written;
use crate::broker_api::Http;
use crate::build::{Images, MANAGER};
use crate::fence::Fence;

/// Longest pause between two attempts after failures.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Settings of the program.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespaces that are watched; empty for all.
    pub namespaces: Vec<String>,
    /// Images for wishes without their own.
    pub images: Images,
    /// What all names of Services end with.
    pub domain: String,
    /// Namespace of the operator's own pods, if it runs in one.
    pub home: Option<String>,
    /// Passes of one controller at a time.
    pub concurrency: u16,
    /// Pause after which all topics of a cluster are looked at although nothing has happened.
    pub topic_resync: Duration,
    /// The collector that takhin-cdc sends spans to.
    pub traces: Option<String>,
}

impl Options {
    /// Why a resource cannot refer to a cluster in this namespace, if it is not watched.
    pub fn leaves_out(&self, namespace: &str) -> Option<String> {
        let watched = &self.namespaces;
        let is_watched = watched.is_empty() || watched.iter().any(|one| one == namespace);
        (!is_watched).then(|| {
            format!(
                "spec.clusterRef.namespace: this operator does not look after namespace {namespace}, only after {}: name a \
                 cluster there, or add the namespace to watchNamespaces of the chart",
                watched.join(", ")
            )
        })
    }

    /// The namespaces to be watched; `None` stands for all of them.
    pub fn watched(&self) -> Vec<Option<String>> {
        match self.namespaces.is_empty() {
            true => vec![None],
            false => self.namespaces.iter().cloned().map(Some).collect(),
        }
    }
}

/// The API of a kind in one namespace or in all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Runs a controller in each watched namespace, or once for all, until every one has ended. `ready` passes when each has said
/// that it knows its resources.
pub async fn in_each_namespace<F: Future<Output = ()>>(
    context: &Context,
    ready: Flag,
    mut run: impl FnMut(Option<String>, Known) -> F,
) {
    let watched = context.options.watched();
    let missing = Arc::new(AtomicUsize::new(watched.len()));
    let each = watched.into_iter().map(|namespace| {
        let known = Known {
            missing: Arc::clone(&missing),
            ready: ready.clone(),
        };
        run(namespace, known)
    });
    futures_util::future::join_all(each).await;
}

/// What a controller in one namespace says, once, when it knows its resources there.
#[derive(Debug)]
pub struct Known {
    missing: Arc<AtomicUsize>,
    ready: Flag,
}

impl Known {
    /// All resources of this namespace are known.
    pub fn pass(self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ready.pass();
        }
    }
}

/// What all controllers share.
pub struct Context {
    /// The API server; changes are made within the fence.
    pub client: Client,
    /// Within which brokers are changed.
    pub fence: Fence,
    /// The outside world.
    pub env: Env,
    /// Settings of the program.
    pub options: Options,
    /// Brokers' admin API.
    pub http: Http,
    /// What was applied.
    pub applied: Applied,
    /// When statuses were written.
    pub written: Written,
    recorder: Recorder,
    failures: Mutex<BTreeMap<String, u32>>,
}

impl Context {
    /// A context without memory; `instance` is who reports events. `client` asks `fence` by itself.
    pub fn new(client: Client, fence: Fence, env: Env, options: Options, instance: String) -> Arc<Self> {
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: Some(instance),
        };
        Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            http: Http::new(env.clock.clone(), fence.clone()),
            client,
            fence,
            env,
            options,
            applied: Applied::default(),
            written: Written::default(),
            failures: Mutex::default(),
        })
    }

    /// Tells of something that happened to a resource. That it cannot be told is no failure.
    pub async fn event<K>(&self, object: &K, kind: EventType, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        self.event_about(object, None, (kind, reason, action), note).await;
    }

    /// The same of one of its parts, such as a pod. Events that differ in their note only are counted as one; those about
    /// different parts are not.
    pub async fn event_about<K>(
        &self,
        object: &K,
        about: Option<ObjectReference>,
        (kind, reason, action): (EventType, &str, &str),
        note: String,
    ) where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            // 1 kB is what an event may have.
            note: Some(note.chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: about,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            warn!(%error, reason, "event not written");
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.env.clock.now_ms()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// A pass over `key` has succeeded.
    pub fn succeeded(&self, key: &str) {
        self.failures.lock().remove(key);
    }

    /// A pass over `key` has failed: the pause before the next, from 1 s, twice as long with each failure in a row up to 5
    /// minutes, give or take a fifth.
    pub fn failed(&self, key: &str) -> Duration {
        let failures = {
            let mut all = self.failures.lock();
            let count = all.entry(key.to_owned()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        let pause = Duration::from_secs(1 << (failures - 1).min(9)).min(MAX_PAUSE);
        debug!(key, failures, "a pass failed");
        pause * u32::try_from(self.env.rng.range(80..121)).unwrap_or(100) / 100
    }
}

#[cfg(test)]
mod tests {
    use takhin_runtime::Shutdown;
    use takhin_runtime::telemetry::health::{Health, Probe};

    use super::*;
    use crate::control::testing::Server;

    /// Whether the operator is ready that watches these namespaces and knows so many of them.
    async fn ready_after(namespaces: &[&str], known: usize) -> bool {
        let mut context = Server::default().context();
        let inner = Arc::get_mut(&mut context).unwrap();
        inner.options.namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
        let health = Health::start(&context.env, &Shutdown::new());
        let flag = health.flag(Probe::Ready, "clusters", "not yet");
        let mut begun = 0;
        let run = |_, one: Known| {
            begun += 1;
            let knows = begun <= known;
            async move {
                if knows {
                    one.pass();
                }
            }
        };
        in_each_namespace(&context, flag, run).await;
        health.ready().ok
    }

    #[tokio::test]
    async fn it_is_ready_when_the_last_namespace_is_known() {
        for known in 0..3 {
            assert!(!ready_after(&["a", "b", "c"], known).await, "{known} of three");
        }
        assert!(ready_after(&["a", "b", "c"], 3).await);
        assert!(!ready_after(&[], 0).await);
        assert!(ready_after(&[], 1).await);
    }
}
