//! From a connection to databases that are followed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use takhin_config::CdcConfig;
use takhin_pika::Position;
use takhin_pika::info::{Family, family_of};
use takhin_pika::message::{MetaSyncResponse, Node};
use takhin_runtime::{Env, JoinHandle};
use tracing::warn;

use super::error::SourceError;
use super::inlet::Inlet;
use super::link::{Incoming, Link, Outgoing, Tried};
use super::redis::closed;
use super::rsync::{Folder, Modules, Pushing, Receiver};
use super::session::{Ends, Session};
use super::transfer::{Dump, Transfer, Transfers};
use crate::event::Source;
use crate::queue::Queue;
use crate::wal::is_database;

/// What the port that masters of 3.1 to 3.4 push to is above the one that this slave is listed with.
const PUSH_ABOVE: u16 = 1000;

/// Port under which a slave is listed that has no other. pika_port, which does the same for Redis, uses it.
pub(super) const LISTED_PORT: u16 = 21_333;

/// Whether two replications have the same binlog, as far as it can be told: masters before 3.5.1 do not say what they have.
pub fn is_same_binlog(one: &str, other: &str) -> bool {
    one.is_empty() || other.is_empty() || one == other
}

/// What drives a session.
#[derive(Debug)]
pub struct Driver {
    incoming: Incoming,
    outgoing: Outgoing,
}

impl Driver {
    /// Sends and receives for the session until something ends it, which is what it returns.
    pub async fn run(self, session: &Session, inlet: &impl Inlet) -> SourceError {
        session.drive(self.incoming, self.outgoing, inlet).await
    }

    /// [`Driver::run`] in a task of its own.
    pub fn spawn(self, session: &Arc<Session>, inlet: Queue) -> Driving {
        let driven = Arc::clone(session);
        let run = async move { self.run(&driven, &inlet).await };
        Driving {
            task: session.env.tasks.spawn("source", run),
            address: session.address().to_owned(),
        }
    }
}

/// A session that is driven by a task, as long as this is there.
#[derive(Debug)]
pub struct Driving {
    task: JoinHandle<SourceError>,
    address: String,
}

impl Driving {
    /// Waits for what ends the session.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ended(&mut self) -> SourceError {
        match (&mut self.task).await {
            Ok(error) => error,
            Err(error) => closed(&self.address, error.to_string()),
        }
    }

    /// Ends the session: nothing of it comes any more when this returns.
    pub async fn end(mut self) {
        if !self.task.is_finished() {
            self.task.abort();
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// Connects to the replication port. `ends` are those of the connection to the Redis port.
    ///
    /// # Errors
    ///
    /// There is no connection.
    pub async fn open(env: &Env, config: &CdcConfig, ends: Ends) -> Result<(Self, Driver), SourceError> {
        let source = &config.source;
        let node = match &source.listed_as {
            Some(listed) => Node {
                ip: listed.host.clone(),
                port: i32::from(listed.port),
            },
            None => Node {
                ip: ends.local.ip().to_string(),
                port: i32::from(LISTED_PORT),
            },
        };
        let opened = Link::open(env, &source.host, source.port, node, source.timeout).await?;
        let (link, incoming, outgoing) = opened;
        let session = Self::new(env.clone(), link, ends, source.timeout);
        Ok((session, Driver { incoming, outgoing }))
    }

    /// Introduces itself. Returns the master's databases.
    ///
    /// # Errors
    ///
    /// [`SourceError`]; the password is wrong, or the master is none that can be followed.
    pub async fn introduce(&self, config: &CdcConfig, version: &str) -> Result<Vec<String>, SourceError> {
        let meta: MetaSyncResponse = self.link.meta_sync(self.ends.password.clone()).await?;
        if !meta.classic_mode {
            return Err(SourceError::Sharding {
                address: self.link.address().to_owned(),
            });
        }
        self.followed().set_source(Source {
            id: config.source_id(),
            host: config.source.host.clone(),
            port: config.source.port,
            version: version.to_owned(),
            replication_id: meta.replication_id.unwrap_or_default(),
        });
        let found: Vec<String> = meta.dbs_info.into_iter().map(|db| db.db_name).collect();
        // Directories are named after them, and deleted.
        if let Some(odd) = found.iter().find(|db| !is_database(db)) {
            return Err(SourceError::Refused {
                address: self.link.address().to_owned(),
                what: "MetaSync",
                reply: format!(
                    "it names a database {odd:?}, and Pika's are db0, db1 and so on: is it a Pika?"
                ),
            });
        }
        let wanted = &config.filters.databases;
        if let Some(wanted) = wanted.iter().find(|wanted| !found.contains(wanted)) {
            return Err(SourceError::Database {
                wanted: wanted.clone(),
                found,
            });
        }
        let is_wanted = |db: &String| wanted.is_empty() || wanted.contains(db);
        Ok(found.into_iter().filter(is_wanted).collect())
    }

    /// Checks that a position is in this master's binlog: one that was noted of another one means nothing here.
    ///
    /// # Errors
    ///
    /// [`SourceError::PositionLost`].
    pub fn check_origin(
        &self,
        db: &str,
        position: Position,
        replication_id: &str,
    ) -> Result<(), SourceError> {
        let found = self
            .followed()
            .source()
            .map_or("", |source| &source.replication_id);
        if is_same_binlog(replication_id, found) {
            return Ok(());
        }
        Err(SourceError::PositionLost {
            db: db.to_owned(),
            position,
            why: format!("it is of the replication {replication_id}, and the master is of {found}"),
        })
    }

    /// The error for a master that does not say where a binlog ends.
    pub fn without_end(&self, db: &str) -> SourceError {
        SourceError::Refused {
            address: self.link.address().to_owned(),
            what: "INFO replication",
            reply: format!("it has no binlog_offset of {db}"),
        }
    }

    /// The error for a master whose replication has a name that there is no room for.
    pub fn odd_replication(&self) -> SourceError {
        SourceError::Refused {
            address: self.link.address().to_owned(),
            what: "MetaSync",
            reply: "its replication_id has more than 64 bytes, and Pika's have 50: is it a Pika?".to_owned(),
        }
    }

    /// Asks for the changes of a database from a position on, and has them come. `epoch` counts the data sets that have replaced
    /// a lost position.
    ///
    /// # Errors
    ///
    /// [`SourceError::PositionLost`] when they cannot be had.
    pub async fn follow(&self, db: &str, (from, epoch): (Position, u32)) -> Result<(), SourceError> {
        let session = self.try_sync(db, from).await?;
        self.enter(db, session, Some((from, epoch)));
        self.first_send(db, session, from).await
    }

    /// Asks whether the changes of a database from a position on can be had, and takes none. They are asked for all the same: a master
    /// keeps its binlog for those whom it sends it to, or makes a dump for, and forgets others after 20 s. It sends as many as it does
    /// without an acknowledgement.
    ///
    /// # Errors
    ///
    /// [`SourceError::PositionLost`] when they cannot be had.
    pub async fn may_follow(&self, db: &str, from: Position) -> Result<(), SourceError> {
        let session = self.try_sync(db, from).await?;
        self.enter(db, session, None);
        self.first_send(db, session, from).await
    }

    async fn try_sync(&self, db: &str, from: Position) -> Result<i32, SourceError> {
        match self.link.try_sync(db, from).await? {
            Tried::Session(session) => Ok(session),
            Tried::Lost(why) => Err(SourceError::PositionLost {
                db: db.to_owned(),
                position: from,
                why: why.to_owned(),
            }),
        }
    }

    /// Asks for a dump of a database and receives it, or what is left of one that was `begun`. The master keeps its binlog for this slave until it is followed.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub async fn receive_dump(
        &self,
        (config, begun): (&CdcConfig, &Transfers),
        db: &str,
        is_fresh: bool,
    ) -> Result<Dump, SourceError> {
        let version = self.followed().source().map_or("", |source| &source.version);
        if family_of(version) == Some(Family::PbRsync) {
            let receiver = self.push_receiver(config, db, version).await?;
            let session = self.link.db_sync(db, is_fresh).await?;
            self.enter(db, session, None);
            return receiver
                .receive(async || self.link.db_sync(db, false).await.map(drop))
                .await;
        }
        if is_fresh {
            begun.forget(db);
        }
        let session = self.link.db_sync(db, is_fresh).await?;
        self.enter(db, session, None);
        let transfer = Transfer {
            env: &self.env,
            config,
            db,
            dir: config.snapshot_dir().join(db),
            begun,
        };
        transfer.run().await
    }

    /// Where masters of 3.1 to 3.4 push the dump of a database to.
    async fn push_receiver<'a>(
        &'a self,
        config: &'a CdcConfig,
        db: &'a str,
        version: &str,
    ) -> Result<Receiver<'a>, SourceError> {
        let dir = config.snapshot_dir();
        let root = self.env.disk.absolute(&dir.join("rsync"));
        let root = root.map_err(|source| SourceError::SnapshotDisk {
            dir: dir.display().to_string(),
            source,
        })?;
        let modules = Modules::of_pb(config, &root, self.ends.password.as_deref());
        let port = config
            .source
            .listed_as
            .as_ref()
            .map_or(LISTED_PORT, |listed| listed.port);
        let pushing = Pushing {
            peer: self.ends.peer.ip(),
            listening: SocketAddr::new(self.ends.local.ip(), port.saturating_add(PUSH_ABOVE)),
            db,
            folder: Folder::new(db, root.join(db), version),
            root,
        };
        Receiver::open(&self.env, config, pushing, modules).await
    }

    /// Deletes a dump.
    pub async fn remove_dump(&self, begun: &Transfers, db: &str, dump: &Dump) {
        begun.forget(db);
        let (disk, dir) = (Arc::clone(&self.env.disk), dump.dir.clone());
        let removed = self.env.tasks.blocking(move || disk.remove_dir_all(&dir)).await;
        if let Err(error) = removed {
            warn!(db, %error, "the dump could not be deleted");
        }
    }

    /// How long leaving may take.
    pub const LEAVE: Duration = Duration::from_secs(2);
}
