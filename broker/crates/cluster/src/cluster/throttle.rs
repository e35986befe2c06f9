//! Throttles of replication as they are set, and what other nodes ask of them.

use bytes::Bytes;

use super::Cluster;
use crate::metadata::Image;
use crate::raft::give_room;

impl Cluster {
    /// Puts the rates of `image` into force.
    pub(super) fn learn_rates(&self, image: &Image) {
        self.host.throttles.configure(&image.settings.node.rpc);
    }

    /// Answers another node that wants to send throttled bytes here.
    pub(crate) async fn give_room(&self, body: Bytes) -> Result<Bytes, String> {
        give_room(&self.env, &self.host.throttles, body).await
    }
}
