//! The newest value of something, for receivers that remember which one they have seen.
//!
//! What tokio's watch channel does, but those who wait wake in the order in which they began to wait. Tokio's wakes them in
//! an order of chance, which the operating system seeds, and a simulation would not replay. Whoever needs no memory of what
//! was seen uses [`Published`](crate::Published).

use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;
use tokio::task::coop::cooperative;

/// Makes a channel with its first value, which counts as seen.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        value: RwLock::new(value),
        version: AtomicU64::new(0),
        changed: Notify::new(),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
    });
    let receiver = Receiver {
        shared: Arc::clone(&shared),
        seen: 0,
    };
    (Sender(shared), receiver)
}

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    /// Counts the changes; moves only while `value` is locked for writing.
    version: AtomicU64,
    changed: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

/// The value, locked: a sender waits for as long as it is held.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Changes the value; clones share it.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Replaces the value, unless nobody is there to see it.
    ///
    /// # Errors
    /// The value, if every receiver is gone.
    pub fn send(&self, value: T) -> Result<(), T> {
        if self.0.receivers.load(Ordering::Acquire) == 0 {
            return Err(value);
        }
        self.send_replace(value);
        Ok(())
    }

    /// Replaces the value and returns the one before, whether anybody sees it or not.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_if_modified(|current| {
            std::mem::swap(current, &mut value);
            true
        });
        value
    }

    /// Changes the value in place; receivers are told if `modify` says so, which is returned. `modify` must be short:
    /// readers wait for it.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        {
            let mut value = self.0.value.write();
            if !modify(&mut value) {
                return false;
            }
            self.0.version.fetch_add(1, Ordering::Release);
        }
        self.0.changed.notify_waiters();
        true
    }

    /// The newest value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.value.read())
    }

    /// Another receiver, which has seen the newest value.
    pub fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver {
            seen: self.0.version.load(Ordering::Acquire),
            shared: Arc::clone(&self.0),
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

/// Every sender is gone: the value will not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody is left who could change the value")]
pub struct Closed;

/// Sees the value change; a clone has seen what the original has.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    /// The newest value, which stays unseen if it is.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.read())
    }

    /// The newest value, which counts as seen from now on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.version.load(Ordering::Acquire);
        Ref(value)
    }

    /// Returns once there is a value that was not seen, at once if there is, and counts it as seen.
    ///
    /// # Errors
    /// [`Closed`] when every sender is gone and the last value was seen.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        let waiting = async {
            loop {
                let mut changed = pin!(self.shared.changed.notified());
                // In line before looking, so that a change in between is not missed.
                changed.as_mut().enable();
                // Before the version: the last act of a sender may have been a change.
                let is_closed = self.shared.senders.load(Ordering::Acquire) == 0;
                let newest = self.shared.version.load(Ordering::Acquire);
                if newest != self.seen {
                    self.seen = newest;
                    return Ok(());
                }
                if is_closed {
                    return Err(Closed);
                }
                changed.await;
            }
        };
        // A value that changes all the time would keep a task from ever yielding.
        cooperative(waiting).await
    }

    /// Returns once `wanted` holds for the newest value, at once if it does, and counts that value as seen.
    ///
    /// # Errors
    /// [`Closed`] when every sender is gone and it does not hold for the last value.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_for(&mut self, wanted: impl Fn(&T) -> bool) -> Result<(), Closed> {
        while !wanted(&self.borrow_and_update()) {
            self.changed().await?;
        }
        Ok(())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Self {
            shared: Arc::clone(&self.shared),
            seen: self.seen,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_wait_wake_in_their_order() {
        let (sender, receiver) = channel(0);
        let (order, _) = channel(Vec::new());
        let waiting: Vec<_> = (0..50)
            .map(|i| {
                let (mut receiver, order) = (receiver.clone(), order.clone());
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    order.send_if_modified(|all| {
                        all.push(i);
                        true
                    });
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.send(1).unwrap();
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_last_change_is_seen_before_the_end() {
        let (sender, mut receiver) = channel(0);
        let waiting = tokio::spawn(async move {
            let first = receiver.changed().await;
            let value = *receiver.borrow();
            (first, value, receiver.changed().await)
        });
        tokio::task::yield_now().await;
        sender.send(7).unwrap();
        drop(sender);
        assert_eq!(waiting.await.unwrap(), (Ok(()), 7, Err(Closed)));
    }

    #[tokio::test]
    async fn a_value_that_always_changes_lets_others_run() {
        let (sender, mut receiver) = channel(0_u64);
        let other = tokio::spawn(async {});
        while !other.is_finished() {
            sender.send_if_modified(|value| {
                *value += 1;
                true
            });
            receiver.changed().await.unwrap();
        }
        assert!(*sender.borrow() > 0);
    }

    #[tokio::test]
    async fn nothing_is_sent_to_nobody() {
        let (sender, receiver) = channel(0);
        drop(receiver);
        assert_eq!(sender.send(1), Err(1));
        let mut late = sender.subscribe();
        sender.send(2).unwrap();
        late.wait_for(|value| *value == 2).await.unwrap();
        drop(sender);
        assert_eq!(late.wait_for(|value| *value == 3).await, Err(Closed));
    }
}
