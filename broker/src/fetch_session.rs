//! Fetch sessions (KIP-227): a consumer names its partitions once, later requests and answers carry only changes.
//!
//! A request takes its session out of the cache, works on it without a lock, and puts it back with its answer. A
//! request that dies in between (its connection closed) ends the session; the client then begins a new one. Slots
//! and the partitions in all slots together are bounded; who finds no place gets session id 0 and goes on with full
//! fetches.

mod entries;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_protocol::ErrorCode;
use takhin_runtime::{Env, Rng};
use tokio::time::Instant;

pub(crate) use entries::{Entries, Entry, Key, Told, TopicRef, Wanted};

/// A slot that was not used for this long may be given to somebody else, as in Kafka.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);
/// Partitions that all sessions may hold together, about 200 bytes each.
const MAX_PARTITIONS: usize = 250_000;

const FINAL_EPOCH: i32 = -1;
const INITIAL_EPOCH: i32 = 0;

/// The cache; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct FetchSessions {
    cache: Arc<Mutex<Cache>>,
    rng: Rng,
}

#[derive(Debug)]
struct Cache {
    slots: BTreeMap<i32, Slot>,
    max_slots: usize,
    /// Partitions in all slots, those in use included.
    partitions: usize,
}

#[derive(Debug)]
struct Slot {
    /// `None` while a request uses the session.
    session: Option<Session>,
    /// Partitions counted for this slot.
    size: usize,
    last_used: Instant,
}

#[derive(Debug)]
struct Session {
    /// Epoch of the next request.
    epoch: i32,
    uses_topic_ids: bool,
    entries: Entries,
}

/// What a request says about its session.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) session_id: i32,
    pub(crate) session_epoch: i32,
    pub(crate) uses_topic_ids: bool,
    /// Partitions that are new or changed, in request order.
    pub(crate) topics: Vec<(Key, Wanted)>,
    pub(crate) forgotten: Vec<Key>,
}

/// The partitions that a request is about, and the right to put them back.
#[derive(Debug)]
pub(crate) struct Turn {
    cache: Arc<Mutex<Cache>>,
    rng: Rng,
    kind: Kind,
    uses_topic_ids: bool,
    pub(crate) entries: Entries,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Everything is answered, nothing is kept.
    Sessionless,
    /// Everything is answered, and kept if there is room.
    New,
    /// Changes are answered.
    Incremental {
        id: i32,
        /// Epoch of the request after this one.
        next_epoch: i32,
    },
    /// Put back or given up.
    Done,
}

impl FetchSessions {
    pub(crate) fn new(env: &Env, max_slots: usize) -> Self {
        let cache = Cache {
            slots: BTreeMap::new(),
            max_slots,
            partitions: 0,
        };
        Self {
            cache: Arc::new(Mutex::new(cache)),
            rng: env.rng.clone(),
        }
    }

    /// Number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.cache.lock().slots.len()
    }

    /// Partitions in all sessions.
    pub(crate) fn partitions(&self) -> usize {
        self.cache.lock().partitions
    }

    /// Finds what a request is about.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR; for the whole request.
    pub(crate) fn begin(&self, ask: Ask, now: Instant) -> Result<Turn, ErrorCode> {
        if ask.session_epoch != FINAL_EPOCH && ask.session_epoch != INITIAL_EPOCH {
            return self.resume(ask, now);
        }
        if ask.session_id != 0 {
            self.cache.lock().remove(ask.session_id);
        }
        let kind = if ask.session_epoch == INITIAL_EPOCH {
            Kind::New
        } else {
            Kind::Sessionless
        };
        Ok(self.turn(kind, ask.uses_topic_ids, Entries::from_request(ask.topics)))
    }

    fn turn(&self, kind: Kind, uses_topic_ids: bool, entries: Entries) -> Turn {
        Turn {
            cache: Arc::clone(&self.cache),
            rng: self.rng.clone(),
            kind,
            uses_topic_ids,
            entries,
        }
    }

    fn resume(&self, ask: Ask, now: Instant) -> Result<Turn, ErrorCode> {
        let id = ask.session_id;
        let mut session = self.cache.lock().take(&ask, now)?;
        session.entries.update(ask.topics, &ask.forgotten);
        if session.entries.is_empty() {
            // Kafka closes a session that has nothing left, too.
            self.cache.lock().remove(id);
            return Ok(self.turn(Kind::Sessionless, session.uses_topic_ids, session.entries));
        }
        let next_epoch = if session.epoch == i32::MAX {
            1
        } else {
            session.epoch + 1
        };
        Ok(self.turn(
            Kind::Incremental { id, next_epoch },
            session.uses_topic_ids,
            session.entries,
        ))
    }
}

impl Cache {
    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.slots.remove(&id) {
            self.partitions -= slot.size;
        }
    }

    fn take(&mut self, ask: &Ask, now: Instant) -> Result<Session, ErrorCode> {
        let slot = self
            .slots
            .get_mut(&ask.session_id)
            .ok_or(ErrorCode::FetchSessionIdNotFound)?;
        // In use by another request: of the two, this one cannot have the right epoch.
        let session = slot.session.as_ref().ok_or(ErrorCode::InvalidFetchSessionEpoch)?;
        if session.epoch != ask.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != ask.uses_topic_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        slot.last_used = now;
        slot.session.take().ok_or(ErrorCode::InvalidFetchSessionEpoch)
    }

    /// Makes room for one more session of `size` partitions by removing idle ones, oldest first.
    fn make_room(&mut self, size: usize, now: Instant) -> bool {
        while self.slots.len() >= self.max_slots || self.partitions + size > MAX_PARTITIONS {
            let idle = |slot: &Slot| {
                slot.session.is_some() && now.saturating_duration_since(slot.last_used) >= EVICTABLE_AFTER
            };
            let oldest = self
                .slots
                .iter()
                .filter(|(_, slot)| idle(slot))
                .min_by_key(|(id, slot)| (slot.last_used, **id));
            let Some(id) = oldest.map(|(id, _)| *id) else {
                return false;
            };
            self.remove(id);
        }
        true
    }

    fn free_id(&self, rng: &Rng) -> i32 {
        loop {
            let id = i32::try_from(rng.next_u64() >> 33).unwrap_or(i32::MAX);
            if id != 0 && !self.slots.contains_key(&id) {
                return id;
            }
        }
    }
}

impl Turn {
    /// Whether partitions without news are left out of the answer.
    pub(crate) fn is_incremental(&self) -> bool {
        matches!(self.kind, Kind::Incremental { .. })
    }

    /// Keeps the session for the next request. Returns its id for the answer, 0 if there is none.
    pub(crate) fn finish(mut self, now: Instant) -> i32 {
        let entries = std::mem::take(&mut self.entries);
        let size = entries.len();
        let kind = std::mem::replace(&mut self.kind, Kind::Done);
        let mut cache = self.cache.lock();
        match kind {
            Kind::Sessionless | Kind::Done => 0,
            Kind::New => {
                if size == 0 || !cache.make_room(size, now) {
                    return 0;
                }
                let id = cache.free_id(&self.rng);
                let session = Session {
                    epoch: 1,
                    uses_topic_ids: self.uses_topic_ids,
                    entries,
                };
                cache.slots.insert(
                    id,
                    Slot {
                        session: Some(session),
                        size,
                        last_used: now,
                    },
                );
                cache.partitions += size;
                id
            }
            Kind::Incremental { id, next_epoch } => {
                let Some(slot) = cache.slots.get_mut(&id) else {
                    return 0;
                };
                let before = std::mem::replace(&mut slot.size, size);
                slot.session = Some(Session {
                    epoch: next_epoch,
                    uses_topic_ids: self.uses_topic_ids,
                    entries,
                });
                slot.last_used = now;
                cache.partitions = cache.partitions - before + size;
                if cache.partitions > MAX_PARTITIONS && size > before {
                    cache.remove(id);
                    return 0;
                }
                id
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Kind::Incremental { id, .. } = self.kind {
            self.cache.lock().remove(id);
        }
    }
}

#[cfg(test)]
mod tests;
