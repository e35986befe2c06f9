//! `message.timestamp.type=LogAppendTime`: the broker's time replaces the producer's.

use super::batch::{Attributes, Batch};

impl Batch {
    /// Returns the batch with `timestamp_ms` as the time of all its records.
    ///
    /// Sets attribute bit 3 and the max timestamp, which is what readers then take, and recomputes the CRC. The
    /// body is shared, not touched.
    #[must_use]
    pub fn with_append_time(mut self, timestamp_ms: i64) -> Self {
        self.header.attributes.0 |= Attributes::LOG_APPEND_TIME;
        self.header.max_timestamp = timestamp_ms;
        self.header.crc = self.compute_crc();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, Compression, NewRecord, scan};

    #[test]
    fn the_header_says_so_and_the_body_stays() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(NewRecord {
            timestamp: 5,
            ..NewRecord::default()
        });
        let before = builder.build().unwrap();
        let after = before.clone().with_append_time(9);
        assert!(after.header.attributes.has(Attributes::LOG_APPEND_TIME));
        assert_eq!((after.header.base_timestamp, after.header.max_timestamp), (5, 9));
        assert_eq!(after.body.as_ptr(), before.body.as_ptr());
        assert_eq!(scan::check(&after.to_bytes()).unwrap().0, after.header);
    }
}
