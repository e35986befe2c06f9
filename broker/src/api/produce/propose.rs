//! First stage: find each partition, validate its batch, hand it to replication. Nothing here waits or copies
//! record bytes, but where the topic demands it: a compacted one has compressed records inflated for a look at their
//! keys, one with a codec of its own has them compressed anew.

use std::sync::Arc;

use bytes::Bytes;
use takhin_cluster::TopicInfo;
use takhin_cluster::{Acks, Produced, Ticket};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use takhin_protocol::messages::{ProduceRequest, TopicName};
use takhin_protocol::record::Attributes;
use uuid::Uuid;

use super::Refused;
use crate::context::RequestContext;
use crate::replicas::View;

/// The client id that Kafka lets write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// A topic of the request and what became of its batches.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: TopicName,
    /// As in the request; nil where it named the topic.
    pub(super) asked_id: Uuid,
    /// The topic's id if it is known.
    pub(super) id: Option<Uuid>,
    pub(super) partitions: Vec<Partition>,
}

/// One partition's batch, under way or refused.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) index: i32,
    pub(super) state: State,
}

/// How far a batch has come.
#[derive(Debug)]
pub(super) enum State {
    /// Proposed; the ticket tells when it is as safe as asked for.
    Waiting(Ticket),
    /// Decided.
    Settled(Result<Produced, Refused>),
}

impl Partition {
    fn refused(index: i32, refused: Refused) -> Self {
        Self {
            index,
            state: State::Settled(Err(refused)),
        }
    }
}

/// What holds for every batch of a request.
struct Rules<'a> {
    cx: &'a RequestContext,
    view: View,
    acks: Acks,
    transactional: bool,
}

/// Proposes every batch of `request` that may be, in the order of the request.
pub(super) fn propose(cx: &RequestContext, request: ProduceRequest) -> Vec<Topic> {
    let refused = refusal_of_all(cx.version, request.acks);
    let acks = match request.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        _ => Acks::All,
    };
    let view = View::new(cx.cluster());
    let rules = Rules {
        cx,
        view,
        acks,
        transactional: request.transactional_id.is_some(),
    };
    request
        .topic_data
        .into_iter()
        .map(|topic| match refused {
            Some(code) => refuse_topic(topic, code),
            None => rules.propose_topic(topic),
        })
        .collect()
}

/// What refuses the whole request, partition by partition.
fn refusal_of_all(version: i16, acks: i16) -> Option<ErrorCode> {
    if super::predates_record_batches(version) {
        return Some(ErrorCode::UnsupportedVersion);
    }
    (!(-1..=1).contains(&acks)).then_some(ErrorCode::InvalidRequiredAcks)
}

fn refuse_topic(topic: TopicProduceData, code: ErrorCode) -> Topic {
    let refuse = |data: PartitionProduceData| Partition::refused(data.index, code.into());
    Topic {
        name: topic.name,
        asked_id: topic.topic_id,
        id: None,
        partitions: topic.partition_data.into_iter().map(refuse).collect(),
    }
}

impl Rules<'_> {
    fn propose_topic(&self, topic: TopicProduceData) -> Topic {
        let found = if super::uses_topic_ids(self.cx.version) {
            self.view.topic_by_id(topic.topic_id)
        } else {
            self.view.topic(&topic.name)
        };
        let info = match found {
            Ok(info) if self.is_forbidden(&info.name) => {
                return refuse_topic(topic, ErrorCode::InvalidTopicException);
            }
            Ok(info) => info,
            Err(code) => return refuse_topic(topic, code),
        };
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let index = data.index;
            partitions.push(match self.propose_batch(info, index, data.records) {
                Ok(ticket) => Partition {
                    index,
                    state: State::Waiting(ticket),
                },
                Err(refused) => Partition::refused(index, refused),
            });
        }
        Topic {
            name: topic.name,
            asked_id: topic.topic_id,
            id: Some(info.id),
            partitions,
        }
    }

    fn is_forbidden(&self, topic: &str) -> bool {
        takhin_cluster::is_internal(topic) && self.cx.client_id.as_deref() != Some(ADMIN_CLIENT_ID)
    }

    fn propose_batch(
        &self,
        topic: &Arc<TopicInfo>,
        index: i32,
        records: Option<Bytes>,
    ) -> Result<Ticket, Refused> {
        let partition = self.view.partition(topic, index)?;
        let batch = super::validate::validate(self.cx, &topic.config, records)?;
        if batch.header.attributes.has(Attributes::TRANSACTIONAL) {
            return Err(self.refuse_transactional());
        }
        let (bytes, count) = (batch.header.total_len(), batch.header.records_count);
        let ticket = partition
            .produce(batch, self.acks)
            .map_err(|error| Refused::from(&error))?;
        self.cx
            .broker()
            .metrics
            .topics
            .received(&self.view.image, topic.id, bytes, count);
        Ok(ticket)
    }

    /// P2: without a transactional id nobody may write transactional batches; with one, none is open.
    fn refuse_transactional(&self) -> Refused {
        if self.transactional {
            return Refused {
                message: Some("transactions are not supported by this version of the broker".to_owned()),
                ..Refused::from(ErrorCode::InvalidTxnState)
            };
        }
        ErrorCode::TransactionalIdAuthorizationFailed.into()
    }
}
