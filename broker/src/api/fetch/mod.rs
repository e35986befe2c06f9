//! Fetch (key 1), versions 4-18.
//!
//! Reads whole record batches, below the high watermark or the last stable offset, and waits for them if there are
//! too few. Record bytes go from segment files to the socket without passing through user space.
//!
//! - v5: log start offset. v7: sessions (KIP-227). v9: the client's leader epoch (KIP-320). v11: rack (KIP-392).
//! - v12: flexible encoding, last fetched epoch, diverging epochs (KIP-595). v13: topic ids (KIP-516).
//! - v15: replica state moved. v16: who leads instead (KIP-951). v17, v18: for followers only.
//!
//! Leader needed: the partition's, below v11. From then on consumers may read from any replica, which serves what it knows
//! to be committed: nothing between its high watermark and its log end, and OFFSET_OUT_OF_RANGE beyond that, as in
//! Kafka; clients then turn to the leader.
//!
//! Not done: aborted transactions, of which there are none yet. Fetches with a replica id are served like a consumer's,
//! by the leader: replication does not use this API.

mod encode;
mod plan;
mod replica_selector;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::future::join_all;
use takhin_cluster::{Image, ServedBy, Waiter};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::FetchRequest;
use takhin_protocol::messages::fetch_request::{FetchTopic, ForgottenTopic};

use crate::context::RequestContext;
use crate::dispatch::{Pending, Staged};
use crate::fetch_session::{Ask, Key, TopicRef, Turn, Wanted};
use crate::replicas::{Hints, View};
use crate::reply::Outcome;
use encode::Answered;
use plan::{Answer, Limits, Planned};
use replica_selector::Selector;

/// The replica id of whoever is no replica.
const CONSUMER: i32 = -1;

pub(crate) struct Fetch;

impl Staged for Fetch {
    type Request = FetchRequest;
    const VERSIONS: RangeInclusive<i16> = 4..=18;

    fn start(cx: RequestContext, request: FetchRequest) -> Pending {
        Pending::later(cx.span(), fetch(cx, request))
    }
}

fn uses_topic_ids(version: i16) -> bool {
    version >= 13
}

/// Whether requests of this version name the client's rack, and consumers may read from followers (KIP-392).
fn has_racks(version: i16) -> bool {
    version >= 11
}

fn has_sessions(version: i16) -> bool {
    version >= 7
}

/// Whether an answer of this version can say who leads instead (KIP-951).
fn names_leaders(version: i16) -> bool {
    version >= 16
}

async fn fetch(cx: RequestContext, request: FetchRequest) -> Outcome {
    let limits = limits(&cx, &request);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let mut turn = match cx
        .broker()
        .fetch_sessions
        .begin(ask(cx.version, request), cx.received)
    {
        Ok(turn) => turn,
        Err(code) => return encode::refusal(&cx, code),
    };
    let mut planned = wait(&cx, &mut turn, &limits, min_bytes, max_wait).await;
    doubt(&cx, &mut turn, &mut planned).await;
    answer(&cx, turn, planned, &limits)
}

fn limits(cx: &RequestContext, request: &FetchRequest) -> Limits {
    let replica_id = match cx.version {
        ..15 => request.replica_id,
        _ => request.replica_state.replica_id,
    };
    let follows_racks = has_racks(cx.version) && replica_id.0 == CONSUMER;
    Limits {
        max_bytes: usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(cx.settings().node.kafka.fetch_max_bytes.as_usize()),
        isolation: super::list_offsets::isolation(request.isolation_level),
        served_by: match follows_racks {
            true => ServedBy::AnyReplica,
            false => ServedBy::Leader,
        },
        selector: follows_racks
            .then(|| Selector::new(cx, &request.rack_id))
            .flatten(),
    }
}

/// What the request says about its session and partitions.
fn ask(version: i16, request: FetchRequest) -> Ask {
    let by_id = uses_topic_ids(version);
    // Before sessions existed every fetch was full and left nothing behind.
    let (session_id, session_epoch) = if has_sessions(version) {
        (request.session_id, request.session_epoch)
    } else {
        (0, -1)
    };
    let topics = request.topics.into_iter().flat_map(|topic| wanted(topic, by_id));
    let forgotten = request
        .forgotten_topics_data
        .into_iter()
        .flat_map(|topic| forgotten(topic, by_id));
    Ask {
        session_id,
        session_epoch,
        uses_topic_ids: by_id,
        topics: topics.collect(),
        forgotten: forgotten.collect(),
    }
}

fn wanted(topic: FetchTopic, by_id: bool) -> impl Iterator<Item = (Key, Wanted)> {
    let name = if by_id {
        TopicRef::Id(topic.topic_id)
    } else {
        TopicRef::Name(topic.topic)
    };
    topic.partitions.into_iter().map(move |asked| {
        let wanted = Wanted {
            fetch_offset: asked.fetch_offset,
            max_bytes: asked.partition_max_bytes,
            current_leader_epoch: asked.current_leader_epoch,
            last_fetched_epoch: asked.last_fetched_epoch,
        };
        (
            Key {
                topic: name.clone(),
                partition: asked.partition,
            },
            wanted,
        )
    })
}

fn forgotten(topic: ForgottenTopic, by_id: bool) -> impl Iterator<Item = Key> {
    let name = if by_id {
        TopicRef::Id(topic.topic_id)
    } else {
        TopicRef::Name(topic.topic)
    };
    topic.partitions.into_iter().map(move |partition| Key {
        topic: name.clone(),
        partition,
    })
}

/// Plans until there is enough to answer, the wait is over, or waiting cannot help.
async fn wait(
    cx: &RequestContext,
    turn: &mut Turn,
    limits: &Limits,
    min_bytes: usize,
    max_wait: Duration,
) -> Planned {
    let broker = cx.broker();
    let deadline = broker.env.clock.instant() + max_wait;
    loop {
        let planned = plan::plan(&View::new(cx.cluster()), &mut turn.entries, limits);
        let left = deadline.saturating_duration_since(broker.env.clock.instant());
        let enough = planned.bytes >= min_bytes || planned.urgent || turn.entries.is_empty();
        if enough || left.is_zero() || broker.stopping.is_triggered() {
            return planned;
        }
        let waiter = Waiter::new();
        planned.register(&waiter);
        // What moved between planning and registering would wake nobody.
        if planned.is_stale() {
            waiter.wake();
            continue;
        }
        let news = async {
            tokio::select! {
                biased;
                () = waiter.woken() => {}
                () = broker.stopping.wait() => {}
            }
        };
        let in_time = broker.env.clock.timeout(left, news).await;
        // Partitions forget waiters that were woken.
        waiter.wake();
        if in_time.is_err() {
            return planned;
        }
    }
}

/// Has a leader say that an offset is out of range only where it leads for sure: a consumer begins anew then, and a leader that
/// others have replaced knows nothing of what they have given it. Takes two seconds at most. A follower says so as ever, and the
/// client turns to the leader.
async fn doubt(cx: &RequestContext, turn: &mut Turn, planned: &mut Planned) {
    let refused = turn.entries.iter_mut().zip(&mut planned.answers);
    let refused = refused.filter_map(|(entry, answer)| {
        let is_out = answer.code == ErrorCode::OffsetOutOfRange;
        let here = cx
            .cluster()
            .partition(answer.topic.filter(|_| is_out)?, entry.key.partition)?;
        Some((here, answer.in_epoch?, answer))
    });
    join_all(refused.map(async |(here, epoch, answer)| {
        if !cx.cluster().confirms_leadership(&here, epoch).await {
            answer.code = ErrorCode::NotLeaderOrFollower;
        }
    }))
    .await;
}

/// Notes in the session what the client is told, and encodes that.
fn answer(cx: &RequestContext, mut turn: Turn, planned: Planned, limits: &Limits) -> Outcome {
    let mut hints = Hints::new(cx, names_leaders(cx.version));
    let image = cx.cluster().image();
    let incremental = turn.is_incremental();
    let mut answered = Vec::with_capacity(if incremental { 0 } else { planned.answers.len() });
    let mut served = Vec::new();
    for (entry, mut answer) in turn.entries.iter_mut().zip(planned.answers) {
        let told = answer.told();
        let has_news = answer.is_news() || entry.told != Some(told);
        entry.told = Some(told);
        if incremental && !has_news {
            continue;
        }
        if answer.ranges.bytes > 0 {
            served.push(entry.key.clone());
            count_sent(cx, &image, &answer, entry.wanted.fetch_offset);
        }
        if !answer.code.is_ok() {
            cx.code(answer.code);
            answer.leader = answer
                .topic
                .and_then(|topic| hints.leader(topic, entry.key.partition, answer.code));
        }
        answered.push(Answered {
            key: entry.key.clone(),
            answer,
        });
    }
    if incremental {
        served.iter().for_each(|key| turn.entries.move_to_end(key));
    }
    let session_id = turn.finish(cx.broker().env.clock.instant());
    let endpoints: Vec<_> = hints.endpoints().collect();
    encode::encode(cx, session_id, &answered, &endpoints, limits.isolation)
}

fn count_sent(cx: &RequestContext, image: &Image, answer: &Answer, fetch_offset: i64) {
    if let Some(topic) = answer.topic {
        let records = answer.ranges.next_offset.saturating_sub(fetch_offset);
        let topics = &cx.broker().metrics.topics;
        topics.sent(image, topic, answer.ranges.bytes, records);
    }
}
