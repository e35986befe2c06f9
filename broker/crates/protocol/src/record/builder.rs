//! Builds a batch from records.

use bytes::Bytes;

use super::batch::{Attributes, Batch, BatchHeader, HEADER_LEN, NO_PRODUCER};
use super::compression::{Compression, CompressionError, compress};
use super::varint;

/// A record to be put into a batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since the epoch; -1 is none.
    pub timestamp: i64,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, a tombstone.
    pub value: Option<&'a [u8]>,
    /// Keys and values of the headers.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Why a batch could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A batch has at least one record.
    #[error("batch has no records")]
    Empty,
    /// The batch, or a record, is longer than its length field can say.
    #[error("batch of {len} bytes is too large")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
    },
    /// The records could not be compressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// Collects records into a batch with base offset 0 and dense offsets.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    codec: Compression,
    attributes: i16,
    producer: (i64, i16, i32),
    base_timestamp: i64,
    max_timestamp: i64,
    count: usize,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// Starts a batch without producer id, compressed with `codec`.
    pub fn new(codec: Compression) -> Self {
        Self {
            codec,
            attributes: codec.id(),
            producer: (NO_PRODUCER, -1, -1),
            base_timestamp: -1,
            max_timestamp: -1,
            count: 0,
            records: Vec::new(),
        }
    }

    /// Has records made in this memory, which is emptied.
    #[must_use]
    pub fn memory(mut self, memory: Vec<u8>) -> Self {
        self.records = memory;
        self.records.clear();
        self
    }

    /// Sets the codec, instead of the one that it began with.
    #[must_use]
    pub fn codec(mut self, codec: Compression) -> Self {
        self.codec = codec;
        self.attributes = (self.attributes & !Attributes::COMPRESSION_MASK) | codec.id();
        self
    }

    /// Sets producer id, producer epoch and the first record's sequence number (KIP-98).
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Sets attribute bits other than the codec's, such as [`Attributes::TRANSACTIONAL`].
    #[must_use]
    pub fn attributes(mut self, bits: i16) -> Self {
        self.attributes |= bits & !Attributes::COMPRESSION_MASK;
        self
    }

    /// Appends a record.
    pub fn push(&mut self, record: NewRecord<'_>) {
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
            self.max_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let delta = record.timestamp.wrapping_sub(self.base_timestamp);
        // It stands before the rest, which is therefore not made in other memory first.
        let len = self.record_len(delta, &record);
        let records = &mut self.records;
        records.reserve(varint::MOST + len);
        put_len(records, len);
        let begin = records.len();
        records.push(0);
        varint::put(records, delta);
        put_len(records, self.count);
        put_bytes(records, record.key);
        put_bytes(records, record.value);
        put_len(records, record.headers.len());
        for (key, value) in record.headers {
            put_bytes(records, Some(key.as_bytes()));
            put_bytes(records, *value);
        }
        debug_assert_eq!(records.len() - begin, len);
        self.count += 1;
    }

    /// Bytes of the next record behind its length.
    fn record_len(&self, delta: i64, record: &NewRecord<'_>) -> usize {
        let headers = record.headers.iter();
        let headers = headers.map(|(key, value)| bytes_len(Some(key.as_bytes())) + bytes_len(*value));
        let attributes = 1;
        let numbers = varint::len(delta) + len_len(self.count) + len_len(record.headers.len());
        attributes + numbers + bytes_len(record.key) + bytes_len(record.value) + headers.sum::<usize>()
    }

    /// Number of records so far.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Length in bytes of the records so far, uncompressed and without the batch header.
    pub fn uncompressed_len(&self) -> usize {
        self.records.len()
    }

    /// Returns the batch, with its CRC. Base offset is 0 and leader epoch -1 until it is appended.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: no records, or more than 2 GiB of them.
    pub fn build(self) -> Result<Batch, BuildError> {
        self.build_with_memory().map(|(batch, _)| batch)
    }

    /// [`build`](Self::build), with the memory that the records were made in. Not compressed, they are the batch's, and there is none.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn build_with_memory(mut self) -> Result<(Batch, Vec<u8>), BuildError> {
        if self.is_empty() {
            return Err(BuildError::Empty);
        }
        let too_large = |_| BuildError::TooLarge {
            len: self.records.len(),
        };
        // Lengths of and within records fit if the whole does.
        i32::try_from(self.records.len()).map_err(too_large)?;
        let records_count = i32::try_from(self.count).map_err(too_large)?;
        let body = match self.codec {
            Compression::None => Bytes::from(std::mem::take(&mut self.records)),
            codec => Bytes::from(compress(codec, &self.records)?),
        };
        let len = body.len() + HEADER_LEN;
        let batch_length = i32::try_from(len - 12).map_err(|_| BuildError::TooLarge { len })?;
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let header = BatchHeader {
            base_offset: 0,
            batch_length,
            partition_leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: Attributes(self.attributes),
            last_offset_delta: records_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            records_count,
        };
        let mut batch = Batch { header, body };
        batch.header.crc = batch.compute_crc();
        Ok((batch, self.records))
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    varint::put(out, i64::try_from(len).unwrap_or(i64::MAX));
}

fn len_len(len: usize) -> usize {
    varint::len(i64::try_from(len).unwrap_or(i64::MAX))
}

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| len_len(bytes.len()) + bytes.len())
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_len(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        None => varint::put(out, -1),
    }
}
