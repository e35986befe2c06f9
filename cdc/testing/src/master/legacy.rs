//! What masters before 3.1 do: they are asked with `trysync`, hear signs of life, and connect to their slaves.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use takhin_pika::Position;
use takhin_pika::binlog::Item;
use takhin_pika::legacy::{Arrived, Reader};
use takhin_pika::resp;

use super::push::{Target, push};
use super::{Entry, Inner, Settings};

/// What the port that slaves listen on is above theirs.
const LISTEN_ABOVE: u16 = 1000;

/// What the port that slaves take dumps on is above theirs.
const PUSH_ABOVE: u16 = 3000;

/// The answer before a dump is pushed.
const WAIT: &str = "$4\r\nwait\r\n";

/// Pause before the master connects; real ones wait for two seconds.
const CONNECT_AFTER: Duration = Duration::from_millis(30);

/// Pause between two looks for something to send.
const LOOK: Duration = Duration::from_millis(2);

/// A record of the binlog.
#[derive(Debug, Clone)]
struct Record {
    /// Where it begins, as it says itself, and really.
    header: Position,
    start: Position,
    end: Position,
    /// As it is sent.
    bytes: Bytes,
}

/// How long a slave is listed that has shown no sign of life.
const FIRST_SIGN: Duration = Duration::from_secs(30);

/// A slave that is listed.
#[derive(Debug)]
struct Slave {
    number: i64,
    since: Instant,
    connection: Option<TcpStream>,
    life: Option<TcpStream>,
}

/// What it has and was asked.
#[derive(Debug, Default)]
pub struct State {
    is_tagged: bool,
    file_size: u64,
    begin: Position,
    records: Vec<Record>,
    first_file: u32,
    next_number: i64,
    slaves: BTreeMap<String, Slave>,
    /// The bytes of each `trysync`, with those of the command before it on the connection.
    pub asked: Vec<Bytes>,
    /// The bytes of each connection with signs of life.
    pub life: Vec<Vec<u8>>,
    /// Connections made to slaves.
    pub connections: u32,
    /// Whether slaves are not connected to.
    pub is_mute: bool,
    /// Whether signs of life are refused, as of slaves that come from another address than they said.
    pub refuses_life: bool,
}

/// Whether a master of this version does what is here.
pub fn is_legacy(version: &str) -> bool {
    version.starts_with("2.") || version.starts_with("3.0.")
}

impl State {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            is_tagged: settings.version.starts_with("2."),
            file_size: settings.file_size,
            ..Self::default()
        }
    }

    /// Where the binlog ends.
    pub fn end(&self) -> Position {
        self.records.last().map_or(self.begin, |record| record.end)
    }

    /// Where the records say that they begin which begin at a position or after it.
    pub fn places_after(&self, position: Position) -> Vec<Position> {
        let is_after = |record: &&Record| record.start >= position;
        let records = self.records.iter().filter(is_after);
        records.map(|record| record.header).collect()
    }

    /// The records as masters from 3.1 on have them, which write items in the same form.
    pub fn entries(&self) -> Vec<Entry> {
        let records = self.records.iter().zip(1..);
        let entry = |(record, index): (&Record, u64)| Entry {
            end: record.end,
            index,
            bytes: record.bytes.clone(),
            group: None,
        };
        records.map(entry).collect()
    }

    /// Has the binlog begin at a position, with nothing in it.
    pub fn begin_at(&mut self, position: Position) {
        self.begin = position;
        self.records.clear();
    }

    /// Deletes the files before this one.
    pub fn purge(&mut self, filenum: u32) {
        self.first_file = filenum;
    }

    /// The number that the next slave gets.
    pub fn next_number(&mut self, number: i64) {
        self.next_number = number;
    }

    /// Executes commands that have a record together.
    pub fn execute(&mut self, commands: &[&[&[u8]]]) -> Position {
        let header = self.end();
        let mut content = Vec::new();
        for words in commands {
            let mut words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
            if self.is_tagged {
                let mut place = 1_700_000_000_u32.to_le_bytes().to_vec();
                place.extend_from_slice(&header.filenum.to_le_bytes());
                place.extend_from_slice(&header.offset.to_le_bytes());
                words.extend([b"__PIKA_X#$SKGI".to_vec(), b"1".to_vec(), place, b"1".to_vec()]);
            }
            resp::put_command(&mut content, &words);
        }
        let bytes = match self.is_tagged {
            true => content.into(),
            false => Item {
                exec_time: 1_700_000_000,
                origin: 1,
                logic_id: self.records.len() as u64,
                start: header,
                content: content.into(),
            }
            .encode(),
        };
        self.append(header, bytes)
    }

    /// Puts in what a real master sent.
    ///
    /// # Errors
    ///
    /// It makes no sense.
    pub fn load(&mut self, stream: &[u8]) -> Result<()> {
        let mut reader = Reader::default();
        reader.buffer.extend_from_slice(stream);
        let mut from = 0;
        while let Some(arrived) = reader.next(1 << 30)? {
            let bytes = Bytes::copy_from_slice(&stream[from..stream.len() - reader.buffer.len()]);
            from += bytes.len();
            let Arrived::Item { item, .. } = arrived else {
                continue;
            };
            let bytes = match self.is_tagged {
                true => bytes,
                // Without the header of the frame, which is made anew.
                false => item.encode(),
            };
            match self.records.last_mut().filter(|last| last.header == item.start) {
                Some(last) => {
                    last.bytes = [&last.bytes[..], &bytes].concat().into();
                    last.end = last.start.after(last.bytes.len() as u64).unwrap_or(last.end);
                }
                None => drop(self.append(item.start, bytes)),
            }
        }
        Ok(())
    }

    fn append(&mut self, header: Position, bytes: Bytes) -> Position {
        let start = match header.offset > self.file_size {
            true => Position::new(header.filenum + 1, 0),
            false => header,
        };
        let end = start.after(bytes.len() as u64).unwrap_or(start);
        self.records.push(Record {
            header,
            start,
            end,
            bytes,
        });
        end
    }

    pub(super) fn disconnect(&mut self) {
        for slave in std::mem::take(&mut self.slaves).into_values() {
            for stream in [slave.connection, slave.life].into_iter().flatten() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Answers `trysync`: the record to begin with, or the error or text instead.
    fn find(&self, at: Position) -> Result<usize, &'static str> {
        let end = self.end();
        let is_later = at.filenum > end.filenum || (at.filenum == end.filenum && at.offset > end.offset);
        if at.offset > self.file_size || (is_later && at.filenum != u32::MAX) {
            return Err("-ERR InvalidOffset\r\n");
        }
        if at.filenum < self.first_file || at.filenum == u32::MAX {
            return Err(WAIT);
        }
        // A position within a record is moved to the next one, and nobody is told.
        let is_there = |record: &Record| record.start >= at;
        let found = self.records.iter().position(is_there);
        Ok(found.unwrap_or(self.records.len()))
    }
}

pub(super) fn try_sync(inner: &Arc<Inner>, words: &[Bytes], said: Vec<u8>) -> String {
    let text = |at: usize| {
        words
            .get(at)
            .map(|word| String::from_utf8_lossy(word).into_owned())
    };
    let number = |at| text(at).and_then(|text| text.parse::<u64>().ok());
    let mut state = inner.state();
    let legacy = &mut state.legacy;
    legacy.asked.push(said.into());
    let (Some(host), Some(port), Some(filenum), Some(offset)) = (text(0), number(1), number(2), number(3))
    else {
        return "-ERR wrong number of arguments for 'trysync' command\r\n".to_owned();
    };
    let name = format!("{host}:{port}");
    // One that was killed before its first sign of life has no connection whose end would tell.
    let is_dead = |slave: &Slave| slave.life.is_none() && slave.since.elapsed() > FIRST_SIGN;
    if legacy.slaves.get(&name).is_some_and(is_dead) {
        legacy.slaves.remove(&name);
    }
    if legacy.slaves.contains_key(&name) {
        return "-ERR AlreadyExist\r\n".to_owned();
    }
    let at = Position::new(u32::try_from(filenum).unwrap_or(u32::MAX), offset);
    let from = match legacy.find(at) {
        Ok(from) => from,
        Err(reply) => {
            if reply == WAIT {
                let module_host = state.faults.module_host.clone();
                drop(state);
                let own = inner.settings().address.to_string();
                let module = format!("document_{}:{}", module_host.unwrap_or(own), inner.port);
                let target = Target {
                    db: "db0".into(),
                    host,
                    port: u16::try_from(port).unwrap_or(0) + PUSH_ABOVE,
                    module,
                    prefix: String::new(),
                    password: None,
                };
                push(inner, target);
            }
            return reply.to_owned();
        }
    };
    let number = legacy.next_number;
    legacy.next_number += 1;
    let slave = Slave {
        number,
        since: Instant::now(),
        connection: None,
        life: None,
    };
    legacy.slaves.insert(name.clone(), slave);
    let (inner, listening) = (Arc::clone(inner), u16::try_from(port).unwrap_or(0) + LISTEN_ABOVE);
    thread::spawn(move || {
        let mut next = from;
        while inner.state().legacy.is_listed(&name, number) {
            thread::sleep(CONNECT_AFTER);
            if inner.state().legacy.is_mute {
                continue;
            }
            if let Ok(stream) = TcpStream::connect((host.as_str(), listening)) {
                let _ = send(&inner, stream, (&name, number), &mut next);
            }
        }
    });
    format!(":{number}\r\n")
}

impl State {
    fn is_listed(&self, name: &str, number: i64) -> bool {
        self.slaves.get(name).is_some_and(|slave| slave.number == number)
    }

    /// A message: of 3.0 in a frame, of 2.3 as it is.
    fn framed(&self, kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.is_tagged {
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.extend_from_slice(body);
        out
    }
}

/// Sends to a slave until its connection ends or it is listed no more. `next` is behind what was sent, as far as the master
/// knows.
fn send(
    inner: &Inner,
    mut stream: TcpStream,
    (name, number): (&str, i64),
    next: &mut usize,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let hello = {
        let mut state = inner.state();
        state.legacy.connections += 1;
        if let Some(slave) = state.legacy.slaves.get_mut(name) {
            slave.connection = Some(stream.try_clone()?);
        }
        let mut auth = Vec::new();
        resp::put_command(&mut auth, &["auth", &number.to_string()]);
        state.legacy.framed(1, &auth)
    };
    stream.write_all(&hello)?;
    loop {
        let (message, cut) = {
            let mut state = inner.state();
            let state = &mut *state;
            if !state.legacy.is_listed(name, number) {
                return stream.shutdown(Shutdown::Both);
            }
            let Some(record) = state.legacy.records.get(*next) else {
                // Nothing is sent to see whether the slave is there; the other connection tells.
                thread::sleep(LOOK);
                continue;
            };
            let mut message = state.legacy.framed(2, &record.bytes);
            let left = state.faults.cut_after;
            match left {
                Some(left) if left < message.len() => {
                    message.truncate(left);
                    state.faults.cut_after = None;
                    // Those that the system has taken from the master, and that the slave has not read.
                    *next += std::mem::take(&mut state.faults.lost_with_it);
                    (message, true)
                }
                left => {
                    state.faults.cut_after = left.map(|left| left - message.len());
                    (message, false)
                }
            }
        };
        stream.write_all(&message)?;
        if cut {
            return stream.shutdown(Shutdown::Both);
        }
        *next += 1;
    }
}

/// The connection with signs of life: when it ends, the slave is forgotten.
pub(super) fn serve_life(inner: &Arc<Inner>, mut stream: &TcpStream) -> io::Result<()> {
    let at = {
        let legacy = &mut inner.state().legacy;
        if legacy.refuses_life {
            return stream.shutdown(Shutdown::Both);
        }
        legacy.life.push(Vec::new());
        legacy.life.len() - 1
    };
    let mut number = None;
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 1024];
    let ended = loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break Ok(()),
            Ok(read) => {
                buffer.extend_from_slice(&chunk[..read]);
                inner.state().legacy.life[at].extend_from_slice(&chunk[..read]);
            }
        }
        while let Ok(Some((command, _))) = resp::next_command(&mut buffer, 1024) {
            let words: Vec<&[u8]> = command.iter().map(|word| &word[..]).collect();
            let reply: &[u8] = match words.as_slice() {
                [b"spci", said] => {
                    number = std::str::from_utf8(said).ok().and_then(|said| said.parse().ok());
                    let mut state = inner.state();
                    let slaves = state.legacy.slaves.values_mut();
                    for slave in slaves.filter(|slave| Some(slave.number) == number) {
                        slave.life = stream.try_clone().ok();
                    }
                    b"+OK\r\n"
                }
                [b"ping"] => b"+PONG\r\n",
                _ => b"-ERR unknown or unsupported command\r\n",
            };
            let _ = stream.write_all(reply);
        }
    };
    let mut state = inner.state();
    state.legacy.slaves.retain(|_, slave| {
        let is_it = Some(slave.number) == number;
        if let Some(connection) = slave.connection.as_ref().filter(|_| is_it) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        !is_it
    });
    ended
}
