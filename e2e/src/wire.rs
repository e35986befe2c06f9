//! The protocol by hand: frames, a few requests, and bytes that no client library would send.
//!
//! Independent of the broker's own codec on purpose: a mistake there must not cancel itself out here. Only
//! non-flexible versions (request header v1, response header v0), which every broker since 0.11 understands.

mod configs;
mod groups;
mod metadata;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use configs::Of;
pub use groups::{Asker, Beat, Described, Join, Joined};

/// API keys used here.
pub mod api {
    #![allow(missing_docs, reason = "the names are Kafka's")]
    pub const PRODUCE: i16 = 0;
    pub const FETCH: i16 = 1;
    pub const LIST_OFFSETS: i16 = 2;
    pub const METADATA: i16 = 3;
    pub const API_VERSIONS: i16 = 18;
    pub const CREATE_TOPICS: i16 = 19;
    pub const DESCRIBE_CONFIGS: i16 = 32;
    pub const ELECT_LEADERS: i16 = 43;
    pub const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
    pub const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;
}

const CLIENT_ID: &str = "takhin-e2e";
const TIMEOUT: Duration = Duration::from_secs(20);
/// An answer larger than this is a fault of the broker.
const ANSWER_MAX: usize = 256 << 20;

/// One TCP connection to a broker.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    /// Connects; every read and write gives up after 20 s.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream,
            correlation: 0,
        })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The sending half, for another thread.
    pub fn sender(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Tells the broker that nothing more will come, and goes on reading.
    pub fn finish_sending(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(std::net::Shutdown::Write)?)
    }

    /// A frame's content, or `None` when the broker has closed the connection.
    ///
    /// # Errors
    /// When nothing comes in time or the length makes no sense.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        if !self.fill(&mut length)? {
            return Ok(None);
        }
        let length = i32::from_be_bytes(length);
        let length = usize::try_from(length).ok().filter(|&n| n <= ANSWER_MAX);
        let mut content = vec![0; length.context("an answer with a length that makes no sense")?];
        ensure!(
            self.fill(&mut content)?,
            "the broker closed the connection inside an answer"
        );
        Ok(Some(content))
    }

    /// Whether the buffer could be filled; `false` when the other side has closed.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Ok(false),
            Err(e) => Err(e).context("the broker neither answered nor closed the connection"),
        }
    }

    /// Whether the broker closes the connection without another answer.
    pub fn is_closed_by_broker(&mut self) -> Result<bool> {
        Ok(self.receive()?.is_none())
    }

    /// Sends a request and returns the body of its answer.
    pub fn call(&mut self, api_key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
        self.correlation += 1;
        self.send(&request(api_key, version, self.correlation, body))?;
        let answer = self
            .receive()?
            .context("the broker closed the connection instead of answering")?;
        let mut reader = Reader(&answer);
        let correlation = reader.i32()?;
        ensure!(
            correlation == self.correlation,
            "answer {correlation} to request {}",
            self.correlation
        );
        Ok(reader.0.to_vec())
    }

    /// The number of brokers in Metadata v1.
    pub fn metadata_brokers(&mut self) -> Result<i32> {
        let answer = self.call(api::METADATA, 1, &0_i32.to_be_bytes())?;
        Reader(&answer).i32()
    }

    /// Has the preferred replica of every partition that can have it lead (ElectLeaders v1); returns the error code of the whole.
    pub fn elect_preferred(&mut self) -> Result<i16> {
        const PREFERRED: i8 = 0;
        const ALL: i32 = -1;
        let mut w = Writer::default();
        w.i8(PREFERRED).i32(ALL).i32(10_000);
        let answer = self.call(api::ELECT_LEADERS, 1, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        r.i16()
    }

    /// Produces one batch with acks=all (Produce v7); returns error code and base offset.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: &[u8]) -> Result<(i16, i64)> {
        let answer = self.call(api::PRODUCE, 7, &produce_body(topic, partition, batch)?)?;
        let mut r = Reader(&answer);
        ensure!(r.i32()? == 1, "one topic in the answer");
        ensure!(r.string()? == topic, "the topic asked for");
        ensure!(r.i32()? == 1, "one partition in the answer");
        ensure!(r.i32()? == partition, "the partition asked for");
        Ok((r.i16()?, r.i64()?))
    }

    /// The end offset of a partition (ListOffsets v1, timestamp -1); the log start for -2.
    pub fn list_offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<i64> {
        let mut w = Writer::default();
        w.i32(-1)
            .i32(1)
            .string(topic)?
            .i32(1)
            .i32(partition)
            .i64(timestamp);
        let answer = self.call(api::LIST_OFFSETS, 1, &w.0)?;
        let mut r = Reader(&answer);
        ensure!(r.i32()? == 1 && r.string()? == topic && r.i32()? == 1 && r.i32()? == partition);
        let error = r.i16()?;
        ensure!(error == 0, "ListOffsets of {topic}-{partition}: error {error}");
        r.i64()?;
        r.i64()
    }

    /// Fetches from `offset` without waiting (Fetch v4); returns error code, high watermark and the record batches.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
    ) -> Result<(i16, i64, Vec<u8>)> {
        let mut w = Writer::default();
        w.i32(-1)
            .i32(0)
            .i32(1)
            .i32(max_bytes)
            .i8(0)
            .i32(1)
            .string(topic)?;
        w.i32(1).i32(partition).i64(offset).i32(max_bytes);
        let answer = self.call(api::FETCH, 4, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        ensure!(r.i32()? == 1 && r.string()? == topic && r.i32()? == 1 && r.i32()? == partition);
        let (error, high_watermark) = (r.i16()?, r.i64()?);
        r.i64()?;
        for _ in 0..r.i32()?.max(0) {
            r.i64()?;
            r.i64()?;
        }
        let records = r.bytes()?.unwrap_or_default().to_vec();
        Ok((error, high_watermark, records))
    }

    /// Creates a topic with one replica (CreateTopics v2); returns its error code.
    pub fn create_topic(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<i16> {
        self.create_replicated_topic(topic, partitions, 1, configs)
    }

    /// As [`Self::create_topic`], with so many replicas of each partition.
    pub fn create_replicated_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> Result<i16> {
        let mut w = Writer::default();
        w.i32(1).string(topic)?.i32(partitions).i16(replicas).i32(0);
        w.i32(i32::try_from(configs.len())?);
        for (key, value) in configs {
            w.string(key)?.string(value)?;
        }
        w.i32(15_000).i8(0);
        let answer = self.call(api::CREATE_TOPICS, 2, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        ensure!(r.i32()? == 1 && r.string()? == topic, "one answer for one topic");
        r.i16()
    }
}

impl Connection {
    /// Asks for other replicas of a partition (AlterPartitionReassignments v0); the partition's error code.
    pub fn reassign(&mut self, topic: &str, partition: i32, replicas: &[i32]) -> Result<i16> {
        let mut w = Writer::default();
        // Tags of the header, then compact arrays: their lengths and one, in a byte as long as they are short.
        w.i8(0).i32(15_000).i8(2);
        w.i8(i8::try_from(topic.len() + 1)?).raw(topic.as_bytes());
        w.i8(2).i32(partition).i8(i8::try_from(replicas.len() + 1)?);
        for replica in replicas {
            w.i32(*replica);
        }
        w.i8(0).i8(0).i8(0);
        let answer = self.call(api::ALTER_PARTITION_REASSIGNMENTS, 0, &w.0)?;
        // Tags and throttle time, then error and message of the whole.
        let of_all = Reader(answer.get(1 + 4..).context("the answer is too short")?).i16()?;
        ensure!(
            of_all == 0,
            "error {of_all} for the whole request: {}",
            String::from_utf8_lossy(&answer)
        );
        // One topic, its name, one partition.
        let to_partition = 1 + 4 + 2 + 1 + 1 + (1 + topic.len()) + 1;
        let partition = answer.get(to_partition..).context("the answer is too short")?;
        let mut r = Reader(partition);
        r.i32()?;
        r.i16()
    }
}

/// A whole request frame with header v1.
pub fn request(api_key: i16, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.i16(api_key)
        .i16(version)
        .i32(correlation)
        .raw(&short_string(CLIENT_ID))
        .raw(body);
    frame(&w.0)
}

/// `content` behind its length.
pub fn frame(content: &[u8]) -> Vec<u8> {
    let length = i32::try_from(content.len()).unwrap_or(i32::MAX);
    [&length.to_be_bytes()[..], content].concat()
}

/// The body of Produce v7 with one batch and acks=all.
pub fn produce_body(topic: &str, partition: i32, batch: &[u8]) -> Result<Vec<u8>> {
    let mut w = Writer::default();
    w.i16(-1).i16(-1).i32(15_000).i32(1).string(topic)?;
    w.i32(1)
        .i32(partition)
        .i32(i32::try_from(batch.len())?)
        .raw(batch);
    Ok(w.0)
}

fn short_string(text: &str) -> Vec<u8> {
    let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// Writes the primitive types of the protocol.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
    /// INT8.
    pub fn i8(&mut self, v: i8) -> &mut Self {
        self.raw(&v.to_be_bytes())
    }
    /// INT16.
    pub fn i16(&mut self, v: i16) -> &mut Self {
        self.raw(&v.to_be_bytes())
    }
    /// INT32.
    pub fn i32(&mut self, v: i32) -> &mut Self {
        self.raw(&v.to_be_bytes())
    }
    /// INT64.
    pub fn i64(&mut self, v: i64) -> &mut Self {
        self.raw(&v.to_be_bytes())
    }
    /// STRING.
    pub fn string(&mut self, v: &str) -> Result<&mut Self> {
        ensure!(
            i16::try_from(v.len()).is_ok(),
            "a string longer than its length field can say"
        );
        Ok(self.raw(&short_string(v)))
    }
    /// NULLABLE_STRING.
    pub fn nullable(&mut self, v: Option<&str>) -> Result<&mut Self> {
        match v {
            Some(v) => self.string(v),
            None => Ok(self.i16(-1)),
        }
    }
    /// BYTES.
    pub fn bytes(&mut self, v: &[u8]) -> Result<&mut Self> {
        Ok(self.i32(i32::try_from(v.len())?).raw(v))
    }
    /// VARINT or VARLONG, zig-zag.
    pub fn varint(&mut self, v: i64) -> &mut Self {
        let mut rest = (v.cast_unsigned() << 1) ^ (v >> 63).cast_unsigned();
        while rest >= 0x80 {
            self.0.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.0.push(rest.to_le_bytes()[0]);
        self
    }
}

/// Reads the primitive types of the protocol.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .context("an answer that ends too early")?;
        self.0 = rest;
        Ok(*head)
    }
    /// INT8.
    pub fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.take()?))
    }
    /// INT16.
    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take()?))
    }
    /// INT32.
    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }
    /// INT64.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }
    /// STRING.
    pub fn string(&mut self) -> Result<&'a str> {
        self.nullable()?.context("null where a string must be")
    }
    /// NULLABLE_STRING.
    pub fn nullable(&mut self) -> Result<Option<&'a str>> {
        match usize::try_from(self.i16()?) {
            Ok(length) => Ok(Some(std::str::from_utf8(self.some(length)?)?)),
            Err(_) => Ok(None),
        }
    }
    /// NULLABLE_BYTES.
    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        match usize::try_from(self.i32()?) {
            Ok(length) => Ok(Some(self.some(length)?)),
            Err(_) => Ok(None),
        }
    }
    /// VARINT or VARLONG, zig-zag.
    pub fn varint(&mut self) -> Result<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        anyhow::bail!("a varint of more than ten bytes")
    }
    /// `length` bytes.
    pub fn some(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .0
            .split_at_checked(length)
            .context("an answer that ends too early")?;
        self.0 = rest;
        Ok(head)
    }
}
