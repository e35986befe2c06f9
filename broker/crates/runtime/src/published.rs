//! A value that changes, and those who wait for a change.

use std::pin::pin;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Notify;

/// The newest value of something; clones share it.
///
/// Like a watch channel, but those who wait wake in the order in which they began to wait. A watch channel wakes them in
/// an order of chance, and a simulation would not replay.
#[derive(Debug, Default)]
pub struct Published<T>(Arc<Inner<T>>);

#[derive(Debug, Default)]
struct Inner<T> {
    value: RwLock<T>,
    changed: Notify,
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Published<T> {
    /// Publishes a first value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Inner {
            value: RwLock::new(value),
            changed: Notify::new(),
        }))
    }

    /// The newest value.
    pub fn get(&self) -> T {
        self.0.value.read().clone()
    }

    /// Changes the value in place and wakes everybody who waits. `change` must be short: readers wait for it.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.value.write());
        self.0.changed.notify_waiters();
    }

    /// Returns the first value seen for which `wanted` holds, at once if it is the newest one. Values that are replaced
    /// quickly may never be seen.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_for(&self, wanted: impl Fn(&T) -> bool) -> T {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // In line before looking, so that a change in between is not missed.
            changed.as_mut().enable();
            {
                let value = self.0.value.read();
                if wanted(&value) {
                    return value.clone();
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_the_value_it_asked_for_and_not_before() {
        let published = Published::new(1);
        assert_eq!(published.wait_for(|v| *v == 1).await, 1, "at once");
        let waiting = tokio::spawn({
            let published = published.clone();
            async move { published.wait_for(|v| *v >= 3).await }
        });
        tokio::task::yield_now().await;
        published.update(|v| *v = 2);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        published.update(|v| *v = 3);
        assert_eq!(waiting.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn those_who_wait_wake_in_their_order() {
        let published = Published::new(false);
        let order = Published::new(Vec::new());
        let waiting: Vec<_> = (0..50)
            .map(|i| {
                let (published, order) = (published.clone(), order.clone());
                tokio::spawn(async move {
                    published.wait_for(|v| *v).await;
                    order.update(|all| all.push(i));
                })
            })
            .collect();
        tokio::task::yield_now().await;
        published.update(|v| *v = true);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(order.get(), (0..50).collect::<Vec<_>>());
    }
}
