//! A connection to a master and the databases that are followed over it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use takhin_pika::Position;
use takhin_pika::binlog::Item;
use takhin_pika::message::BinlogSyncItem;
use takhin_runtime::Env;
use takhin_runtime::clock::Instant;

use super::error::SourceError;
use super::followed::Followed;
use super::inlet::{Inlet, Message};
use super::legacy::Received;
use super::link::{Ack, Incoming, Link, Outgoing};
use crate::metrics;

/// A database shows that it is followed at least this often: masters forget a slave that is silent for 20 s.
const PING_AFTER: Duration = Duration::from_secs(5);

/// Bytes that are taken together, where so many are there.
const TOGETHER: usize = 256 << 10;

/// Pause between two looks for databases that have been silent.
const PING_TICK: Duration = Duration::from_millis(500);

/// A connection and its databases.
#[derive(Debug)]
pub struct Session {
    pub(super) env: Env,
    pub(super) link: Link,
    pub(super) ends: Ends,
    timeout: Duration,
    followed: Followed,
    dbs: Mutex<BTreeMap<String, Db>>,
}

/// Between which addresses the connections are, and what is said over them; masters before 3.5 connect as well.
pub struct Ends {
    /// Own address.
    pub local: SocketAddr,
    /// The master's.
    pub peer: SocketAddr,
    /// The master's password.
    pub password: Option<String>,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ends({}, {})", self.local, self.peer)
    }
}

/// A database that has a session.
#[derive(Debug)]
struct Db {
    name: Arc<str>,
    session: i32,
    /// Where the last item ended; `None` while no changes are to come.
    end: Option<Position>,
    /// Data sets by which a lost position was replaced.
    epoch: u32,
    /// When the master heard of it last.
    heard: Instant,
    /// Messages without an acknowledgement.
    outstanding: usize,
}

impl Session {
    pub(super) fn new(env: Env, link: Link, ends: Ends, timeout: Duration) -> Self {
        Self {
            env,
            link,
            ends,
            timeout,
            followed: Followed::default(),
            dbs: Mutex::default(),
        }
    }

    /// Whom its events come from, once the master has introduced itself, and how far they were written.
    pub fn followed(&self) -> &Followed {
        &self.followed
    }

    /// Notes a session. With a position, its changes are expected from there on, after so many data sets that have replaced a
    /// lost one.
    pub(super) fn enter(&self, db: &str, session: i32, from: Option<(Position, u32)>) {
        let (end, epoch) = (from.map(|from| from.0), from.map_or(0, |from| from.1));
        let entry = Db {
            name: db.into(),
            session,
            end,
            epoch,
            heard: self.env.clock.instant(),
            outstanding: 0,
        };
        self.followed.begin(db, end.unwrap_or_default());
        self.dbs.lock().insert(db.to_owned(), entry);
    }

    /// Sends and receives until the connection ends or something is wrong, which is what it returns. Whoever asks the
    /// master for something must have this driven beside it.
    pub(super) async fn drive(
        &self,
        incoming: Incoming,
        outgoing: Outgoing,
        inlet: &impl Inlet,
    ) -> SourceError {
        tokio::select! {
            error = self.receive(incoming, inlet) => error,
            error = outgoing.run() => error,
            error = self.keep_alive() => error,
        }
    }

    async fn receive(&self, mut incoming: Incoming, inlet: &impl Inlet) -> SourceError {
        loop {
            let items = match self.env.clock.timeout(self.timeout, incoming.next()).await {
                Ok(Ok(items)) => items,
                Ok(Err(error)) => return error,
                Err(_) if self.may_be_silent() => continue,
                Err(_) => {
                    return SourceError::Silent {
                        address: self.link.address().to_owned(),
                        what: "sent anything",
                        after: self.timeout,
                    };
                }
            };
            if let Err(error) = self.take(items, &mut incoming, inlet).await {
                return error;
            }
        }
    }

    /// Takes a message, and those that have arrived behind it.
    async fn take(
        &self,
        items: Vec<BinlogSyncItem>,
        incoming: &mut Incoming,
        inlet: &impl Inlet,
    ) -> Result<(), SourceError> {
        let (mut messages, mut broken) = (Vec::new(), None);
        let mut next = Some(items);
        while let Some(items) = next.take() {
            for (db, items) in by_database(items) {
                match self.message(&db, items).await {
                    Ok(message) => messages.extend(message),
                    Err(error) => broken = broken.or(Some(error)),
                }
            }
            let len: usize = messages.iter().map(|message: &Message| message.len).sum();
            if broken.is_none() && len < TOGETHER {
                match incoming.next().now_or_never() {
                    Some(Ok(items)) => next = Some(items),
                    Some(Err(error)) => broken = Some(error),
                    None => {}
                }
            }
        }
        let acks = match messages.is_empty() {
            true => Vec::new(),
            false => inlet.take(self.followed.source(), messages).await?,
        };
        for ack in &acks {
            self.acknowledge(ack).await?;
        }
        broken.map_or(Ok(()), Err)
    }

    /// Masters send nothing while a slave owes them acknowledgements, and nothing of databases whose changes nobody has
    /// asked for.
    fn may_be_silent(&self) -> bool {
        let dbs = self.dbs.lock();
        let is_due = |db: &Db| db.end.is_some() && db.outstanding == 0;
        !dbs.values().any(is_due)
    }

    /// What the items of a database say; `None` if there is nothing to be taken.
    async fn message(&self, db: &str, items: Vec<BinlogSyncItem>) -> Result<Option<Message>, SourceError> {
        let Some(session) = self.session_of(db) else {
            return Ok(None);
        };
        let items: Vec<_> = items
            .into_iter()
            .filter(|item| item.session_id == session)
            .collect();
        if items.is_empty() {
            return Ok(None);
        }
        if items.iter().all(|item| item.binlog.is_empty()) {
            self.heard(db);
            return self.link.ping(db, session).await.map(|()| None);
        }
        self.read(db, session, items)
    }

    fn session_of(&self, db: &str) -> Option<i32> {
        self.dbs.lock().get(db).map(|db| db.session)
    }

    fn heard(&self, db: &str) {
        if let Some(db) = self.dbs.lock().get_mut(db) {
            db.heard = self.env.clock.instant();
        }
    }

    /// Reads the items of a message; `None` if nobody has asked for any.
    fn read(
        &self,
        db: &str,
        session: i32,
        items: Vec<BinlogSyncItem>,
    ) -> Result<Option<Message>, SourceError> {
        let mut dbs = self.dbs.lock();
        let Some(followed) = dbs.get_mut(db) else {
            return Ok(None);
        };
        let Some(mut end) = followed.end else {
            return Ok(None);
        };
        let mut message = Message::new((&followed.name, session), (end, followed.epoch));
        let sent = items.into_iter().filter(|item| !item.binlog.is_empty());
        for (index, sent) in sent.enumerate() {
            if index == 0 {
                message.ack.first = sent.binlog_offset;
            }
            message.ack.last = sent.binlog_offset;
            message.len += sent.binlog.len();
            let item_end = Position::new(sent.binlog_offset.filenum, sent.binlog_offset.offset);
            if item_end <= end {
                // Sent again: it was taken before.
                metrics::DUPLICATES.with([db]).inc();
                continue;
            }
            let wrong = |source| SourceError::Item {
                db: db.to_owned(),
                end: item_end,
                source,
            };
            let item = Item::decode(sent.binlog).map_err(wrong)?;
            if !item.follows(end) {
                metrics::GAPS.with([db]).inc();
                return Err(SourceError::Gap {
                    db: db.to_owned(),
                    expected: end,
                    found: item.start,
                });
            }
            end = item_end;
            message.items.push(Received { item, index: 0, end });
        }
        message.end = end;
        followed.end = Some(end);
        followed.outstanding += 1;
        Ok(Some(message))
    }

    /// Tells the master that the items of a message are safe.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub async fn acknowledge(&self, ack: &Ack) -> Result<(), SourceError> {
        {
            let now = self.env.clock.instant();
            let mut dbs = self.dbs.lock();
            if let Some(db) = dbs.get_mut(&ack.db) {
                db.outstanding = db.outstanding.saturating_sub(1);
                db.heard = now;
            }
        }
        self.link.ack(ack).await
    }

    /// The databases that have a session.
    pub fn databases(&self) -> Vec<String> {
        self.dbs.lock().keys().cloned().collect()
    }

    /// Takes leave of the master, so that it keeps nothing for us.
    pub async fn leave(&self) {
        for db in self.databases() {
            if let Err(error) = self.link.remove(&db).await {
                tracing::debug!(db, %error, "the master was not told that nobody follows");
                return;
            }
        }
    }

    async fn keep_alive(&self) -> SourceError {
        loop {
            self.env.clock.sleep(PING_TICK).await;
            let now = self.env.clock.instant();
            let mut silent = Vec::new();
            for (name, db) in &mut *self.dbs.lock() {
                if now.saturating_duration_since(db.heard) >= PING_AFTER {
                    db.heard = now;
                    silent.push((name.clone(), db.session));
                }
            }
            for (db, session) in silent {
                if let Err(error) = self.link.ping(&db, session).await {
                    return error;
                }
            }
        }
    }
}

/// The items of each database, in order. Up to 3.5.2 one message may have those of several.
fn by_database(items: Vec<BinlogSyncItem>) -> Vec<(String, Vec<BinlogSyncItem>)> {
    let mut groups: Vec<(String, Vec<BinlogSyncItem>)> = Vec::new();
    for item in items {
        match groups.iter_mut().find(|(db, _)| *db == item.slot.db_name) {
            Some((_, group)) => group.push(item),
            None => groups.push((item.slot.db_name.clone(), vec![item])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use takhin_pika::message::{BinlogOffset, Node, Slot};

    use super::*;
    use crate::event::Source;
    use crate::queue::queue;

    /// A session over a connection to nobody in particular.
    async fn session() -> (Session, takhin_runtime::Listener) {
        let env = Env::real();
        let listener = env.net.listen("127.0.0.1:0", "test").await.unwrap();
        let at = listener.local_addr().unwrap();
        let node = Node {
            ip: "127.0.0.1".to_owned(),
            port: 1,
        };
        let after = Duration::from_secs(5);
        let opened = Link::open(&env, "127.0.0.1", at.port() - 2000, node, after).await;
        let (link, _, _) = opened.unwrap();
        let ends = Ends {
            local: at,
            peer: at,
            password: None,
        };
        let session = Session::new(env, link, ends, after);
        session.followed.set_source(Source {
            id: "s".into(),
            host: "127.0.0.1".into(),
            port: 1,
            version: "3.4.1".into(),
            replication_id: String::new(),
        });
        (session, listener)
    }

    /// Masters up to 3.4 send what was queued in a session before, where the same slave asks again from elsewhere.
    #[tokio::test]
    async fn what_is_of_another_session_is_not_taken() {
        let (session, _listener) = session().await;
        let begin = Position::new(3, 0);
        session.enter("db0", 7, Some((begin, 0)));
        let sent = |of: i32, value: &str| {
            let content = format!("*3\r\n$3\r\nset\r\n$1\r\nk\r\n$3\r\n{value}\r\n");
            let item = Item {
                exec_time: 1,
                origin: 0,
                logic_id: 1,
                start: begin,
                content: content.into(),
            };
            let binlog = item.encode();
            let end = begin.after(binlog.len() as u64).unwrap();
            BinlogSyncItem {
                slot: Slot {
                    db_name: "db0".to_owned(),
                    slot_id: 0,
                },
                binlog_offset: BinlogOffset {
                    filenum: end.filenum,
                    offset: end.offset,
                    ..BinlogOffset::default()
                },
                binlog,
                session_id: of,
            }
        };
        let (queue, mut works) = queue(1 << 20);
        let old = session.message("db0", vec![sent(6, "old")]).await.unwrap();
        assert!(old.is_none(), "what is of session 6 was taken");
        let items = vec![sent(6, "old"), sent(7, "new")];
        let message = session.message("db0", items).await.unwrap().unwrap();
        let source = session.followed.source();
        queue.take(source, vec![message]).await.unwrap();
        let work = works.try_recv().unwrap();
        let values: Vec<_> = work.events.iter().map(|event| event.args[1].clone()).collect();
        assert_eq!(values, ["new"]);
    }

    #[test]
    fn a_message_may_have_items_of_several_databases() {
        let item = |db: &str, offset| BinlogSyncItem {
            slot: Slot {
                db_name: db.to_owned(),
                slot_id: 0,
            },
            binlog_offset: BinlogOffset {
                offset,
                ..BinlogOffset::default()
            },
            binlog: Bytes::new(),
            session_id: 0,
        };
        let groups = by_database(vec![item("db1", 1), item("db0", 2), item("db1", 3)]);
        let told: Vec<(String, Vec<u64>)> = groups
            .into_iter()
            .map(|(db, items)| (db, items.iter().map(|item| item.binlog_offset.offset).collect()))
            .collect();
        assert_eq!(
            told,
            [("db1".to_owned(), vec![1, 3]), ("db0".to_owned(), vec![2])]
        );
    }
}
