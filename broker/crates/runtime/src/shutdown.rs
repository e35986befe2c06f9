//! The order to stop, seen by everybody who asks.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

/// Exit status after a second signal: what a shell reports for a process killed by SIGINT.
const INTERRUPTED: i32 = 130;

/// A switch that is thrown once; clones share it.
///
/// Those who wait wake in the order in which they began to wait: a watch channel would wake them in an order of chance,
/// and a simulation would not replay.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(Arc<Switch>);

#[derive(Debug, Default)]
struct Switch {
    thrown: AtomicBool,
    waiting: Notify,
}

impl Shutdown {
    /// A switch that is not thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Throws the switch; again is fine.
    pub fn trigger(&self) {
        self.0.thrown.store(true, Ordering::Release);
        self.0.waiting.notify_waiters();
    }

    /// Whether the switch was thrown.
    pub fn is_triggered(&self) -> bool {
        self.0.thrown.load(Ordering::Acquire)
    }

    /// Returns once the switch is thrown, at once if it was before.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait(&self) {
        let mut woken = pin!(self.0.waiting.notified());
        // In line before looking, so that a throw in between is not missed.
        woken.as_mut().enable();
        if !self.is_triggered() {
            woken.await;
        }
    }
}

/// Throws `shutdown` when standard input ends: for a process that must not outlive the one that started it.
///
/// # Errors
/// No thread can be started.
pub fn with_stdin(shutdown: Shutdown) -> io::Result<()> {
    // Not tokio's: its reader would keep the runtime from ending.
    let watching = move || {
        // What is read does not matter, nor why it ends.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        shutdown.trigger();
    };
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(watching)?;
    Ok(())
}

/// Throws `shutdown` at the first SIGTERM or SIGINT; the second one ends the process at once, without flushing
/// anything. Runs until then: spawn it.
///
/// # Errors
/// When a handler cannot be installed.
pub async fn signals(shutdown: Shutdown) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next = async || {
        tokio::select! {
            biased;
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let name = next().await;
    info!(signal = name, "stopping; a second signal ends at once");
    shutdown.trigger();
    let name = next().await;
    warn!(signal = name, "second signal: ending without a clean stop");
    std::process::exit(INTERRUPTED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_sees_the_switch() {
        let shutdown = Shutdown::new();
        let waiter = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.wait().await }
        });
        assert!(!shutdown.is_triggered());
        shutdown.trigger();
        waiter.await.unwrap();
        shutdown.wait().await; // at once from now on
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn sigterm_throws_the_switch() {
        let shutdown = Shutdown::new();
        let watching = tokio::spawn(signals(shutdown.clone()));
        // Its first poll installs the handlers; until then the signal would end this process.
        tokio::task::yield_now().await;
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        shutdown.wait().await;
        watching.abort();
    }
}
