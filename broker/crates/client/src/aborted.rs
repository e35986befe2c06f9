//! Which batches of an answer belong to transactions that were aborted.
//!
//! The broker names them by producer and first offset; that of a producer lasts until its marker (KIP-98).

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use takhin_protocol::messages::fetch_response::PartitionData;
use takhin_protocol::record::{Attributes, BatchHeader, HEADER_LEN, Records};

use crate::error::Damage;

/// Type of a marker that ends a transaction without effect, the second half of its key.
const ABORT: [u8; 2] = [0, 0];

/// Transactions of one partition's answer that were aborted.
#[derive(Debug, Default)]
pub(crate) struct Aborted {
    /// First offset and producer, ascending.
    to_come: VecDeque<(i64, i64)>,
    /// Producers whose transaction is under way where the reader is.
    open: BTreeSet<i64>,
}

impl Aborted {
    /// Those of an answer; none where nobody asked for isolation.
    pub(crate) fn of(data: &PartitionData) -> Self {
        let listed = data.aborted_transactions.iter().flatten();
        let mut to_come: Vec<_> = listed
            .map(|transaction| (transaction.first_offset, transaction.producer_id.0))
            .collect();
        to_come.sort_unstable();
        Self {
            to_come: to_come.into(),
            open: BTreeSet::new(),
        }
    }

    /// Whether the next batch, in order of offsets, belongs to one of them.
    pub(crate) fn has(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<bool, Damage> {
        while let Some((_, producer)) = self
            .to_come
            .front()
            .copied()
            .filter(|(first, _)| *first < header.next_offset())
        {
            self.to_come.pop_front();
            self.open.insert(producer);
        }
        if header.attributes.has(Attributes::CONTROL) {
            let body = batch.slice(HEADER_LEN..);
            for record in Records::new(&body, header.records_count) {
                if record?.key.is_some_and(|key| key.get(2..4) == Some(&ABORT)) {
                    self.open.remove(&header.producer_id);
                }
            }
            return Ok(false);
        }
        let is_transactional = header.attributes.has(Attributes::TRANSACTIONAL);
        Ok(is_transactional && self.open.contains(&header.producer_id))
    }
}

#[cfg(test)]
mod tests {
    use takhin_protocol::messages::fetch_response::AbortedTransaction;
    use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};

    use super::*;

    /// A batch of two records, or a marker.
    fn batch(base_offset: i64, producer: i64, marker: Option<u8>) -> (BatchHeader, Bytes) {
        let mut builder = BatchBuilder::new(Compression::None);
        let key = marker.map(|kind| [0, 0, 0, kind]);
        for _ in 0..if marker.is_some() { 1 } else { 2 } {
            builder.push(NewRecord {
                timestamp: 1,
                key: key.as_ref().map(<[u8; 4]>::as_slice),
                value: Some(b"v"),
                headers: &[],
            });
        }
        let mut batch = builder.build().unwrap();
        batch.header.base_offset = base_offset;
        batch.header.producer_id = producer;
        let control = if marker.is_some() { Attributes::CONTROL } else { 0 };
        batch.header.attributes.0 |= Attributes::TRANSACTIONAL | control;
        (batch.header, batch.to_bytes())
    }

    #[test]
    fn a_transaction_is_aborted_up_to_its_marker() {
        let aborted = |first, producer: i64| {
            AbortedTransaction::default()
                .with_first_offset(first)
                .with_producer_id(producer.into())
        };
        let data = PartitionData::default().with_aborted_transactions(Some(vec![
            aborted(8, 7),
            aborted(2, 7),
            aborted(2, 9),
        ]));
        let mut found = Aborted::of(&data);
        let mut has = |offset, producer, marker| {
            let (header, bytes) = batch(offset, producer, marker);
            found.has(&header, &bytes).unwrap()
        };
        assert!(!has(0, 7, None), "committed before");
        assert!(has(2, 7, None));
        assert!(!has(4, 8, None), "somebody else's");
        assert!(!has(6, 7, Some(0)));
        assert!(has(8, 7, None), "the next one is aborted as well");
        assert!(!has(10, 7, Some(0)));
        assert!(!has(11, 7, None));
        assert!(!has(13, 7, Some(1)));
        assert!(has(14, 9, None), "its marker is still to come");
    }
}
