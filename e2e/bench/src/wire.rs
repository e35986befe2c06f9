//! Produce and Fetch by hand: the load generator must cost less than the broker that it drives.
//!
//! A run sends the same few batches over and over, so everything but the correlation id is made beforehand.
//! Produce is v9 and Fetch v12, the newest versions that name topics instead of numbering them.

use anyhow::{Result, bail, ensure};
use bytes::Bytes;

/// Version of the Produce requests.
pub(crate) const PRODUCE_VERSION: i16 = 9;
/// Version of the Fetch requests.
pub(crate) const FETCH_VERSION: i16 = 12;

const CLIENT_ID: &[u8] = b"takhin-bench";

/// Appends an unsigned varint.
fn put_uvarint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn put_compact(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, bytes.len() + 1);
    out.extend_from_slice(bytes);
}

fn put_head(out: &mut Vec<u8>, api_key: i16, version: i16) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&api_key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u16::try_from(CLIENT_ID.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(CLIENT_ID);
    out.push(0);
}

fn set_length(head: &mut [u8], following: usize) -> Result<()> {
    let length = i32::try_from(head.len() - 4 + following)?;
    head[..4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Everything of a Produce request that precedes the batch, correlation id 0; `acks` is -1 (all).
///
/// The batch follows, and then [`PRODUCE_TAIL`].
pub(crate) fn produce_head(topic: &str, partition: i32, batch_len: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(160);
    put_head(&mut out, 0, PRODUCE_VERSION);
    out.push(0);
    out.extend_from_slice(&(-1_i16).to_be_bytes());
    out.extend_from_slice(&30_000_i32.to_be_bytes());
    put_uvarint(&mut out, 2);
    put_compact(&mut out, topic.as_bytes());
    put_uvarint(&mut out, 2);
    out.extend_from_slice(&partition.to_be_bytes());
    put_uvarint(&mut out, batch_len + 1);
    set_length(&mut out, batch_len + PRODUCE_TAIL.len())?;
    Ok(out)
}

/// What follows the batch in a Produce request: the empty tagged fields of partition, topic and request.
pub(crate) const PRODUCE_TAIL: [u8; 3] = [0; 3];

/// Writes the correlation id into a request that begins with `frame`.
pub(crate) fn set_correlation(frame: &mut [u8], correlation: i32) {
    frame[8..12].copy_from_slice(&correlation.to_be_bytes());
}

/// The answer to a Produce request of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acked {
    /// As sent.
    pub(crate) correlation: i32,
    /// Kafka's error code; 0 is success.
    pub(crate) error: i16,
    /// Offset of the batch's first record.
    pub(crate) base_offset: i64,
}

/// Reads a Produce response, without its length prefix.
pub(crate) fn read_produced(frame: &[u8]) -> Result<Acked> {
    let mut r = Reader(frame);
    let correlation = r.i32()?;
    r.tags()?;
    ensure!(
        r.uvarint()? == 2,
        "a produce response names another number of topics"
    );
    r.compact()?;
    ensure!(
        r.uvarint()? == 2,
        "a produce response names another number of partitions"
    );
    r.i32()?;
    Ok(Acked {
        correlation,
        error: r.i16()?,
        base_offset: r.i64()?,
    })
}

/// Where a consumer stands in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Index of the partition.
    pub(crate) partition: i32,
    /// The next offset wanted.
    pub(crate) offset: i64,
}

/// How much a Fetch may bring; the defaults are those of Kafka's consumer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchLimits {
    /// Longest wait of the broker for a byte, in milliseconds.
    pub(crate) wait_ms: i32,
    /// Bytes per response.
    pub(crate) max_bytes: i32,
    /// Bytes per partition.
    pub(crate) partition_bytes: i32,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            wait_ms: 500,
            max_bytes: 50 << 20,
            partition_bytes: 1 << 20,
        }
    }
}

/// A whole Fetch request without a session.
pub(crate) fn fetch(topic: &str, at: &[Position], limits: FetchLimits, correlation: i32) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(128 + at.len() * 40);
    put_head(&mut out, 1, FETCH_VERSION);
    set_correlation(&mut out, correlation);
    for value in [-1, limits.wait_ms, 1, limits.max_bytes] {
        out.extend_from_slice(&value.to_be_bytes());
    }
    out.push(0);
    out.extend_from_slice(&0_i32.to_be_bytes());
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    put_uvarint(&mut out, 2);
    put_compact(&mut out, topic.as_bytes());
    put_uvarint(&mut out, at.len() + 1);
    for position in at {
        out.extend_from_slice(&position.partition.to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        out.extend_from_slice(&position.offset.to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        out.extend_from_slice(&(-1_i64).to_be_bytes());
        out.extend_from_slice(&limits.partition_bytes.to_be_bytes());
        out.push(0);
    }
    // Tagged fields of the topic, no forgotten topics, an empty rack, tagged fields of the request.
    out.extend_from_slice(&[0, 1, 1, 0]);
    set_length(&mut out, 0)?;
    Ok(out)
}

/// Calls `each` with partition and record bytes for every partition of a Fetch response (without length prefix).
pub(crate) fn read_fetched(frame: &[u8], mut each: impl FnMut(i32, &[u8]) -> Result<()>) -> Result<()> {
    let mut r = Reader(frame);
    r.i32()?;
    r.tags()?;
    r.i32()?;
    let error = r.i16()?;
    ensure!(error == 0, "a fetch failed with error {error}");
    r.i32()?;
    for _ in 1..r.uvarint()? {
        r.compact()?;
        for _ in 1..r.uvarint()? {
            let partition = r.i32()?;
            let error = r.i16()?;
            ensure!(
                error == 0,
                "a fetch of partition {partition} failed with error {error}"
            );
            r.take(24)?;
            for _ in 1..r.uvarint()? {
                r.take(16)?;
                r.tags()?;
            }
            r.i32()?;
            let records = r.compact()?;
            each(partition, records)?;
            r.tags()?;
        }
        r.tags()?;
    }
    Ok(())
}

/// What a Produce request v9 asks, for the sink: correlation id, topic and partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    /// To be answered.
    pub(crate) correlation: i32,
    /// The topic's name.
    pub(crate) topic: &'a [u8],
    /// Index of the partition.
    pub(crate) partition: i32,
    /// The batch.
    pub(crate) batch: &'a [u8],
}

/// Reads a Produce request of one partition, without its length prefix.
pub(crate) fn read_produce(frame: &[u8]) -> Result<Asked<'_>> {
    let mut r = Reader(frame);
    ensure!(r.i16()? == 0, "not a produce request");
    ensure!(r.i16()? == PRODUCE_VERSION, "not the version of this bench");
    let correlation = r.i32()?;
    let len = usize::try_from(r.i16()?).unwrap_or(0);
    r.take(len)?;
    r.tags()?;
    r.compact()?;
    r.take(6)?;
    r.uvarint()?;
    let topic = r.compact()?;
    r.uvarint()?;
    let partition = r.i32()?;
    Ok(Asked {
        correlation,
        topic,
        partition,
        batch: r.compact()?,
    })
}

/// The frame that acknowledges `asked` at `base_offset`.
pub(crate) fn produced(asked: &Asked<'_>, base_offset: i64) -> Result<Vec<u8>> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&asked.correlation.to_be_bytes());
    out.push(0);
    put_uvarint(&mut out, 2);
    put_compact(&mut out, asked.topic);
    put_uvarint(&mut out, 2);
    out.extend_from_slice(&asked.partition.to_be_bytes());
    out.extend_from_slice(&0_i16.to_be_bytes());
    out.extend_from_slice(&base_offset.to_be_bytes());
    out.extend_from_slice(&(-1_i64).to_be_bytes());
    out.extend_from_slice(&0_i64.to_be_bytes());
    // No record errors, no message, tagged fields of partition and topic, throttle time, tagged fields.
    out.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0]);
    set_length(&mut out, 0)?;
    Ok(out)
}

/// A frame in three parts: own head, shared batch, tail.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// Length prefix, request head, and the batch's header.
    pub(crate) head: Vec<u8>,
    /// Shared by all requests.
    pub(crate) body: Bytes,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            bail!("a frame ends too early");
        };
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn uvarint(&mut self) -> Result<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a varint is too long")
    }

    /// Compact bytes or a compact string; null is empty.
    fn compact(&mut self) -> Result<&'a [u8]> {
        let len = self.uvarint()?.saturating_sub(1);
        self.take(len)
    }

    fn tags(&mut self) -> Result<()> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let len = self.uvarint()?;
            self.take(len)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use takhin_protocol::messages::{self, FetchRequest, ProduceRequest};
    use takhin_protocol::request::RequestHead;

    use super::*;

    #[test]
    fn requests_by_hand_are_what_the_codec_reads() {
        let mut frame = produce_head("load", 3, 5).unwrap();
        set_correlation(&mut frame, 77);
        frame.extend_from_slice(b"batch");
        frame.extend_from_slice(&PRODUCE_TAIL);
        let asked = read_produce(&frame[4..]).unwrap();
        assert_eq!(
            (asked.correlation, asked.topic, asked.batch),
            (77, &b"load"[..], &b"batch"[..])
        );
        let ack = produced(&asked, 9).unwrap();
        assert_eq!(
            read_produced(&ack[4..]).unwrap(),
            Acked {
                correlation: 77,
                error: 0,
                base_offset: 9
            }
        );

        let mut body = Bytes::from(frame.split_off(4));
        assert_eq!(frame, i32::try_from(body.len()).unwrap().to_be_bytes());
        assert_eq!(RequestHead::parse(&mut body).unwrap().correlation_id, 77);
        let request: ProduceRequest = messages::decode(PRODUCE_VERSION, &mut body).unwrap();
        let partition = &request.topic_data[0].partition_data[0];
        assert_eq!((request.acks, partition.index), (-1, 3));
        assert_eq!(partition.records.as_deref(), Some(&b"batch"[..]));
        assert!(body.is_empty());

        let at = [
            Position {
                partition: 1,
                offset: 5,
            },
            Position {
                partition: 2,
                offset: 6,
            },
        ];
        let mut frame = fetch("load", &at, FetchLimits::default(), 78).unwrap();
        let mut body = Bytes::from(frame.split_off(4));
        assert_eq!(RequestHead::parse(&mut body).unwrap().correlation_id, 78);
        let request: FetchRequest = messages::decode(FETCH_VERSION, &mut body).unwrap();
        assert_eq!((request.session_epoch, request.min_bytes), (-1, 1));
        assert_eq!(request.topics[0].partitions[1].fetch_offset, 6);
        assert!(body.is_empty());
    }
}
