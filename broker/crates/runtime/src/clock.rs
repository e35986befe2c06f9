//! Time: the machine's, or virtual time that a test controls.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;
pub use tokio::time::error::Elapsed;

#[cfg(feature = "test-util")]
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// Wall time, monotonic time and waiting; cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Real,
    /// Tokio's clock, which a paused runtime moves, shifted to a chosen wall time.
    #[cfg(feature = "test-util")]
    Simulated {
        start: Instant,
        start_ms: i64,
        jumped_ms: Arc<AtomicI64>,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn real() -> Self {
        Self(Source::Real)
    }

    /// A clock that shows `start_ms` now and runs with tokio's clock, which is virtual in a paused runtime.
    #[cfg(feature = "test-util")]
    pub fn simulated(start_ms: i64) -> Self {
        Self::simulated_from(Instant::now(), start_ms, Arc::default())
    }

    /// A clock that shows `start_ms` at `start`, plus what was ever jumped.
    #[cfg(feature = "test-util")]
    pub(crate) fn simulated_from(start: Instant, start_ms: i64, jumped_ms: Arc<AtomicI64>) -> Self {
        Self(Source::Simulated {
            start,
            start_ms,
            jumped_ms,
        })
    }

    /// Wall time in milliseconds since 1970; may jump either way. 0 if the machine claims an earlier time.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::Real => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                as_ms(since_epoch)
            }
            #[cfg(feature = "test-util")]
            Source::Simulated {
                start,
                start_ms,
                jumped_ms,
            } => start_ms + as_ms(start.elapsed()) + jumped_ms.load(Ordering::Relaxed),
        }
    }

    /// Monotonic time, for durations and deadlines.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits at least this long.
    ///
    /// # Cancel safety
    /// Safe; the wait starts over.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until `deadline`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// The result of `future`, unless it takes longer than `limit`; then the future is dropped.
    ///
    /// # Errors
    /// [`Elapsed`] after `limit`.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(limit, future).await
    }

    /// Moves the wall time by `ms`, forwards or backwards; monotonic time is untouched. A real clock ignores it.
    #[cfg(feature = "test-util")]
    pub fn jump(&self, ms: i64) {
        match &self.0 {
            Source::Real => {}
            Source::Simulated { jumped_ms, .. } => {
                jumped_ms.fetch_add(ms, Ordering::Relaxed);
            }
        }
    }
}

fn as_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn virtual_time_runs_and_jumps() {
        let clock = Clock::simulated(1_000);
        let before = clock.instant();
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now_ms(), 1_000 + 3_600_000);
        clock.jump(-600_000);
        assert_eq!(clock.now_ms(), 1_000 + 3_000_000);
        assert_eq!(before.elapsed(), Duration::from_secs(3600));
        assert!(
            clock
                .timeout(Duration::from_secs(1), std::future::pending::<()>())
                .await
                .is_err()
        );
    }
}
