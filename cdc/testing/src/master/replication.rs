//! The replication port.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use takhin_pika::Position;
use takhin_pika::frame::{self, MAX_FRAME};
use takhin_pika::message::{
    BinlogOffset, BinlogSyncItem, BinlogSyncRequest, DbInfo, DbSyncResponse, InnerRequest, InnerResponse,
    Kind, MetaSyncRequest, MetaSyncResponse, Node, RemoveSlaveNode, Slot, Status, TrySyncReply,
    TrySyncRequest, TrySyncResponse,
};

use super::push::{Target, push};
use super::{Inner, Settings, SlaveState, State};

/// Most items of a message.
const BATCH: usize = 100;

/// Pause between two looks for something to send.
const LOOK: Duration = Duration::from_millis(5);

/// What the port that slaves take dumps on is above theirs, of masters that push them.
const PUSH_ABOVE: u16 = 1000;

/// Whether a master of this version, which speaks protobuf, pushes its dumps.
fn is_pushing(version: &str) -> bool {
    ["3.1.", "3.2.", "3.3.", "3.4."]
        .iter()
        .any(|begin| version.starts_with(begin))
}

pub(super) fn serve(inner: &Arc<Inner>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let connection = {
        let mut state = inner.state();
        state.connections += 1;
        let connection = state.connections;
        state.streams.insert(connection, stream.try_clone()?);
        connection
    };
    let sender = {
        let (inner, stream) = (Arc::clone(inner), stream.try_clone()?);
        thread::spawn(move || drop(send(&inner, stream, connection)))
    };
    let ended = receive(inner, &stream, connection);
    let _ = stream.shutdown(Shutdown::Both);
    {
        // The master sees that the connection is gone, and its slaves with it.
        let mut state = inner.state();
        state.streams.remove(&connection);
        state.nodes.retain(|_, of| *of != connection);
        state.slaves.retain(|_, slave| slave.connection != connection);
    }
    let _ = sender.join();
    ended
}

fn receive(inner: &Arc<Inner>, mut stream: &TcpStream, connection: u32) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 16_384];
    loop {
        while let Some(bytes) = frame::next(&mut buffer, MAX_FRAME).map_err(io::Error::other)? {
            let request: InnerRequest = frame::decode(bytes).map_err(io::Error::other)?;
            let reply = answer(inner, request, connection)?;
            if let Some(reply) = reply {
                stream.write_all(&frame::encode(&reply))?;
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            n => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

/// What to answer, if anything; an error closes the connection.
fn answer(inner: &Arc<Inner>, request: InnerRequest, connection: u32) -> io::Result<Option<InnerResponse>> {
    let settings = inner.settings();
    let mut state = inner.state();
    state.requests.push(request.clone());
    let reply = |kind: Kind| InnerResponse {
        r#type: kind.into(),
        code: Status::Ok.into(),
        ..InnerResponse::default()
    };
    if let Some(meta) = request.meta_sync {
        return Ok(Some(meta_sync(
            &settings,
            &mut state,
            &meta,
            connection,
            reply(Kind::MetaSync),
        )));
    }
    if let Some(wanted) = request.try_sync {
        return Ok(Some(try_sync(
            &mut state,
            &wanted,
            connection,
            reply(Kind::TrySync),
        )));
    }
    if let Some(wanted) = request.db_sync {
        let session = enter(&mut state, &wanted.slot.db_name, &wanted.node, connection);
        if is_pushing(&settings.version) {
            drop(state);
            let db = wanted.slot.db_name.clone();
            let target = Target {
                host: wanted.node.ip.clone(),
                port: u16::try_from(wanted.node.port).unwrap_or(0) + PUSH_ABOVE,
                module: "document".into(),
                prefix: format!("{db}/"),
                password: Some(
                    settings
                        .push_password
                        .or(settings.password)
                        .unwrap_or_else(|| "default".into()),
                ),
                db,
            };
            push(inner, target);
        }
        return Ok(Some(InnerResponse {
            db_sync: Some(DbSyncResponse {
                slot: Slot::clone(&wanted.slot),
                session_id: session,
            }),
            ..reply(Kind::DbSync)
        }));
    }
    if let Some(sync) = request.binlog_sync {
        return binlog_sync(&settings, &mut state, &sync).map(|()| None);
    }
    if let Some(removed) = request.remove_slave_node.first() {
        state
            .slaves
            .remove(&(removed.slot.db_name.clone(), name(&removed.node)));
        let removed = RemoveSlaveNode::clone(removed);
        return Ok(Some(InnerResponse {
            remove_slave_node: vec![removed],
            ..reply(Kind::RemoveSlaveNode)
        }));
    }
    Err(io::Error::other("a request without content"))
}

fn meta_sync(
    settings: &Settings,
    state: &mut State,
    meta: &MetaSyncRequest,
    connection: u32,
    mut reply: InnerResponse,
) -> InnerResponse {
    let is_wrong = settings.password.is_some() && settings.password != meta.auth;
    let refused = match state.nodes.get(&name(&meta.node)) {
        _ if is_wrong => Some((Status::Error, "Auth with master error, Invalid masterauth")),
        Some(_) => Some((Status::Other, "Slave AlreadyExist")),
        None => None,
    };
    if let Some((status, words)) = refused {
        reply.code = status.into();
        reply.reply = Some(words.to_owned());
        return reply;
    }
    state.nodes.insert(name(&meta.node), connection);
    let instances = settings.version.starts_with('4').then_some(3);
    // Slaves of 3.1 to 3.4 are told less.
    let is_new = !is_pushing(&settings.version);
    reply.meta_sync = Some(MetaSyncResponse {
        classic_mode: true,
        dbs_info: state
            .binlogs
            .keys()
            .map(|db| DbInfo {
                db_name: db.clone(),
                slot_num: 1,
                db_instance_num: instances,
            })
            .collect(),
        run_id: is_new.then(|| format!("{:040}", state.run)),
        replication_id: is_new.then(|| settings.replication_id.clone()),
    });
    reply
}

fn try_sync(
    state: &mut State,
    wanted: &TrySyncRequest,
    connection: u32,
    mut reply: InnerResponse,
) -> InnerResponse {
    let db = wanted.slot.db_name.clone();
    let at = Position::new(wanted.binlog_offset.filenum, wanted.binlog_offset.offset);
    let acked = state.acked.get(&db).copied();
    state.tried.push((db.clone(), at, acked));
    let Some(binlog) = state.binlogs.get(&db) else {
        reply.code = Status::Error.into();
        reply.reply = Some("DB not found".to_owned());
        return reply;
    };
    let end = binlog.end();
    let code = if at > end {
        TrySyncReply::TrySyncPointLarger
    } else if at.filenum < binlog.first_file {
        TrySyncReply::TrySyncPointPurged
    } else if binlog.after(at).or_else(|| binlog.begins_file(at)).is_none() {
        TrySyncReply::TrySyncError
    } else {
        TrySyncReply::TrySyncOk
    };
    let session = (code == TrySyncReply::TrySyncOk).then(|| enter(state, &db, &wanted.node, connection));
    reply.try_sync = Some(TrySyncResponse {
        reply_code: code.into(),
        slot: Slot::clone(&wanted.slot),
        binlog_offset: Some(offset(end, None)),
        session_id: session,
    });
    reply
}

/// The slave's session in a database: the one that it has, or a new one.
fn enter(state: &mut State, db: &str, node: &Node, connection: u32) -> i32 {
    let key = (db.to_owned(), name(node));
    if let Some(slave) = state.slaves.get(&key) {
        return slave.session;
    }
    let next = state.next_session.entry(db.to_owned()).or_default();
    let session = *next;
    *next += 1;
    let now = Instant::now();
    let slave = SlaveState {
        connection,
        session,
        sent: None,
        acked: 0,
        asked: now,
        shown: now,
    };
    state.slaves.insert(key, slave);
    session
}

fn binlog_sync(settings: &Settings, state: &mut State, sync: &BinlogSyncRequest) -> io::Result<()> {
    let State {
        slaves,
        binlogs,
        acked,
        faults,
        ..
    } = state;
    let key = (sync.db_name.clone(), name(&sync.node));
    let known = slaves
        .get_mut(&key)
        .filter(|slave| slave.session == sync.session_id);
    let (Some(slave), Some(binlog)) = (known, binlogs.get(&sync.db_name)) else {
        return Ok(());
    };
    if slave.asked.elapsed() > settings.forget {
        slaves.remove(&key);
        return Ok(());
    }
    slave.asked = Instant::now();
    let position = |at: &BinlogOffset| Position::new(at.filenum, at.offset);
    let (first, last) = (position(&sync.ack_range_start), position(&sync.ack_range_end));
    if sync.first_send {
        if first != last {
            return Err(io::Error::other("first_send with a range"));
        }
        let at = binlog.after(first).or_else(|| binlog.begins_file(first));
        let closes = |(db, at): &(String, Position)| (db, *at) == (&sync.db_name, first);
        let at = at.filter(|_| !faults.closes_at.iter().any(closes));
        let at = at.ok_or_else(|| io::Error::other("Activate Binlog Sync failed"))?;
        slave.sent = Some(at);
        slave.acked = at;
        slave.shown = Instant::now();
        // What is before it the slave has, whether an acknowledgement of it arrived or not.
        let furthest = acked.entry(sync.db_name.clone()).or_insert(first);
        *furthest = first.max(*furthest);
        return Ok(());
    }
    if (first, last) == (Position::default(), Position::default()) {
        return Ok(());
    }
    let sent = slave
        .sent
        .ok_or_else(|| io::Error::other("an ack without a stream"))?;
    let window = slave.acked..sent;
    let index = |end: Position| window.clone().find(|at| binlog.entries[*at].end == end);
    match (index(first), index(last)) {
        (Some(from), Some(to)) if from <= to => {
            if from == slave.acked {
                slave.acked = to + 1;
                acked.insert(sync.db_name.clone(), last);
            }
            Ok(())
        }
        _ => Err(io::Error::other("UpdateAckedInfo failed")),
    }
}

/// Sends what there is to the slaves of a connection, until it ends.
fn send(inner: &Inner, mut stream: TcpStream, connection: u32) -> io::Result<()> {
    let mut is_idle = true;
    loop {
        if is_idle {
            thread::sleep(LOOK);
        }
        let (messages, cut) = {
            let settings = inner.settings();
            let mut state = inner.state();
            if !state.streams.contains_key(&connection) {
                return Ok(());
            }
            due(&settings, &mut state, connection)
        };
        is_idle = messages.is_empty();
        for message in &messages {
            stream.write_all(message)?;
        }
        if cut {
            return stream.shutdown(Shutdown::Both);
        }
    }
}

/// The messages that are due, as bytes, and whether the connection is to end then.
fn due(settings: &Settings, state: &mut State, connection: u32) -> (Vec<Bytes>, bool) {
    let mut messages = Vec::new();
    let State {
        slaves,
        binlogs,
        faults,
        ..
    } = state;
    for ((db, _), slave) in slaves
        .iter_mut()
        .filter(|(_, slave)| slave.connection == connection)
    {
        let (Some(sent), Some(binlog)) = (slave.sent, binlogs.get(db)) else {
            continue;
        };
        let item = |at: BinlogOffset, bytes: Bytes| BinlogSyncItem {
            slot: Slot {
                db_name: db.clone(),
                slot_id: 0,
            },
            binlog_offset: at,
            binlog: bytes,
            session_id: slave.session,
        };
        let room = settings.window.saturating_sub(sent - slave.acked);
        let rest = &binlog.entries[sent..];
        let group = rest.first().and_then(|entry| entry.group);
        let is_with = |(at, entry): &(usize, &super::Entry)| *at < room.min(BATCH) && entry.group == group;
        let taken = rest.iter().enumerate().take_while(is_with).count();
        let mut items = Vec::new();
        for (at, entry) in rest[..taken].iter().enumerate() {
            let one = item(offset(entry.end, Some(entry.index)), entry.bytes.clone());
            if faults.leave_out == Some(sent + at) {
                faults.leave_out = None;
                continue;
            }
            if faults.twice == Some(sent + at) {
                faults.twice = None;
                items.push(one.clone());
            }
            items.push(one);
        }
        if items.is_empty() && sent == slave.acked && slave.shown.elapsed() >= settings.keepalive {
            items.push(item(offset(Position::default(), Some(0)), Bytes::new()));
        }
        if items.is_empty() {
            continue;
        }
        slave.sent = Some(sent + taken);
        slave.shown = Instant::now();
        let message = InnerResponse {
            r#type: Kind::BinlogSync.into(),
            code: Status::Ok.into(),
            binlog_sync: items,
            ..InnerResponse::default()
        };
        let mut bytes = frame::encode(&message);
        if let Some(left) = faults.cut_after {
            if left < bytes.len() {
                bytes.truncate(left);
                faults.cut_after = None;
                messages.push(bytes);
                return (messages, true);
            }
            faults.cut_after = Some(left - bytes.len());
        }
        messages.push(bytes);
    }
    (messages, false)
}

fn offset(at: Position, index: Option<u64>) -> BinlogOffset {
    BinlogOffset {
        filenum: at.filenum,
        offset: at.offset,
        term: index.map(|_| 0),
        index,
    }
}

fn name(node: &Node) -> String {
    format!("{}:{}", node.ip, node.port)
}
