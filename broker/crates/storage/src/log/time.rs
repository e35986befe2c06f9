//! Looking up offsets by timestamp, at the granularity of records (KIP-33, KIP-734).

use std::sync::Arc;

use takhin_protocol::record::{Attributes, BatchHeader, Compression, Records, decompress};
use takhin_runtime::disk::File;

use super::Log;
use crate::error::{Damage, LogError};
use crate::format::{LOG, SegmentId};
use crate::index::NO_TIMESTAMP;
use crate::walk::{Located, Walk};

/// Largest batch that is inflated for a lookup, uncompressed bytes; what producers may send stays far below.
const MAX_INFLATED: usize = 256 << 20;

impl Log {
    /// The first record, in offset order and at or after the log start, whose timestamp is at or after `timestamp`
    /// (milliseconds): its offset and its timestamp. `None` if there is none.
    ///
    /// The caller compares the offset with the high watermark or the last stable offset (ListOffsets).
    ///
    /// # Errors
    ///
    /// `Corrupt`, `Undecodable`: the batch that holds it is damaged.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, LogError> {
        self.undisturbed(|| self.first_at_or_after(timestamp))
    }

    fn first_at_or_after(&self, timestamp: i64) -> Result<Option<(i64, i64)>, LogError> {
        let start = self.end().log_start_offset;
        for segment in self.stats().segments {
            if segment.end.base_offset <= start || segment.bytes == 0 {
                continue;
            }
            if let Some(found) = self.segment_timestamp(segment.id, timestamp, start)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn segment_timestamp(&self, id: SegmentId, at: i64, start: i64) -> Result<Option<(i64, i64)>, LogError> {
        let plan = self.with_segment(id, |view| {
            let index = view.index;
            let from = index.floor_timestamp(at).pos.max(index.floor_offset(start).pos);
            (index.max_timestamp >= at).then(|| (view.file.clone(), from..index.bytes))
        })?;
        let Some(Some((file, range))) = plan else {
            return Ok(None);
        };
        let path = id.path(&self.dir, LOG);
        let mut walk = Walk::new(&*file, &path, range, self.options().max_batch_bytes);
        while let Some(found) = walk.next()? {
            let header = &found.header;
            if header.is_hidden() || header.max_timestamp < at || header.next_offset() <= start {
                continue;
            }
            let wanted = |offset, timestamp| offset >= start && timestamp >= at;
            if let Some(record) = self.find_record(id, &file, &found, wanted)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Offset and timestamp of the record with the largest timestamp at or after the log start, the first of them
    /// if several have it; `None` in a log without records.
    ///
    /// # Errors
    ///
    /// As [`Log::offset_for_timestamp`].
    pub fn max_timestamp(&self) -> Result<Option<(i64, i64)>, LogError> {
        self.undisturbed(|| self.largest_timestamp())
    }

    fn largest_timestamp(&self) -> Result<Option<(i64, i64)>, LogError> {
        let start = self.end().log_start_offset;
        let mut largest = None;
        for segment in self.stats().segments {
            if segment.end.base_offset <= start || segment.bytes == 0 {
                continue;
            }
            let newest = self.with_segment(segment.id, |v| v.index.max_timestamp)?;
            if let Some(t) = newest.filter(|&t| t > NO_TIMESTAMP && largest.is_none_or(|l| t > l)) {
                largest = Some(t);
            }
        }
        // The segment with the maximum may begin below the log start, and the maximum lie there.
        while let Some(timestamp) = largest {
            match self.first_at_or_after(timestamp)? {
                Some(found) => return Ok(Some(found)),
                None => largest = self.next_lower(timestamp, start)?,
            }
        }
        Ok(None)
    }

    /// The largest batch timestamp below `than` of batches that reach above the log start.
    fn next_lower(&self, than: i64, start: i64) -> Result<Option<i64>, LogError> {
        let mut largest = None;
        for segment in self.stats().segments {
            if segment.end.base_offset <= start || segment.bytes == 0 {
                continue;
            }
            let Some((file, bytes)) = self.with_segment(segment.id, |v| (v.file.clone(), v.index.bytes))?
            else {
                continue;
            };
            let path = segment.id.path(&self.dir, LOG);
            let mut walk = Walk::new(&*file, &path, 0..bytes, self.options().max_batch_bytes);
            while let Some(found) = walk.next()? {
                let h = &found.header;
                let counts = !h.is_hidden() && h.next_offset() > start && h.max_timestamp < than;
                if counts && h.max_timestamp > NO_TIMESTAMP {
                    largest = largest.max(Some(h.max_timestamp));
                }
            }
        }
        Ok(largest)
    }

    /// The first record of a batch for which `wanted(offset, timestamp)` holds.
    fn find_record(
        &self,
        id: SegmentId,
        file: &Arc<dyn File>,
        found: &Located,
        wanted: impl Fn(i64, i64) -> bool,
    ) -> Result<Option<(i64, i64)>, LogError> {
        let header = &found.header;
        let appended = header.attributes.has(Attributes::LOG_APPEND_TIME);
        let body = self.batch_body(id, file, found)?;
        let path = || id.path(&self.dir, LOG);
        let undecodable = |reason: String| LogError::Undecodable {
            path: path(),
            position: found.pos,
            reason,
        };
        let codec = Compression::from_id(header.attributes.compression())
            .ok_or_else(|| undecodable("unknown codec".to_owned()))?;
        let records = match codec {
            Compression::None => body,
            _ => decompress(codec, &body, MAX_INFLATED).map_err(|e| undecodable(e.to_string()))?,
        };
        for record in Records::new(&records, header.records_count) {
            let record = record.map_err(|e| undecodable(e.to_string()))?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            let timestamp = if appended {
                header.max_timestamp
            } else {
                header.base_timestamp.saturating_add(record.timestamp_delta)
            };
            if wanted(offset, timestamp) {
                return Ok(Some((offset, timestamp)));
            }
        }
        Ok(None)
    }

    /// Everything behind the header of a batch, its checksum verified.
    fn batch_body(&self, id: SegmentId, file: &Arc<dyn File>, found: &Located) -> Result<Vec<u8>, LogError> {
        let path = id.path(&self.dir, LOG);
        let mut bytes = vec![0; found.header.total_len()];
        file.read_exact_at(&mut bytes, found.pos)
            .map_err(|e| LogError::io("read", &path, e))?;
        if !crc_matches(&found.header, &bytes) {
            return Err(LogError::Corrupt {
                path,
                position: found.pos,
                damage: Damage::BadCrc,
            });
        }
        Ok(bytes.split_off(takhin_protocol::record::HEADER_LEN))
    }
}

fn crc_matches(header: &BatchHeader, bytes: &[u8]) -> bool {
    crate::format::crc32c(&[&bytes[21..]]) == header.crc
}
