//! A connection to a master and the databases that are followed over it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
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
use super::listed::Db;
use crate::metrics;

/// A database shows that it is followed at least this often: masters forget a slave that is silent for 20 s.
const PING_AFTER: Duration = Duration::from_secs(5);

/// Masters show themselves after 10 s at the latest where there are no changes. Whoever hears nothing of a database for longer than this
/// has been forgotten, or the master is gone; no less, whatever `source.timeout` is.
const SILENCE: Duration = Duration::from_secs(20);

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
    /// Of databases of which nothing has come: the number of the item that was written last.
    numbers: Mutex<BTreeMap<String, u64>>,
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

impl Session {
    pub(super) fn new(env: Env, link: Link, ends: Ends, timeout: Duration) -> Self {
        Self {
            env,
            link,
            ends,
            timeout,
            followed: Followed::default(),
            dbs: Mutex::default(),
            numbers: Mutex::default(),
        }
    }

    /// Whom its events come from, once the master has introduced itself, and how far they were written.
    pub fn followed(&self) -> &Followed {
        &self.followed
    }

    /// Notes a session. With a position, its changes are expected from there on, after so many data sets that have replaced a
    /// lost one.
    pub(super) fn enter(&self, db: &str, session: i32, from: Option<(Position, u32)>) {
        let entry = Db::new(db, session, from, self.env.clock.instant());
        self.followed.begin(db, entry.end.unwrap_or_default());
        self.dbs.lock().insert(db.to_owned(), entry);
    }

    /// Has the first item that comes of a database be the one behind that number, before its changes are asked for. Nothing is known of it
    /// where that is 0.
    ///
    /// From 3.3 on the items of a database are numbered one by one, also beyond restarts: two histories of one master, which has one
    /// `replication_id` after a backup was restored too, can have items at the same positions.
    pub fn expect(&self, db: &str, last: u64) {
        let is_numbered = self
            .followed
            .source()
            .is_some_and(|source| !source.names_servers());
        let mut numbers = self.numbers.lock();
        match last > 0 && is_numbered {
            true => numbers.insert(db.to_owned(), last),
            false => numbers.remove(db),
        };
    }

    /// Whether an item is the one that was expected, if one was.
    fn check_number(&self, db: &str, item: &Item) -> Result<(), SourceError> {
        let Some(last) = self.numbers.lock().remove(db) else {
            return Ok(());
        };
        let (expected, found) = (last.saturating_add(1), item.logic_id);
        if found == expected || item.is_padding() {
            return Ok(());
        }
        Err(SourceError::History {
            db: db.to_owned(),
            position: item.start,
            expected,
            found,
        })
    }

    /// Asks for the changes of a database that has a session.
    pub(super) async fn first_send(&self, db: &str, session: i32, from: Position) -> Result<(), SourceError> {
        if let Some(listed) = self.dbs.lock().get_mut(db) {
            listed.asked(from, self.env.clock.instant());
        }
        self.link.first_send(db, session, from).await
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
            let items = match incoming.next().await {
                Ok(items) => items,
                Err(error) => return error,
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
            false => self.unread(inlet.take(self.followed.source(), messages)).await?,
        };
        for ack in &acks {
            self.acknowledge(ack).await?;
        }
        broken.map_or(Ok(()), Err)
    }

    /// While this lasts nothing is read, which is no silence of the master.
    async fn unread<T>(&self, taking: impl Future<Output = T>) -> T {
        let since = self.env.clock.instant();
        self.link.hold(Some(since));
        let taken = taking.await;
        let now = self.env.clock.instant();
        for db in self.dbs.lock().values_mut() {
            db.unread(now.saturating_duration_since(since), now);
        }
        self.link.hold(None);
        taken
    }

    /// The error for a database of which nothing arrives. Others may be heard of over the same connection: a master forgets each of
    /// them by itself, and does not say so.
    fn silence(&self) -> Option<SourceError> {
        if self.link.held().is_some() {
            return None;
        }
        let (now, after) = (self.env.clock.instant(), self.timeout.max(SILENCE));
        let dbs = self.dbs.lock();
        let (db, _) = dbs.iter().find(|(_, db)| db.is_silent(after, now))?;
        Some(SourceError::Forgotten {
            address: self.link.address().to_owned(),
            db: db.clone(),
            after,
        })
    }

    /// What the items of a database say; `None` if there is nothing to be taken.
    async fn message(&self, db: &str, items: Vec<BinlogSyncItem>) -> Result<Option<Message>, SourceError> {
        let Some(session) = self.session_of(db) else {
            return Ok(None);
        };
        let mut items = items;
        items.retain(|item| item.session_id == session);
        if items.is_empty() {
            return Ok(None);
        }
        if let Some(listed) = self.dbs.lock().get_mut(db) {
            listed.arrived(self.env.clock.instant());
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
            let mut item = Item::decode(sent.binlog).map_err(wrong)?;
            if item.is_padding() && is_between(end, item.len(), item_end) {
                // A master that was a slave does not say where it is.
                item.start = end;
            }
            if !item.follows(end) {
                metrics::GAPS.with([db]).inc();
                return Err(SourceError::Gap {
                    db: db.to_owned(),
                    expected: end,
                    found: item.start,
                });
            }
            self.check_number(db, &item)?;
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
                db.acknowledged(now);
            }
        }
        self.link.ack(ack).await
    }

    /// `HOST:PORT` that this is a connection to.
    pub fn address(&self) -> &str {
        self.link.address()
    }

    /// The databases of which nothing has arrived since their changes were asked for, and from where on that was.
    pub fn unanswered(&self) -> Vec<(String, Position)> {
        let dbs = self.dbs.lock();
        let asked = dbs
            .iter()
            .filter_map(|(db, listed)| Some((db.clone(), listed.unanswered()?)));
        asked.collect()
    }

    /// Whether a part of a message has arrived.
    pub fn is_amid_message(&self) -> bool {
        self.link.is_amid()
    }

    /// The databases of which something has arrived since their changes were asked for.
    pub fn answered(&self) -> Vec<String> {
        let dbs = self.dbs.lock();
        let answered = dbs.iter().filter(|(_, listed)| listed.has_answered());
        answered.map(|(db, _)| db.clone()).collect()
    }

    /// Waits until anything of a database has arrived; no longer than that takes with any master.
    pub async fn first_sign(&self, db: &str) {
        let has_come = async {
            while self
                .dbs
                .lock()
                .get(db)
                .is_some_and(|db| db.unanswered().is_some())
            {
                self.env.clock.sleep(PING_TICK).await;
            }
        };
        let _ = self.env.clock.timeout(SILENCE, has_come).await;
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

    /// Has nothing count as silence that could not be heard between two looks.
    fn catch_up(&self, before: Instant, now: Instant) {
        let pause = now.saturating_duration_since(before);
        // The process, or the machine, stood still: what has arrived is still to be read. Or all is behind one large message.
        if pause > PING_AFTER || self.link.has_grown(before) {
            for db in self.dbs.lock().values_mut() {
                db.unread(pause, now);
            }
        }
    }

    async fn keep_alive(&self) -> SourceError {
        let mut before = self.env.clock.instant();
        loop {
            self.env.clock.sleep(PING_TICK).await;
            let now = self.env.clock.instant();
            self.catch_up(before, now);
            before = now;
            if let Some(error) = self.silence() {
                return error;
            }
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

/// Whether an item of so many bytes fills the binlog from one position to the other, or, where a file ends there, from the
/// beginning of the next one.
fn is_between(from: Position, len: u64, to: Position) -> bool {
    let next = from
        .filenum
        .checked_add(1)
        .map(|filenum| Position::new(filenum, 0));
    let begins = [Some(from), next].into_iter().flatten();
    begins.map(|begin| begin.after(len)).any(|end| end == Some(to))
}

/// The items of each database, in order. Up to 3.5.2 one message may have those of several.
fn by_database(items: Vec<BinlogSyncItem>) -> Vec<(String, Vec<BinlogSyncItem>)> {
    if let Some(first) = items.first()
        && items.iter().all(|item| item.slot.db_name == first.slot.db_name)
    {
        return vec![(first.slot.db_name.clone(), items)];
    }
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
    use std::collections::VecDeque;

    use bytes::Bytes;
    use takhin_pika::message::{BinlogOffset, Node, Slot};

    use super::*;
    use crate::event::Source;
    use crate::queue::queue;

    /// A session over a connection to nobody in particular.
    async fn session() -> (Session, takhin_runtime::Listener) {
        let (session, _, listener) = receiving().await;
        (session, listener)
    }

    /// The same with what receives for it.
    async fn receiving() -> (Session, Incoming, takhin_runtime::Listener) {
        let env = Env::real();
        let listener = env.net.listen("127.0.0.1:0", "test").await.unwrap();
        let at = listener.local_addr().unwrap();
        let node = Node {
            ip: "127.0.0.1".to_owned(),
            port: 1,
        };
        let after = Duration::from_secs(5);
        let opened = Link::open(&env, "127.0.0.1", at.port() - 2000, node, after).await;
        let (link, incoming, _) = opened.unwrap();
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
        (session, incoming, listener)
    }

    /// Others are heard of behind it only, and a connection that ends amid it says nothing of a position.
    #[tokio::test]
    async fn a_message_that_takes_its_time_is_no_silence() {
        let (session, mut incoming, listener) = receiving().await;
        let stream = listener.accept().await.unwrap();
        let (reading, mut writing) = stream.into_split();
        let begin = session.env.clock.instant();
        session.enter("db0", 7, Some((Position::default(), 0)));
        let after = |seconds| begin + Duration::from_secs(seconds);
        let is_silent = || session.dbs.lock()["db0"].is_silent(Duration::from_secs(3), after(4));
        session.catch_up(begin, after(4));
        assert!(is_silent() && !session.is_amid_message());
        let mut send = async |bytes: &'static [u8]| {
            let mut bytes = VecDeque::from([Bytes::from_static(bytes)]);
            writing.write_all(&mut bytes).await.unwrap();
        };
        let until = async |is_so: &dyn Fn() -> bool| {
            while !is_so() {
                session.env.clock.sleep(Duration::from_millis(1)).await;
            }
        };
        let mut next = Box::pin(incoming.next());
        // 256 bytes are to come.
        send(&[0, 0, 1, 0, 1]).await;
        let is_amid = || session.is_amid_message();
        tokio::select! {
            items = &mut next => panic!("{items:?}"),
            () = until(&is_amid) => {}
        }
        let before = session.env.clock.instant();
        send(&[1]).await;
        let has_grown = || session.link.has_grown(before);
        tokio::select! {
            items = &mut next => panic!("{items:?}"),
            () = until(&has_grown) => {}
        }
        session.catch_up(before, after(4));
        assert!(!is_silent());
        drop((writing, reading));
        let ended = next.await;
        assert!(matches!(ended, Err(SourceError::Closed { .. })), "{ended:?}");
        assert!(session.is_amid_message());
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

    /// A master of 3.1 to 3.3 that was a slave has it in its binlog, with a header of zeros.
    #[tokio::test]
    async fn padding_is_no_gap() {
        let (session, _listener) = session().await;
        let begin = Position::new(3, 100);
        session.enter("db0", 7, Some((begin, 0)));
        let mut end = begin;
        let mut sent = |exec_time: u32, start: Position, content: &'static [u8]| {
            let item = Item {
                exec_time,
                origin: 0,
                logic_id: u64::from(exec_time),
                start,
                content: Bytes::from_static(content),
            };
            let binlog = item.encode();
            end = end.after(binlog.len() as u64).unwrap();
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
                session_id: 7,
            }
        };
        let padding = sent(
            0,
            Position::default(),
            b"*2\r\n$7\r\npadding\r\n$00003\r\n***\r\n",
        );
        let padded = Position::new(padding.binlog_offset.filenum, padding.binlog_offset.offset);
        let change = sent(1, padded, b"*2\r\n$3\r\ndel\r\n$1\r\nk\r\n");
        let missing = sent(0, Position::default(), b"*2\r\n$3\r\ndel\r\n$1\r\nk\r\n");
        let late = sent(
            0,
            Position::default(),
            b"*2\r\n$7\r\npadding\r\n$00003\r\n***\r\n",
        );
        let (queue, mut works) = queue(1 << 20);
        let message = session
            .message("db0", vec![padding, change])
            .await
            .unwrap()
            .unwrap();
        queue
            .take(session.followed.source(), vec![message])
            .await
            .unwrap();
        let work = works.try_recv().unwrap();
        let ops: Vec<_> = work.events.iter().map(|event| event.op.to_string()).collect();
        assert_eq!(ops, ["del"]);
        let gap = session.message("db0", vec![missing]).await;
        assert!(matches!(gap, Err(SourceError::Gap { .. })), "{gap:?}");
        // What is before it is missing, and it is padding itself.
        let gap = session.message("db0", vec![late]).await;
        assert!(matches!(gap, Err(SourceError::Gap { .. })), "{gap:?}");
    }

    #[test]
    fn padding_is_where_the_last_item_ended_or_in_the_next_file() {
        let at = Position::new;
        assert!(is_between(at(3, 100), 50, at(3, 158)));
        assert!(is_between(at(3, 100), 50, at(4, 58)));
        for to in [at(3, 159), at(4, 158), at(5, 58), at(2, 158)] {
            assert!(!is_between(at(3, 100), 50, to), "{to}");
        }
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
