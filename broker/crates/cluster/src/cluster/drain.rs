//! Draining: a broker leads nothing, so that it can be stopped without anybody waiting for an election.
//!
//! That a broker is being drained stands in the metadata, so that it is so still after any restart. The broker itself then
//! passes on what it leads, the controller's role included, as soon as another replica can take it; the others pass nothing
//! to it (`balance.rs`), and it campaigns only where no other replica could win (`raft/elections.rs`). A leadership that it
//! gets so, or that was under way, goes with the next look.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::forward::Command;
use super::{Cluster, node_number};
use crate::controller::TopicError;
use crate::metadata::Image;

/// Pause between two looks of a broker that is being drained for what it leads.
const LOOK: Duration = Duration::from_millis(500);

impl Cluster {
    /// Has a broker lead nothing from now on, or lead again; on return that is decided, and this broker's image shows it.
    /// What the broker leads goes to others in the background. Does nothing if it is so already.
    ///
    /// # Errors
    /// [`TopicError::UnknownBroker`]; [`TopicError::NotController`] and [`TopicError::Timeout`], after which it may yet be
    /// decided.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have made the change.
    pub async fn set_draining(&self, broker: i32, draining: bool) -> Result<(), TopicError> {
        self.command(Command::Drain { broker, draining }).await.map(drop)
    }

    /// From now on elections and transfers go by this image.
    pub(super) fn learn_draining(&self, image: &Image) {
        let leaving = image.draining.union(&image.decommissioning);
        self.host
            .set_draining(leaving.copied().map(node_number).collect());
    }

    fn is_draining(&self) -> bool {
        self.host.draining().contains(&self.host.node)
    }

    /// Passes on what this broker leads, as far as there is a replica on a broker that is not being drained.
    async fn drain(&self) {
        let draining = self.host.draining();
        let led = self.exchange.all_groups().into_iter().filter_map(|group| {
            let to = self.successor(&group)?;
            (!draining.contains(&to)).then_some((to, group))
        });
        self.pass_on(led.collect()).await;
    }
}

/// Passes on what the node leads while it is being drained, until it stops.
pub(super) async fn keep(cluster: Arc<Cluster>) {
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(LOOK) => {}
        }
        // A broker that stops gives everything away by itself, to brokers that are being drained as well.
        if cluster.is_draining() && !cluster.is_leaving.load(Ordering::Acquire) {
            tokio::select! {
                biased;
                () = cluster.stop.wait() => return,
                () = cluster.drain() => {}
            }
        }
    }
}
