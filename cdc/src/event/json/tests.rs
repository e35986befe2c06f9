//! What is written, compared with what serde writes of the same fields.

use base64::display::Base64Display;
use proptest::prelude::*;
use serde::{Serialize, Serializer};
use takhin_pika::Position;
use takhin_pika::command::DataType;

use super::super::{Part, Place};
use super::*;

#[derive(Serialize)]
struct Form<'a> {
    schema: u32,
    event_type: &'static str,
    op: &'a str,
    data_type: Option<&'static str>,
    db: &'a str,
    slot: u32,
    key: Option<&'a str>,
    key_b64: Option<Base64<'a>>,
    args_b64: Words<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_resp_b64: Option<Base64<'a>>,
    ts_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_at_ms: Option<i64>,
    event_id: &'a str,
    source_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    binlog: Option<BinlogForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<PartForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<SnapshotForm<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    nondeterministic: bool,
    #[serde(skip_serializing_if = "is_false")]
    more_keys: bool,
    source: SourceForm<'a>,
}

#[derive(Serialize)]
struct BinlogForm {
    filenum: u32,
    offset: u64,
    end_filenum: u32,
    end_offset: u64,
    logic_id: u64,
    server_id: u32,
    term_id: u32,
    sub: u32,
}

#[derive(Serialize)]
struct PartForm {
    index: u32,
    last: bool,
}

#[derive(Serialize)]
struct SnapshotForm<'a> {
    id: &'a str,
    filenum: u32,
    offset: u64,
    exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct SourceForm<'a> {
    host: &'a str,
    port: u16,
    version: &'a str,
    replication_id: &'a str,
}

/// Bytes, written in base64.
struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

struct Words<'a>(&'a [Bytes]);

impl Serialize for Words<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|word| Base64(word)))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

fn raw(event: &Event) -> Vec<u8> {
    let mut words = vec![event.op.as_bytes()];
    words.extend(event.args.iter().map(|arg| &arg[..]));
    let mut out = Vec::new();
    resp::put_command(&mut out, &words);
    out
}

fn by_serde(source: &Source, event: &Event, has_raw: bool) -> String {
    let raw = (has_raw && event.kind != Kind::Control).then(|| raw(event));
    let names_servers = source.names_servers();
    let form = Form {
        schema: SCHEMA,
        event_type: event.kind.name(),
        op: &event.op,
        data_type: event.data_type.map(|data_type| data_type.name()),
        db: &event.db,
        slot: 0,
        key: event.key.as_ref().and_then(|key| std::str::from_utf8(key).ok()),
        key_b64: event.key.as_deref().map(Base64),
        args_b64: Words(&event.args),
        raw_resp_b64: raw.as_deref().map(Base64),
        ts_ms: event.ts_ms,
        expire_at_ms: event.expire_at_ms,
        event_id: &event.event_id,
        source_id: &source.id,
        binlog: event.place.map(|place| BinlogForm {
            server_id: if names_servers { place.origin } else { 0 },
            term_id: if names_servers { 0 } else { place.origin },
            filenum: place.start.filenum,
            offset: place.start.offset,
            end_filenum: place.end.filenum,
            end_offset: place.end.offset,
            logic_id: place.logic_id,
            sub: place.sub,
        }),
        part: event.part.map(|part| PartForm {
            index: part.index,
            last: part.is_last,
        }),
        snapshot: event.snapshot.as_ref().map(|snapshot| SnapshotForm {
            id: &snapshot.id,
            filenum: snapshot.position.filenum,
            offset: snapshot.position.offset,
            exact: snapshot.is_exact,
            reason: (event.kind == Kind::Control).then_some(snapshot.reason),
        }),
        nondeterministic: event.is_random,
        more_keys: event.has_more_keys,
        source: SourceForm {
            host: &source.host,
            port: source.port,
            version: &source.version,
            replication_id: &source.replication_id,
        },
    };
    serde_json::to_string(&form).unwrap()
}

fn written(source: &Source, event: &Event, has_raw: bool) -> String {
    // What is there already stays.
    let mut out = b"before".to_vec();
    Json { has_raw }.encode(source, event, &mut out);
    String::from_utf8(out.split_off(6)).unwrap()
}

fn bytes() -> impl Strategy<Value = Bytes> {
    let text = any::<String>().prop_map(String::into_bytes);
    prop_oneof![text, any::<Vec<u8>>()].prop_map(Bytes::from)
}

fn place() -> impl Strategy<Value = Place> {
    let position = || any::<(u32, u64)>().prop_map(|(filenum, offset)| Position::new(filenum, offset));
    (position(), position(), any::<(u64, u32, u32)>()).prop_map(|(start, end, (logic_id, origin, sub))| {
        Place {
            start,
            end,
            logic_id,
            origin,
            sub,
        }
    })
}

fn snapshot() -> impl Strategy<Value = SnapshotRef> {
    (any::<String>(), any::<(u32, u64, bool)>()).prop_map(|(id, (filenum, offset, is_exact))| SnapshotRef {
        id: id.into(),
        position: Position::new(filenum, offset),
        is_exact,
        reason: "initial",
    })
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![Just(Kind::Snapshot), Just(Kind::Binlog), Just(Kind::Control)];
    let of = (
        kind,
        any::<(String, String, String)>(),
        proptest::option::of(0..DataType::ALL.len()),
    );
    let command = (
        proptest::option::of(bytes()),
        proptest::collection::vec(bytes(), 0..12),
    );
    let parts = (
        proptest::option::of(place()),
        proptest::option::of(any::<(u32, bool)>()),
        proptest::option::of(snapshot()),
    );
    let others = any::<(i64, Option<i64>, bool, bool)>();
    (of, command, parts, others).prop_map(
        |((kind, (op, db, event_id), data_type), (key, args), (place, part, snapshot), others)| {
            let (ts_ms, expire_at_ms, is_random, has_more_keys) = others;
            Event {
                kind,
                op: op.into(),
                data_type: data_type.map(|at| DataType::ALL[at]),
                db: db.into(),
                key,
                args,
                ts_ms,
                event_id,
                expire_at_ms,
                place,
                part: part.map(|(index, is_last)| Part { index, is_last }),
                snapshot,
                is_random,
                has_more_keys,
                is_known: true,
            }
        },
    )
}

proptest! {
    #[test]
    fn all_events_are_written_as_serde_writes_them(
        event in event(),
        (id, host, replication_id) in any::<(String, String, String)>(),
        port: u16,
        version in "[2-4]\\.[0-6](\\.[0-9]{1,2})?",
        has_raw: bool,
    ) {
        let source = Source { id, host, port, version, replication_id };
        prop_assert_eq!(written(&source, &event, has_raw), by_serde(&source, &event, has_raw));
    }
}

/// The form is for programs of others: a change of it is a change of this text.
#[test]
fn the_form_is_the_documented_one() {
    let source = Source {
        id: "10.0.0.1:9221".into(),
        host: "10.0.0.1".into(),
        port: 9221,
        version: "3.5.5".into(),
        replication_id: "abcdefghij".into(),
    };
    let event = Event {
        kind: Kind::Binlog,
        op: "set".into(),
        data_type: Some(DataType::String),
        db: "db0".into(),
        key: Some(Bytes::from_static(b"user:1")),
        args: vec![Bytes::from_static(b"user:1"), Bytes::from_static(b"\xff")],
        ts_ms: 1_700_000_000_000,
        event_id: "abcdefgh:db0:0:12:34567:8899:0".into(),
        expire_at_ms: None,
        place: Some(Place {
            start: Position::new(12, 34567),
            end: Position::new(12, 34636),
            logic_id: 8899,
            origin: 7,
            sub: 0,
        }),
        part: None,
        snapshot: None,
        is_random: false,
        has_more_keys: false,
        is_known: true,
    };
    assert_eq!(
        written(&source, &event, true),
        "{\"schema\":1,\"event_type\":\"binlog\",\"op\":\"set\",\"data_type\":\"string\",\"db\":\"db0\",\"slot\":0,\
         \"key\":\"user:1\",\"key_b64\":\"dXNlcjox\",\"args_b64\":[\"dXNlcjox\",\"/w==\"],\
         \"raw_resp_b64\":\"KjMNCiQzDQpzZXQNCiQ2DQp1c2VyOjENCiQxDQr/DQo=\",\"ts_ms\":1700000000000,\
         \"event_id\":\"abcdefgh:db0:0:12:34567:8899:0\",\"source_id\":\"10.0.0.1:9221\",\
         \"binlog\":{\"filenum\":12,\"offset\":34567,\"end_filenum\":12,\"end_offset\":34636,\"logic_id\":8899,\
         \"server_id\":0,\"term_id\":7,\"sub\":0},\
         \"source\":{\"host\":\"10.0.0.1\",\"port\":9221,\"version\":\"3.5.5\",\"replication_id\":\"abcdefghij\"}}"
    );
}

/// One number of an item is one or the other.
#[test]
fn the_origin_of_a_change_is_named_as_the_master_means_it() {
    for (version, names_servers) in [
        ("2.3.6", true),
        ("3.0.16", true),
        ("3.2.9", true),
        ("3.3.0", false),
        ("3.5.5", false),
        ("4.0.0", false),
    ] {
        let source = Source {
            id: "s".into(),
            host: "h".into(),
            port: 1,
            version: version.into(),
            replication_id: String::new(),
        };
        assert_eq!(source.names_servers(), names_servers, "{version}");
    }
}
