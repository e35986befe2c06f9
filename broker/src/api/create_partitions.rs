//! CreatePartitions (key 37), versions 0-3.
//!
//! Gives topics more partitions (KIP-195). The count is the one to be reached; it can only grow.
//!
//! - v2: flexible encoding. v3: as v2; from here on Kafka may answer THROTTLING_QUOTA_EXCEEDED, which we never do.
//!
//! Growth that does not show in `timeout_ms` answers REQUEST_TIMED_OUT and may still come. One topic's failure does not
//! touch the others.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::future::join_all;
use takhin_cluster::{Fitnesses, Image, TopicInfo};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use takhin_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use takhin_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use uuid::Uuid;

use super::change::{self, Refused};
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::placement;

pub(crate) struct CreatePartitions;

impl Api for CreatePartitions {
    type Request = CreatePartitionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=3;

    async fn handle(cx: &RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
        let image = cx.cluster().image();
        let plans = plan_all(&image, &cx.cluster().fitness(), request.topics);
        let results = join_all(plans.into_iter().map(async |(name, plan)| {
            let done = match plan {
                Ok(plan) if !request.validate_only => grow(cx, plan, request.timeout_ms).await,
                planned => planned.map(drop),
            };
            let result = CreatePartitionsTopicResult::default().with_name(name);
            match done {
                Ok(()) => result,
                Err(refused) => result
                    .with_error_code(cx.code(refused.code))
                    .with_error_message(refused.text()),
            }
        }));
        CreatePartitionsResponse::default().with_results(results.await)
    }
}

/// Partitions to be added to a topic.
struct Plan {
    id: Uuid,
    existing: usize,
    partitions: Vec<Vec<i32>>,
}

type Planned = (takhin_protocol::messages::TopicName, Result<Plan, Refused>);

/// Plans every topic; names given twice are refused, once (as in Kafka).
fn plan_all(image: &Image, fitness: &Fitnesses, topics: Vec<CreatePartitionsTopic>) -> Vec<Planned> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for topic in &topics {
        if !seen.insert(topic.name.clone()) {
            repeated.insert(topic.name.clone());
        }
    }
    let mut total = 0;
    let mut plans = Vec::with_capacity(seen.len());
    for topic in topics {
        if !seen.remove(&topic.name) {
            continue;
        }
        let planned = if repeated.contains(&topic.name) {
            Err(Refused::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            plan(image, fitness, &topic)
        };
        let planned = planned.and_then(|plan| {
            total += plan.partitions.len();
            placement::check_total(total)?;
            Ok(plan)
        });
        plans.push((topic.name, planned));
    }
    plans
}

fn plan(image: &Image, fitness: &Fitnesses, asked: &CreatePartitionsTopic) -> Result<Plan, Refused> {
    let Some(topic) = image.topic(&asked.name) else {
        let message = format!("The topic '{}' does not exist.", &*asked.name);
        return Err(Refused::new(ErrorCode::UnknownTopicOrPartition, message));
    };
    let existing = topic.partitions.len();
    let wanted = usize::try_from(asked.count).unwrap_or(0);
    if wanted == existing {
        let message = format!("Topic already has {existing} partition(s).");
        return Err(Refused::new(ErrorCode::InvalidPartitions, message));
    }
    let Some(additional) = wanted.checked_sub(existing) else {
        let message = format!(
            "The topic {} currently has {existing} partition(s); {} would not be an increase.",
            topic.name, asked.count
        );
        return Err(Refused::new(ErrorCode::InvalidPartitions, message));
    };
    placement::check_total(additional)?;
    let width = topic.partitions.first().map_or(1, |p| p.replicas.len());
    let partitions = match &asked.assignments {
        Some(chosen) => chosen_replicas(image, topic, chosen, additional)?,
        None => placement::assign_more(image, fitness, &topic.partitions, additional, width)?,
    };
    Ok(Plan {
        id: topic.id,
        existing,
        partitions,
    })
}

fn chosen_replicas(
    image: &Image,
    topic: &TopicInfo,
    chosen: &[CreatePartitionsAssignment],
    additional: usize,
) -> Result<Vec<Vec<i32>>, Refused> {
    if chosen.len() != additional {
        let message = format!(
            "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
            chosen.len()
        );
        return Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    let width = topic.partitions.first().map_or(1, |p| p.replicas.len());
    let mut partitions = Vec::with_capacity(chosen.len());
    for assignment in chosen {
        let replicas: Vec<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
        placement::check_replicas(image, &replicas, width)?;
        partitions.push(replicas);
    }
    Ok(partitions)
}

async fn grow(cx: &RequestContext, plan: Plan, timeout_ms: i32) -> Result<(), Refused> {
    let cluster = Arc::clone(cx.cluster());
    let growing = async move {
        cluster
            .create_partitions(plan.id, plan.existing, plan.partitions)
            .await
    };
    change::make(cx, timeout_ms, "create partitions", growing).await
}
