//! Keeping up with the other brokers: where they are, and who leads what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::exchange;
use super::{Cluster, METADATA_TOPIC_ID};
use crate::leaders::Announcement;
use crate::links::{Class, Kind};

/// How long a broker may take to hear an announcement.
const HEARD: Duration = Duration::from_secs(2);

/// Pause after an announcement that was not heard.
const REPEAT: Duration = Duration::from_millis(200);

/// How often it is looked whether a broker has begun anew, and must be told everything.
const LOOK: Duration = Duration::from_secs(1);

/// Links to the brokers of each new image, and an announcer for each of them.
pub(super) async fn follow(cluster: Arc<Cluster>) {
    let mut announcers: BTreeMap<u32, takhin_runtime::JoinHandle<()>> = BTreeMap::new();
    // Where brokers were in the image before, or in that of the last run: links to them are there.
    let mut known: BTreeMap<u32, String> = cluster.host.hard_state.peers();
    let mut image = cluster.image();
    loop {
        let addresses: BTreeMap<i32, String> = image
            .brokers
            .values()
            .map(|broker| (broker.id, broker.rpc.clone()))
            .collect();
        let others = addresses
            .iter()
            .filter(|(id, address)| **id != cluster.node_id() && !address.is_empty());
        let peers: BTreeMap<u32, String> = others
            .map(|(id, address)| (id.unsigned_abs(), address.clone()))
            .collect();
        announcers.retain(|node, announcer| {
            let stays = peers.contains_key(node);
            if !stays {
                announcer.abort();
            }
            stays
        });
        for node in peers.keys() {
            announcers.entry(*node).or_insert_with(|| {
                let announcing = announce(Arc::clone(&cluster), *node);
                cluster.env.tasks.spawn("announcer", announcing)
            });
        }
        // Not the links to whom the image does not know yet: a founder that let go of the other founders' could not commit
        // that they belong to the cluster.
        for gone in known.keys().filter(|node| !peers.contains_key(node)) {
            cluster.host.links.forget_peer(*gone);
        }
        // Nor an address that is no news: the broker may have said since that it is elsewhere, which is still to be
        // committed.
        let is_news = |(node, address): &(&u32, &String)| known.get(*node) != Some(*address);
        let news = peers.iter().filter(is_news);
        let news = news.map(|(node, address)| (*node, address.clone())).collect();
        cluster.host.links.add_peers(news);
        if known != peers
            && let Err(error) = cluster.host.hard_state.set_peers(&peers).await
        {
            tracing::warn!(%error, "the next start looks for the other brokers by its seeds alone");
        }
        known = peers;
        {
            let mut standing = cluster.exchange.standing.lock();
            standing.addresses = addresses;
        }
        cluster
            .exchange
            .leaders
            .retain(|id| id.topic_id == METADATA_TOPIC_ID || image.topic_names.contains_key(&id.topic_id));
        image = tokio::select! {
            biased;
            () = cluster.stop.wait() => break,
            next = cluster.controller.image_after(image.end_offset) => next,
        };
    }
    for announcer in announcers.into_values() {
        announcer.abort();
    }
}

/// Tells `node` what this broker leads, for as long as it is polled.
async fn announce(cluster: Arc<Cluster>, node: u32) {
    let leaders = &cluster.exchange.leaders;
    // What it has heard, and in which run of its process.
    let mut told: (Option<Uuid>, u64) = (None, 0);
    loop {
        let incarnation = cluster.host.links.incarnation(node);
        if incarnation != told.0 {
            told = (incarnation, 0);
        }
        let (partitions, change) = leaders.since(told.1);
        if partitions.is_empty() || incarnation.is_none() {
            tokio::select! {
                biased;
                () = leaders.change_after(change) => {}
                () = cluster.env.clock.sleep(LOOK) => {}
            }
            continue;
        }
        let announcement = Announcement { partitions };
        let Ok(body) = exchange::encode(&announcement) else {
            return;
        };
        let links = &cluster.host.links;
        match links
            .call(node, Class::Control, 0, Kind::Leaders, vec![body], HEARD)
            .await
        {
            Ok(_) => told.1 = change,
            Err(error) => {
                tracing::debug!(node, %error, "announcement not heard");
                cluster.env.clock.sleep(REPEAT).await;
            }
        }
    }
}
