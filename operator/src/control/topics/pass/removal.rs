//! Topics whose resources are deleted: what becomes of them, and what is said where they cannot go now.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use takhin_client::{ErrorCode, Refusal};
use tracing::debug;

use super::{CHANGES, Item, Pass, conditions};
use crate::control::topics::finish::Word;
use crate::decide::conditions::find;
use crate::kafka_api::{KafkaApi, KafkaError, TopicId};

/// Age of a deletion in a namespace that goes, after which a cluster that does not answer holds it up no longer.
const PATIENCE_SECONDS: i64 = 60;

impl Pass {
    pub(super) async fn delete(&mut self, client: &KafkaApi, deleted: Vec<Item>) {
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

    /// What is said of topics that cannot be deleted now. A namespace that goes is not held up for long.
    pub(super) async fn blocked(&mut self, deleted: &[Item], message: &str) -> Vec<Word> {
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
