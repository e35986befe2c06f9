//! DeleteRecords (key 21), versions 0-2.
//!
//! Deletes the records of partitions below an offset by moving the log start (KIP-107); -1 stands for the high watermark.
//!
//! - v2: flexible encoding.
//!
//! A log start that has not moved in `timeout_ms` answers REQUEST_TIMED_OUT and may still move. One partition's failure
//! does not touch the others. Leader needed: the partition's.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use takhin_cluster::{Partition, TopicInfo};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::delete_records_request::DeleteRecordsTopic;
use takhin_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use takhin_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::error::ToErrorCode as _;
use crate::replicas::View;

/// Stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// Shortest wait for the log start to move, which takes a sync. Clients that ask for none (librdkafka's tests do) mean that
/// nothing is to be waited for but that.
const LEAST_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct DeleteRecords;

impl Api for DeleteRecords {
    type Request = DeleteRecordsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;

    async fn handle(cx: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
        let view = View::new(cx.cluster());
        let timeout_ms = request.timeout_ms;
        let topics = request.topics.into_iter();
        let topics = join_all(topics.map(|topic| delete_in(cx, &view, topic, timeout_ms))).await;
        DeleteRecordsResponse::default().with_topics(topics)
    }
}

async fn delete_in(
    cx: &RequestContext,
    view: &View,
    topic: DeleteRecordsTopic,
    timeout_ms: i32,
) -> DeleteRecordsTopicResult {
    let found = deletable(view, &topic.name);
    let partitions = join_all(topic.partitions.iter().map(async |asked| {
        let index = asked.partition_index;
        let partition = found.and_then(|topic| view.partition(topic, index));
        let deleted = match partition {
            Ok(partition) => delete(cx, &partition, asked.offset, timeout_ms).await,
            Err(code) => Err(code),
        };
        let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
        match deleted {
            Ok(low_watermark) => result.with_low_watermark(low_watermark),
            Err(code) => result.with_low_watermark(-1).with_error_code(cx.code(code)),
        }
    }));
    DeleteRecordsTopicResult::default()
        .with_partitions(partitions.await)
        .with_name(topic.name)
}

/// The topic, if clients may delete its records.
fn deletable<'a>(view: &'a View, name: &str) -> Result<&'a Arc<TopicInfo>, ErrorCode> {
    let topic = view.topic(name)?;
    if takhin_cluster::is_internal(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    // Then only compaction decides what goes.
    if topic.config.cleanup_policy.compact && !topic.config.cleanup_policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    Ok(topic)
}

async fn delete(
    cx: &RequestContext,
    partition: &Arc<Partition>,
    offset: i64,
    timeout_ms: i32,
) -> Result<i64, ErrorCode> {
    let before = (offset != HIGH_WATERMARK).then_some(offset);
    let clock = &cx.broker().env.clock;
    let deleting = partition.delete_records(before);
    match clock
        .timeout(cx.time_left(timeout_ms).max(LEAST_WAIT), deleting)
        .await
    {
        Ok(done) => done.map_err(|error| error.to_error_code()),
        Err(_) => Err(ErrorCode::RequestTimedOut),
    }
}
