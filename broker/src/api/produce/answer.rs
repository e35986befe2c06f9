//! Second stage: wait for the proposed batches, at most as long as the client allows, and say what became of them.

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use takhin_cluster::Produced;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use takhin_protocol::messages::{ProduceResponse, StrBytes};

use super::Refused;
use super::propose::{State, Topic};
use crate::context::RequestContext;
use crate::replicas::{Hints, Node};
use crate::reply::Outcome;

/// Waits for all batches of a request and encodes the reply.
pub(super) async fn answer(cx: RequestContext, mut topics: Vec<Topic>, timeout_ms: i32) -> Outcome {
    let in_time = cx
        .broker()
        .env
        .clock
        .timeout(cx.time_left(timeout_ms), async {
            settle_all(&mut topics).await;
            await_leaders(&cx, &topics).await;
        })
        .await;
    if in_time.is_err() {
        settle_rest(&mut topics);
    }
    doubt(&cx, &mut topics).await;
    cx.encode(&response(&cx, topics))
}

/// Where leadership is being passed on, waits until it is known to whom.
async fn await_leaders(cx: &RequestContext, topics: &[Topic]) {
    for topic in topics {
        let refused = topic.partitions.iter().filter(|partition| {
            matches!(&partition.state, State::Settled(Err(refused)) if refused.code == ErrorCode::NotLeaderOrFollower)
        });
        for partition in refused {
            let here = topic
                .id
                .and_then(|id| cx.cluster().partition(id, partition.index));
            if let Some(here) = here {
                cx.cluster().passed_on(&here).await;
            }
        }
    }
}

/// Refuses a sequence number for good only where this broker leads for sure: an idempotent producer gives up then, and a
/// leader that others have replaced knows nothing of what they have acknowledged to it. Takes two seconds at most.
async fn doubt(cx: &RequestContext, topics: &mut [Topic]) {
    let refused = topics.iter_mut().flat_map(|topic| {
        let id = topic.id;
        topic
            .partitions
            .iter_mut()
            .filter_map(move |partition| match &mut partition.state {
                State::Settled(Err(refused)) => Some((id?, partition.index, refused.in_epoch?, refused)),
                State::Settled(Ok(_)) | State::Waiting(_) => None,
            })
    });
    join_all(refused.map(async |(id, index, epoch, refused)| {
        let is_sure = match cx.cluster().partition(id, index) {
            Some(here) => cx.cluster().confirms_leadership(&here, epoch).await,
            None => false,
        };
        if !is_sure {
            *refused = ErrorCode::NotLeaderOrFollower.into();
        }
    }))
    .await;
}

/// Awaits one ticket after the other; they make progress by themselves.
async fn settle_all(topics: &mut [Topic]) {
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if let State::Waiting(ticket) = &mut partition.state {
            let produced = ticket.await;
            partition.state = State::Settled(produced.map_err(|error| Refused::from(&error)));
        }
    }
}

/// After the deadline: what is ready counts, the rest timed out and may still be committed.
fn settle_rest(topics: &mut [Topic]) {
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if let State::Waiting(ticket) = &mut partition.state {
            let produced = match ticket.now_or_never() {
                Some(produced) => produced.map_err(|error| Refused::from(&error)),
                None => Err(ErrorCode::RequestTimedOut.into()),
            };
            partition.state = State::Settled(produced);
        }
    }
}

fn response(cx: &RequestContext, topics: Vec<Topic>) -> ProduceResponse {
    let mut hints = Hints::new(cx, super::names_leaders(cx.version));
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let answer = PartitionProduceResponse::default().with_index(partition.index);
            partitions.push(match partition.state {
                State::Settled(Ok(produced)) => success(answer, produced),
                State::Settled(Err(refused)) => {
                    let leader = topic
                        .id
                        .and_then(|id| hints.leader(id, partition.index, refused.code));
                    failure(cx, answer, refused).with_current_leader(leader.map_or_else(
                        LeaderIdAndEpoch::default,
                        |l| {
                            LeaderIdAndEpoch::default()
                                .with_leader_id(l.leader.into())
                                .with_leader_epoch(l.epoch)
                        },
                    ))
                }
                // Unreachable after `settle_rest`, and the truth if it were not: the outcome is open.
                State::Waiting(_) => failure(cx, answer, ErrorCode::RequestTimedOut.into()),
            });
        }
        let answer = TopicProduceResponse::default().with_partition_responses(partitions);
        answers.push(if super::uses_topic_ids(cx.version) {
            answer.with_topic_id(topic.asked_id)
        } else {
            answer.with_name(topic.name)
        });
    }
    ProduceResponse::default()
        .with_node_endpoints(hints.endpoints().map(endpoint).collect())
        .with_responses(answers)
}

fn endpoint(node: Node) -> NodeEndpoint {
    NodeEndpoint::default()
        .with_node_id(node.id.into())
        .with_host(node.host)
        .with_port(node.port)
        .with_rack(node.rack)
}

fn success(answer: PartitionProduceResponse, produced: Produced) -> PartitionProduceResponse {
    answer
        .with_base_offset(produced.base_offset)
        .with_log_append_time_ms(produced.log_append_time_ms)
        .with_log_start_offset(produced.log_start_offset)
}

fn failure(
    cx: &RequestContext,
    answer: PartitionProduceResponse,
    refused: Refused,
) -> PartitionProduceResponse {
    let message = refused.message.map(StrBytes::from_string);
    let blamed = refused.records.into_iter().map(|index| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(index)
            .with_batch_index_error_message(message.clone())
    });
    answer
        .with_error_code(cx.code(refused.code))
        .with_error_message(message.clone())
        .with_record_errors(blamed.collect())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
}
