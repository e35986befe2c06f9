//! Every recorded binlog stream, item by item.

use bytes::BytesMut;
use serde_json::{Value, json};
use takhin_pika::binlog::Item;
use takhin_pika::legacy::{self, Arrived, Chain, Frame, Reader, Step};
use takhin_pika::message::Kind;
use takhin_pika::{Position, command};
use takhin_pika_testing::fixture::{Fixture, MASTER_PORT, SLAVE_PORT};

use crate::content::are_same;

const MAX: usize = 1 << 30;

/// Sessions whose binlog was decoded by others.
const SESSIONS: [&str; 4] = ["01", "02", "03", "04"];

fn is_end(position: Position) -> Value {
    json!([position.filenum, position.offset])
}

fn has_header(item: &Item, told: &Value) -> bool {
    told["exec_time"] == item.exec_time
        && told["term"] == item.origin
        && told["logic_id"] == item.logic_id
        && told["filenum"] == item.start.filenum
        && told["offset"] == item.start.offset
        && told["content_length"] == item.content.len()
}

#[test]
fn items_of_pb_masters() {
    for version in ["3.5.5", "4.0.1"] {
        let fixture = Fixture::of(version);
        for number in SESSIONS {
            let told = fixture.lines(&format!("binlog-{number}.jsonl")).unwrap();
            let mut told = told.iter();
            let mut ends: std::collections::BTreeMap<String, Position> = Default::default();
            for connection in fixture.session(number).unwrap() {
                if connection.server_port != MASTER_PORT + 2000 {
                    continue;
                }
                ends.clear();
                for response in connection.responses().unwrap() {
                    for sent in response.binlog_sync {
                        assert_eq!(response.r#type, i32::from(Kind::BinlogSync));
                        if sent.binlog.is_empty() {
                            continue;
                        }
                        let item = Item::decode(sent.binlog).unwrap();
                        let told = told.next().expect("an item more than was recorded");
                        let end = Position::new(sent.binlog_offset.filenum, sent.binlog_offset.offset);
                        let db = sent.slot.db_name;
                        assert!(has_header(&item, told), "{version} {number}: {item:?} {told}");
                        assert_eq!((&told["db"], &told["end_offset"]), (&json!(db), &is_end(end)));
                        let commands = item.commands().unwrap();
                        assert_eq!(commands.len(), 1);
                        assert!(
                            are_same(&commands[0], &told["argv"]),
                            "{version} {number}: {told}"
                        );
                        // Ends are where records of that length end, and the next item begins there.
                        let start = if end.filenum == item.start.filenum {
                            item.start
                        } else {
                            Position::new(end.filenum, 0)
                        };
                        assert_eq!(start.after(item.len()), Some(end), "{told}");
                        // The slave of 4.0.1 asks for what it cannot apply again and again.
                        let is_next = |known: &Position| item.follows(*known) || end <= *known;
                        assert!(ends.get(&db).is_none_or(is_next), "{version} {number}: {told}");
                        ends.insert(db, end);
                    }
                }
            }
            assert_eq!(told.next(), None, "{version} {number}");
        }
    }
}

#[test]
fn items_of_3_0() {
    let fixture = Fixture::of("3.0.16");
    for number in SESSIONS.iter().chain(&["06"]) {
        let told = fixture.lines(&format!("binlog-{number}.jsonl")).unwrap();
        let mut told = told.iter();
        for connection in fixture.session(number).unwrap() {
            // The master connects, so what it sends goes to the server.
            if connection.server_port != SLAVE_PORT + 1000 {
                continue;
            }
            let mut stream = BytesMut::from(&connection.to_server[..]);
            while let Some(frame) = legacy::next_frame(&mut stream, MAX).unwrap() {
                let told = told.next().expect("a frame more than was recorded");
                match frame {
                    Frame::Auth(command) => {
                        assert_eq!(told["transfer_type"], 1);
                        assert!(are_same(&command, &told["argv"]));
                    }
                    Frame::Item(item) => {
                        assert!(
                            told["transfer_type"] == 2 && has_header(&item, told),
                            "{number}: {item:?} {told}"
                        );
                        let commands = item.commands().unwrap();
                        assert!(are_same(&commands[0], &told["argv"]), "{number}: {told}");
                    }
                }
            }
            assert!(stream.is_empty(), "{number}: {} bytes are left", stream.len());
        }
        assert_eq!(told.next(), None, "{number}");
    }
}

#[test]
fn commands_of_2_3() {
    let fixture = Fixture::of("2.3.6");
    for number in SESSIONS.iter().chain(&["06"]) {
        let told = fixture.lines(&format!("binlog-{number}.jsonl")).unwrap();
        let mut told = told.iter();
        for connection in fixture.session(number).unwrap() {
            if connection.server_port != SLAVE_PORT + 1000 {
                continue;
            }
            let mut stream = BytesMut::from(&connection.to_server[..]);
            while let Some(tagged) = legacy::next_tagged(&mut stream, MAX).unwrap() {
                let told = told.next().expect("a command more than was recorded");
                assert!(are_same(&tagged.command, &told["argv"]), "{number}: {told}");
                let Some(tag) = tagged.tag else {
                    assert_eq!(tagged.command[0], "auth");
                    continue;
                };
                assert_eq!(told["server_id"], tag.server_id.to_string());
                assert_eq!(told["exec_time"], tag.exec_time);
                assert_eq!(
                    (&told["filenum"], &told["offset"]),
                    (&json!(tag.start.filenum), &json!(tag.start.offset))
                );
            }
            assert!(stream.is_empty(), "{number}: {} bytes are left", stream.len());
        }
        assert_eq!(told.next(), None, "{number}");
    }
}

/// What real servers write is in the table of commands.
#[test]
fn every_recorded_command_is_known() {
    let mut seen = 0;
    for version in takhin_pika_testing::fixture::VERSIONS {
        for number in SESSIONS {
            for line in Fixture::of(version)
                .lines(&format!("binlog-{number}.jsonl"))
                .unwrap()
            {
                let words = line["argv"].as_array().unwrap();
                let command: Vec<_> = words
                    .iter()
                    .map(|word| word.as_str().unwrap_or("?").to_owned().into())
                    .collect();
                let changes = command::changes(&command, 0);
                assert!(
                    changes.iter().all(|change| change.is_known) || words[0] == "auth",
                    "{version}: {line}"
                );
                seen += changes.len();
            }
        }
    }
    assert!(seen > 500, "{seen}");
}

/// Every recorded stream is one chain: what is computed of ends is where the next record begins.
#[test]
fn streams_of_legacy_masters_have_no_gaps() {
    for version in ["2.3.6", "3.0.16"] {
        let (mut taken, mut rolled) = (0, 0);
        for number in SESSIONS.iter().chain(&["06"]) {
            for connection in Fixture::of(version).session(number).unwrap() {
                if connection.server_port != SLAVE_PORT + 1000 {
                    continue;
                }
                let mut reader = Reader::default();
                reader.buffer.extend_from_slice(&connection.to_server);
                let mut chain: Option<Chain> = None;
                while let Some(arrived) = reader.next(MAX).unwrap() {
                    let Arrived::Item { item, len, may_go_on } = arrived else {
                        continue;
                    };
                    let chain = chain.get_or_insert_with(|| Chain::new(item.start, None, 16_384));
                    match chain.take(item.start, len, may_go_on) {
                        Ok(Step::New { end, .. }) => rolled += usize::from(end.filenum > item.start.filenum),
                        other => panic!("{version} {number}: {other:?} {item:?}"),
                    }
                    taken += 1;
                }
            }
        }
        let (least, rolls) = if version == "2.3.6" { (165, 1) } else { (165, 0) };
        assert!(taken > least && rolled == rolls, "{version}: {taken} {rolled}");
    }
}
