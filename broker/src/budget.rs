//! The node-wide bound on bytes of requests that are being received or worked on.
//!
//! A frame takes its cost from the budget once its length is known and gives it back when its reply has been
//! sent. A connection that gets nothing stops reading; TCP's window then holds the client back. Whoever waits
//! holds nothing of the frame it waits for, and requests that hold something finish without taking more, so
//! waiting always ends.

use std::sync::Arc;

use takhin_protocol::messages::ApiKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that a decoded request takes for each byte of its frame, at most about: elements of five bytes become
/// structures of a hundred.
const DECODED_PER_BYTE: usize = 16;
/// A produce request is nearly all records, which are never decoded; beyond this its frame is taken for records.
const MAX_PRODUCE_OVERHEAD: usize = 1 << 20;

/// What a request of `len` bytes takes from the budget, received and decoded.
pub(crate) fn cost(api_key: i16, len: usize) -> usize {
    let decoded = len.saturating_mul(DECODED_PER_BYTE);
    if api_key == ApiKey::Produce as i16 {
        len + decoded.min(MAX_PRODUCE_OVERHEAD)
    } else {
        decoded
    }
}

/// The budget; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    semaphore: Arc<Semaphore>,
    total: u32,
}

/// Bytes taken from the budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Taken {
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `total` bytes, but never less than `largest`, the largest single request.
    pub(crate) fn new(total: u64, largest: u64) -> Self {
        let total = u32::try_from(total.max(largest))
            .unwrap_or(u32::MAX >> 1)
            .min(u32::MAX >> 1);
        Self {
            semaphore: Arc::new(Semaphore::new(total as usize)),
            total,
        }
    }

    /// Takes `bytes` if they are free and nobody waits.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Taken> {
        let permit = Arc::clone(&self.semaphore)
            .try_acquire_many_owned(self.clamp(bytes))
            .ok()?;
        Some(Taken { _permit: permit })
    }

    /// Waits for `bytes`, first come, first served.
    pub(crate) async fn take(self, bytes: usize) -> Taken {
        let count = self.clamp(bytes);
        loop {
            // The semaphore is never closed; if it were, waiting for ever is the safe answer.
            match Arc::clone(&self.semaphore).acquire_many_owned(count).await {
                Ok(permit) => return Taken { _permit: permit },
                Err(_) => std::future::pending::<()>().await,
            }
        }
    }

    /// Bytes that are taken now.
    pub(crate) fn used(&self) -> u64 {
        u64::from(self.total) - self.semaphore.available_permits() as u64
    }

    fn clamp(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_given_back_goes_to_who_waited_first() {
        let budget = Budget::new(100, 10);
        let first = budget.try_take(80).unwrap();
        assert!(budget.try_take(30).is_none());
        let mut large = Box::pin(budget.clone().take(90));
        assert!(futures_util::poll!(&mut large).is_pending());
        assert!(budget.try_take(5).is_none(), "nobody overtakes who waits");
        drop(first);
        let large = large.await;
        assert_eq!(budget.used(), 90);
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_request_larger_than_the_budget_takes_all_of_it() {
        let budget = Budget::new(5, 10);
        assert_eq!(budget.try_take(1000).map(|_| budget.used()), Some(10));
    }
}
