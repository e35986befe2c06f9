//! DescribeLogDirs (key 35), versions 1-4.
//!
//! Shows this broker's data directory, its file system's space, and the size of each replica in it.
//!
//! - v2: flexible encoding. v3: an error for the whole (KIP-784). v4: total and usable bytes (KIP-827).
//!
//! A broker has one data directory, and no replica is on its way to another one.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use takhin_cluster::TopicInfo;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use takhin_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use takhin_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, StrBytes};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::replicas::View;

pub(crate) struct DescribeLogDirs;

impl Api for DescribeLogDirs {
    type Request = DescribeLogDirsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=4;

    async fn handle(cx: &RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
        let view = View::new(cx.cluster());
        let topics = match request.topics {
            None => all(cx, &view),
            Some(topics) => named(cx, &view, &topics),
        };
        let (disk, path) = (
            Arc::clone(&cx.broker().env.disk),
            cx.broker().config.node.data_dir.clone(),
        );
        let looking = move || Ok::<_, std::io::Error>((disk.absolute(&path)?, disk.space(&path)?));
        let result = DescribeLogDirsResult::default();
        let result = match cx.broker().env.tasks.blocking(looking).await {
            Ok((path, space)) => result
                .with_log_dir(StrBytes::from_string(path.display().to_string()))
                .with_topics(topics)
                .with_total_bytes(as_i64(space.total))
                .with_usable_bytes(as_i64(space.free)),
            Err(error) => {
                let path = cx.broker().config.node.data_dir.display();
                tracing::warn!(%path, %error, "the data directory cannot be looked at");
                result
                    .with_log_dir(StrBytes::from_string(path.to_string()))
                    .with_error_code(cx.code(ErrorCode::KafkaStorageError))
            }
        };
        DescribeLogDirsResponse::default().with_results(vec![result])
    }
}

fn all(cx: &RequestContext, view: &View) -> Vec<DescribeLogDirsTopic> {
    let whole = |topic: &Arc<TopicInfo>| sizes(cx, topic, 0..topic.partitions.len());
    view.image.topics.values().filter_map(whole).collect()
}

/// The topics and partitions that the request names and this broker has, each once.
fn named(cx: &RequestContext, view: &View, asked: &[DescribableLogDirTopic]) -> Vec<DescribeLogDirsTopic> {
    let mut seen = BTreeSet::new();
    let mut topics = Vec::new();
    for topic in asked {
        let Some(info) = view.image.topic(&topic.topic) else {
            continue;
        };
        let indexes = topic.partitions.iter().filter_map(|i| usize::try_from(*i).ok());
        let fresh: Vec<usize> = indexes
            .filter(|index| *index < info.partitions.len() && seen.insert((info.id, *index)))
            .collect();
        topics.extend(sizes(cx, info, fresh));
    }
    topics
}

/// Sizes of those of a topic's partitions that are on this broker; none if there are none.
fn sizes(
    cx: &RequestContext,
    topic: &TopicInfo,
    indexes: impl IntoIterator<Item = usize>,
) -> Option<DescribeLogDirsTopic> {
    let mut partitions = Vec::new();
    for index in indexes {
        let Ok(index) = i32::try_from(index) else { break };
        let partition = cx.cluster().partition(topic.id, index);
        if let Some(log) = partition.and_then(|partition| partition.log()) {
            let size = DescribeLogDirsPartition::default()
                .with_partition_index(index)
                .with_partition_size(as_i64(log.stats().bytes));
            partitions.push(size);
        }
    }
    let name = StrBytes::from_string(topic.name.clone()).into();
    let topic = DescribeLogDirsTopic::default()
        .with_name(name)
        .with_partitions(partitions);
    (!topic.partitions.is_empty()).then_some(topic)
}

fn as_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
