//! Transactions of the cluster in memory, by Kafka's rules (KIP-98, KIP-360): whose turn it is, what is open, and which batches
//! readers of committed records see.

use std::collections::BTreeMap;
use std::time::Duration;

use takhin_protocol::ErrorCode;
use takhin_runtime::clock::Instant;

/// Coordinator of all transactional ids.
#[derive(Debug, Default)]
pub(crate) struct Coordinator {
    ids: BTreeMap<String, Id>,
    /// How transactions ended: length of the log by then, producer, and whether it was committed.
    ended: Vec<(usize, i64, bool)>,
}

#[derive(Debug)]
struct Id {
    producer: i64,
    epoch: i16,
    /// The epoch before, whose owner may ask again for the answer that it has not got.
    before: i16,
    timeout: Duration,
    /// When what is open began, and whether there is a partition in it.
    open: Option<(Instant, bool)>,
    /// How the last transaction ended.
    last: Option<bool>,
}

impl Coordinator {
    /// A producer id and epoch, for who names none or that of the id. What is open is aborted first, and has to be asked for
    /// again.
    pub(crate) fn init(
        &mut self,
        id: &str,
        (producer, epoch): (i64, i16),
        new: i64,
        timeout: Duration,
        log: usize,
    ) -> Result<(i64, i16), ErrorCode> {
        let Some(known) = self.ids.get_mut(id) else {
            let fresh = Id {
                producer: new,
                epoch: 0,
                before: -1,
                timeout,
                open: None,
                last: None,
            };
            self.ids.insert(id.to_owned(), fresh);
            return Ok((new, 0));
        };
        if producer >= 0 {
            if epoch == known.before {
                return Ok((known.producer, known.epoch));
            }
            if (producer, epoch) != (known.producer, known.epoch) {
                return Err(ErrorCode::ProducerFenced);
            }
        }
        known.last = None;
        if known.open.take().is_some() {
            // The epoch that is raised to abort it is nobody's.
            known.epoch += 1;
            known.before = -1;
            self.ended.push((log, known.producer, false));
            return Err(ErrorCode::ConcurrentTransactions);
        }
        // Only the one that named it may ask for it again.
        known.before = if producer >= 0 { known.epoch } else { -1 };
        known.epoch += 1;
        Ok((known.producer, known.epoch))
    }

    /// Adds the partition.
    pub(crate) fn add(&mut self, id: &str, owner: (i64, i16), now: Instant) -> Result<(), ErrorCode> {
        let known = self.owned(id, owner)?;
        known.open.get_or_insert((now, false)).1 = true;
        Ok(())
    }

    /// Whether a batch of this producer may be written.
    pub(crate) fn may_write(&self, owner: (i64, i16)) -> Result<(), ErrorCode> {
        let known = self.ids.values().find(|known| known.producer == owner.0);
        match known {
            Some(known) if known.epoch != owner.1 => Err(ErrorCode::InvalidProducerEpoch),
            Some(known) if known.open.is_some_and(|(_, has_partition)| has_partition) => Ok(()),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// Ends what is open; who asks again for what was done gets the same answer.
    pub(crate) fn end(
        &mut self,
        id: &str,
        owner: (i64, i16),
        is_commit: bool,
        log: usize,
    ) -> Result<(), ErrorCode> {
        let known = self.owned(id, owner)?;
        if known.open.take().is_some() {
            known.last = Some(is_commit);
            self.ended.push((log, owner.0, is_commit));
            return Ok(());
        }
        match known.last {
            Some(last) if last == is_commit => Ok(()),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// Aborts what took too long, and fences who had it.
    pub(crate) fn look(&mut self, now: Instant, log: usize) {
        for known in self.ids.values_mut() {
            let is_late = |(begin, _): &(Instant, bool)| now >= *begin + known.timeout;
            if known.open.take_if(|open| is_late(open)).is_some() {
                known.epoch += 1;
                known.before = -1;
                known.last = None;
                self.ended.push((log, known.producer, false));
            }
        }
    }

    /// Whether the batch at this place of the log was committed; `None` while that is open.
    pub(crate) fn is_committed(&self, at: usize, producer: i64) -> Option<bool> {
        let ended = self
            .ended
            .iter()
            .find(|(log, of, _)| *log > at && *of == producer);
        ended.map(|(.., is_commit)| *is_commit)
    }

    fn owned(&mut self, id: &str, owner: (i64, i16)) -> Result<&mut Id, ErrorCode> {
        let known = self.ids.get_mut(id).ok_or(ErrorCode::InvalidProducerIdMapping)?;
        match (known.producer, known.epoch) == owner {
            true => Ok(known),
            false => Err(ErrorCode::ProducerFenced),
        }
    }
}
