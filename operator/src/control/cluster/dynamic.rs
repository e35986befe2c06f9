//! Settings that brokers take while they run.

use std::time::Duration;

use kube::runtime::events::EventType;
use takhin_client::{ClientConfig, ConfigResource};
use tracing::warn;

use super::observe::Seen;
use super::status::Report;
use crate::api::{ListenerType, TakhinCluster};
use crate::build::{KAFKA_PORT, Names, NodeFile, listeners};
use crate::control::context::Context;
use crate::control::topics::{address, is_ready};
use crate::kafka_api::{KafkaApi, KafkaError};

/// Brings the settings of all brokers about: those of the wish, and no others of those that the operator has set before.
/// That brokers do not answer or refuse is told in the status.
pub(super) async fn set(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
    seen: &Seen,
    file: &NodeFile,
    report: &mut Report,
) {
    let before = cluster
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.managed_config);
    report.managed_config(before.to_vec());
    if seen.brokers.is_none() {
        return;
    }
    let Some(client) = client(context, cluster, seen) else {
        return;
    };
    match bring_about(&client, file, before).await {
        Ok(changed) => {
            report.managed_config(file.dynamic.keys().cloned().collect());
            if !changed.is_empty() {
                let note = format!("set on all brokers of {}: {}", names.cluster, changed.join(", "));
                context
                    .event(cluster, EventType::Normal, "ConfigChanged", "Configure", note)
                    .await;
            }
        }
        Err(Failure::Refused(message)) => report.config_not_applied(&message),
        Err(Failure::Unanswered(message)) => {
            warn!(cluster = names.cluster, message, "settings not looked at");
            if !(file.dynamic.is_empty() && before.is_empty()) {
                report.config_not_known(cluster, &message);
            }
        }
    }
}

/// Why settings were not brought about.
enum Failure {
    /// The brokers said no.
    Refused(String),
    /// They said nothing, which may pass.
    Unanswered(String),
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        Self::Unanswered(error.to_string())
    }
}

async fn bring_about(client: &KafkaApi, file: &NodeFile, before: &[String]) -> Result<Vec<String>, Failure> {
    let answers = client
        .describe_configs(&[(ConfigResource::AllBrokers, None)])
        .await?;
    let found = match answers.into_iter().next() {
        Some((_, Ok(found))) => found,
        Some((_, Err(refusal))) => return Err(Failure::Refused(refusal.to_string())),
        None => {
            let message = "the brokers did not tell their settings".to_owned();
            return Err(Failure::Unanswered(message));
        }
    };
    let differs = |name: &str, value: &str| {
        let is = found.get(name).and_then(|found| found.value.as_deref());
        is != Some(value)
    };
    let mut changes: Vec<(String, Option<String>)> = file
        .dynamic
        .iter()
        .filter(|(name, value)| differs(name, value))
        .map(|(name, value)| (name.clone(), Some(value.clone())))
        .collect();
    let dropped = before
        .iter()
        .filter(|name| !file.dynamic.contains_key(*name) && found.contains_key(*name));
    changes.extend(dropped.map(|name| (name.clone(), None)));
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let names = changes.iter().map(|(name, _)| name.clone()).collect();
    let outcomes = client
        .alter_configs(&[(ConfigResource::AllBrokers, changes)])
        .await?;
    match outcomes.into_iter().find_map(|(_, outcome)| outcome.err()) {
        Some(refusal) => Err(Failure::Refused(refusal.to_string())),
        None => Ok(names),
    }
}

/// A client of the ready brokers.
pub(super) fn client(context: &Context, cluster: &TakhinCluster, seen: &Seen) -> Option<KafkaApi> {
    let listeners = listeners(&cluster.spec);
    let inside = listeners
        .iter()
        .find(|listener| listener.kind == ListenerType::Internal)
        .or_else(|| listeners.first());
    let port = inside.map_or(KAFKA_PORT, |listener| listener.port);
    let ready = seen.pods.values().filter(|pod| is_ready(pod));
    let addresses: Vec<String> = ready
        .filter_map(|pod| pod.status.as_ref()?.pod_ip.as_deref())
        .map(|ip| address(ip, port))
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let mut config = ClientConfig::new(addresses);
    config.client_id = crate::build::MANAGER.to_owned();
    config.connect_timeout = Duration::from_secs(3);
    config.request_timeout = Duration::from_secs(15);
    Some(KafkaApi::new(context.env.clone(), context.fence.clone(), config))
}
