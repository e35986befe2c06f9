//! One attempt after the other, until it is told to stop.

mod connection;
mod dry;
mod kept;
mod lag;
mod legacy;
mod logs;
mod pauses;
mod refusals;
mod session;
mod useless;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use takhin_client::{Client, ClientConfig};
use takhin_config::CdcConfig;
use takhin_pika::Position;
use takhin_pika::info::Family;
use takhin_runtime::telemetry::health::{Flag, Health, Probe};
use takhin_runtime::{Env, Shutdown};
use tracing::info;

use crate::checkpoint::{CheckpointError, Checkpoints, PositionFile, newest, read_topic};
use crate::control::Pause;
use crate::event::{Encoder, Json};
use crate::metrics::{self, Phase};
use crate::queue::queue;
use crate::sink::{Outlet, SinkError, Topics, Writer};
use crate::source::{Followed, Legacy, Transfers};
use crate::trace::{traced, work_span};
use crate::trouble::Trouble;
use crate::wal::{Logs, Wal};
use connection::{Connected, file_size};
use lag::Seen;
use pauses::{LONG_PAUSE, Pauses};
use refusals::Refusals;
use session::{Begun, follows, next_epoch};
use useless::Useless;

pub use dry::{Shown, dry_run};

/// Pause between two looks at the end of the master's binlog.
const LOOK: Duration = Duration::from_secs(2);

/// What all attempts have in common.
struct Runner<'a> {
    config: &'a CdcConfig,
    env: &'a Env,
    client: Client,
    outlet: Outlet,
    file: Arc<PositionFile>,
    /// What a master before 3.1 has sent,
    wal: Arc<Wal>,
    /// and what a later one has, of each database.
    logs: Arc<Logs>,
    /// Whether they are to be written and begun anew.
    is_leaving_logs: AtomicBool,
    flags: &'a Flags,
    pause: &'a Pause,
    /// Whether anything was written since the last trouble.
    has_written: AtomicBool,
    /// Whether a data set is being written that is begun anew if that breaks.
    is_amid: AtomicBool,
    /// How often in a row brokers have refused a batch.
    refused_batches: AtomicU32,
    /// Databases whose next dump is to be a new one, for what the last one has may be the fault.
    needs_fresh_dump: Mutex<BTreeSet<String>>,
    /// How far databases were behind when that was known last.
    seen: Mutex<BTreeMap<String, Seen>>,
    /// Dumps that were begun to be received.
    transfers: Transfers,
    /// Data sets whose changes cannot be had.
    useless: Mutex<Useless>,
    /// Positions that it closes the connection at.
    refusals: Mutex<Refusals>,
    /// Databases whose data set this process has taken.
    taken: Mutex<BTreeSet<String>>,
    /// What a master before 3.1 has said to lack: whoever asks again has it make a dump again.
    refused: Mutex<Option<Position>>,
    /// Of such a master: whether its data set is being taken, and whether it is to be taken again.
    is_taking: AtomicBool,
    is_lacking: AtomicBool,
    /// Whether nothing is written before a start with other settings: another data set would not be either.
    is_held: AtomicBool,
    /// Whether it has said since then that the changes will come.
    has_accepted: AtomicBool,
}

/// Whether the program is ready: with the master, and with the brokers.
#[derive(Debug, Clone)]
pub struct Flags {
    source: Flag,
    sink: Flag,
}

impl Flags {
    /// The checks `source` and `sink`, which fail until there are connections.
    pub fn new(health: &Health) -> Self {
        Self {
            source: health.flag(Probe::Ready, "source", "not connected yet"),
            sink: health.flag(Probe::Ready, "sink", "not connected yet"),
        }
    }
}

/// Follows the master of a configuration until `stop`.
///
/// # Errors
///
/// The directory of positions, or that of what was received, cannot be used, or another process has taken over the source. Everything else is tried again, and said by `flags`.
pub async fn run(
    config: &CdcConfig,
    env: &Env,
    (flags, pause): (&Flags, &Pause),
    stop: &Shutdown,
) -> Result<(), Trouble> {
    let runner = Runner::new(config, env, (flags, pause)).await?;
    metrics::SOURCE.with([&config.source_id()]).set(1);
    tokio::select! {
        ended = runner.attempts(stop) => ended?,
        never = runner.grow_lag() => match never {},
    }
    info!("stopped");
    Ok(())
}

/// How an attempt ends that has no trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It was told to stop.
    Stopped,
    /// It has found out what the next one needs.
    Again,
    /// There is nothing more to be done.
    Complete,
}

fn client(config: &CdcConfig, env: &Env) -> Client {
    let mut settings = ClientConfig::new(config.sink.bootstrap.iter().map(ToString::to_string));
    settings.client_id = format!("takhin-cdc-{}", config.source_id());
    // Calls other than produce: an attempt that fails says why.
    settings.retry_for = Duration::from_secs(10);
    Client::new(env.clone(), settings)
}

impl<'a> Runner<'a> {
    async fn new(
        config: &'a CdcConfig,
        env: &'a Env,
        (flags, pause): (&'a Flags, &'a Pause),
    ) -> Result<Self, Trouble> {
        let file = PositionFile::open(env, &config.checkpoint.dir, &config.source_id())?;
        // What it holds is read again in each attempt; what is wrong with it is said at once.
        file.load()?;
        let (disk, dir) = (Arc::clone(&env.disk), config.wal_dir());
        let max = config.wal.max_size.as_u64();
        let opening = move || {
            let wal = Wal::open(Arc::clone(&disk), &dir, (Legacy::DB, max))?;
            Ok::<_, Trouble>((wal, Logs::open(disk, &dir, max)?))
        };
        let (wal, logs) = env.tasks.blocking(opening).await?;
        let client = client(config, env);
        let outlet = Outlet::new(&client, config);
        Ok(Self {
            config,
            env,
            client,
            outlet,
            file: Arc::new(file),
            wal: Arc::new(wal),
            logs: Arc::new(logs),
            is_leaving_logs: AtomicBool::new(false),
            flags,
            pause,
            has_written: AtomicBool::new(false),
            is_amid: AtomicBool::new(false),
            refused_batches: AtomicU32::new(0),
            needs_fresh_dump: Mutex::default(),
            seen: Mutex::default(),
            transfers: Transfers::default(),
            useless: Mutex::default(),
            refusals: Mutex::default(),
            taken: Mutex::default(),
            refused: Mutex::new(None),
            is_taking: AtomicBool::new(false),
            is_lacking: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            has_accepted: AtomicBool::new(false),
        })
    }
}

impl Runner<'_> {
    /// One attempt after the other.
    async fn attempts(&self, stop: &Shutdown) -> Result<(), Trouble> {
        let mut pauses = Pauses::new(self.env);
        while !stop.is_triggered() {
            // What the master has sent is there: it is written whether that one can be reached or not.
            let ended = match self.wal.position() {
                _ if self.is_lacking.load(Ordering::Relaxed) => Box::pin(self.take_again(stop)).await,
                None if !self.logs.begun().is_empty() => Box::pin(self.with_logs(stop)).await,
                Some(_) => Box::pin(self.with_log(stop)).await,
                None => Box::pin(self.attempt(stop)).await,
            };
            match ended {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Again) => pauses.again(self.env, stop).await,
                Ok(Ended::Complete) => {
                    info!(
                        "snapshot.mode is initial_only, and the data set is written: nothing more is to be done"
                    );
                    // Nothing is to be followed, and nothing is behind.
                    self.seen.lock().clear();
                    stop.wait().await;
                }
                Err(Trouble::Sink(error)) if error.is_final() => return Err(error.into()),
                Err(trouble) => self.rest(&trouble, &mut pauses, stop).await,
            }
        }
        Ok(())
    }

    /// One attempt.
    async fn attempt(&self, stop: &Shutdown) -> Result<Ended, Trouble> {
        let prepared = tokio::select! {
            biased;
            () = stop.wait() => return Ok(Ended::Stopped),
            prepared = self.prepare() => prepared?,
        };
        let (topics, mut checkpoints) = prepared;
        self.flags.sink.pass();
        let connected = tokio::select! {
            biased;
            () = stop.wait() => return Ok(Ended::Stopped),
            connected = self.connect() => connected?,
        };
        if connected.server.family == Family::Legacy {
            return tokio::select! {
                biased;
                () = stop.wait() => Ok(Ended::Stopped),
                begun = self.begin_log(connected, checkpoints) => begun,
            };
        }
        let known = checkpoints.clone();
        let (queue, works) = queue(self.config.sink.queue_size.as_u32());
        let writing = (self.writer(topics, &mut checkpoints), works);
        Box::pin(self.with_session(connected, writing, (&queue, &known), stop)).await
    }

    fn writer<'a>(&'a self, topics: Topics, checkpoints: &'a mut Checkpoints) -> Writer<'a> {
        let encoder: Arc<dyn Encoder> = Arc::new(Json {
            has_raw: self.config.sink.raw_resp,
        });
        Writer::new(
            self.env,
            self.config,
            self.outlet.clone(),
            (topics, encoder),
            (Arc::clone(&self.file), checkpoints),
            (&self.flags.sink, self.pause),
        )
    }
    /// Notes what came of an attempt.
    fn ended(&self, followed: &Followed) {
        self.has_written
            .fetch_or(followed.has_written(), Ordering::Relaxed);
        for db in followed.databases() {
            metrics::set_phase(&db, Phase::Connecting);
        }
    }

    /// Topics, and how far events were written.
    async fn prepare(&self) -> Result<(Topics, Checkpoints), Trouble> {
        self.is_amid.store(false, Ordering::Relaxed);
        traced(work_span!("prepare"), self.prepare_topics()).await
    }

    async fn prepare_topics(&self) -> Result<(Topics, Checkpoints), Trouble> {
        let mut topics = Topics::prepare(&self.client, self.config).await?;
        let file = Arc::clone(&self.file);
        let of_file = self.env.tasks.blocking(move || file.load()).await?;
        let source_id = self.config.source_id();
        let partitions = topics.partitions(&topics.offsets);
        // What is not committed by then never is.
        self.outlet.begin(&source_id).await?;
        let reading = self.client.retry(Some(&topics.offsets), async || {
            let of = (&*source_id, self.outlet.is_transactional());
            read_topic(&self.client, &topics.offsets, partitions, of).await
        });
        let after = self.config.sink.transaction_timeout;
        let Ok(read) = self.env.clock.timeout(after, reading).await else {
            let topic = topics.offsets.clone();
            return Err(SinkError::Held { topic, after }.into());
        };
        let of_topic = read.map_err(|source| SinkError::Client {
            what: format!("read positions from {}", topics.offsets),
            source,
        })?;
        CheckpointError::check(&topics.offsets, &of_topic)?;
        let checkpoints = newest(of_file, of_topic, self.outlet.is_transactional());
        topics.keep(checkpoints.values().map(|known| known.partitions))?;
        Ok((topics, checkpoints))
    }
}
