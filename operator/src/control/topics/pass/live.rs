//! Topics that are to be as their resources say: what they are, what is changed, what is said of that.

use std::collections::BTreeMap;

use kube::runtime::events::EventType;
use takhin_client::{ConfigResource, Configs, ErrorCode, Refusal, TopicDescription};

use super::{CHANGES, Item, Pass};
use crate::api::TakhinCluster;
use crate::control::topics::brokers::racks;
use crate::control::topics::finish::Word;
use crate::decide::placement::Racks;
use crate::decide::topic::{Todo, managed_keys, replication_factor};
use crate::kafka_api::{KafkaApi, KafkaError};

/// Topics in a request that asks for their settings.
const QUESTIONS: usize = 500;

/// Partitions that are moved for the operator at a time, in one cluster.
const MAX_MOVES: usize = 50;

impl Pass {
    pub(super) async fn bring_about(
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

    pub(super) fn word(&self, item: &Item, racks: &Racks) -> Word {
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
