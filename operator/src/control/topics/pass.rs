//! One pass over topics of a cluster: observe, decide, change, tell.

mod live;
mod removal;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use takhin_client::{Configs, Refusal, TopicDescription};
use tracing::warn;

use super::brokers::{Clients, NotReady};
use super::dirty::{Pending, Work};
use super::finish::{self, FINALIZER, Word};
use super::{ClusterKey, Stores};
use crate::api::{DeletionPolicy, MANAGED, PAUSE, TakhinCluster, Topic, annotated};
use crate::control::context::Context;
use crate::decide::placement::Racks;
use crate::decide::topic::{Found, Todo, decide, owner};
use crate::kafka_api::KafkaApi;

/// Topics in a request that changes them.
const CHANGES: usize = 100;

/// Requests to the API server at a time.
pub(super) const WRITERS: usize = 16;

/// Longest pause while a resource that is deleted waits for its topic to go.
const HELD_UP: Duration = Duration::from_secs(15);

/// A pass has ended.
pub(super) struct Done {
    pub(super) key: ClusterKey,
    /// What it was over.
    pub(super) over: Work,
    /// What of that is under way.
    pub(super) pending: Pending,
    /// When all topics are to be looked at, unless they are to be earlier anyway, and others with them.
    pub(super) again: Option<(Duration, Work)>,
    /// Why it failed as a whole.
    pub(super) failed: Option<&'static str>,
}

/// A topic in this pass.
struct Item {
    topic: Arc<Topic>,
    name: String,
    found: Option<TopicDescription>,
    configs: Option<Configs>,
    /// Why its settings are not told.
    unread: Option<Refusal>,
    todo: Todo,
    refused: Option<Refusal>,
    created: bool,
    moving: usize,
}

pub(super) struct Pass {
    pub(super) context: Arc<Context>,
    key: ClusterKey,
    /// Names that are to be looked at again soon.
    again: Pending,
    /// A time was waited for in vain.
    trouble: Option<&'static str>,
    /// Whether somebody waits for a resource to go.
    holds_up: bool,
}

pub(super) async fn run(
    context: Arc<Context>,
    stores: Stores,
    clients: Arc<Clients>,
    key: ClusterKey,
    work: Work,
) -> Done {
    let topics = stores.topics_of(&key);
    if topics.is_empty() {
        return Done {
            key,
            over: work,
            pending: Pending::new(),
            again: None,
            failed: None,
        };
    }
    let mut pass = Pass {
        context,
        key,
        again: Pending::new(),
        trouble: None,
        holds_up: false,
    };
    let cluster = stores
        .cluster(&pass.key)
        .filter(|cluster| cluster.metadata.deletion_timestamp.is_none());
    match cluster {
        None => pass.without_cluster(&topics, &work).await,
        Some(cluster) => pass.with_cluster(&cluster, &clients, &topics, &work).await,
    }
    pass.done(work)
}

impl Pass {
    /// A topic is to be looked at again soon.
    pub(super) fn look_again(&mut self, name: &str) {
        self.again.insert(name.to_owned(), false);
    }

    fn done(mut self, over: Work) -> Done {
        let label = format!("topics of {}/{}", self.key.0, self.key.1);
        let again = match self.trouble {
            Some(_) => {
                let mut work = Work::of(std::mem::take(&mut self.again).into_keys());
                work.all = true;
                let pause = self.context.failed(&label);
                Some((if self.holds_up { pause.min(HELD_UP) } else { pause }, work))
            }
            None => {
                self.context.succeeded(&label);
                Some((self.context.options.topic_resync, Work::all()))
            }
        };
        Done {
            key: self.key,
            over,
            pending: self.again,
            again,
            failed: self.trouble,
        }
    }

    /// There is no cluster: nothing holds up a deletion, and all others wait.
    async fn without_cluster(&mut self, topics: &[Arc<Topic>], work: &Work) {
        let wanted = topics.iter().filter(|topic| is_wanted(topic, work));
        let (namespace, name) = &self.key;
        let left_out = self.context.options.leaves_out(namespace);
        let message = left_out.unwrap_or_else(|| {
            format!(
                "spec.clusterRef: there is no TakhinCluster {name} in namespace {namespace}: create it, or name one that there is"
            )
        });
        let words = wanted.map(|topic| match topic.metadata.deletion_timestamp {
            Some(_) => Word::release(topic),
            None => Word::not_ready(topic, "ClusterNotFound", &message),
        });
        self.tell(words.collect()).await;
    }

    async fn with_cluster(
        &mut self,
        cluster: &TakhinCluster,
        clients: &Clients,
        topics: &[Arc<Topic>],
        work: &Work,
    ) {
        let mut words = Vec::new();
        let mut live = Vec::new();
        let mut deleted = Vec::new();
        for (name, claims) in by_name(topics) {
            let managed = claims.iter().filter(|topic| is_claim(topic, cluster));
            let winner = owner(managed.map(|topic| topic.as_ref()));
            for topic in claims.iter().filter(|topic| is_wanted(topic, work)) {
                match self.sort(topic, cluster, winner) {
                    Sorted::Say(word) => words.push(word),
                    Sorted::Live => live.push(item(Arc::clone(topic), name.clone())),
                    Sorted::Delete => deleted.push(item(Arc::clone(topic), name.clone())),
                }
            }
        }
        self.tell(words).await;
        if live.is_empty() && deleted.is_empty() {
            return;
        }
        match clients.of(cluster, &self.key).await {
            Ok(client) => self.reach(cluster, &client, live, deleted).await,
            Err(NotReady(message)) => {
                self.trouble = Some("ClusterNotReady");
                self.unreachable(live, deleted, "ClusterNotReady", &message).await;
            }
        }
    }

    /// What can be said of a topic without asking a broker.
    fn sort(&self, topic: &Arc<Topic>, cluster: &TakhinCluster, winner: Option<&Topic>) -> Sorted {
        let wins = winner.is_some_and(|winner| winner.uid() == topic.uid());
        let is_deleted = topic.metadata.deletion_timestamp.is_some();
        let paused = annotated(topic.as_ref(), PAUSE, "true");
        let unmanaged = annotated(topic.as_ref(), MANAGED, "false");
        if is_deleted {
            let keeps = topic.deletion_policy() == DeletionPolicy::Retain;
            return match keeps || paused || unmanaged || !wins || !allows(cluster, topic) {
                true => Sorted::Say(Word::release(topic)),
                false => Sorted::Delete,
            };
        }
        if paused {
            return Sorted::Say(Word::paused(topic));
        }
        if unmanaged {
            return Sorted::Say(Word::unmanaged(topic));
        }
        if !allows(cluster, topic) {
            let message = format!(
                "TakhinCluster {}/{} does not allow namespace {}: add it to its spec.topicNamespaces",
                self.key.0,
                self.key.1,
                topic.namespace().unwrap_or_default()
            );
            return Sorted::Say(Word::not_ready(topic, "ClusterNotFound", &message));
        }
        match winner {
            Some(winner) if !wins => {
                let message = format!(
                    "Topic {}/{} is older, or as old and had it first, and has the topic {}: delete one of both, or set another spec.topicName",
                    winner.namespace().unwrap_or_default(),
                    winner.name_any(),
                    topic.topic_name()
                );
                Sorted::Say(Word::conflict(topic, &message))
            }
            _ => Sorted::Live,
        }
    }

    async fn reach(
        &mut self,
        cluster: &TakhinCluster,
        client: &KafkaApi,
        live: Vec<Item>,
        deleted: Vec<Item>,
    ) {
        self.delete(client, deleted).await;
        // Nothing is made that could not be cleaned up.
        let live = finish::with_finalizers(
            self,
            live.into_iter().map(|item| (item.topic.clone(), item)).collect(),
        )
        .await;
        match self.bring_about(cluster, client, live).await {
            Ok(words) => self.tell(words).await,
            Err((live, error)) => {
                warn!(cluster = self.key.1, namespace = self.key.0, %error, "topics not reached");
                self.trouble = Some("KafkaError");
                self.unreachable(live, Vec::new(), "ClusterNotReady", &error.to_string())
                    .await;
            }
        }
    }

    async fn unreachable(&mut self, live: Vec<Item>, deleted: Vec<Item>, reason: &str, message: &str) {
        let mut words: Vec<Word> = live
            .iter()
            .map(|item| Word::not_ready(&item.topic, reason, message))
            .collect();
        words.extend(self.blocked(&deleted, message).await);
        self.tell(words).await;
    }

    async fn tell(&mut self, words: Vec<Word>) {
        let context = Arc::clone(&self.context);
        let told = futures_util::stream::iter(words).map(|word| {
            let context = Arc::clone(&context);
            async move {
                let name = word.topic.topic_name().to_owned();
                word.tell(&context).await.err().map(|error| (name, error))
            }
        });
        let failures: Vec<_> = told
            .buffer_unordered(WRITERS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        for (name, error) in failures {
            if !error.is_conflict() {
                warn!(topic = name, %error, "status not written");
                self.trouble = Some(error.reason());
            }
            self.look_again(&name);
        }
    }
}

/// What is to become of a topic in this pass.
enum Sorted {
    Say(Word),
    Live,
    Delete,
}

impl Item {
    fn decide(&self, racks: &Racks) -> Todo {
        let empty = BTreeMap::new();
        let before = self.topic.status.as_ref().map_or(&empty, |status| &status.config);
        let found = Found {
            topic: self.found.as_ref(),
            configs: self.configs.as_ref(),
            moving: self.moving,
            brokers: racks,
        };
        decide(&self.name, &self.topic.spec, before, found)
    }
}

fn item(topic: Arc<Topic>, name: String) -> Item {
    Item {
        topic,
        name,
        found: None,
        configs: None,
        unread: None,
        todo: Todo::default(),
        refused: None,
        created: false,
        moving: 0,
    }
}

fn by_name(topics: &[Arc<Topic>]) -> BTreeMap<String, Vec<Arc<Topic>>> {
    let mut names: BTreeMap<String, Vec<Arc<Topic>>> = BTreeMap::new();
    for topic in topics {
        names
            .entry(topic.topic_name().to_owned())
            .or_default()
            .push(Arc::clone(topic));
    }
    names
}

fn is_wanted(topic: &Topic, work: &Work) -> bool {
    work.all || work.names.contains(topic.topic_name())
}

/// Whether a resource may have its topic at all.
fn is_claim(topic: &Topic, cluster: &TakhinCluster) -> bool {
    let released = topic.metadata.deletion_timestamp.is_some()
        && !topic.finalizers().iter().any(|name| name == FINALIZER);
    !annotated(topic, MANAGED, "false") && !released && allows(cluster, topic)
}

/// Whether the cluster lets Topics of this namespace in.
fn allows(cluster: &TakhinCluster, topic: &Topic) -> bool {
    let namespace = topic.namespace().unwrap_or_default();
    cluster.namespace().as_ref() == Some(&namespace) || cluster.spec.topic_namespaces.contains(&namespace)
}

/// The conditions that a topic had.
pub(super) fn conditions(topic: &Topic) -> &[Condition] {
    topic.status.as_ref().map_or(&[], |status| &status.conditions)
}

#[cfg(test)]
mod tests;
