//! One attempt after the other, until it is told to stop.

mod dry;
mod kept;
mod legacy;
mod logs;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use takhin_client::{Client, ClientConfig};
use takhin_config::CdcConfig;
use takhin_config::cdc::{SnapshotMode, SyncProtocol};
use takhin_pika::Position;
use takhin_pika::info::{Family, ServerInfo, binlog_end};
use takhin_runtime::clock::Instant;
use takhin_runtime::telemetry::health::{Flag, Health, Probe};
use takhin_runtime::{Disk, Env, OpenMode, Shutdown};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::checkpoint::{Checkpoint, Checkpoints, PositionFile, newest, read_topic};
use crate::control::Pause;
use crate::event::{Encoder, Json};
use crate::metrics::{self, Phase};
use crate::queue::{Piece, Progress, Queue, Work, queue};
use crate::sink::{Master, Outlet, SinkError, Topics, Writer};
use crate::snapshot;
use crate::source::{Ends, Followed, Legacy, Redis, Session, SourceError};
use crate::trace::{traced, work_span};
use crate::trouble::Trouble;
use crate::wal::{Logs, Wal};

pub use dry::{Shown, dry_run};

/// Pause before the next attempt: the first one, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// Pause before the next attempt where nothing changes before somebody does something.
const LONG_PAUSE: Duration = Duration::from_secs(10);

/// Pause between two looks at the end of the master's binlog.
const LOOK: Duration = Duration::from_secs(2);

/// How long an attempt must have lasted for the next pause to be short again.
const LASTED: Duration = Duration::from_secs(30);

/// Size of the master's binlog files where it does not say.
const FILE_SIZE: u64 = 100 << 20;

/// Longest password, in bytes.
const MAX_PASSWORD: u64 = 4096;

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
    /// Whether the next dump is to be a new one.
    needs_fresh_dump: AtomicBool,
    /// Databases whose data set this process has taken.
    taken: Mutex<BTreeSet<String>>,
    /// What a master before 3.1 has said to lack: whoever asks again has it make a dump again.
    refused: Mutex<Option<Position>>,
    /// Of such a master: whether its data set is being taken, and whether it is to be taken again.
    is_taking: AtomicBool,
    is_lacking: AtomicBool,
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
    let mut pauses = Pauses::new(env);
    while !stop.is_triggered() {
        // What the master has sent is there: it is written whether that one can be reached or not.
        let ended = match runner.wal.position() {
            None if !runner.logs.begun().is_empty() => Box::pin(runner.with_logs(stop)).await,
            Some(_) if runner.is_lacking.load(Ordering::Relaxed) => Box::pin(runner.take_again(stop)).await,
            Some(_) => Box::pin(runner.with_log(stop)).await,
            None => Box::pin(runner.attempt(stop)).await,
        };
        match ended {
            Ok(Ended::Stopped) => break,
            Ok(Ended::Again) => pauses.again(env, stop).await,
            Ok(Ended::Complete) => {
                info!(
                    "snapshot.mode is initial_only, and the data set is written: nothing more is to be done"
                );
                stop.wait().await;
            }
            Err(Trouble::Sink(error)) if error.is_final() => return Err(error.into()),
            Err(trouble) => runner.rest(&trouble, &mut pauses, stop).await,
        }
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

/// Pauses before the next attempt.
struct Pauses {
    next: Duration,
    /// When the last attempt began.
    begin: Instant,
    /// How many attempts have found out what the next one needs, without a pause.
    agains: u32,
}

/// How many attempts may follow one another without a pause.
const AGAINS: u32 = 5;

impl Pauses {
    fn new(env: &Env) -> Self {
        Self {
            next: PAUSE.0,
            begin: env.clock.instant(),
            agains: 0,
        }
    }

    /// Two or three attempts find out what is needed; nobody is to be asked without end.
    async fn again(&mut self, env: &Env, stop: &Shutdown) {
        self.agains = if self.begin.elapsed() < LASTED {
            self.agains + 1
        } else {
            0
        };
        if self.agains > AGAINS {
            let _ = env.clock.timeout(PAUSE.1, stop.wait()).await;
        }
        self.begin = env.clock.instant();
    }
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
            needs_fresh_dump: AtomicBool::new(false),
            taken: Mutex::default(),
            refused: Mutex::new(None),
            is_taking: AtomicBool::new(false),
            is_lacking: AtomicBool::new(false),
            has_accepted: AtomicBool::new(false),
        })
    }
}

impl Runner<'_> {
    /// Says what was wrong, and waits until it may be tried again.
    async fn rest(&self, trouble: &Trouble, pauses: &mut Pauses, stop: &Shutdown) {
        if self.has_written.swap(false, Ordering::Relaxed) || pauses.begin.elapsed() >= LASTED {
            pauses.next = PAUSE.0;
        }
        self.say(trouble);
        let needs_somebody = match trouble {
            Trouble::Source(error) => error.needs_somebody(),
            Trouble::Sink(error) => error.needs_somebody(),
            Trouble::Wal(_) => true,
            _ => false,
        };
        let wait = if needs_somebody { LONG_PAUSE } else { pauses.next };
        pauses.next = (pauses.next * 2).min(PAUSE.1);
        let _ = self.env.clock.timeout(wait, stop.wait()).await;
        pauses.begin = self.env.clock.instant();
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

    /// An attempt with a master that takes acknowledgements.
    async fn with_session(
        &self,
        connected: Connected,
        (writer, works): Writing<'_>,
        (queue, known): (&Queue, &Checkpoints),
        stop: &Shutdown,
    ) -> Result<Ended, Trouble> {
        let Connected {
            mut redis,
            server,
            password,
        } = connected;
        let ends = Ends {
            local: redis.local(),
            peer: redis.peer(),
            password,
        };
        let (session, driver) = Session::open(self.env, self.config, ends).await?;
        let master = Master {
            followed: session.followed(),
            session: Some(&session),
        };
        let working = async {
            // What it has written is noted everywhere, also where it was not told to stop.
            let over = Shutdown::new();
            let mut writing = Box::pin(writer.run(works, master, &over));
            let ended = tokio::select! {
                biased;
                () = stop.wait() => Ended::Stopped,
                written = &mut writing => return written.map(|()| Ended::Stopped),
                followed = self.follow((&session, queue), &mut redis, &server.version, known) => followed?,
            };
            over.trigger();
            writing.await?;
            let _ = self.env.clock.timeout(Session::LEAVE, session.leave()).await;
            Ok(ended)
        };
        let ended = tokio::select! {
            biased;
            worked = working => worked,
            error = driver.run(&session, queue) => Err(error.into()),
        };
        self.ended(session.followed());
        ended
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
            read_topic(&self.client, &topics.offsets, partitions, &source_id).await
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
        let checkpoints = newest(of_file, of_topic, self.outlet.is_transactional());
        topics.keep(checkpoints.values().map(|known| known.partitions));
        Ok((topics, checkpoints))
    }

    async fn connect(&self) -> Result<Connected, SourceError> {
        let source = &self.config.source;
        let span = work_span!("connect", host = source.host, port = source.port);
        traced(span, self.open_connection()).await
    }

    async fn open_connection(&self) -> Result<Connected, SourceError> {
        let source = &self.config.source;
        let password = self.password().await?;
        let opened = Redis::open(
            self.env,
            &source.host,
            source.port,
            source.timeout,
            password.as_deref(),
        );
        let mut redis = opened.await?;
        let server = redis.server().await?;
        let wanted = source.sync_protocol;
        let is_wanted = match wanted {
            SyncProtocol::Auto => true,
            SyncProtocol::Legacy => server.family == Family::Legacy,
            SyncProtocol::Pb => matches!(server.family, Family::Pb | Family::PbRsync),
        };
        let mode = self.config.snapshot.mode;
        if server.family == Family::Legacy && matches!(mode, SnapshotMode::Always | SnapshotMode::InitialOnly)
        {
            return Err(SourceError::SnapshotMode {
                address: redis.address().to_owned(),
                version: server.version,
                wanted: mode.as_str(),
            });
        }
        match is_wanted {
            true => Ok(Connected {
                redis,
                server,
                password,
            }),
            false => Err(SourceError::Protocol {
                address: redis.address().to_owned(),
                version: server.version,
                wanted: wanted.as_str(),
            }),
        }
    }

    async fn password(&self) -> Result<Option<String>, SourceError> {
        let Some(path) = &self.config.source.password_file else {
            return Ok(None);
        };
        let (disk, path) = (Arc::clone(&self.env.disk), path.clone());
        let read = self.env.tasks.blocking(move || {
            read_password(&*disk, &path).map_err(|source| SourceError::PasswordFile {
                path: path.display().to_string(),
                source,
            })
        });
        read.await.map(Some)
    }

    /// Has the changes of all databases come, and looks how far the master is, until something is wrong; or has logs begin that
    /// they are to come through.
    async fn follow(
        &self,
        (session, queue): (&Session, &Queue),
        redis: &mut Redis,
        version: &str,
        known: &Checkpoints,
    ) -> Result<Ended, Trouble> {
        let begun = self.begin((session, queue), redis, version, known).await?;
        self.flags.source.pass();
        if self.is_over() {
            return Ok(Ended::Complete);
        }
        if self.config.wal.enabled {
            self.begin_logs(session, version, begun).await?;
            return Ok(Ended::Again);
        }
        let dbs = begun.into_iter().map(|(db, ..)| db).collect();
        Err(self.look_on(session.followed(), redis, dbs).await.into())
    }

    /// Looks how far the master is, until it does not answer.
    async fn look_on(&self, followed: &Followed, redis: &mut Redis, dbs: Vec<String>) -> SourceError {
        let file_size = file_size(redis).await;
        loop {
            match redis.info("replication").await {
                Ok(text) => {
                    for db in &dbs {
                        self.look(followed, db, binlog_end(&text, db), file_size);
                    }
                }
                Err(error) => return error,
            }
            self.env.clock.sleep(LOOK).await;
        }
    }

    /// Has the changes of a database come, or asks only whether they would if they are to come through a log.
    async fn go_on(&self, session: &Session, db: &str, from: (Position, u32)) -> Result<(), SourceError> {
        if self.config.wal.enabled {
            return session.may_follow(db, from.0).await;
        }
        session.follow(db, from).await?;
        follows(db, from.0);
        Ok(())
    }

    async fn begin(
        &self,
        (session, queue): (&Session, &Queue),
        redis: &mut Redis,
        version: &str,
        known: &Checkpoints,
    ) -> Result<Vec<Begun>, Trouble> {
        let dbs = session.introduce(self.config, version).await?;
        self.check_databases(&dbs, known.keys())?;
        let ends = redis.info("replication").await?;
        let (mut begun, mut lacking) = (Vec::new(), Vec::new());
        for db in &dbs {
            metrics::set_phase(db, Phase::Connecting);
            let from = match known.get(db) {
                Some(checkpoint) if self.is_over() => {
                    begun.push((db.clone(), checkpoint.position(), checkpoint.epoch));
                    continue;
                }
                Some(_) if self.is_due(db) => {
                    lacking.push((db, "always"));
                    continue;
                }
                Some(checkpoint) => {
                    let position = checkpoint.position();
                    let checked = session.check_origin(db, position, &checkpoint.replication_id);
                    match checked.map(|()| (position, checkpoint.epoch)) {
                        Err(lost) => {
                            self.resync(lost)?;
                            lacking.push((db, "position_lost"));
                            continue;
                        }
                        position => position?,
                    }
                }
                None if self.config.is_data_set_taken() => {
                    lacking.push((db, "initial"));
                    continue;
                }
                None => {
                    let end = binlog_end(&ends, db).ok_or_else(|| session.without_end(db))?;
                    note(queue, db, end).await;
                    (end, 0)
                }
            };
            match self.go_on(session, db, from).await {
                Err(lost @ SourceError::PositionLost { .. }) => {
                    self.resync(lost)?;
                    lacking.push((db, "position_lost"));
                }
                followed => {
                    followed?;
                    begun.push((db.clone(), from.0, from.1));
                }
            }
        }
        // Others go on meanwhile.
        for (db, reason) in lacking {
            let epoch = next_epoch(known.get(db));
            let from = self.take_data_set((session, queue), (db, reason), epoch).await?;
            begun.push((db.clone(), from, epoch));
        }
        Ok(begun)
    }

    /// Takes the data set of a database, and has its changes come.
    async fn take_data_set(
        &self,
        (session, queue): (&Session, &Queue),
        (db, reason): (&str, &'static str),
        epoch: u32,
    ) -> Result<Position, Trouble> {
        self.flags.source.pass();
        metrics::set_phase(db, Phase::Snapshot);
        metrics::RESYNCS.with([reason]).inc();
        info!(db, reason, "taking the data set");
        let is_fresh = self.needs_fresh_dump.swap(false, Ordering::Relaxed);
        let wanted = (db, is_fresh, epoch, reason);
        let taking = snapshot::take(self.env, self.config, session, queue, wanted);
        let taken = traced(work_span!("take data set", db, reason), taking).await;
        if matches!(&taken, Err(SourceError::Snapshot { .. })) {
            // The dump that the master has may be the fault.
            self.needs_fresh_dump.store(true, Ordering::Relaxed);
        }
        let from = taken?;
        self.taken.lock().insert(db.to_owned());
        if !self.is_over() {
            self.go_on(session, db, (from, epoch)).await?;
        }
        Ok(from)
    }

    /// Whether nothing is to be done once there is a position.
    fn is_over(&self) -> bool {
        self.config.snapshot.mode == SnapshotMode::InitialOnly
    }

    /// Whether the data set of a database is to be taken although there is a position.
    fn is_due(&self, db: &str) -> bool {
        self.config.snapshot.mode == SnapshotMode::Always && !self.taken.lock().contains(db)
    }

    /// Whether the master has all databases of which there are positions; whoever names some wants no others.
    fn check_databases<'k>(
        &self,
        found: &[String],
        mut known: impl Iterator<Item = &'k String>,
    ) -> Result<(), SourceError> {
        match known.find(|db| !found.contains(db)) {
            Some(gone) if self.config.filters.databases.is_empty() => Err(SourceError::DatabaseGone {
                gone: gone.clone(),
                found: found.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the data set is to be taken where a position is lost; otherwise that is the trouble.
    fn resync(&self, lost: SourceError) -> Result<(), SourceError> {
        match self.config.is_resynced() {
            false => Err(lost),
            true => {
                warn!("{lost}; source.on_position_lost is resync");
                Ok(())
            }
        }
    }

    /// Computes the lag of a database whose binlog ends at `head`.
    fn look(&self, followed: &Followed, db: &str, head: Option<Position>, file_size: u64) {
        let (Some(head), Some((written, ts_ms))) = (head, followed.written(db)) else {
            return;
        };
        let lag = written.bytes_to(head, file_size);
        let behind_ms = match lag {
            0 => 0,
            _ if ts_ms == 0 => 0,
            _ => self.env.clock.now_ms().saturating_sub(ts_ms).max(0),
        };
        metrics::HEAD_FILE.with([db]).set(i64::from(head.filenum));
        metrics::HEAD_OFFSET
            .with([db])
            .set(i64::try_from(head.offset).unwrap_or(i64::MAX));
        metrics::LAG_BYTES
            .with([db])
            .set(i64::try_from(lag).unwrap_or(i64::MAX));
        metrics::LAG_SECONDS.with([db]).set(behind_ms / 1000);
    }

    /// Says what ended an attempt, where people and probes look.
    fn say(&self, trouble: &Trouble) {
        let text = trouble.to_string();
        match trouble {
            Trouble::Source(error) => {
                metrics::RECONNECTS.with([error.reason()]).inc();
                self.flags.source.fail(&*text);
                if error.needs_somebody() {
                    error!(reason = error.reason(), "{text}");
                } else {
                    warn!(reason = error.reason(), "{text}");
                }
            }
            Trouble::Sink(_) => {
                self.flags.sink.fail(&*text);
                warn!("{text}");
            }
            Trouble::Checkpoint(_) | Trouble::Wal(_) | Trouble::Output(_) => {
                self.flags.sink.fail(&*text);
                error!("{text}");
            }
        }
    }
}

/// Of a data set that is taken where there is this position, or none.
fn next_epoch(known: Option<&Checkpoint>) -> u32 {
    known.map_or(0, |known| known.epoch.saturating_add(1))
}

fn follows(db: &str, from: Position) {
    info!(db, position = %from, "following the binlog");
    metrics::set_phase(db, Phase::Streaming);
}

/// Has a position noted before anything after it is asked for: whoever begins again goes on there, and not behind what it
/// has not written.
async fn note(queue: &Queue, db: &str, position: Position) {
    let (done, noted) = oneshot::channel();
    let piece = Piece {
        progress: Some(Progress::begin(&db.into(), (position, 0))),
        done: Some(done),
        ..Piece::default()
    };
    queue.put(piece, 1).await;
    // If it cannot be noted, whoever could not says so.
    if noted.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A connection to the Redis port, and what was learnt over it.
struct Connected {
    redis: Redis,
    server: ServerInfo,
    password: Option<String>,
}

/// A database, where its changes go on, and how many data sets have replaced a lost position.
type Begun = (String, Position, u32);

/// What writes, and what it is to write.
type Writing<'a> = (Writer<'a>, mpsc::Receiver<Work>);

/// After how many bytes the master's binlog files roll.
async fn file_size(redis: &mut Redis) -> u64 {
    let setting = redis.setting("binlog-file-size").await;
    setting
        .ok()
        .flatten()
        .and_then(|size| size.parse().ok())
        .unwrap_or(FILE_SIZE)
}

fn read_password(disk: &dyn Disk, path: &Path) -> std::io::Result<String> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = file.len()?;
    if len > MAX_PASSWORD {
        return Err(std::io::Error::other(format!(
            "it has {len} bytes, too many for a password"
        )));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    let text = String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8 text"))?;
    Ok(text.trim().to_owned())
}
