//! The replication connection: requests one way; answers, and the binlog, the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use takhin_pika::Position;
use takhin_pika::frame::{self, MAX_FRAME};
use takhin_pika::message::{
    BinlogOffset, BinlogSyncItem, BinlogSyncRequest, DbSyncRequest, InnerRequest, InnerResponse, Kind,
    MetaSyncRequest, MetaSyncResponse, Node, RemoveSlaveNode, Slot, Status, TrySyncReply, TrySyncRequest,
};
use takhin_runtime::clock::Instant;
use takhin_runtime::{Clock, Env, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc};

use super::error::SourceError;
use super::redis::{address, closed, connect};

/// What the replication port is above the Redis port.
const PORT_ABOVE: u16 = 2000;

/// Requests that may wait to be sent.
const QUEUE: usize = 1024;

/// How long nothing must have been read for an answer not to be missed.
const HELD: Duration = Duration::from_millis(500);

/// Room for what is read at a time, in bytes.
const READ_ROOM: usize = 256 << 10;

/// Room that is too little.
const LITTLE_ROOM: usize = 16 << 10;

/// Requests of a connection, and their answers. Another one is not sent before the last one is answered; what concerns the
/// stream has no answers.
#[derive(Debug)]
pub struct Link {
    address: String,
    node: Node,
    clock: Clock,
    timeout: Duration,
    requests: mpsc::Sender<InnerRequest>,
    answers: Mutex<mpsc::Receiver<InnerResponse>>,
    /// Since when nothing is read, if that is so.
    held: parking_lot::Mutex<Option<Instant>>,
    growing: Arc<parking_lot::Mutex<Option<Growing>>>,
}

/// A message of which a part is there.
#[derive(Debug, Clone, Copy)]
struct Growing {
    /// When the first of its bytes were.
    since: Instant,
    /// When the last ones came.
    last: Instant,
}

/// What the master sends.
#[derive(Debug)]
pub(super) struct Incoming {
    address: String,
    reading: ReadHalf,
    buffer: BytesMut,
    answers: mpsc::Sender<InnerResponse>,
    clock: Clock,
    growing: Arc<parking_lot::Mutex<Option<Growing>>>,
}

/// What is sent to the master.
#[derive(Debug)]
pub(super) struct Outgoing {
    address: String,
    writing: WriteHalf,
    requests: mpsc::Receiver<InnerRequest>,
}

/// What TrySync was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tried {
    /// The changes can be had under this session.
    Session(i32),
    /// They cannot, for this reason.
    Lost(&'static str),
}

/// A range of items that is to be acknowledged: the master's own words for where its first and its last item end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The database.
    pub db: String,
    /// The session in which they came.
    pub session: i32,
    /// Where the first one ends.
    pub first: BinlogOffset,
    /// Where the last one ends.
    pub last: BinlogOffset,
}

impl Link {
    /// Connects. What is returned beside it must be driven.
    pub(super) async fn open(
        env: &Env,
        host: &str,
        port: u16,
        node: Node,
        timeout: Duration,
    ) -> Result<(Self, Incoming, Outgoing), SourceError> {
        let address = address(host, port.saturating_add(PORT_ABOVE));
        let (reading, writing) = connect(env, &address, timeout).await?.into_split();
        let (requests, sent) = mpsc::channel(QUEUE);
        // No more than one is waited for; others are nobody's.
        let (arrived, answers) = mpsc::channel(4);
        let incoming = Incoming {
            address: address.clone(),
            reading,
            buffer: BytesMut::new(),
            answers: arrived,
            clock: env.clock.clone(),
            growing: Arc::default(),
        };
        let outgoing = Outgoing {
            address: address.clone(),
            writing,
            requests: sent,
        };
        let link = Self {
            address,
            node,
            clock: env.clock.clone(),
            timeout,
            requests,
            answers: Mutex::new(answers),
            held: parking_lot::Mutex::new(None),
            growing: Arc::clone(&incoming.growing),
        };
        Ok((link, incoming, outgoing))
    }

    /// `HOST:PORT` of the replication port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Notes since when nothing is read.
    pub(super) fn hold(&self, since: Option<Instant>) {
        *self.held.lock() = since;
    }

    /// Since when nothing is read, if that is so.
    pub(super) fn held(&self) -> Option<Instant> {
        *self.held.lock()
    }

    /// Whether a part of a message is there.
    pub(super) fn is_amid(&self) -> bool {
        self.growing.lock().is_some()
    }

    /// Whether bytes of one message have come since then, and none that is whole: what else is sent is behind it.
    pub(super) fn has_grown(&self, since: Instant) -> bool {
        let growing = *self.growing.lock();
        growing.is_some_and(|growing| growing.since <= since && growing.last > since)
    }

    /// Whether bytes have come since then of a message that has been coming for a while.
    fn is_slow(&self, since: Instant) -> bool {
        let growing = *self.growing.lock();
        growing.is_some_and(|growing| growing.since.elapsed() >= HELD && growing.last > since)
    }

    /// Introduces the slave.
    pub(super) async fn meta_sync(&self, password: Option<String>) -> Result<MetaSyncResponse, SourceError> {
        let request = InnerRequest {
            r#type: Kind::MetaSync.into(),
            meta_sync: Some(MetaSyncRequest {
                node: self.node.clone(),
                auth: password,
            }),
            ..InnerRequest::default()
        };
        let answer = self.ask(request, Kind::MetaSync).await?;
        let reply = answer.reply.clone().unwrap_or_default();
        match (answer.code(), answer.meta_sync) {
            (Status::Ok, Some(meta)) => Ok(meta),
            _ if reply.contains("Invalid masterauth") => Err(SourceError::WrongPassword {
                address: self.address.clone(),
            }),
            _ if reply.contains("AlreadyExist") => Err(SourceError::AlreadyListed {
                node: format!("{}:{}", self.node.ip, self.node.port),
            }),
            _ => Err(self.refused("MetaSync", reply)),
        }
    }

    /// Asks for the changes of a database from a position on.
    pub(super) async fn try_sync(&self, db: &str, position: Position) -> Result<Tried, SourceError> {
        let request = InnerRequest {
            r#type: Kind::TrySync.into(),
            try_sync: Some(TrySyncRequest {
                node: self.node.clone(),
                slot: slot(db),
                binlog_offset: BinlogOffset {
                    filenum: position.filenum,
                    offset: position.offset,
                    term: None,
                    index: None,
                },
            }),
            ..InnerRequest::default()
        };
        let answer = self.ask(request, Kind::TrySync).await?;
        let reply = answer.reply.clone().unwrap_or_default();
        match (answer.code(), answer.try_sync) {
            (Status::Ok, Some(tried)) => match (tried.reply_code(), tried.session_id) {
                (TrySyncReply::TrySyncOk, Some(session)) => Ok(Tried::Session(session)),
                (TrySyncReply::TrySyncPointPurged, _) => {
                    Ok(Tried::Lost("the master has deleted the binlog there"))
                }
                (TrySyncReply::TrySyncPointLarger, _) => {
                    Ok(Tried::Lost("the master's binlog ends before it"))
                }
                (TrySyncReply::TrySyncError, _) => {
                    Ok(Tried::Lost("no item of the master's binlog begins there"))
                }
                (TrySyncReply::TrySyncOk, None) => Err(self.refused("TrySync", "no session".to_owned())),
            },
            _ => Err(self.refused("TrySync", reply)),
        }
    }

    /// Asks for a dump of a database, a new one if it is to be `is_fresh`. Returns the session under which this slave is listed
    /// meanwhile.
    pub(super) async fn db_sync(&self, db: &str, is_fresh: bool) -> Result<i32, SourceError> {
        // A master makes a new dump for whoever claims to be far ahead of the one that it has.
        let filenum = if is_fresh { i32::MAX.unsigned_abs() } else { 0 };
        let request = InnerRequest {
            r#type: Kind::DbSync.into(),
            db_sync: Some(DbSyncRequest {
                node: self.node.clone(),
                slot: slot(db),
                binlog_offset: BinlogOffset {
                    filenum,
                    offset: 0,
                    term: None,
                    index: None,
                },
            }),
            ..InnerRequest::default()
        };
        let answer = self.ask(request, Kind::DbSync).await?;
        let reply = answer.reply.clone().unwrap_or_default();
        match (answer.code(), answer.db_sync) {
            (Status::Ok, Some(synced)) => Ok(synced.session_id),
            _ => Err(self.refused("DBSync", reply)),
        }
    }

    /// Detaches a database: the master forgets this slave, and keeps no binlog for it.
    pub(super) async fn remove(&self, db: &str) -> Result<(), SourceError> {
        let request = InnerRequest {
            r#type: Kind::RemoveSlaveNode.into(),
            remove_slave_node: vec![RemoveSlaveNode {
                node: self.node.clone(),
                slot: slot(db),
            }],
            ..InnerRequest::default()
        };
        self.ask(request, Kind::RemoveSlaveNode).await.map(drop)
    }

    /// Begins the stream of a database.
    pub(super) async fn first_send(
        &self,
        db: &str,
        session: i32,
        position: Position,
    ) -> Result<(), SourceError> {
        let at = offset(position.filenum, position.offset);
        self.binlog_sync(db, session, at, at, true).await
    }

    /// Acknowledges items.
    pub(super) async fn ack(&self, ack: &Ack) -> Result<(), SourceError> {
        self.binlog_sync(&ack.db, ack.session, ack.first, ack.last, false)
            .await
    }

    /// Shows that this slave is there.
    pub(super) async fn ping(&self, db: &str, session: i32) -> Result<(), SourceError> {
        self.binlog_sync(db, session, offset(0, 0), offset(0, 0), false)
            .await
    }

    async fn binlog_sync(
        &self,
        db: &str,
        session: i32,
        first: BinlogOffset,
        last: BinlogOffset,
        first_send: bool,
    ) -> Result<(), SourceError> {
        let request = InnerRequest {
            r#type: Kind::BinlogSync.into(),
            binlog_sync: Some(BinlogSyncRequest {
                node: self.node.clone(),
                db_name: db.to_owned(),
                slot_id: 0,
                ack_range_start: first,
                ack_range_end: last,
                session_id: session,
                first_send,
            }),
            ..InnerRequest::default()
        };
        self.send(request).await
    }

    async fn send(&self, request: InnerRequest) -> Result<(), SourceError> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| closed(&self.address, String::new()))
    }

    async fn ask(&self, request: InnerRequest, kind: Kind) -> Result<InnerResponse, SourceError> {
        let mut answers = self.answers.lock().await;
        self.send(request).await?;
        let answered = async {
            while let Some(answer) = answers.recv().await {
                if answer.r#type == i32::from(kind) {
                    return Ok(answer);
                }
            }
            Err(closed(&self.address, String::new()))
        };
        tokio::pin!(answered);
        loop {
            let asked = self.clock.instant();
            match self.clock.timeout(self.timeout, &mut answered).await {
                Ok(answered) => return answered,
                // The answer may be behind changes that nobody takes for now; whoever does not says so.
                Err(_) if self.held().is_some_and(|since| since.elapsed() >= HELD) => {}
                // Or behind a large one that is still coming.
                Err(_) if self.is_slow(asked) => {}
                Err(_) => {
                    return Err(SourceError::Silent {
                        address: self.address.clone(),
                        what: "answered",
                        after: self.timeout,
                    });
                }
            }
        }
    }

    fn refused(&self, what: &'static str, reply: String) -> SourceError {
        SourceError::Refused {
            address: self.address.clone(),
            what,
            reply,
        }
    }
}

impl Incoming {
    /// The items of the next message that has any. Answers go to those who wait for them.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&mut self) -> Result<Vec<BinlogSyncItem>, SourceError> {
        loop {
            let wrong = |source| SourceError::Frame {
                address: self.address.clone(),
                source,
            };
            if let Some(bytes) = frame::next(&mut self.buffer, MAX_FRAME).map_err(wrong)? {
                *self.growing.lock() = None;
                if !self.buffer.is_empty() {
                    self.grown();
                }
                let message: InnerResponse = frame::decode(bytes).map_err(wrong)?;
                if message.r#type != i32::from(Kind::BinlogSync) {
                    let _ = self.answers.try_send(message);
                } else if !message.binlog_sync.is_empty() {
                    return Ok(message.binlog_sync);
                }
                continue;
            }
            if self.buffer.capacity() - self.buffer.len() < LITTLE_ROOM {
                self.buffer.reserve(READ_ROOM);
            }
            match self.reading.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(closed(&self.address, String::new())),
                Ok(_) => self.grown(),
                Err(source) => return Err(closed(&self.address, source.to_string())),
            }
        }
    }
}

impl Incoming {
    fn grown(&self) {
        let last = self.clock.instant();
        let mut growing = self.growing.lock();
        let since = growing.map_or(last, |growing| growing.since);
        *growing = Some(Growing { since, last });
    }
}

impl Outgoing {
    /// Sends what is to be sent, until the connection ends.
    pub(super) async fn run(mut self) -> SourceError {
        let mut bytes = VecDeque::new();
        while let Some(request) = self.requests.recv().await {
            bytes.push_back(frame::encode(&request));
            while let Ok(request) = self.requests.try_recv() {
                bytes.push_back(frame::encode(&request));
            }
            if let Err(source) = self.writing.write_all(&mut bytes).await {
                return closed(&self.address, source.to_string());
            }
        }
        closed(&self.address, String::new())
    }
}

fn slot(db: &str) -> Slot {
    Slot {
        db_name: db.to_owned(),
        slot_id: 0,
    }
}

/// A position as slaves write it in requests of the stream.
fn offset(filenum: u32, offset: u64) -> BinlogOffset {
    BinlogOffset {
        filenum,
        offset,
        term: Some(0),
        index: Some(0),
    }
}
