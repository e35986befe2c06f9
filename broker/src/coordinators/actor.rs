//! The life of a shard on this broker: wait for leadership, load, serve, and again.

use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Partition, Waiter};
use takhin_protocol::ErrorCode;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::load::load;
use super::serving::{Ended, Serving};
use super::{Message, settings};
use crate::context::Broker;

/// Pause before a shard is loaded again after it failed; it doubles up to [`MAX_PAUSE`], so that a full disk does not
/// make a broker read the same log all the time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Serves one shard. Ends when nobody can reach it, or when the broker stops.
pub(super) struct Actor {
    broker: Arc<Broker>,
    partition: Arc<Partition>,
    inbox: mpsc::Receiver<Message>,
}

/// Nobody needs this actor any more.
struct Unneeded;

impl Actor {
    pub(super) fn new(
        broker: Arc<Broker>,
        partition: Arc<Partition>,
        inbox: mpsc::Receiver<Message>,
    ) -> Self {
        Self {
            broker,
            partition,
            inbox,
        }
    }

    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        // `Unneeded` is the one way out.
        while let Ok(ended) = self.lead_once().await {
            pause = match ended {
                Ended::LostLeadership => FIRST_PAUSE,
                Ended::Stopped => return self.refuse_until_unneeded().await,
                Ended::NotCommitted => {
                    if self.rest(pause).await.is_err() {
                        return;
                    }
                    (pause * 2).min(MAX_PAUSE)
                }
            };
        }
    }

    /// From no leadership to the loss of it.
    async fn lead_once(&mut self) -> Result<Ended, Unneeded> {
        let leading = leading(Arc::clone(&self.partition));
        let epoch = self.meanwhile(ErrorCode::NotCoordinator, leading).await?;
        self.meanwhile(
            ErrorCode::CoordinatorLoadInProgress,
            settled(Arc::clone(&self.partition)),
        )
        .await?;
        let partition = Arc::clone(&self.partition);
        let config = settings::group_config(&self.broker.cluster.image());
        let begun = self.broker.env.clock.instant();
        let tasks = self.broker.env.tasks.clone();
        let loading = async move { tasks.blocking(move || load(&partition, config)).await };
        let loaded = self
            .meanwhile(ErrorCode::CoordinatorLoadInProgress, loading)
            .await?;
        let id = self.partition.id();
        let (shard, loaded) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(partition = %id, error, "groups cannot be loaded; they are unavailable until they can");
                return Ok(Ended::NotCommitted);
            }
        };
        if loaded.records > 0 {
            let took = self.broker.env.clock.instant().duration_since(begun);
            info!(partition = %id, epoch, loaded.records, loaded.skipped, ?took, "groups loaded");
        }
        let serving = Serving::new(
            Arc::clone(&self.broker),
            Arc::clone(&self.partition),
            epoch,
            shard,
        );
        serving.run(&mut self.inbox).await.ok_or(Unneeded)
    }

    /// Waits for `work`, refusing requests meanwhile.
    async fn meanwhile<T>(&mut self, code: ErrorCode, work: impl Future<Output = T>) -> Result<T, Unneeded> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                message = self.inbox.recv() => message.ok_or(Unneeded)?.refuse(code),
            }
        }
    }

    async fn rest(&mut self, pause: Duration) -> Result<(), Unneeded> {
        let clock = self.broker.env.clock.clone();
        self.meanwhile(ErrorCode::CoordinatorNotAvailable, async move {
            clock.sleep(pause).await
        })
        .await
    }

    async fn refuse_until_unneeded(mut self) {
        while let Some(message) = self.inbox.recv().await {
            message.refuse(ErrorCode::CoordinatorNotAvailable);
        }
    }
}

/// Returns the epoch once this broker leads the partition.
async fn leading(partition: Arc<Partition>) -> i32 {
    loop {
        let waiter = Waiter::new();
        partition.wait(&waiter);
        if let Some(epoch) = partition.leadership() {
            return epoch;
        }
        waiter.woken().await;
    }
}

/// Returns once what was proposed here, by whoever served before, is in the log for good, or this broker leads no longer.
/// A shard that ended because a batch was not known to be committed would otherwise begin without it, and get it later.
async fn settled(partition: Arc<Partition>) {
    loop {
        let waiter = Waiter::new();
        partition.wait(&waiter);
        if partition.is_settled() {
            return;
        }
        waiter.woken().await;
    }
}
