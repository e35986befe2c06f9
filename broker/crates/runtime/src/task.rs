//! Tasks whose end is always noticed, and places for work that blocks.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll};

use tokio::runtime::{Handle, RuntimeFlavor};
use tracing::error;

use crate::telemetry::logging::panic_message;
use crate::telemetry::metrics::{self, Counter, Family};

#[cfg(feature = "test-util")]
use crate::sim::machine::MachineTasks;

static PANICS: LazyLock<Family<Counter, 1>> = LazyLock::new(|| {
    metrics::counters(
        "takhin_runtime_task_panics_total",
        "Tasks that ended by a panic, which is a bug",
        ["task"],
    )
});

/// Starts tasks; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Real,
    #[cfg(feature = "test-util")]
    Simulated(MachineTasks),
}

/// How a task ended instead of returning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It panicked; the panic was logged and counted.
    #[error("task {0} panicked")]
    Panicked(&'static str),
    /// It was aborted, or its runtime stopped.
    #[error("task {0} was aborted")]
    Aborted(&'static str),
}

/// Waits for the end of a task. Dropping it leaves the task running.
#[derive(Debug)]
pub struct JoinHandle<T> {
    name: &'static str,
    inner: tokio::task::JoinHandle<Option<T>>,
}

impl Tasks {
    /// Tasks on the tokio runtime that calls.
    pub fn real() -> Self {
        Self(Kind::Real)
    }

    #[cfg(feature = "test-util")]
    pub(crate) fn simulated(machine: MachineTasks) -> Self {
        Self(Kind::Simulated(machine))
    }

    /// Whether time is virtual and everything runs on one thread.
    pub fn is_simulated(&self) -> bool {
        match self.0 {
            Kind::Real => false,
            #[cfg(feature = "test-util")]
            Kind::Simulated(_) => true,
        }
    }

    /// Starts a task. A panic in it is logged with `name` and counted, never silent.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let kind = self.0.clone();
        let inner = tokio::spawn(async move {
            match catch_panic(future).await {
                Ok(output) => Some(output),
                Err(payload) => {
                    report_panic(name, payload.as_ref());
                    kind.panicked(name);
                    None
                }
            }
        });
        self.0.started(&inner);
        JoinHandle { name, inner }
    }

    /// Runs work that blocks on a thread made for it, or, simulated, inline after the virtual time that the disk
    /// says it takes. A panic of `work` continues in the caller.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop work that has begun.
    pub async fn blocking<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match &self.0 {
            Kind::Real => match tokio::task::spawn_blocking(work).await {
                Ok(output) => output,
                Err(e) => match e.try_into_panic() {
                    Ok(payload) => resume_unwind(payload),
                    // The runtime is stopping and takes no more work; the caller is about to be dropped as well.
                    Err(_) => std::future::pending().await,
                },
            },
            #[cfg(feature = "test-util")]
            Kind::Simulated(machine) => machine.blocking(work).await,
        }
    }

    /// Runs short work that blocks on this thread, after handing the thread's other tasks to another one where
    /// the runtime has more than one.
    pub fn in_place<T>(&self, work: impl FnOnce() -> T) -> T {
        match Handle::try_current().map(|handle| handle.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
            _ => work(),
        }
    }
}

impl Kind {
    fn started<T>(&self, task: &tokio::task::JoinHandle<T>) {
        match self {
            Self::Real => {}
            #[cfg(feature = "test-util")]
            Self::Simulated(machine) => machine.started(task.abort_handle()),
        }
        let _ = task;
    }

    fn panicked(&self, name: &'static str) {
        match self {
            Self::Real => {}
            #[cfg(feature = "test-util")]
            Self::Simulated(machine) => machine.panicked(name),
        }
        let _ = name;
    }
}

impl<T> JoinHandle<T> {
    /// Ends the task at its next await point.
    pub fn abort(&self) {
        self.inner.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }

    /// Name of the task.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.inner).poll(cx).map(|ended| match ended {
            Ok(Some(output)) => Ok(output),
            Ok(None) => Err(TaskError::Panicked(name)),
            Err(_) => Err(TaskError::Aborted(name)),
        })
    }
}

/// Drives `future` and returns the payload if it panics.
async fn catch_panic<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    // After a panic the future is never polled again, so that nobody sees a broken state of it.
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(payload)),
        },
    )
    .await
}

fn report_panic(task: &'static str, payload: &(dyn Any + Send)) {
    let message = panic_message(payload);
    error!(task, message, "task panicked");
    PANICS.with([task]).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_counted_and_reported() {
        let tasks = Tasks::real();
        let before = PANICS.with(["falls over"]).get();
        let ended: Result<(), _> = tasks.spawn("falls over", async { panic!("on purpose") }).await;
        assert_eq!(ended, Err(TaskError::Panicked("falls over")));
        assert_eq!(PANICS.with(["falls over"]).get(), before + 1);
        let endless = tasks.spawn("endless", std::future::pending::<()>());
        endless.abort();
        assert_eq!(endless.await, Err(TaskError::Aborted("endless")));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn blocking_work_leaves_the_worker_free() {
        let tasks = Tasks::real();
        // The only worker must still run the sender while the work waits for it.
        let (tx, rx) = std::sync::mpsc::channel();
        let sender = tasks.spawn("sender", async move { tx.send(7) });
        assert_eq!(tasks.blocking(move || rx.recv()).await, Ok(7));
        sender.await.unwrap().unwrap();

        let received = tasks.spawn("on the only worker", {
            let tasks = tasks.clone();
            async move {
                let (tx, rx) = std::sync::mpsc::channel();
                tasks.spawn("sender", async move { tx.send(8) });
                tasks.in_place(|| rx.recv())
            }
        });
        assert_eq!(received.await, Ok(Ok(8)));
    }
}
