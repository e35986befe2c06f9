//! Long polls: one waiter may wait on many partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Woken once by the first partition that has news: new committed records, a moved log start, lost leadership,
/// storage gone offline, deletion.
#[derive(Debug, Default)]
pub struct Waiter {
    woken: AtomicBool,
    notify: Notify,
}

impl Waiter {
    /// A waiter that nothing has woken yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Wakes the waiter, now or when it starts waiting.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Whether it has been woken: partitions drop such waiters.
    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Waits until woken.
    ///
    /// # Cancel safety
    /// Safe; a wake-up that is not consumed is kept.
    pub async fn woken(&self) {
        if !self.is_woken() {
            self.notify.notified().await;
        }
    }
}
