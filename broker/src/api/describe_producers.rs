//! DescribeProducers (key 61), version 0.
//!
//! Shows the idempotent and transactional producers that a partition remembers (KIP-664).
//!
//! Leader needed: the partition's.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use takhin_cluster::ServedBy;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use takhin_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};
use takhin_storage::Producer;

use super::change::Refused;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::error::ToErrorCode as _;
use crate::replicas::View;

pub(crate) struct DescribeProducers;

impl Api for DescribeProducers {
    type Request = DescribeProducersRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;

    async fn handle(cx: &RequestContext, request: DescribeProducersRequest) -> DescribeProducersResponse {
        let view = View::new(cx.cluster());
        // A partition named twice is described once: a request must not grow into an answer without bound.
        let mut seen = BTreeSet::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let indexes = topic.partition_indexes.into_iter();
            let fresh: Vec<i32> = indexes
                .filter(|index| seen.insert((topic.name.clone(), *index)))
                .collect();
            let partitions = fresh
                .into_iter()
                .map(|index| describe(cx, &view, &topic.name, index));
            topics.push(
                TopicResponse::default()
                    .with_partitions(partitions.collect())
                    .with_name(topic.name),
            );
        }
        DescribeProducersResponse::default().with_topics(topics)
    }
}

fn describe(cx: &RequestContext, view: &View, topic: &str, index: i32) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index);
    match producers(view, topic, index) {
        Ok(producers) => response.with_active_producers(producers),
        Err(refused) => response
            .with_error_code(cx.code(refused.code))
            .with_error_message(refused.text()),
    }
}

fn producers(view: &View, topic: &str, index: i32) -> Result<Vec<ProducerState>, Refused> {
    let refuse = |code| {
        Refused::new(
            code,
            format!("partition {topic}-{index} is not led here or unknown"),
        )
    };
    let partition = view.partition_by_name(topic, index).map_err(refuse)?;
    partition
        .check_epoch(-1, ServedBy::Leader)
        .map_err(|error| Refused::new(error.to_error_code(), error.to_string()))?;
    let log = partition
        .log()
        .ok_or_else(|| refuse(ErrorCode::NotLeaderOrFollower))?;
    let all = log.with_producers(|table| {
        let all = table.iter().map(|(id, producer)| state(id, producer));
        all.collect()
    });
    Ok(all)
}

fn state(id: i64, producer: &Producer) -> ProducerState {
    let last_sequence = producer.batches.back().map_or(-1, |batch| batch.last_sequence);
    ProducerState::default()
        .with_producer_id(id.into())
        .with_producer_epoch(producer.epoch.into())
        .with_last_sequence(last_sequence)
        .with_last_timestamp(producer.last_timestamp)
        // No transaction marker has been written by any coordinator.
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(producer.transaction_start.unwrap_or(-1))
}
