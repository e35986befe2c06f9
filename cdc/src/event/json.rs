//! Events as JSON, written by hand: an event is made for each change, and this is most of what that takes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use takhin_pika::resp;

use super::{Encoder, Event, Kind, Place, SnapshotRef, Source};

/// Version of the format, in every event. A field that is added does not raise it.
const SCHEMA: u32 = 1;

/// Bytes before and behind a word of a command, at most: its length, and where lines end.
const WORD: usize = 25;

/// Bytes of a record without keys and words, about.
const FRAME: usize = 640;

/// One JSON object for each event; `docs/cdc.md` describes its fields.
#[derive(Debug, Clone, Copy)]
pub struct Json {
    /// Whether the command as Redis writes it is part of it.
    pub has_raw: bool,
}

impl Encoder for Json {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn encode(&self, source: &Source, event: &Event, out: &mut Vec<u8>) {
        let words: usize = event.args.iter().map(Bytes::len).sum();
        // Base64 has four characters for three bytes, and the words may be there twice.
        out.reserve(FRAME + words * 3);
        number(out, "{\"schema\":", SCHEMA);
        known(out, ",\"event_type\":", event.kind.name());
        text(out, ",\"op\":", &event.op);
        match event.data_type {
            Some(data_type) => known(out, ",\"data_type\":", data_type.name()),
            None => put(out, ",\"data_type\":null"),
        }
        text(out, ",\"db\":", &event.db);
        put(out, ",\"slot\":0");
        put_key(out, event.key.as_deref());
        put_args(out, &event.args);
        if self.has_raw && event.kind != Kind::Control {
            put_raw(out, event, words);
        }
        number(out, ",\"ts_ms\":", event.ts_ms);
        if let Some(expire_at_ms) = event.expire_at_ms {
            number(out, ",\"expire_at_ms\":", expire_at_ms);
        }
        text(out, ",\"event_id\":", &event.event_id);
        text(out, ",\"source_id\":", &source.id);
        if let Some(place) = &event.place {
            put_place(out, place, source.names_servers());
        }
        if let Some(part) = &event.part {
            number(out, ",\"part\":{\"index\":", part.index);
            boolean(out, ",\"last\":", part.is_last);
            out.push(b'}');
        }
        if let Some(snapshot) = &event.snapshot {
            put_snapshot(out, snapshot, event.kind);
        }
        if event.is_random {
            put(out, ",\"nondeterministic\":true");
        }
        if event.has_more_keys {
            put(out, ",\"more_keys\":true");
        }
        text(out, ",\"source\":{\"host\":", &source.host);
        number(out, ",\"port\":", source.port);
        text(out, ",\"version\":", &source.version);
        text(out, ",\"replication_id\":", &source.replication_id);
        put(out, "}}");
    }
}

fn put_key(out: &mut Vec<u8>, key: Option<&[u8]>) {
    match key.map(std::str::from_utf8) {
        Some(Ok(key)) => text(out, ",\"key\":", key),
        _ => put(out, ",\"key\":null"),
    }
    put(out, ",\"key_b64\":");
    match key {
        Some(key) => base64(out, key),
        None => put(out, "null"),
    }
}

fn put_args(out: &mut Vec<u8>, args: &[Bytes]) {
    put(out, ",\"args_b64\":[");
    for (at, arg) in args.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        base64(out, arg);
    }
    out.push(b']');
}

/// The command as Redis writes it, in base64. It is written behind the place that it takes there, and gone when it is encoded.
fn put_raw(out: &mut Vec<u8>, event: &Event, words: usize) {
    put(out, ",\"raw_resp_b64\":\"");
    let most = WORD + event.op.len() + WORD + words + event.args.len() * WORD;
    let (begin, end) = (out.len(), out.len() + base64_len(most));
    out.resize(end, 0);
    resp::put_count(out, event.args.len() + 1);
    resp::put_word(out, event.op.as_bytes());
    for arg in &event.args {
        resp::put_word(out, arg);
    }
    let (place, raw) = out[begin..].split_at_mut(end - begin);
    // The place is large enough by its making.
    let len = STANDARD.encode_slice(raw, place).unwrap_or(0);
    out.truncate(begin + len);
    out.push(b'"');
}

fn put_place(out: &mut Vec<u8>, place: &Place, names_servers: bool) {
    let (server_id, term_id) = match names_servers {
        true => (place.origin, 0),
        false => (0, place.origin),
    };
    number(out, ",\"binlog\":{\"filenum\":", place.start.filenum);
    number(out, ",\"offset\":", place.start.offset);
    number(out, ",\"end_filenum\":", place.end.filenum);
    number(out, ",\"end_offset\":", place.end.offset);
    number(out, ",\"logic_id\":", place.logic_id);
    number(out, ",\"server_id\":", server_id);
    number(out, ",\"term_id\":", term_id);
    number(out, ",\"sub\":", place.sub);
    out.push(b'}');
}

fn put_snapshot(out: &mut Vec<u8>, snapshot: &SnapshotRef, kind: Kind) {
    text(out, ",\"snapshot\":{\"id\":", &snapshot.id);
    number(out, ",\"filenum\":", snapshot.position.filenum);
    number(out, ",\"offset\":", snapshot.position.offset);
    boolean(out, ",\"exact\":", snapshot.is_exact);
    if kind == Kind::Control {
        known(out, ",\"reason\":", snapshot.reason);
    }
    out.push(b'}');
}

fn put(out: &mut Vec<u8>, json: &str) {
    out.extend_from_slice(json.as_bytes());
}

fn number(out: &mut Vec<u8>, before: &str, number: impl itoa::Integer) {
    put(out, before);
    put(out, itoa::Buffer::new().format(number));
}

fn boolean(out: &mut Vec<u8>, before: &str, is_so: bool) {
    put(out, before);
    put(out, if is_so { "true" } else { "false" });
}

/// A word of ours, which needs no escapes.
fn known(out: &mut Vec<u8>, before: &str, word: &str) {
    put(out, before);
    out.push(b'"');
    put(out, word);
    out.push(b'"');
}

fn text(out: &mut Vec<u8>, before: &str, text: &str) {
    let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    // Of all bytes, without an end before the last: many at a time.
    if text.bytes().fold(false, |any, byte| any | is_special(byte)) {
        put(out, before);
        // Text always serializes.
        let _ = serde_json::to_writer(out, text);
    } else {
        known(out, before, text);
    }
}

/// Characters that so many bytes have in base64.
fn base64_len(len: usize) -> usize {
    len.div_ceil(3) * 4
}

/// Bytes in base64, as JSON.
fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let begin = out.len();
    out.resize(begin + base64_len(bytes.len()), 0);
    // There is as much room as it takes.
    let _ = STANDARD.encode_slice(bytes, &mut out[begin..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests;
