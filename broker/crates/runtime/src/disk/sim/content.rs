//! The bytes of one simulated file: what readers see, what the medium holds, and the writes between the two.

use crate::rng::Rng;

/// Smallest piece that a power cut leaves whole.
const SECTOR: usize = 512;

/// Largest simulated file in bytes; a longer one is a mistake of the test.
pub(super) const MAX_LEN: u64 = 1 << 32;

#[derive(Debug, Default)]
pub(super) struct Content {
    /// What readers see: the page cache.
    data: Vec<u8>,
    /// What the medium holds.
    durable: Vec<u8>,
    /// Changes since the last sync, oldest first.
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    /// All sectors that a write touched, as they were right after it. Whole sectors, because the medium never
    /// takes the second of two writes to a sector without the first.
    Sectors {
        start: usize,
        bytes: Vec<u8>,
    },
    SetLen(usize),
}

impl Content {
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    /// Writes at least one byte.
    pub(super) fn write(&mut self, pos: usize, parts: &[&[u8]]) {
        let mut at = pos;
        for part in parts {
            store(&mut self.data, at, part);
            at += part.len();
        }
        if at > pos {
            let start = pos / SECTOR * SECTOR;
            let end = at.next_multiple_of(SECTOR).min(self.data.len());
            self.pending.push(Change::Sectors {
                start,
                bytes: self.data[start..end].to_vec(),
            });
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.data.resize(len, 0);
        self.pending.push(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Sectors { start, bytes } => store(&mut self.durable, start, &bytes),
                Change::SetLen(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// A sync failed: the cache calls its pages clean although the medium never got them, as Linux does. Only a
    /// later write to the same sectors brings them back.
    pub(super) fn drop_dirty(&mut self) {
        self.pending.clear();
    }

    /// The power fails: each change since the last sync is kept, lost, or torn between two sectors.
    pub(super) fn crash(&mut self, rng: &Rng) {
        for change in std::mem::take(&mut self.pending) {
            match (change, rng.range(0..4)) {
                (_, 0) => {}
                (Change::Sectors { start, bytes }, 1 | 2) if bytes.len() > SECTOR => {
                    let sectors = bytes.len().div_ceil(SECTOR) as u64;
                    let cut = usize::try_from(rng.range(1..sectors)).unwrap_or(1) * SECTOR;
                    if rng.chance(0.5) {
                        store(&mut self.durable, start, &bytes[..cut]);
                    } else {
                        store(&mut self.durable, start + cut, &bytes[cut..]);
                    }
                }
                (Change::Sectors { start, bytes }, _) => store(&mut self.durable, start, &bytes),
                (Change::SetLen(len), _) => self.durable.resize(len, 0),
            }
        }
        self.data.clone_from(&self.durable);
    }

    /// Flips the lowest bit of one byte, on the medium and in the cache.
    pub(super) fn corrupt(&mut self, pos: usize) -> bool {
        for change in &mut self.pending {
            if let Change::Sectors { start, bytes } = change
                && let Some(byte) = pos.checked_sub(*start).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= 1;
            }
        }
        if let Some(byte) = self.durable.get_mut(pos) {
            *byte ^= 1;
        }
        self.data.get_mut(pos).map(|byte| *byte ^= 1).is_some()
    }
}

/// Writes `bytes` at `pos`, extending with zeros as needed.
fn store(to: &mut Vec<u8>, pos: usize, bytes: &[u8]) {
    let end = pos + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[pos..end].copy_from_slice(bytes);
}
