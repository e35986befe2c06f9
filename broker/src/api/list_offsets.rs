//! ListOffsets (key 2), versions 1-10.
//!
//! Finds offsets by timestamp or by a special value.
//!
//! - v1: one offset with its timestamp. v2: isolation level. v4: leader epochs. v6: flexible encoding.
//! - v7: -3, the record with the largest timestamp (KIP-734). v8: -4, earliest on local disk (KIP-405).
//! - v9: -5, last tiered offset (KIP-1005). v10: a timeout (KIP-1075).
//!
//! Leader needed: the partition's.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use takhin_cluster::{FoundOffset, Isolation, OffsetSpec, ServedBy};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use takhin_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use takhin_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::error::ToErrorCode as _;
use crate::replicas::View;

pub(crate) struct ListOffsets;

impl Api for ListOffsets {
    type Request = ListOffsetsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=10;

    async fn handle(cx: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
        let lookup = Lookup {
            cx,
            view: View::new(cx.cluster()),
            isolation: isolation(request.isolation_level),
            repeated: repeated(&request.topics),
        };
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            topics.push(lookup.topic(topic).await);
        }
        ListOffsetsResponse::default().with_topics(topics)
    }
}

/// What a reader asked to see; unknown levels see less rather than more.
pub(super) fn isolation(level: i8) -> Isolation {
    if level == 0 {
        Isolation::ReadUncommitted
    } else {
        Isolation::ReadCommitted
    }
}

/// Partitions that the request names more than once.
fn repeated(topics: &[ListOffsetsTopic]) -> BTreeSet<(TopicName, i32)> {
    let mut seen = BTreeSet::new();
    let all = topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(|p| (t.name.clone(), p.partition_index)));
    all.filter(|partition| !seen.insert(partition.clone())).collect()
}

struct Lookup<'a> {
    cx: &'a RequestContext,
    view: View,
    isolation: Isolation,
    repeated: BTreeSet<(TopicName, i32)>,
}

impl Lookup<'_> {
    async fn topic(&self, topic: ListOffsetsTopic) -> ListOffsetsTopicResponse {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let answer = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            partitions.push(match self.partition(&topic.name, asked).await {
                Ok(found) => self.success(answer, found),
                Err(code) => answer
                    .with_error_code(self.cx.code(code))
                    .with_timestamp(-1)
                    .with_offset(-1),
            });
        }
        ListOffsetsTopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    }

    async fn partition(
        &self,
        topic: &TopicName,
        asked: &ListOffsetsPartition,
    ) -> Result<FoundOffset, ErrorCode> {
        if !self.repeated.is_empty() && self.repeated.contains(&(topic.clone(), asked.partition_index)) {
            return Err(ErrorCode::InvalidRequest);
        }
        let partition = self.view.partition_by_name(topic, asked.partition_index)?;
        let spec = spec(self.cx.version, asked.timestamp).ok_or(ErrorCode::UnsupportedVersion)?;
        partition
            .check_epoch(asked.current_leader_epoch, ServedBy::Leader)
            .map_err(|error| error.to_error_code())?;
        let isolation = self.isolation;
        let found = if may_read_records(spec) {
            self.cx
                .broker()
                .env
                .tasks
                .blocking(move || partition.find_offset(spec, isolation))
                .await
        } else {
            partition.find_offset(spec, isolation)
        };
        found.map_err(|error| error.to_error_code())
    }

    fn success(
        &self,
        answer: ListOffsetsPartitionResponse,
        found: FoundOffset,
    ) -> ListOffsetsPartitionResponse {
        let answer = answer.with_offset(found.offset).with_timestamp(found.timestamp);
        if has_leader_epochs(self.cx.version) {
            answer.with_leader_epoch(found.leader_epoch)
        } else {
            answer
        }
    }
}

/// Whether the answer may have to be looked for on disk.
fn may_read_records(spec: OffsetSpec) -> bool {
    matches!(spec, OffsetSpec::AtOrAfter(_) | OffsetSpec::MaxTimestamp)
}

fn has_leader_epochs(version: i16) -> bool {
    version >= 4
}

/// What a timestamp asks for; `None` where the version has no such special value.
fn spec(version: i16, timestamp: i64) -> Option<OffsetSpec> {
    let (since, spec) = match timestamp {
        -1 => (1, OffsetSpec::Latest),
        -2 => (1, OffsetSpec::Earliest),
        -3 => (7, OffsetSpec::MaxTimestamp),
        -4 => (8, OffsetSpec::EarliestLocal),
        -5 => (9, OffsetSpec::LastTiered),
        0.. => (1, OffsetSpec::AtOrAfter(timestamp)),
        _ => return None,
    };
    (version >= since).then_some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_exist_since_their_versions() {
        let first = |timestamp| (1..=10).find(|version| spec(*version, timestamp).is_some());
        assert_eq!(first(-1), Some(1));
        assert_eq!(first(-2), Some(1));
        assert_eq!(first(-3), Some(7));
        assert_eq!(first(-4), Some(8));
        assert_eq!(first(-5), Some(9));
        assert_eq!(first(-6), None);
        assert_eq!(spec(1, 0), Some(OffsetSpec::AtOrAfter(0)));
    }
}
