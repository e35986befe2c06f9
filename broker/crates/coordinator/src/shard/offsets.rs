//! The APIs of committed offsets: OffsetCommit, OffsetFetch, OffsetDelete.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use takhin_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use takhin_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use takhin_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use takhin_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use takhin_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, StrBytes, TopicName,
};

use super::{Shard, answer, check_group_id, check_group_id_length};
use crate::group::{Committer, Effects, Group, own};
use crate::outcome::{Context, Outcome, Reply};
use crate::records::{CommittedOffset, OffsetRecord, Record};

/// First version of OffsetCommit that can say that there is no such group.
const COMMIT_KNOWS_MISSING_GROUP: i16 = 9;
/// First version of OffsetFetch with several groups (KIP-709).
const FETCH_WITH_GROUPS: i16 = 8;

/// First version of OffsetFetch with the member's id and epoch (KIP-848).
const FETCH_KNOWS_EPOCHS: i16 = 9;

impl Shard {
    /// Handles an OffsetCommit. Partitions that do not exist are answered UNKNOWN_TOPIC_OR_PARTITION beside the others.
    pub fn offset_commit(&mut self, cx: &Context<'_>, request: &OffsetCommitRequest) -> Outcome {
        let any_known = request.topics.iter().any(|topic| {
            topic
                .partitions
                .iter()
                .any(|partition| exists(cx, &topic.name, partition.partition_index))
        });
        let mut outcome = Outcome::default();
        let result = if any_known {
            self.commit(cx, request, &mut outcome)
        } else {
            Ok(())
        };
        let code_of = |topic: &OffsetCommitRequestTopic, partition: &OffsetCommitRequestPartition| {
            if !exists(cx, &topic.name, partition.partition_index) {
                return ErrorCode::UnknownTopicOrPartition;
            }
            match result {
                Err(code) => code,
                Ok(()) if self.is_metadata_too_large(partition) => ErrorCode::OffsetMetadataTooLarge,
                Ok(()) => ErrorCode::NoError,
            }
        };
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code_of(topic, partition) as i16)
            });
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        let response = OffsetCommitResponse::default().with_topics(topics.collect());
        outcome.replies.push((cx.ticket, Reply::OffsetCommit(response)));
        outcome
    }

    fn commit(
        &mut self,
        cx: &Context<'_>,
        request: &OffsetCommitRequest,
        outcome: &mut Outcome,
    ) -> Result<(), ErrorCode> {
        self.validate_commit(cx, request)?;
        let records = self.commit_records(cx, request);
        let count = records.len() as u64;
        if !self.apply(outcome, records) {
            return Err(ErrorCode::InvalidCommitOffsetSize);
        }
        if count > 0 {
            *self.commits.entry(own(&request.group_id)).or_default() += count;
        }
        if let Some(Group::Classic(group)) = self.groups.get_mut(request.group_id.as_bytes()) {
            let mut effects = Effects {
                now: cx.now,
                config: &self.config,
                timers: &mut self.timers,
                outcome,
            };
            group.committed(&mut effects, &request.member_id);
        }
        Ok(())
    }

    fn validate_commit(&self, cx: &Context<'_>, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let committer = Committer {
            member_id: &request.member_id,
            group_instance_id: request.group_instance_id.as_ref(),
            generation_or_epoch: request.generation_id_or_member_epoch,
            version: cx.version,
        };
        check_group_id_length(&request.group_id)?;
        if let Some(group) = self.groups.get(request.group_id.as_bytes()) {
            return group.validate_commit(committer);
        }
        if request.generation_id_or_member_epoch >= 0 {
            return Err(match cx.version {
                COMMIT_KNOWS_MISSING_GROUP.. => ErrorCode::GroupIdNotFound,
                _ => ErrorCode::IllegalGeneration,
            });
        }
        if self.groups.len() >= self.config.max_groups {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        Ok(())
    }

    fn is_metadata_too_large(&self, partition: &OffsetCommitRequestPartition) -> bool {
        let bytes = partition
            .committed_metadata
            .as_ref()
            .map_or(0, |metadata| metadata.len());
        // The record has a 16-bit length for it, whatever the setting.
        bytes > self.config.offset_metadata_max_bytes.min(i16::MAX as usize)
    }

    fn commit_records(&self, cx: &Context<'_>, request: &OffsetCommitRequest) -> Vec<Record> {
        let group = own(&request.group_id);
        let expire_timestamp = match request.retention_time_ms {
            -1 => None,
            retention => Some(cx.now.wall_ms.saturating_add(retention)),
        };
        let mut records = Vec::new();
        for topic in &request.topics {
            let name = own(&topic.name);
            let topic_id = cx.topics.by_name(&name).map(|info| info.id);
            for partition in &topic.partitions {
                if !exists(cx, &name, partition.partition_index) || self.is_metadata_too_large(partition) {
                    continue;
                }
                let metadata = partition.committed_metadata.as_ref();
                records.push(Record::Offset(OffsetRecord {
                    group: group.clone(),
                    topic: name.clone(),
                    partition: partition.partition_index,
                    value: Some(CommittedOffset {
                        offset: partition.committed_offset,
                        // A record with an expiry has no room for these two, and a new leader would not know them either.
                        topic_id: topic_id.filter(|_| expire_timestamp.is_none()),
                        leader_epoch: if expire_timestamp.is_some() {
                            -1
                        } else {
                            partition.committed_leader_epoch
                        },
                        metadata: metadata.map(|metadata| own(metadata)).unwrap_or_default(),
                        commit_timestamp: cx.now.wall_ms,
                        expire_timestamp,
                    }),
                }));
            }
        }
        records
    }

    /// Handles an OffsetFetch: of one group before version 8, of those in `groups` from there; the response has the same
    /// shape. Topics are asked for by name; null is all that the group has committed. There are no offsets of open
    /// transactions, so `require_stable` always holds.
    pub fn offset_fetch(&self, cx: &Context<'_>, request: &OffsetFetchRequest) -> Outcome {
        let mut response = OffsetFetchResponse::default();
        if cx.version < FETCH_WITH_GROUPS {
            let wanted = request.topics.as_ref().map(|topics| {
                topics
                    .iter()
                    .map(|topic| (topic.name.clone(), topic.partition_indexes.clone()))
                    .collect()
            });
            response.topics = self.fetch_flat(&request.group_id, wanted);
        } else {
            for group in &request.groups {
                let result = self.validate_fetch(cx.version, group);
                let fetched = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
                response.groups.push(match result {
                    Ok(()) => fetched.with_topics(self.fetch(&group.group_id, group.topics.as_deref())),
                    Err(code) => fetched.with_error_code(code as i16),
                });
            }
        }
        answer(cx, Reply::OffsetFetch(response))
    }

    /// From version 9 a member of a consumer group says who it is.
    fn validate_fetch(&self, version: i16, request: &OffsetFetchRequestGroup) -> Result<(), ErrorCode> {
        let group = self.groups.get(request.group_id.as_bytes());
        match group {
            Some(group) if version >= FETCH_KNOWS_EPOCHS => {
                group.validate_fetch(request.member_id.as_deref(), request.member_epoch)
            }
            _ => Ok(()),
        }
    }

    fn fetch_flat(
        &self,
        group: &str,
        wanted: Option<Vec<(TopicName, Vec<i32>)>>,
    ) -> Vec<OffsetFetchResponseTopic> {
        let wanted = wanted.map(|topics| {
            let topic = |(name, partitions)| {
                OffsetFetchRequestTopics::default()
                    .with_name(name)
                    .with_partition_indexes(partitions)
            };
            topics.into_iter().map(topic).collect::<Vec<_>>()
        });
        let flat = |topic: OffsetFetchResponseTopics| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_committed_offset(partition.committed_offset)
                    .with_committed_leader_epoch(partition.committed_leader_epoch)
                    .with_metadata(partition.metadata)
            });
            OffsetFetchResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions.collect())
        };
        self.fetch(group, wanted.as_deref())
            .into_iter()
            .map(flat)
            .collect()
    }

    fn fetch(
        &self,
        group: &str,
        wanted: Option<&[OffsetFetchRequestTopics]>,
    ) -> Vec<OffsetFetchResponseTopics> {
        let exists = self.groups.contains_key(group.as_bytes());
        let Some(wanted) = wanted else {
            let topics = self
                .offsets
                .of_group(group)
                .filter(|_| exists)
                .into_iter()
                .flatten();
            let topics = topics.map(|(name, partitions)| {
                let partitions = partitions
                    .iter()
                    .map(|(partition, offset)| fetched(*partition, Some(offset)));
                OffsetFetchResponseTopics::default()
                    .with_name(TopicName(name.clone()))
                    .with_partitions(partitions.collect())
            });
            return topics.collect();
        };
        let topics = wanted.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|partition| {
                let offset = self
                    .offsets
                    .get(group, &topic.name, *partition)
                    .filter(|_| exists);
                fetched(*partition, offset)
            });
            OffsetFetchResponseTopics::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        topics.collect()
    }

    /// Handles an OffsetDelete. Topics that a live consumer group reads keep their offsets.
    pub fn offset_delete(&mut self, cx: &Context<'_>, request: &OffsetDeleteRequest) -> Outcome {
        let mut outcome = Outcome::default();
        let any_known = request
            .topics
            .iter()
            .any(|topic| cx.topics.by_name(&topic.name).is_some());
        let result = if any_known {
            self.delete(cx, request, &mut outcome)
        } else {
            Ok(())
        };
        let response = match result {
            Err(code) => OffsetDeleteResponse::default().with_error_code(code as i16),
            Ok(()) => self.deleted(cx, request),
        };
        outcome.replies.push((cx.ticket, Reply::OffsetDelete(response)));
        outcome
    }

    fn delete(
        &mut self,
        cx: &Context<'_>,
        request: &OffsetDeleteRequest,
        outcome: &mut Outcome,
    ) -> Result<(), ErrorCode> {
        check_group_id(&request.group_id)?;
        let (id, group) = self
            .groups
            .get_key_value(request.group_id.as_bytes())
            .ok_or(ErrorCode::GroupIdNotFound)?;
        group.validate_offset_delete()?;
        let mut records = Vec::new();
        for topic in &request.topics {
            if cx.topics.by_name(&topic.name).is_none() || group.is_subscribed_to(&topic.name) {
                continue;
            }
            let name = own(&topic.name);
            for partition in &topic.partitions {
                if self.offsets.get(id, &name, partition.partition_index).is_some() {
                    records.push(Record::Offset(OffsetRecord {
                        group: id.clone(),
                        topic: name.clone(),
                        partition: partition.partition_index,
                        value: None,
                    }));
                }
            }
        }
        if self.apply(outcome, records) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownServerError)
        }
    }

    fn deleted(&self, cx: &Context<'_>, request: &OffsetDeleteRequest) -> OffsetDeleteResponse {
        let group = self.groups.get(request.group_id.as_bytes());
        let topics = request.topics.iter().map(|topic| {
            let code = if cx.topics.by_name(&topic.name).is_none() {
                ErrorCode::UnknownTopicOrPartition
            } else if group.is_some_and(|group| group.is_subscribed_to(&topic.name)) {
                ErrorCode::GroupSubscribedToTopic
            } else {
                ErrorCode::NoError
            };
            let partitions = topic.partitions.iter().map(|partition| {
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code as i16)
            });
            OffsetDeleteResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        OffsetDeleteResponse::default().with_topics(topics.collect())
    }
}

fn exists(cx: &Context<'_>, topic: &str, partition: i32) -> bool {
    cx.topics
        .by_name(topic)
        .is_some_and(|info| (0..info.partitions).contains(&partition))
}

/// A partition of the response; without a committed offset that is -1 with empty metadata, and no error.
fn fetched(partition: i32, offset: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions::default()
        .with_partition_index(partition)
        .with_committed_offset(offset.map_or(-1, |offset| offset.offset))
        .with_committed_leader_epoch(offset.map_or(-1, |offset| offset.leader_epoch))
        .with_metadata(Some(
            offset.map_or_else(StrBytes::new, |offset| offset.metadata.clone()),
        ))
}
