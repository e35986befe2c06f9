//! One pass over topics of a cluster: observe, decide, change, tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use takhin_client::{ConfigResource, Configs, ErrorCode, Refusal, TopicDescription};
use tracing::{debug, warn};

use super::brokers::{Clients, NotReady, racks};
use super::dirty::{Pending, Work};
use super::finish::{self, FINALIZER, Word};
use super::{ClusterKey, Stores};
use crate::api::{DeletionPolicy, MANAGED, PAUSE, TakhinCluster, Topic, annotated};
use crate::control::context::Context;
use crate::decide::conditions::find;
use crate::decide::placement::Racks;
use crate::decide::topic::{Found, Todo, decide, managed_keys, owner, replication_factor};
use crate::kafka_api::{KafkaApi, KafkaError, TopicId};

/// Topics in a request that changes them.
const CHANGES: usize = 100;

/// Topics in a request that asks for their settings.
const QUESTIONS: usize = 500;

/// Partitions that are moved for the operator at a time, in one cluster.
const MAX_MOVES: usize = 50;

/// Requests to the API server at a time.
pub(super) const WRITERS: usize = 16;

/// Age of a deletion in a namespace that goes, after which a cluster that does not answer holds it up no longer.
const PATIENCE_SECONDS: i64 = 60;

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
        let message =
            left_out.unwrap_or_else(|| format!("there is no TakhinCluster {name} in namespace {namespace}"));
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

    async fn bring_about(
        &mut self,
        cluster: &TakhinCluster,
        client: &KafkaApi,
        mut live: Vec<Item>,
    ) -> Result<Vec<Word>, (Vec<Item>, KafkaError)> {
        if let Err(error) = observe(client, &mut live, false).await {
            return Err((live, error));
        }
        let racks = match racks(cluster, client).await {
            Ok(racks) => racks,
            Err(error) => return Err((live, error)),
        };
        for item in &mut live {
            item.todo = item.decide(&racks);
        }
        if let Err(error) = self.change(client, &mut live).await {
            return Err((live, error));
        }
        if let Err(error) = observe(client, &mut live, true).await {
            return Err((live, error));
        }
        let mut words = Vec::with_capacity(live.len());
        for item in live {
            let word = self.word(&item, &racks);
            if word.is_pending {
                self.again.insert(item.name.clone(), word.is_news());
            }
            words.push(word);
        }
        Ok(words)
    }

    async fn change(&mut self, client: &KafkaApi, live: &mut [Item]) -> Result<(), KafkaError> {
        let creates: Vec<_> = live.iter().filter_map(|item| item.todo.create.clone()).collect();
        let mut refused = BTreeMap::new();
        let mut created = Vec::new();
        for batch in creates.chunks(CHANGES) {
            for (name, outcome) in client.create_topics(batch).await? {
                match outcome {
                    Ok(()) => created.push(name),
                    // Somebody else was faster: it is adopted with the next look.
                    Err(refusal) if refusal.is(ErrorCode::TopicAlreadyExists) => {}
                    Err(refusal) => drop(refused.insert(name, refusal)),
                }
            }
        }
        let grown: Vec<_> = live
            .iter()
            .filter_map(|item| Some((item.name.as_str(), item.todo.grow?)))
            .collect();
        for batch in grown.chunks(CHANGES) {
            keep(&mut refused, client.create_partitions(batch).await?);
        }
        let settings: Vec<_> = live
            .iter()
            .filter(|item| !item.todo.configs.is_empty())
            .map(|item| {
                (
                    ConfigResource::Topic(item.name.clone()),
                    item.todo.configs.clone(),
                )
            })
            .collect();
        for batch in settings.chunks(CHANGES) {
            keep(&mut refused, client.alter_configs(batch).await?);
        }
        self.move_replicas(client, live, &mut refused).await?;
        for item in live {
            item.refused = refused.remove(&item.name);
            item.created = created.contains(&item.name);
        }
        Ok(())
    }

    async fn move_replicas(
        &mut self,
        client: &KafkaApi,
        live: &[Item],
        refused: &mut BTreeMap<String, Refusal>,
    ) -> Result<(), KafkaError> {
        let mut left = MAX_MOVES;
        if live.iter().any(|item| !item.todo.moves.is_empty()) {
            left = left.saturating_sub(client.list_reassignments().await?.len());
        }
        for item in live.iter().filter(|item| !item.todo.moves.is_empty()) {
            let now = &item.todo.moves[..item.todo.moves.len().min(left)];
            if now.is_empty() {
                continue;
            }
            left -= now.len();
            if let Some((_, refusal)) = client.reassign(&item.name, now).await?.into_iter().next() {
                refused.insert(item.name.clone(), refusal);
            }
        }
        Ok(())
    }

    fn word(&self, item: &Item, racks: &Racks) -> Word {
        // What is still to be done after the changes is under way, or was refused.
        let left = item.decide(racks);
        let mut word = Word::of(&item.topic);
        word.found(item.found.as_ref(), replication_factor, item.configs.as_ref());
        let changed = !item.todo.is_nothing();
        let was_seen = item
            .topic
            .status
            .as_ref()
            .and_then(|status| status.observed_generation)
            == item.topic.metadata.generation;
        if item.created {
            word.event(
                EventType::Normal,
                "TopicCreated",
                "Create",
                format!("created topic {}", item.name),
            );
        } else if changed
            && was_seen
            && item.refused.is_none()
            && item.todo.create.is_none()
            && item.todo.moves.is_empty()
        {
            let what = drift(&item.todo);
            word.drifted(&what);
            word.event(
                EventType::Normal,
                "TopicDrifted",
                "Revert",
                format!("{}: {what}", item.name),
            );
        }
        match (item.refused.as_ref().or(item.unread.as_ref()), &left.problem) {
            (Some(refusal), _) => word.refused(refusal),
            (None, Some((reason, message))) => word.says("False", reason, message),
            (None, None) if left.create.is_some() => word.pending("Creating", "the topic is being made"),
            (None, None) if left.grow.is_some() => {
                word.pending("IncreasingPartitions", "partitions are being made")
            }
            (None, None) if item.moving > 0 || !left.moves.is_empty() => {
                let moving = item.moving.max(left.moves.len());
                word.pending(
                    "Reassigning",
                    &format!("replicas of {moving} partitions are being moved"),
                );
            }
            (None, None) if !left.configs.is_empty() => {
                word.pending("Updating", "settings are being changed")
            }
            (None, None) => word.says("True", "Synced", "the topic is as it is to be"),
        }
        word
    }

    async fn delete(&mut self, client: &KafkaApi, deleted: Vec<Item>) {
        let mut words = Vec::new();
        for batch in deleted.chunks(CHANGES) {
            let outcomes = match remove(client, batch).await {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    self.trouble = Some("KafkaError");
                    words.extend(self.blocked(batch, &error.to_string()).await);
                    continue;
                }
            };
            for (item, removed) in batch.iter().zip(outcomes) {
                match removed {
                    Removed::Now => {
                        let mut word = Word::release(&item.topic);
                        let note = format!("deleted topic {}", item.name);
                        word.event(EventType::Normal, "TopicDeleted", "Delete", note);
                        words.push(word);
                    }
                    Removed::Before => words.push(Word::release(&item.topic)),
                    Removed::Anew => self.look_again(&item.name),
                    Removed::Refused(refusal) => {
                        self.trouble = Some("DeletionBlocked");
                        let one = std::slice::from_ref(item);
                        words.extend(self.blocked(one, &refusal.to_string()).await);
                    }
                }
            }
        }
        self.tell(words).await;
    }

    async fn unreachable(&mut self, live: Vec<Item>, deleted: Vec<Item>, reason: &str, message: &str) {
        let mut words: Vec<Word> = live
            .iter()
            .map(|item| Word::not_ready(&item.topic, reason, message))
            .collect();
        words.extend(self.blocked(&deleted, message).await);
        self.tell(words).await;
    }

    /// What is said of topics that cannot be deleted now. A namespace that goes is not held up for long.
    async fn blocked(&mut self, deleted: &[Item], message: &str) -> Vec<Word> {
        let mut words = Vec::new();
        let mut namespaces = BTreeMap::new();
        for item in deleted {
            self.holds_up = true;
            let namespace = item.topic.namespace().unwrap_or_default();
            let since = item.topic.metadata.deletion_timestamp.as_ref();
            let age = since.map_or(0, |since| self.context.now().as_second() - since.0.as_second());
            let said = find(conditions(&item.topic), "Ready").filter(|said| said.reason == "DeletionBlocked");
            let says_more = said.is_some_and(|said| said.message != message);
            if (age >= PATIENCE_SECONDS || says_more) && !namespaces.contains_key(&namespace) {
                let goes = self.is_terminating(&namespace).await;
                namespaces.insert(namespace.clone(), goes);
            }
            let goes = namespaces.get(&namespace) == Some(&true);
            if age >= PATIENCE_SECONDS && goes {
                words.push(Word::release(&item.topic));
                continue;
            }
            // The right to write a status there may be gone already, and nobody reads in other words why it is held up.
            if goes && said.is_some() {
                continue;
            }
            let mut word = Word::not_ready(&item.topic, "DeletionBlocked", message);
            let note = format!("topic {} cannot be deleted: {message}", item.name);
            word.event(EventType::Warning, "DeletionBlocked", "Delete", note);
            words.push(word);
        }
        words
    }

    async fn is_terminating(&self, namespace: &str) -> bool {
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        match api.get_opt(namespace).await {
            Ok(found) => found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()),
            Err(error) => {
                debug!(%error, namespace, "namespace not read");
                false
            }
        }
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

/// What became of a topic that was to be deleted.
enum Removed {
    /// It is deleted.
    Now,
    /// There was none.
    Before,
    /// It is another one than a moment ago, or the broker does not say.
    Anew,
    Refused(Refusal),
}

/// Deletes the topics, by the ids that they have now: a request that comes late, such as from an operator that was stopped
/// amid it, takes nothing that was made under their names since.
async fn remove(client: &KafkaApi, batch: &[Item]) -> Result<Vec<Removed>, KafkaError> {
    let names: Vec<&str> = batch.iter().map(|item| item.name.as_str()).collect();
    let found = client.describe_topics(Some(&names)).await?;
    let ids: BTreeMap<&str, TopicId> = found
        .iter()
        .map(|topic| (topic.name.as_str(), topic.id))
        .collect();
    let wanted: Vec<TopicId> = ids.values().copied().collect();
    let mut outcomes = BTreeMap::new();
    if !wanted.is_empty() {
        outcomes.extend(client.delete_topics(&wanted).await?);
    }
    let removed = names.iter().map(|name| match ids.get(name) {
        None => Removed::Before,
        Some(id) => match outcomes.remove(id) {
            Some(Ok(())) => Removed::Now,
            Some(Err(refusal)) if !refusal.is(ErrorCode::UnknownTopicId) => Removed::Refused(refusal),
            Some(Err(_)) | None => Removed::Anew,
        },
    });
    Ok(removed.collect())
}

/// Asks for the topics; after changes only for those that were changed.
async fn observe(client: &KafkaApi, items: &mut [Item], changed_only: bool) -> Result<(), KafkaError> {
    let mut wanted: Vec<&mut Item> = items
        .iter_mut()
        .filter(|item| !changed_only || !item.todo.is_nothing())
        .collect();
    for batch in wanted.chunks_mut(QUESTIONS) {
        let names: Vec<&str> = batch.iter().map(|item| item.name.as_str()).collect();
        let found = client.describe_topics(Some(&names)).await?;
        let mut found: BTreeMap<String, TopicDescription> = found
            .into_iter()
            .map(|topic| (topic.name.clone(), topic))
            .collect();
        for item in batch.iter_mut() {
            item.found = found.remove(&item.name);
        }
        observe_configs(client, batch).await?;
    }
    if wanted
        .iter()
        .any(|item| item.topic.spec.replication_factor.is_some())
    {
        let mut moving: BTreeMap<String, usize> = BTreeMap::new();
        for one in client.list_reassignments().await? {
            *moving.entry(one.topic).or_default() += 1;
        }
        for item in wanted {
            item.moving = moving.get(&item.name).copied().unwrap_or(0);
        }
    }
    Ok(())
}

async fn observe_configs(client: &KafkaApi, batch: &mut [&mut Item]) -> Result<(), KafkaError> {
    let empty = BTreeMap::new();
    let questions: Vec<_> = batch
        .iter()
        .filter(|item| item.found.is_some())
        .filter_map(|item| {
            let before = item.topic.status.as_ref().map_or(&empty, |status| &status.config);
            let keys = managed_keys(&item.topic.spec, before);
            (!keys.is_empty()).then(|| (ConfigResource::Topic(item.name.clone()), Some(keys)))
        })
        .collect();
    if questions.is_empty() {
        return Ok(());
    }
    let mut answers: BTreeMap<String, Result<Configs, Refusal>> =
        client.describe_configs(&questions).await?.into_iter().collect();
    for item in batch {
        let answer = answers.remove(&item.name).transpose();
        (item.configs, item.unread) = match answer {
            Ok(configs) => (configs, None),
            Err(refusal) => (None, Some(refusal)),
        };
    }
    Ok(())
}

fn keep(refused: &mut BTreeMap<String, Refusal>, outcomes: takhin_client::Outcomes) {
    let refusals = outcomes
        .into_iter()
        .filter_map(|(name, outcome)| Some((name, outcome.err()?)));
    refused.extend(refusals);
}

fn drift(todo: &Todo) -> String {
    let mut what: Vec<String> = todo
        .configs
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name} set back to {value}"),
            None => format!("{name} set back to the default"),
        })
        .collect();
    what.extend(
        todo.grow
            .map(|partitions| format!("brought to {partitions} partitions")),
    );
    what.join(", ")
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
