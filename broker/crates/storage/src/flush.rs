//! Flush rounds: one per node, over all logs that wait for one.
//!
//! ```text
//!  submit(log, done) ──> pending ──take_round──> Round ──sync──> Synced ──complete──> callbacks, in order
//! ```
//!
//! Everything submitted while a round runs forms the next one, so that a caller waits for at most the running round and
//! its own. How a round syncs depends on how many files are dirty; see `docs/adr/0003-flush-rounds.md`.
//!
//! The round is plain code with two drivers: [`Flusher::run`] on a thread of its own, and [`Flusher::drive`] as a task
//! for the simulation.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};
use takhin_runtime::clock::Clock;
use takhin_runtime::disk::Disk;
use takhin_runtime::task::Tasks;
use takhin_runtime::thread::parallel;

use crate::entry::Checkpoint;
use crate::error::LogError;
use crate::log::{Log, SyncTarget};
use crate::metrics::METRICS;
use crate::options::StorageContext;

/// Why a log was not flushed. It has failed and must be reopened.
#[derive(Debug, Clone, thiserror::Error)]
#[error("flush failed")]
pub struct FlushError(#[source] pub Arc<LogError>);

/// Called with the log's new durable watermark.
type Done = Box<dyn FnOnce(Result<Checkpoint, FlushError>) + Send>;

/// How a round syncs. The defaults were measured; see `docs/adr/0003-flush-rounds.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushPolicy {
    /// Threads that sync files at the same time; 1 in the simulation.
    pub threads: usize,
    /// From this many dirty files on, one `sync_fs` replaces the syncs of all of them.
    pub sync_fs_from: usize,
}

impl Default for FlushPolicy {
    fn default() -> Self {
        Self {
            threads: 8,
            sync_fs_from: 32,
        }
    }
}

/// Makes logs durable in rounds. Clones are the same flusher.
#[derive(Debug, Clone)]
pub struct Flusher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    /// A path on the file system that holds all logs.
    root: PathBuf,
    policy: FlushPolicy,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    pending: Vec<(Arc<Log>, Done)>,
    waker: Option<Waker>,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("pending", &self.pending.len())
            .field("closed", &self.closed)
            .finish()
    }
}

impl Flusher {
    /// A flusher for logs below `root`, which lie on one file system.
    pub fn new(cx: &StorageContext, root: PathBuf, policy: FlushPolicy) -> Self {
        let shared = Shared {
            disk: cx.disk.clone(),
            root,
            policy,
            queue: Mutex::default(),
            arrived: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Asks for everything that `log` has appended until now to be made durable.
    ///
    /// `done` is called from the flusher's thread, after the calls for earlier submissions; it must be short. After
    /// [`Flusher::close`] it is dropped uncalled.
    pub fn submit(&self, log: Arc<Log>, done: impl FnOnce(Result<Checkpoint, FlushError>) + Send + 'static) {
        let waker = {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                return;
            }
            queue.pending.push((log, Box::new(done)));
            queue.waker.take()
        };
        self.shared.arrived.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Everything submitted since the last round; `None` if nothing was.
    pub fn take_round(&self) -> Option<Round> {
        let pending = std::mem::take(&mut self.shared.queue.lock().pending);
        (!pending.is_empty()).then(|| Round::new(self.shared.clone(), pending))
    }

    /// Runs rounds until [`Flusher::close`]; what was submitted before is still done. Blocks: for a thread of its own.
    pub fn run(&self, clock: &Clock) {
        loop {
            {
                let mut queue = self.shared.queue.lock();
                while queue.pending.is_empty() {
                    if queue.closed {
                        return;
                    }
                    self.shared.arrived.wait(&mut queue);
                }
            }
            if let Some(round) = self.take_round() {
                let begun = clock.instant();
                let synced = round.sync();
                METRICS.flush_round.observe(clock.instant().duration_since(begun));
                synced.complete();
            }
        }
    }

    /// [`Flusher::run`] as a task: the same rounds in the same order, syncing as `tasks` blocks.
    pub async fn drive(&self, tasks: &Tasks) {
        while let Some(round) = poll_fn(|cx| self.poll_round(cx)).await {
            tasks.blocking(move || round.sync()).await.complete();
        }
    }

    fn poll_round(&self, cx: &mut Context<'_>) -> Poll<Option<Round>> {
        let mut queue = self.shared.queue.lock();
        if queue.pending.is_empty() {
            if queue.closed {
                return Poll::Ready(None);
            }
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let pending = std::mem::take(&mut queue.pending);
        Poll::Ready(Some(Round::new(self.shared.clone(), pending)))
    }

    /// Ends the driver after what was submitted so far; later submissions are dropped.
    pub fn close(&self) {
        let waker = {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
            queue.waker.take()
        };
        self.shared.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The logs of one round and who waits for them.
pub struct Round {
    shared: Arc<Shared>,
    logs: Vec<Arc<Log>>,
    /// In submission order, with the index of the log.
    waiting: Vec<(usize, Done)>,
}

impl Round {
    fn new(shared: Arc<Shared>, pending: Vec<(Arc<Log>, Done)>) -> Self {
        let mut logs: Vec<Arc<Log>> = Vec::new();
        let mut known: BTreeMap<*const Log, usize> = BTreeMap::new();
        let waiting = pending.into_iter().map(|(log, done)| {
            let i = *known.entry(Arc::as_ptr(&log)).or_insert_with(|| {
                logs.push(log);
                logs.len() - 1
            });
            (i, done)
        });
        let waiting = waiting.collect();
        Self {
            shared,
            logs,
            waiting,
        }
    }

    /// Syncs every log of the round once; nobody is told yet.
    #[must_use]
    pub fn sync(self) -> Synced {
        let targets: Vec<_> = self.logs.iter().map(|log| log.sync_target()).collect();
        let good: Vec<&SyncTarget> = targets.iter().filter_map(|t| t.as_ref().ok()).collect();
        let files = good.iter().map(|t| t.files().len()).sum::<usize>();
        METRICS.flush_files.add(files as u64);
        METRICS.flush_logs.add(good.len() as u64);
        let Shared {
            disk, root, policy, ..
        } = &*self.shared;
        let mut results = if files >= policy.sync_fs_from {
            let result = disk.sync_fs(root);
            good.iter().map(|_| clone_result(&result)).collect()
        } else {
            parallel(policy.threads, &good, |target| target.sync(&**disk))
        }
        .into_iter();
        let results = targets
            .into_iter()
            .map(|target| target.map(|t| (t, results.next().unwrap_or_else(no_result))))
            .collect();
        Synced {
            logs: self.logs,
            waiting: self.waiting,
            results,
        }
    }
}

/// There is one result for each target; a lost one must not look like success.
fn no_result() -> io::Result<()> {
    Err(io::ErrorKind::Other.into())
}

fn clone_result(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(e) => Err(e
            .raw_os_error()
            .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)),
    }
}

/// A round that has been synced.
pub struct Synced {
    logs: Vec<Arc<Log>>,
    waiting: Vec<(usize, Done)>,
    results: Vec<Result<(SyncTarget, io::Result<()>), LogError>>,
}

impl Synced {
    /// Advances the durable watermarks, then tells everybody, in submission order.
    pub fn complete(self) {
        let ends: Vec<Result<Checkpoint, FlushError>> = self
            .logs
            .iter()
            .zip(self.results)
            .map(|(log, result)| {
                let end = result.and_then(|(target, synced)| log.sync_finished(&target, synced));
                end.map_err(|e| FlushError(Arc::new(e)))
            })
            .collect();
        for (i, done) in self.waiting {
            done(ends[i].clone());
        }
    }
}
