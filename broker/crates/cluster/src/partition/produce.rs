//! Accepting a batch: leadership, sequence, offset, proposal. Synchronous, so that a connection's pipelined
//! requests enter the log in the order in which they came.

use std::sync::Arc;

use takhin_protocol::record::{Attributes, Batch, BatchHeader};
use tokio::sync::oneshot;

use super::in_flight::{InFlight, MAX_IN_FLIGHT};
use super::sequence::{self, Verdict};
use super::state::{Partition, Phase, State};
use super::ticket::Ticket;
use super::types::{Acks, ProduceError, Produced};
use crate::replicator::ProposeError;

/// Producers remembered for one partition; the longest silent ones are forgotten first, which KIP-360 makes harmless.
const MAX_PRODUCERS: usize = 100_000;

impl Partition {
    /// Proposes a validated batch and returns its ticket.
    ///
    /// The batch's base offset and leader epoch are overwritten. A duplicate of one of the producer's last five
    /// batches appends nothing and resolves to the original's offset once the original has got as far as `acks`
    /// asks (KIP-98).
    ///
    /// # Errors
    /// Every [`ProduceError`] that can be known before the append; nothing was proposed then.
    pub fn produce(self: &Arc<Self>, batch: Batch, acks: Acks) -> Result<Ticket, ProduceError> {
        let config = self.config();
        let size = batch.header.total_len();
        let limit = usize::try_from(config.segment_bytes).unwrap_or(usize::MAX);
        if size > limit {
            return Err(ProduceError::LargerThanSegment { size, limit });
        }
        if !self.has_room() {
            return Err(ProduceError::StorageOffline {
                reason: "the disk is almost full".into(),
            });
        }
        let mut state = self.state.lock();
        let (term, replicator) = match &state.phase {
            // Only a leader's: a partition that is offline says why, whatever became of its last proposals.
            Phase::Leading { term, .. } if self.is_over(*term) => return Err(ProduceError::NotLeader),
            Phase::Leading { .. } if !state.has_quorum => return Err(ProduceError::NotLeader),
            Phase::Leading {
                term,
                replicator,
                handing_over: false,
            } => (*term, Arc::clone(replicator)),
            Phase::Leading { .. } | Phase::Following => return Err(ProduceError::NotLeader),
            Phase::Offline { reason, .. } => {
                return Err(ProduceError::StorageOffline {
                    reason: reason.clone(),
                });
            }
            Phase::Deleted => return Err(ProduceError::Deleted),
        };
        if acks == Acks::All && config.min_insync_replicas > state.in_sync {
            return Err(ProduceError::NotEnoughReplicas {
                in_sync: state.in_sync,
                wanted: config.min_insync_replicas,
            });
        }
        if state.queue.is_full() {
            return Err(ProduceError::TooManyInFlight { limit: MAX_IN_FLIGHT });
        }
        if let Some(original) = check_sequence(&state, &batch)? {
            return Ok(state.await_original(original, acks));
        }
        let batch = state.place(batch);
        let header = batch.header;
        match replicator.propose(term, batch) {
            Ok(()) => {}
            Err(ProposeError::Busy) => return Err(ProduceError::TooManyInFlight { limit: MAX_IN_FLIGHT }),
        }
        state.next_offset = header.next_offset();
        state.producers.note(&header, MAX_PRODUCERS);
        let produced = Produced {
            base_offset: header.base_offset,
            log_append_time_ms: append_time(&header),
            log_start_offset: state.offsets().log_start_offset,
        };
        if acks == Acks::None {
            return Ok(Ticket::done(produced));
        }
        let (reply, receiver) = oneshot::channel();
        state.queue.push(InFlight {
            next_offset: header.next_offset(),
            produced,
            acks,
            reply,
        });
        Ok(Ticket::waiting(receiver))
    }

    /// Proposes to move the log start up to `offset`; returns once proposed.
    ///
    /// # Errors
    /// [`ProduceError::NotLeader`] and its kin; nothing was proposed then.
    pub(crate) fn propose_log_start(&self, offset: i64) -> Result<(), ProduceError> {
        let state = self.state.lock();
        let Phase::Leading {
            term,
            replicator,
            handing_over: false,
        } = &state.phase
        else {
            return Err(ProduceError::NotLeader);
        };
        replicator
            .propose_log_start(*term, offset)
            .map_err(|_| ProduceError::NotLeader)
    }
}

/// The original, if the batch is a duplicate.
fn check_sequence(state: &State, batch: &Batch) -> Result<Option<Original>, ProduceError> {
    let header = &batch.header;
    match sequence::judge(&state.producers, header) {
        Verdict::Append => Ok(None),
        Verdict::Duplicate {
            base_offset,
            next_offset,
            timestamp,
        } => {
            let append_time = if header.attributes.has(Attributes::LOG_APPEND_TIME) {
                timestamp
            } else {
                -1
            };
            Ok(Some(Original {
                base_offset,
                next_offset,
                append_time,
            }))
        }
        Verdict::OutOfOrder { expected } => Err(ProduceError::OutOfOrderSequence {
            producer_id: header.producer_id,
            found: header.base_sequence,
            expected,
            epoch: state.epoch,
        }),
        Verdict::Fenced { current } => Err(ProduceError::InvalidProducerEpoch {
            producer_id: header.producer_id,
            found: header.producer_epoch,
            current,
        }),
    }
}

struct Original {
    base_offset: i64,
    next_offset: i64,
    append_time: i64,
}

fn append_time(header: &BatchHeader) -> i64 {
    if header.attributes.has(Attributes::LOG_APPEND_TIME) {
        header.max_timestamp
    } else {
        -1
    }
}

impl State {
    fn place(&self, mut batch: Batch) -> Batch {
        batch.header.base_offset = self.next_offset;
        batch.header.partition_leader_epoch = self.epoch;
        batch
    }

    fn await_original(&mut self, original: Original, acks: Acks) -> Ticket {
        let offsets = self.offsets();
        let produced = Produced {
            base_offset: original.base_offset,
            log_append_time_ms: original.append_time,
            log_start_offset: offsets.log_start_offset,
        };
        let there = match acks {
            Acks::None => true,
            Acks::Leader => original.next_offset <= offsets.log_end_offset,
            Acks::All => original.next_offset <= self.acknowledged(),
        };
        if there {
            return Ticket::done(produced);
        }
        let (reply, receiver) = oneshot::channel();
        self.queue.push(InFlight {
            next_offset: original.next_offset,
            produced,
            acks,
            reply,
        });
        Ticket::waiting(receiver)
    }
}
