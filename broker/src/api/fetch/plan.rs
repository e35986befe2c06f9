//! What each partition of a fetch has to say now.

use std::sync::Arc;

use takhin_cluster::{Isolation, Offsets, Partition, ReadError, ServedBy, Waiter};
use takhin_protocol::ErrorCode;
use takhin_storage::FileRanges;
use uuid::Uuid;

use super::replica_selector::Selector;
use crate::error::ToErrorCode as _;
use crate::fetch_session::{Entries, Entry, Told, TopicRef, Wanted};
use crate::replicas::{Leadership, View};

/// What bounds the whole answer, and who may give it.
#[derive(Debug)]
pub(super) struct Limits {
    /// Record bytes, except that the first partition with data gives one batch whatever its size (KIP-74).
    pub(super) max_bytes: usize,
    pub(super) isolation: Isolation,
    pub(super) served_by: ServedBy,
    /// Knows who should be asked instead of a leader.
    pub(super) selector: Option<Selector>,
}

/// One partition's answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: ErrorCode,
    pub(super) topic: Option<Uuid>,
    /// All -1 in errors.
    pub(super) high_watermark: i64,
    pub(super) last_stable_offset: i64,
    pub(super) log_start_offset: i64,
    /// The client's log and ours part here: epoch and end offset (KIP-595).
    pub(super) diverging: Option<(i32, i64)>,
    /// Who leads instead (KIP-951).
    pub(super) leader: Option<Leadership>,
    /// The leader epoch in which it was refused, if this broker leads.
    pub(super) in_epoch: Option<i32>,
    /// Broker id of the replica that the client should read from, or -1 (KIP-392).
    pub(super) preferred_read_replica: i32,
    pub(super) ranges: FileRanges,
}

/// The answers of all partitions, in order.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) answers: Vec<Answer>,
    /// Record bytes in all answers.
    pub(super) bytes: usize,
    /// An error, a diverging epoch or a replica to turn to: waiting cannot help.
    pub(super) urgent: bool,
    /// What the answers were planned against.
    seen: Vec<Seen>,
}

/// A partition as it was when it was planned.
#[derive(Debug)]
struct Seen {
    partition: Arc<Partition>,
    offsets: Offsets,
    leadership: Option<i32>,
    leader_epoch: i32,
}

impl Planned {
    /// Has `waiter` woken when any partition has news.
    pub(super) fn register(&self, waiter: &Arc<Waiter>) {
        for seen in &self.seen {
            seen.partition.wait(waiter);
        }
    }

    /// Whether a partition has moved since it was planned.
    pub(super) fn is_stale(&self) -> bool {
        self.seen.iter().any(|seen| {
            seen.partition.offsets() != seen.offsets
                || seen.partition.leadership() != seen.leadership
                || seen.partition.leader_epoch() != seen.leader_epoch
        })
    }
}

impl Answer {
    fn refusal(code: ErrorCode, topic: Option<Uuid>) -> Self {
        Self {
            code,
            topic,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging: None,
            leader: None,
            in_epoch: None,
            preferred_read_replica: -1,
            ranges: FileRanges {
                ranges: Vec::new(),
                bytes: 0,
                next_offset: -1,
            },
        }
    }

    fn new(topic: Uuid, offsets: &Offsets) -> Self {
        Self {
            high_watermark: offsets.high_watermark,
            last_stable_offset: offsets.last_stable_offset,
            log_start_offset: offsets.log_start_offset,
            ..Self::refusal(ErrorCode::NoError, Some(topic))
        }
    }

    /// What an incremental session compares.
    pub(super) fn told(&self) -> Told {
        Told {
            high_watermark: self.high_watermark,
            log_start_offset: self.log_start_offset,
        }
    }

    /// Whether the client must see this whatever it was told before.
    pub(super) fn is_news(&self) -> bool {
        self.is_urgent() || self.ranges.bytes > 0
    }

    /// Whether the client must see this at once.
    fn is_urgent(&self) -> bool {
        !self.code.is_ok() || self.diverging.is_some() || self.preferred_read_replica >= 0
    }
}

/// Plans all partitions in their order.
pub(super) fn plan(view: &View, entries: &mut Entries, limits: &Limits) -> Planned {
    let mut planned = Planned {
        answers: Vec::with_capacity(entries.len()),
        bytes: 0,
        urgent: false,
        seen: Vec::new(),
    };
    for entry in entries.iter_mut() {
        let answer = match find(view, entry) {
            Ok(partition) => plan_partition(view, &partition, &entry.wanted, limits, &mut planned),
            Err(code) => Answer::refusal(code, None),
        };
        planned.bytes += answer.ranges.bytes;
        planned.urgent |= answer.is_urgent();
        planned.answers.push(answer);
    }
    planned
}

fn find(view: &View, entry: &mut Entry) -> Result<Arc<Partition>, ErrorCode> {
    let version = view.image_version();
    if let Some((seen, replica)) = &entry.replica
        && *seen == version
        && let Some(partition) = replica.upgrade()
    {
        return Ok(partition);
    }
    entry.replica = None;
    let topic = match &entry.key.topic {
        TopicRef::Name(name) => view.topic(name)?,
        TopicRef::Id(id) => view.topic_by_id(*id)?,
    };
    let partition = view.partition(topic, entry.key.partition)?;
    entry.replica = Some((version, Arc::downgrade(&partition)));
    Ok(partition)
}

fn plan_partition(
    view: &View,
    partition: &Arc<Partition>,
    wanted: &Wanted,
    limits: &Limits,
    planned: &mut Planned,
) -> Answer {
    let topic = partition.id().topic_id;
    let left = limits.max_bytes.saturating_sub(planned.bytes);
    let max_bytes = usize::try_from(wanted.max_bytes).unwrap_or(0).min(left);
    // Before the read: a change in between makes the plan stale rather than unseen.
    let (leadership, leader_epoch) = (partition.leadership(), partition.leader_epoch());
    match read(view, partition, wanted, limits, max_bytes, planned.bytes == 0) {
        Ok((answer, offsets)) => {
            planned.seen.push(Seen {
                partition: Arc::clone(partition),
                offsets,
                leadership,
                leader_epoch,
            });
            answer
        }
        Err(error) => Answer {
            in_epoch: leadership,
            ..Answer::refusal(error.to_error_code(), Some(topic))
        },
    }
}

fn read(
    view: &View,
    partition: &Arc<Partition>,
    wanted: &Wanted,
    limits: &Limits,
    max_bytes: usize,
    at_least_one: bool,
) -> Result<(Answer, Offsets), ReadError> {
    let topic = partition.id().topic_id;
    partition.check_epoch(wanted.current_leader_epoch, limits.served_by)?;
    let selector = limits.selector.as_ref();
    let preferred = selector.and_then(|selector| selector.preferred(view, partition, wanted.fetch_offset));
    if let Some(preferred_read_replica) = preferred {
        let offsets = partition.offsets();
        let answer = Answer {
            preferred_read_replica,
            ..Answer::new(topic, &offsets)
        };
        return Ok((answer, offsets));
    }
    if wanted.last_fetched_epoch >= 0 {
        let offsets = partition.offsets();
        if let Some(diverging) = diverging(partition, wanted, &offsets)? {
            let answer = Answer {
                diverging: Some(diverging),
                ..Answer::new(topic, &offsets)
            };
            return Ok((answer, offsets));
        }
    }
    let (from, isolation) = (wanted.fetch_offset, limits.isolation);
    let fetched = partition.fetch(from, max_bytes, at_least_one, isolation, limits.served_by)?;
    let answer = Answer {
        ranges: fetched.ranges,
        ..Answer::new(topic, &fetched.offsets)
    };
    Ok((answer, fetched.offsets))
}

/// Where the client's log and ours part, if they do (KIP-595; Kafka's `Partition.readRecords`).
fn diverging(
    partition: &Partition,
    wanted: &Wanted,
    offsets: &Offsets,
) -> Result<Option<(i32, i64)>, ReadError> {
    let (epoch, end_offset) = partition.end_offset_for_epoch(wanted.last_fetched_epoch);
    let unknown = epoch < 0 || end_offset < 0;
    if unknown || wanted.fetch_offset < offsets.log_start_offset {
        return Err(ReadError::OffsetOutOfRange {
            requested: wanted.fetch_offset,
            start: offsets.log_start_offset,
            end: offsets.log_end_offset,
        });
    }
    let diverges = epoch < wanted.last_fetched_epoch || end_offset < wanted.fetch_offset;
    Ok(diverges.then_some((epoch, end_offset)))
}
