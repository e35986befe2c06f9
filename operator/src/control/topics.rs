//! The Topic controller. Topics of one cluster are looked at together: one question and one request for many of them.
//!
//! ```text
//! watch of Topics ──────┐                  ┌─ one pass per cluster at a time ─┐
//! watch of TakhinClusters ┼─▶ dirty names ──▶│ observe · decide · change · tell │──▶ names to look at again
//! the resync ───────────┘    100 ms later   └──────────────────────────────────┘
//! ```
//!
//! Bounds: 100 topics in a request that changes, 500 in one that asks, 16 requests to the API server at a time.

mod brokers;
mod dirty;
mod finish;
mod pass;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures_util::{FutureExt as _, StreamExt as _};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, ResourceExt as _};
use takhin_runtime::Shutdown;
use takhin_runtime::telemetry::health::Flag;
use tracing::{Instrument as _, debug, warn};

pub(super) use self::brokers::{address, is_ready};
use self::dirty::{Dirty, Pending, Work};
use super::context::Context;
use super::metrics;
use super::passes::{self, Subject};
use crate::api::{TakhinCluster, Topic};

/// A cluster's namespace and name.
pub(super) type ClusterKey = (String, String);

/// The resources, as the watches have them.
#[derive(Clone)]
pub(super) struct Stores {
    topics: Vec<Store<Topic>>,
    clusters: Vec<Store<TakhinCluster>>,
}

/// Something was seen.
enum Seen {
    Topic(Box<Topic>),
    TopicGone(Box<Topic>),
    Cluster(Box<TakhinCluster>),
    ClusterGone(Box<TakhinCluster>),
    /// A watch begins anew: what went meanwhile is not told.
    Anew,
    Trouble(watcher::Error),
}

/// What a pass wants next.
struct Next {
    key: ClusterKey,
    over: Work,
    pending: Pending,
    again: Option<(Duration, Work)>,
}

impl Stores {
    fn topics_of(&self, key: &ClusterKey) -> Vec<Arc<Topic>> {
        let all = self.topics.iter().flat_map(Store::state);
        all.filter(|topic| cluster_key(topic) == *key).collect()
    }

    fn cluster(&self, key: &ClusterKey) -> Option<Arc<TakhinCluster>> {
        let wanted = ObjectRef::new(&key.1).within(&key.0);
        self.clusters.iter().find_map(|store| store.get(&wanted))
    }
}

/// The cluster that a topic is of.
fn cluster_key(topic: &Topic) -> ClusterKey {
    let own = || topic.namespace().unwrap_or_default();
    let reference = &topic.spec.cluster_ref;
    (
        reference.namespace.clone().unwrap_or_else(own),
        reference.name.clone(),
    )
}

/// Runs until `shutdown`. `ready` passes when all resources are known.
pub async fn run(context: Arc<Context>, shutdown: Shutdown, ready: Flag) {
    let (stores, mut seen) = watch(&context);
    let mut dirty = Dirty::new(context.env.clock.clone());
    let mut passes: FuturesUnordered<BoxFuture<'static, Next>> = FuturesUnordered::new();
    let known = known(stores.clone()).fuse();
    let mut known = std::pin::pin!(known);
    let clients = Arc::new(brokers::Clients::new(&context));
    let mut is_known = false;
    loop {
        // Before everything is known a topic that clashes with an older one would look like the only one.
        if is_known {
            while let Some((key, work)) = dirty.take_due() {
                let of = key.clone();
                let pass = pass::run(
                    Arc::clone(&context),
                    stores.clone(),
                    Arc::clone(&clients),
                    key,
                    work,
                );
                passes.push(guarded(Arc::clone(&context), of, pass).boxed());
            }
        }
        tokio::select! {
            biased;
            () = shutdown.wait() => break,
            () = &mut known => {
                is_known = true;
                ready.pass();
            }
            Some(next) = passes.next(), if !passes.is_empty() => {
                follow(&mut dirty, next);
            }
            Some(one) = seen.next() => note(one, &mut dirty, &clients),
            () = dirty.wait(is_known) => {}
        }
    }
    // What is under way is finished, so that no change is left without its word in the status.
    let rest = async { while passes.next().await.is_some() {} };
    if context
        .env
        .clock
        .timeout(Duration::from_secs(10), rest)
        .await
        .is_err()
    {
        warn!("passes over topics were cut off");
    }
}

async fn known(stores: Stores) {
    for store in &stores.topics {
        // The only error is that the watch has ended, which the process does not outlive.
        let _ = store.wait_until_ready().await;
    }
    for store in &stores.clusters {
        let _ = store.wait_until_ready().await;
    }
}

async fn guarded(
    context: Arc<Context>,
    of: ClusterKey,
    pass: impl Future<Output = pass::Done> + Send,
) -> Next {
    let begun = context.env.clock.instant();
    // A pass is over the Topics of a cluster, by whose name it goes.
    let subject = Subject {
        controller: "topic",
        kind: "Topic",
        namespace: &of.0,
        name: &of.1,
        generation: None,
    };
    let span = subject.span(&context);
    let done = pass.instrument(span.clone()).await;
    passes::ended(&span, done.failed.unwrap_or("success"));
    let took = context.env.clock.instant().saturating_duration_since(begun);
    match &done.failed {
        Some(reason) => metrics::failed("topic", reason, took),
        None => metrics::passed("topic", took, context.env.clock.now_ms()),
    }
    Next {
        key: done.key,
        over: done.over,
        pending: done.pending,
        again: done.again,
    }
}

/// What a pass that has ended wants next. What is under way is looked at soon; all topics are when it is their time, however long
/// a single one stays under way.
fn follow(dirty: &mut Dirty, next: Next) {
    dirty.finished(&next.key);
    dirty.under_way(&next.key, &next.over, next.pending);
    if let Some((after, work)) = next.again {
        dirty.mark(next.key, work, after);
    }
}

fn note(seen: Seen, dirty: &mut Dirty, clients: &brokers::Clients) {
    match seen {
        Seen::Topic(topic) => {
            if let Some(work) = dirty.topic_changed(&topic) {
                dirty.mark(cluster_key(&topic), work, dirty::DEBOUNCE);
            }
        }
        Seen::TopicGone(topic) => {
            dirty.topic_gone(&topic);
            metrics::gone("Topic", &topic.namespace().unwrap_or_default(), &topic.name_any());
            // Another resource may have waited for the name.
            let work = Work::of([topic.topic_name().to_owned()]);
            dirty.mark(cluster_key(&topic), work, dirty::DEBOUNCE);
        }
        Seen::ClusterGone(cluster) => {
            let key = (cluster.namespace().unwrap_or_default(), cluster.name_any());
            clients.forget(&key);
            dirty.mark(key, Work::all(), dirty::DEBOUNCE);
        }
        Seen::Anew => dirty.forget(),
        Seen::Cluster(cluster) => {
            let key = (cluster.namespace().unwrap_or_default(), cluster.name_any());
            if dirty.cluster_changed(&cluster) {
                clients.forget(&key);
                dirty.mark(key, Work::all(), dirty::DEBOUNCE);
            }
        }
        Seen::Trouble(error) => {
            debug!(%error, "a watch broke and is begun again");
        }
    }
}

fn watch(context: &Context) -> (Stores, SelectAll<BoxStream<'static, Seen>>) {
    let mut stores = Stores {
        topics: Vec::new(),
        clusters: Vec::new(),
    };
    let mut seen = SelectAll::new();
    for namespace in context.options.watched() {
        let (store, stream) = watch_one::<Topic>(context, namespace.as_deref());
        stores.topics.push(store);
        seen.push(sight(stream, Seen::Topic, Seen::TopicGone));
        let (store, stream) = watch_one::<TakhinCluster>(context, namespace.as_deref());
        stores.clusters.push(store);
        seen.push(sight(stream, Seen::Cluster, Seen::ClusterGone));
    }
    (stores, seen)
}

/// The events of a watch, as they matter here.
fn sight<K: Send + 'static>(
    events: BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>,
    there: fn(Box<K>) -> Seen,
    gone: fn(Box<K>) -> Seen,
) -> BoxStream<'static, Seen> {
    let seen = move |event| {
        let seen = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => there(Box::new(object)),
            Ok(watcher::Event::Delete(object)) => gone(Box::new(object)),
            Ok(watcher::Event::Init) => Seen::Anew,
            Ok(watcher::Event::InitDone) => return std::future::ready(None),
            Err(error) => Seen::Trouble(error),
        };
        std::future::ready(Some(seen))
    };
    events.filter_map(seen).boxed()
}

/// A cache that follows a kind, and the events that it follows.
fn watch_one<K>(
    context: &Context,
    namespace: Option<&str>,
) -> (
    Store<K>,
    BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>,
)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + serde::de::DeserializeOwned
        + 'static,
{
    let api: Api<K> = super::context::api(&context.client, namespace);
    let (store, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer);
    (store, stream.boxed())
}

/// Objects by UID with what of them matters, so that a status that was written is no news.
type Fingerprints = HashMap<String, u64>;

#[cfg(test)]
mod tests;
