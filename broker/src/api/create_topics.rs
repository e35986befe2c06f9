//! CreateTopics (key 19), versions 2-7.
//!
//! Creates topics with a number of partitions or an explicit assignment, and settings.
//!
//! - v4: -1 partitions or replicas are the broker's defaults (KIP-464). v5: flexible encoding, effective settings in
//!   the answer (KIP-525). v7: topic ids (KIP-516).
//!
//! A topic whose creation does not show in `timeout_ms` answers REQUEST_TIMED_OUT and may still come into being. One
//! topic's failure does not touch the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::future::join_all;
use takhin_cluster::{Fitnesses, Image, NewTopic};
use takhin_config::topic;
use takhin_protocol::messages::create_topics_request::CreatableTopic;
use takhin_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use takhin_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, StrBytes};
use takhin_protocol::{ErrorCode, TopicName};
use tracing::warn;
use uuid::Uuid;

use super::change::{self, Refused};
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::placement;

pub(crate) struct CreateTopics;

impl Api for CreateTopics {
    type Request = CreateTopicsRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=7;

    async fn handle(cx: &RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let image = cx.cluster().image();
        let mut plans = plan_all(cx, &image, &request);
        if !request.validate_only {
            join_all(
                plans
                    .iter_mut()
                    .map(|(_, plan)| create(cx, plan, request.timeout_ms)),
            )
            .await;
        }
        let results = plans
            .into_iter()
            .map(|(name, plan)| result(cx, &image, name, plan));
        CreateTopicsResponse::default().with_topics(results.collect())
    }
}

/// A topic as it will be, or was, created.
struct Plan {
    new: NewTopic,
    id: Uuid,
}

type Planned = (takhin_protocol::messages::TopicName, Result<Plan, Refused>);

/// Plans every topic; names given twice are refused, once (as in Kafka).
fn plan_all(cx: &RequestContext, image: &Image, request: &CreateTopicsRequest) -> Vec<Planned> {
    let mut seen = BTreeSet::new();
    let repeated: BTreeSet<_> = request
        .topics
        .iter()
        .map(|topic| &topic.name)
        .filter(|name| !seen.insert(*name))
        .collect();
    let mut reported = BTreeSet::new();
    let mut total = 0;
    let mut plans = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let planned = if repeated.contains(&topic.name) {
            if !reported.insert(&topic.name) {
                continue;
            }
            Err(Refused::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            plan(cx, image, topic)
        };
        let planned = planned.and_then(|plan| {
            total += plan.new.partitions.len();
            placement::check_total(total)?;
            Ok(plan)
        });
        plans.push((topic.name.clone(), planned));
    }
    plans
}

fn plan(cx: &RequestContext, image: &Image, topic: &CreatableTopic) -> Result<Plan, Refused> {
    let name = TopicName::parse(&topic.name)
        .map_err(|error| Refused::new(ErrorCode::InvalidTopicException, error.to_string()))?;
    let partitions = partitions(image, &cx.cluster().fitness(), topic)?;
    let mut overrides = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!("Null value not supported for topic configs: {}", config.name);
            return Err(Refused::new(ErrorCode::InvalidConfig, message));
        };
        overrides.insert(config.name.to_string(), value.to_string());
    }
    let new = NewTopic {
        name: name.to_string(),
        partitions,
        overrides,
    };
    cx.cluster().check_topic(&new)?;
    Ok(Plan { new, id: Uuid::nil() })
}

fn partitions(image: &Image, fitness: &Fitnesses, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, Refused> {
    if !topic.assignments.is_empty() {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let message =
                "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be \
                           used at the same time."
                    .to_owned();
            return Err(Refused::new(ErrorCode::InvalidRequest, message));
        }
        let chosen: Vec<(i32, Vec<i32>)> = topic
            .assignments
            .iter()
            .map(|a| (a.partition_index, a.broker_ids.iter().map(|id| id.0).collect()))
            .collect();
        return Ok(placement::check_assignment(image, &chosen)?);
    }
    let kafka = &image.settings.node.kafka;
    let count = match topic.num_partitions {
        -1 => i32::try_from(kafka.num_partitions).unwrap_or(i32::MAX),
        count => count,
    };
    let replication_factor = match topic.replication_factor {
        -1 => i16::try_from(kafka.default_replication_factor).unwrap_or(i16::MAX),
        factor => factor,
    };
    Ok(placement::assign(image, fitness, count, replication_factor)?)
}

async fn create(cx: &RequestContext, plan: &mut Result<Plan, Refused>, timeout_ms: i32) {
    let Ok(planned) = plan else { return };
    let (cluster, new) = (Arc::clone(cx.cluster()), planned.new.clone());
    let creating = async move { cluster.create_topic(new).await };
    match change::make(cx, timeout_ms, "create topic", creating).await {
        Ok(info) => {
            planned.id = info.id;
            // Apache Kafka goes on with one; whoever comes from there may count on that.
            if info
                .partitions
                .iter()
                .any(|placement| placement.replicas.len() == 2)
            {
                warn!(
                    topic = info.name,
                    "the topic has two replicas: while either is away nothing can be written to it; three survive the \
                     loss of one"
                );
            }
        }
        Err(refused) => *plan = Err(refused),
    }
}

fn result(
    cx: &RequestContext,
    image: &Image,
    name: takhin_protocol::messages::TopicName,
    plan: Result<Plan, Refused>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(name);
    let plan = match plan {
        Ok(plan) => plan,
        Err(refused) => {
            return result
                .with_error_code(cx.code(refused.code))
                .with_error_message(refused.text())
                .with_configs(Some(Vec::new()));
        }
    };
    let width = plan.new.partitions.first().map_or(0, Vec::len);
    let configs = topic::describe(
        &cx.broker().config,
        image.dynamic(cx.cluster().node_id()),
        &plan.new.overrides,
    )
    .into_iter()
    .map(|entry| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(entry.name))
            .with_value(entry.value.map(StrBytes::from_string))
            .with_read_only(entry.read_only)
            .with_config_source(entry.source.code())
            .with_is_sensitive(entry.sensitive)
    });
    result
        .with_topic_id(plan.id)
        .with_num_partitions(i32::try_from(plan.new.partitions.len()).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(width).unwrap_or(i16::MAX))
        .with_configs(Some(configs.collect()))
}
