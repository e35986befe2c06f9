//! Driving the node's flush rounds: on a thread of their own, or as a task in the simulation.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use takhin_runtime::thread::Thread;
use takhin_runtime::{Env, JoinHandle};
use takhin_storage::{FlushError, Flusher, Log};
use tokio::sync::oneshot;

/// A running flusher; ends with [`FlushDriver::stop`].
pub(crate) struct FlushDriver {
    flusher: Flusher,
    running: Mutex<Option<Running>>,
}

enum Running {
    Thread(Thread),
    Task(JoinHandle<()>),
}

impl FlushDriver {
    /// Starts the rounds of `flusher`.
    ///
    /// # Errors
    /// The operating system has no thread left.
    pub(crate) fn start(env: &Env, flusher: Flusher) -> io::Result<Self> {
        let rounds = flusher.clone();
        let running = if env.tasks.is_simulated() {
            let tasks = env.tasks.clone();
            Running::Task(
                env.tasks
                    .spawn("flusher", async move { rounds.drive(&tasks).await }),
            )
        } else {
            let clock = env.clock.clone();
            Running::Thread(Thread::spawn("flusher", move || rounds.run(&clock))?)
        };
        Ok(Self {
            flusher,
            running: Mutex::new(Some(running)),
        })
    }

    pub(crate) fn flusher(&self) -> &Flusher {
        &self.flusher
    }

    /// Finishes what was submitted and ends the rounds.
    pub(crate) async fn stop(&self, env: &Env) {
        self.flusher.close();
        let Some(running) = self.running.lock().take() else {
            return;
        };
        match running {
            Running::Thread(thread) => {
                if !env.tasks.blocking(move || thread.join()).await {
                    tracing::error!("the flusher panicked");
                }
            }
            // A panic in it has been reported when it happened.
            Running::Task(task) => drop(task.await),
        }
    }
}

/// Makes everything that `log` has appended durable.
///
/// # Errors
/// The sync failed: the log has failed with it, and nothing above its durable watermark is to be believed.
pub(crate) async fn flush(flusher: &Flusher, log: &Arc<Log>) -> Result<(), FlushError> {
    let (done, flushed) = oneshot::channel();
    flusher.submit(Arc::clone(log), move |result| drop(done.send(result.map(drop))));
    // Dropped unanswered only when the flusher was closed: the node is stopping, and so is the caller.
    match flushed.await {
        Ok(result) => result,
        Err(_) => std::future::pending().await,
    }
}
