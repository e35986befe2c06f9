//! What is written to the API server about topics: finalizers, status, events.

use std::sync::Arc;

use futures_util::StreamExt as _;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use takhin_client::{Configs, ErrorCode, Refusal, TopicDescription};
use tracing::{debug, warn};

use super::pass::{Pass, WRITERS, conditions};
use crate::api::{DeletionPolicy, PAUSE, Topic, TopicStatus, annotated};
use crate::build::MANAGER;
use crate::control::context::Context;
use crate::control::error::Error;
use crate::control::metrics;
use crate::decide::conditions::{Conditions, Holds, find};
use crate::decide::topic::topic_id;

/// Our finalizer.
pub(super) const FINALIZER: &str = "takhin.io/topic";

/// What is to be said of a topic.
pub(super) struct Word {
    pub(super) topic: Arc<Topic>,
    /// Whether something is under way that is to be looked at soon.
    pub(super) is_pending: bool,
    status: TopicStatus,
    conditions: Conditions,
    events: Vec<(EventType, &'static str, &'static str, String)>,
    /// The finalizer goes; nothing else is said.
    release: bool,
    /// The finalizer goes because there is nothing to clean up.
    unmanaged: bool,
}

impl Word {
    /// Nothing yet; what was found before stays until something else is said.
    pub(super) fn of(topic: &Arc<Topic>) -> Self {
        let mut status = topic.status.clone().unwrap_or_default();
        status.observed_generation = topic.metadata.generation;
        status.topic_name = Some(topic.topic_name().to_owned());
        Self {
            topic: Arc::clone(topic),
            is_pending: false,
            conditions: Conditions::of(topic.metadata.generation.unwrap_or(0)),
            status,
            events: Vec::new(),
            release: false,
            unmanaged: false,
        }
    }

    /// Its finalizer goes.
    pub(super) fn release(topic: &Arc<Topic>) -> Self {
        Self {
            release: true,
            ..Self::of(topic)
        }
    }

    pub(super) fn not_ready(topic: &Arc<Topic>, reason: &str, message: &str) -> Self {
        let mut word = Self::of(topic);
        word.says("False", reason, message);
        word
    }

    pub(super) fn unmanaged(topic: &Arc<Topic>) -> Self {
        let mut word = Self::of(topic);
        word.unmanaged = true;
        word.has_none();
        word.says(
            "True",
            "Unmanaged",
            "the annotation takhin.io/managed is false: the topic is not touched",
        );
        word
    }

    /// Another resource has its topic.
    pub(super) fn conflict(topic: &Arc<Topic>, message: &str) -> Self {
        let mut word = Self::not_ready(topic, "TopicNameConflict", message);
        word.has_none();
        word
    }

    /// It has no topic, whatever was found before: an id in the status stands for having one, which decides between claims.
    fn has_none(&mut self) {
        self.status.topic_id = None;
        self.status.partitions = None;
        self.status.replication_factor = None;
        self.status.config.clear();
    }

    /// What was said of it stays, and why nothing new is.
    pub(super) fn paused(topic: &Arc<Topic>) -> Self {
        let mut word = Self::of(topic);
        word.status.observed_generation = topic
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        for old in conditions(topic) {
            let holds = match old.status.as_str() {
                "True" => Holds::True,
                "False" => Holds::False,
                _ => Holds::Unknown,
            };
            word.conditions
                .say(&old.type_, holds, &old.reason, old.message.clone());
        }
        let message = format!("the annotation {PAUSE} is true: nothing is changed");
        word.conditions
            .say("ReconciliationPaused", true, "Annotation", message);
        word
    }

    pub(super) fn says(&mut self, holds: &str, reason: &str, message: &str) {
        let holds = match holds {
            "True" => Holds::True,
            "False" => Holds::False,
            _ => Holds::Unknown,
        };
        self.conditions.say("Ready", holds, reason, message);
    }

    /// Whether this was not said before.
    pub(super) fn is_news(&self) -> bool {
        let said = find(conditions(&self.topic), "Ready").map(|said| &said.message);
        said != self.conditions.get("Ready").map(|says| &says.message)
    }

    pub(super) fn pending(&mut self, reason: &str, message: &str) {
        self.is_pending = true;
        self.says("Unknown", reason, message);
    }

    /// The broker's refusal, by what it means for the user.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let is = |code| refusal.is(code);
        let reason = if is(ErrorCode::InvalidConfig) {
            "InvalidConfig"
        } else if is(ErrorCode::InvalidReplicationFactor) {
            "InvalidReplicationFactor"
        } else if is(ErrorCode::TopicAuthorizationFailed) || is(ErrorCode::ClusterAuthorizationFailed) {
            "NotAuthorized"
        } else {
            "KafkaError"
        };
        self.is_pending = refusal.is_retriable();
        self.says("False", reason, &refusal.to_string());
    }

    pub(super) fn found(
        &mut self,
        found: Option<&TopicDescription>,
        factor: impl Fn(&TopicDescription) -> Option<i32>,
        configs: Option<&Configs>,
    ) {
        self.status.topic_id = found.map(|topic| topic_id(&topic.id));
        self.status.partitions = found.and_then(|topic| i32::try_from(topic.partitions.len()).ok());
        self.status.replication_factor = found.and_then(factor);
        let Some(configs) = configs else {
            if self.topic.spec.config.is_empty() && found.is_some() {
                self.status.config.clear();
            }
            return;
        };
        let keys = self.topic.spec.config.keys();
        let known = keys.filter_map(|key| Some((key.clone(), configs.get(key)?.value.clone()?)));
        self.status.config = known.collect();
    }

    pub(super) fn drifted(&mut self, what: &str) {
        self.conditions.say("Drifted", true, "Reverted", what);
    }

    pub(super) fn event(
        &mut self,
        kind: EventType,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) {
        self.events.push((kind, reason, action, note));
    }

    /// Writes what differs.
    pub(super) async fn tell(self, context: &Context) -> Result<(), Error> {
        let topic = &self.topic;
        let namespace = topic.namespace().unwrap_or_default();
        let api: Api<Topic> = Api::namespaced(context.client.clone(), &namespace);
        let ready = self.conditions.get("Ready").cloned();
        if self.release {
            self.tell_events(context, None).await;
            return set_finalizer(&api, topic, false).await.map(drop);
        }
        if self.unmanaged {
            set_finalizer(&api, topic, false).await?;
        }
        let before = conditions(topic);
        let was = find(before, "Ready").map(|old| old.reason.clone());
        let mut status = self.status.clone();
        status.conditions = self.conditions.clone().since(before, context.now());
        let is_ready = ready.as_ref().is_some_and(|ready| ready.status == "True");
        metrics::ready("Topic", &namespace, &topic.name_any(), is_ready);
        if topic.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let patch = json!({
            "apiVersion": Topic::api_version(&()),
            "kind": Topic::kind(&()),
            "metadata": { "name": topic.name_any() },
            "status": status,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        metrics::patched("Topic");
        match api
            .patch_status(&topic.name_any(), &parameters, &Patch::Apply(&patch))
            .await
        {
            Ok(_) => {}
            // It was deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.tell_events(context, was.as_deref()).await;
        Ok(())
    }

    /// Events, but none that repeats what the status said before.
    async fn tell_events(&self, context: &Context, was: Option<&str>) {
        for (kind, reason, action, note) in &self.events {
            if was != Some(*reason) {
                context
                    .event(self.topic.as_ref(), *kind, reason, action, note.clone())
                    .await;
            }
        }
    }
}

/// Whether the topic has to be deleted with its resource.
fn needs_finalizer(topic: &Topic) -> bool {
    topic.deletion_policy() == DeletionPolicy::Delete && !annotated(topic, crate::api::MANAGED, "false")
}

/// Gives the resources the finalizers that they need, and takes those that they do not need; who could not be written is
/// left out and looked at again.
pub(super) async fn with_finalizers<T: Send>(pass: &mut Pass, topics: Vec<(Arc<Topic>, T)>) -> Vec<T> {
    let client = pass.context.client.clone();
    let written = futures_util::stream::iter(topics).map(|(topic, rest)| {
        let client = client.clone();
        async move {
            let api: Api<Topic> = Api::namespaced(client, &topic.namespace().unwrap_or_default());
            let done = set_finalizer(&api, &topic, needs_finalizer(&topic)).await;
            (topic, rest, done)
        }
    });
    let written: Vec<_> = written.buffer_unordered(WRITERS).collect().await;
    let mut ready = Vec::with_capacity(written.len());
    for (topic, rest, done) in written {
        match done {
            Ok(()) => ready.push(rest),
            Err(error) => {
                if !error.is_conflict() {
                    warn!(topic = topic.name_any(), %error, "finalizer not written");
                }
                pass.look_again(topic.topic_name());
            }
        }
    }
    ready
}

async fn set_finalizer(api: &Api<Topic>, topic: &Topic, wanted: bool) -> Result<(), Error> {
    let has = topic.finalizers().iter().any(|name| name == FINALIZER);
    if has == wanted {
        return Ok(());
    }
    let mut finalizers = topic.finalizers().to_vec();
    match wanted {
        true => finalizers.push(FINALIZER.to_owned()),
        false => finalizers.retain(|name| name != FINALIZER),
    }
    // The list as a whole is replaced: only if nobody else has changed it since.
    let patch = json!({
        "metadata": { "resourceVersion": topic.resource_version(), "finalizers": finalizers },
    });
    metrics::patched("Topic");
    match api
        .patch(&topic.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            debug!(topic = topic.name_any(), "gone already");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
