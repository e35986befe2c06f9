//! The fetch response, encoded by hand around the record bytes: everything but them in one buffer, they as ranges of
//! segment files between its pieces.
//!
//! ```text
//! len | correlation | v12: tags | throttle | v7: error, session | [ topic | [ partition | RECORDS | v12: tags ] ] | v12: tags
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use takhin_cluster::Isolation;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::EncodeError;
use takhin_storage::FileRange;

use super::plan::Answer;
use crate::context::RequestContext;
use crate::fetch_session::{Key, TopicRef};
use crate::replicas::Node;
use crate::reply::{Outcome, Part, Reply};

/// One partition's answer with its name.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) key: Key,
    pub(super) answer: Answer,
}

/// The answer to a request whose session is not there.
pub(super) fn refusal(cx: &RequestContext, code: ErrorCode) -> Outcome {
    let response = takhin_protocol::messages::FetchResponse::default().with_error_code(cx.code(code));
    cx.encode(&response)
}

/// The answer with all `answered` partitions, neighbours of one topic together.
pub(super) fn encode(
    cx: &RequestContext,
    session_id: i32,
    answered: &[Answered],
    endpoints: &[Node],
    isolation: Isolation,
) -> Outcome {
    match frame(
        cx.version,
        cx.correlation_id,
        session_id,
        answered,
        endpoints,
        isolation,
    ) {
        Ok(reply) => Outcome::Reply(reply),
        Err(error) => cx.cannot_encode(&error),
    }
}

pub(super) fn frame(
    version: i16,
    correlation_id: i32,
    session_id: i32,
    answered: &[Answered],
    endpoints: &[Node],
    isolation: Isolation,
) -> Result<Reply, EncodeError> {
    let mut out = Encoder::new(version, correlation_id, answered.len());
    out.head(session_id);
    let topics = || answered.chunk_by(|a, b| a.key.topic == b.key.topic);
    out.count(topics().count());
    for topic in topics() {
        out.topic(&topic[0].key.topic);
        out.count(topic.len());
        for partition in topic {
            out.partition(partition.key.partition, &partition.answer, isolation);
        }
        out.no_tags();
    }
    out.tail(endpoints);
    out.finish()
}

struct Encoder<'a> {
    version: i16,
    buf: BytesMut,
    /// Where in `buf` which ranges belong.
    ranges: Vec<(usize, &'a [FileRange])>,
    record_bytes: usize,
}

impl<'a> Encoder<'a> {
    fn new(version: i16, correlation_id: i32, partitions: usize) -> Self {
        // A partition takes at most 75 bytes without leader and topic.
        let mut buf = BytesMut::with_capacity(64 + partitions.saturating_mul(96));
        buf.put_i32(0);
        buf.put_i32(correlation_id);
        Self {
            version,
            buf,
            ranges: Vec::new(),
            record_bytes: 0,
        }
    }

    fn is_flexible(&self) -> bool {
        self.version >= 12
    }

    fn head(&mut self, session_id: i32) {
        self.no_tags();
        self.buf.put_i32(0); // throttle time
        if super::has_sessions(self.version) {
            self.buf.put_i16(0);
            self.buf.put_i32(session_id);
        }
    }

    /// The length of an array.
    fn count(&mut self, count: usize) {
        if self.is_flexible() {
            self.uvarint(count + 1);
        } else {
            self.buf.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
        }
    }

    fn topic(&mut self, topic: &TopicRef) {
        match topic {
            TopicRef::Id(id) => self.buf.put_slice(id.as_bytes()),
            TopicRef::Name(name) => self.string(name),
        }
    }

    fn partition(&mut self, index: i32, answer: &'a Answer, isolation: Isolation) {
        self.buf.put_i32(index);
        self.buf.put_i16(answer.code.code());
        self.buf.put_i64(answer.high_watermark);
        self.buf.put_i64(answer.last_stable_offset);
        if self.version >= 5 {
            self.buf.put_i64(answer.log_start_offset);
        }
        self.aborted(isolation);
        if self.version >= 11 {
            self.buf.put_i32(answer.preferred_read_replica);
        }
        self.records(answer);
        if self.is_flexible() {
            self.partition_tags(answer);
        }
    }

    /// Aborted transactions: null for who reads uncommitted records, none for who does not.
    fn aborted(&mut self, isolation: Isolation) {
        match (isolation, self.is_flexible()) {
            (Isolation::ReadUncommitted, true) => self.buf.put_u8(0),
            (Isolation::ReadUncommitted, false) => self.buf.put_i32(-1),
            (Isolation::ReadCommitted, _) => self.count(0),
        }
    }

    fn records(&mut self, answer: &'a Answer) {
        let len = answer.ranges.bytes;
        if self.is_flexible() {
            self.uvarint(len + 1);
        } else {
            self.buf.put_i32(i32::try_from(len).unwrap_or(i32::MAX));
        }
        if len > 0 {
            self.ranges.push((self.buf.len(), &answer.ranges.ranges));
            self.record_bytes += len;
        }
    }

    fn partition_tags(&mut self, answer: &Answer) {
        let leader = answer.leader.filter(|_| super::names_leaders(self.version));
        self.uvarint(usize::from(answer.diverging.is_some()) + usize::from(leader.is_some()));
        if let Some((epoch, end_offset)) = answer.diverging {
            self.buf.put_slice(&[0, 13]);
            self.buf.put_i32(epoch);
            self.buf.put_i64(end_offset);
            self.buf.put_u8(0);
        }
        if let Some(leader) = leader {
            self.buf.put_slice(&[1, 9]);
            self.buf.put_i32(leader.leader);
            self.buf.put_i32(leader.epoch);
            self.buf.put_u8(0);
        }
    }

    fn tail(&mut self, endpoints: &[Node]) {
        if endpoints.is_empty() {
            return self.no_tags();
        }
        // Built apart, because its size comes first.
        let mut field = Encoder {
            version: self.version,
            buf: BytesMut::new(),
            ranges: Vec::new(),
            record_bytes: 0,
        };
        field.count(endpoints.len());
        for node in endpoints {
            field.buf.put_i32(node.id);
            field.string(&node.host);
            field.buf.put_i32(node.port);
            match &node.rack {
                Some(rack) => field.string(rack),
                None => field.buf.put_u8(0),
            }
            field.no_tags();
        }
        self.buf.put_slice(&[1, 0]);
        self.uvarint(field.buf.len());
        self.buf.put_slice(&field.buf);
    }

    /// An empty set of tagged fields where the version has them.
    fn no_tags(&mut self) {
        if self.is_flexible() {
            self.buf.put_u8(0);
        }
    }

    fn string(&mut self, text: &str) {
        if self.is_flexible() {
            self.uvarint(text.len() + 1);
        } else {
            self.buf.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        }
        self.buf.put_slice(text.as_bytes());
    }

    fn uvarint(&mut self, value: usize) {
        let mut rest = value;
        while rest >= 0x80 {
            self.buf.put_u8(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
            rest >>= 7;
        }
        self.buf.put_u8(u8::try_from(rest).unwrap_or(0));
    }

    /// The frame in pieces.
    fn finish(mut self) -> Result<Reply, EncodeError> {
        let len = self.buf.len() - 4 + self.record_bytes;
        let prefix = i32::try_from(len).map_err(|_| EncodeError::TooLarge { len })?;
        self.buf[..4].copy_from_slice(&prefix.to_be_bytes());
        let bytes: Bytes = self.buf.freeze();
        if self.ranges.is_empty() {
            return Ok(Reply::Bytes(bytes));
        }
        let mut parts = Vec::with_capacity(self.ranges.len() * 2 + 1);
        let mut at = 0;
        for (position, ranges) in self.ranges {
            parts.push(Part::Bytes(bytes.slice(at..position)));
            let files = ranges.iter().map(|r| Part::File {
                file: r.file.clone(),
                pos: r.pos,
                len: r.len,
            });
            parts.extend(files);
            at = position;
        }
        if at < bytes.len() {
            parts.push(Part::Bytes(bytes.slice(at..)));
        }
        Ok(Reply::Parts(parts))
    }
}
