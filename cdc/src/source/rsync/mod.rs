//! Dumps that masters before 3.5 push: they run the program `rsync` against their slave, once for each folder, and last for
//! the file `info`. What listens is this process; what speaks the protocol is a program of the same name, one for each
//! connection, over pipes. It ends with its pipes, and so with this process.
//!
//! Nobody but the master is listened to. The programs may write below one directory only, which is emptied before anything is
//! asked for; what lies there afterwards is checked name by name. One program that fails spoils the whole dump: the master
//! may not have noticed.

mod connection;
mod folder;
mod program;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use takhin_config::units::Limit;
use takhin_config::{ByteSize, CdcConfig};
use takhin_runtime::clock::Instant;
use takhin_runtime::{Env, Listener, Stream};
use tracing::{info, warn};

use super::error::SourceError;
use super::transfer::Dump;
use crate::metrics;
pub(super) use folder::Folder;
pub(super) use program::Modules;

/// Connections at a time, as real slaves allow.
const CONNECTIONS: usize = 10;

/// Who pushes, and where to.
#[derive(Debug)]
pub(super) struct Pushing<'a> {
    /// Where the master is: nobody else is listened to.
    pub(super) peer: IpAddr,
    /// Where it pushes to.
    pub(super) listening: SocketAddr,
    /// The database, for metrics.
    pub(super) db: &'a str,
    /// Below which directory programs may write.
    pub(super) root: PathBuf,
    /// What is to come.
    pub(super) folder: Folder,
}

/// Waits for the dump of a master.
#[derive(Debug)]
pub(super) struct Receiver<'a> {
    env: &'a Env,
    config: &'a CdcConfig,
    pushing: Pushing<'a>,
    listener: Listener,
    modules: Modules,
    sign: Mutex<Sign>,
    received: AtomicU64,
}

/// The last sign of the master.
#[derive(Debug, Clone, Copy)]
struct Sign {
    at: Instant,
    /// When the first bytes came.
    begin: Option<Instant>,
}

impl<'a> Receiver<'a> {
    /// Takes the address and empties the directory. Nothing comes before the master is asked.
    pub(super) async fn open(
        env: &'a Env,
        config: &'a CdcConfig,
        pushing: Pushing<'a>,
        modules: Modules,
    ) -> Result<Self, SourceError> {
        let address = pushing.listening.to_string();
        let listener = env.net.listen(&address, "source.listed_as").await?;
        pushing.folder.empty(env).await?;
        modules.write(env).await?;
        // Better known before a master makes a dump for nothing.
        drop(modules.start()?);
        Ok(Self {
            env,
            config,
            pushing,
            listener,
            modules,
            sign: Mutex::new(Sign {
                at: env.clock.instant(),
                begin: None,
            }),
            received: AtomicU64::new(0),
        })
    }

    /// Receives until all of the dump is there. Has the master asked again with `ask` as long as nothing comes: while it pushes to
    /// this slave it does not hear, and that may be an earlier push, which ends without a word.
    pub(super) async fn receive(
        &self,
        ask: impl AsyncFn() -> Result<(), SourceError>,
    ) -> Result<Dump, SourceError> {
        let db = self.pushing.db;
        info!(db, listening = %self.pushing.listening, "waiting for the master to push its dump");
        self.sign.lock().at = self.env.clock.instant();
        let mut connections = FuturesUnordered::new();
        let mut asked = self.env.clock.instant();
        loop {
            let before = *self.sign.lock();
            let after = self.patience(&before);
            tokio::select! {
                biased;
                Some(ended) = connections.next(), if !connections.is_empty() => {
                    let () = ended?;
                    if connections.is_empty()
                        && let Some(dump) = self.pushing.folder.look(self.env).await?
                    {
                        info!(db, files = dump.files.len(), position = %dump.info.position, "the dump is there");
                        return Ok(dump);
                    }
                }
                stream = self.accept(), if connections.len() < CONNECTIONS => connections.push(self.serve(stream?)),
                () = self.env.clock.sleep_until(asked + self.config.source.timeout), if before.begin.is_none() => {
                    ask().await?;
                    asked = self.env.clock.instant();
                }
                () = self.env.clock.sleep_until(before.at + after) => {
                    if self.sign.lock().at == before.at {
                        return Err(self.silent(&before, after));
                    }
                }
            }
        }
    }

    /// How long the master may be silent: it makes the dump first, and other slaves may be before this one.
    fn patience(&self, sign: &Sign) -> Duration {
        match sign.begin {
            None => self.config.snapshot.push_wait,
            Some(_) => self.config.source.timeout,
        }
    }

    fn silent(&self, sign: &Sign, after: Duration) -> SourceError {
        match sign.begin {
            None => SourceError::NotPushed {
                listening: self.pushing.listening.to_string(),
                after,
            },
            Some(_) => self.failed("the master has stopped to push it, and says nothing of why: its log may"),
        }
    }

    /// The next connection that the master makes.
    async fn accept(&self) -> Result<Stream, SourceError> {
        loop {
            let accepted = self.listener.accept().await;
            let stream = accepted.map_err(|source| SourceError::Connect {
                address: self.pushing.listening.to_string(),
                source,
            })?;
            let from = stream.peer_addr().ip();
            if from == self.pushing.peer {
                return Ok(stream);
            }
            warn!(%from, master = %self.pushing.peer, "a connection that is not the master's was refused");
        }
    }

    /// Notes that bytes have come, and waits where the rate is exceeded.
    async fn came(&self, len: usize) {
        let now = self.env.clock.instant();
        let begin = {
            let mut sign = self.sign.lock();
            sign.at = now;
            *sign.begin.get_or_insert(now)
        };
        metrics::SNAPSHOT_BYTES.with([self.pushing.db]).add(len as u64);
        let received = self.received.fetch_add(len as u64, Ordering::Relaxed) + len as u64;
        if let Limit::At(rate) = self.config.snapshot.max_rate {
            #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
            let seconds = received as f64 / rate.max(ByteSize::bytes(1)).as_u64() as f64;
            let due = begin + Duration::from_secs_f64(seconds);
            self.env.clock.sleep_until(due).await;
        }
    }

    fn failed(&self, why: &str) -> SourceError {
        SourceError::Snapshot {
            db: self.pushing.db.to_owned(),
            why: why.to_owned(),
        }
    }
}
