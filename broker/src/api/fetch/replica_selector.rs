//! Which replica a consumer should read from (KIP-392), as Kafka's `RackAwareReplicaSelector` has it.
//!
//! The leader, if it is in the consumer's rack or no replica there will do. Else, of the replicas in that rack which are in
//! sync and have the offset asked for, the one whose log reaches furthest; of equals the one with the highest id.

use takhin_cluster::{Image, Partition};
use takhin_config::node::ReplicaSelector;

use crate::context::RequestContext;
use crate::replicas::{self, View};

/// Knows who should be asked instead of this broker.
#[derive(Debug)]
pub(super) struct Selector {
    /// Brokers in the consumer's rack that its listener reaches.
    near: Vec<i32>,
}

impl Selector {
    /// `None` if a consumer that names this rack is not sent anywhere.
    pub(super) fn new(cx: &RequestContext, rack: &str) -> Option<Self> {
        if cx.broker().config.kafka.replica_selector != ReplicaSelector::Rack || rack.is_empty() {
            return None;
        }
        let image = cx.cluster().image();
        let mut near = in_rack(&image, rack);
        near.retain(|id| replicas::node(cx, &image, *id).is_some());
        let is_here = near.contains(&cx.cluster().node_id());
        (!is_here && !near.is_empty()).then_some(Self { near })
    }

    /// The broker that should be asked for `partition` from `offset` on; `None` if this one may serve it.
    ///
    /// Only a leader knows. Below its log start it sends nobody away: it is the one to say what can be read.
    pub(super) fn preferred(&self, view: &View, partition: &Partition, offset: i64) -> Option<i32> {
        partition.leadership()?;
        if offset < partition.offsets().log_start_offset {
            return None;
        }
        let id = partition.id();
        let mut replicas = view.in_sync(id.topic_id, id.index, &[]);
        replicas.retain(|replica| self.near.contains(replica));
        if replicas.is_empty() {
            return None;
        }
        furthest(&view.log_end_offsets(partition, &replicas), offset)
    }
}

fn in_rack(image: &Image, rack: &str) -> Vec<i32> {
    let brokers = image.brokers.values();
    let in_rack = brokers.filter(|broker| broker.rack.as_deref() == Some(rack));
    in_rack.map(|broker| broker.id).collect()
}

/// Of replicas and their log end offsets the one to read from at `offset`.
fn furthest(replicas: &[(i32, i64)], offset: i64) -> Option<i32> {
    let have = replicas.iter().filter(|(_, end)| *end >= offset);
    have.max_by_key(|(id, end)| (*end, *id)).map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use takhin_cluster::BrokerInfo;

    use super::*;

    #[test]
    fn brokers_of_the_rack_are_near() {
        let broker = |(id, rack): (i32, Option<&str>)| BrokerInfo {
            id,
            rack: rack.map(str::to_owned),
            endpoints: Vec::new(),
            rpc: String::new(),
            directory: uuid::Uuid::nil(),
        };
        let brokers = [(1, Some("a")), (2, Some("b")), (3, None), (4, Some("b"))].map(broker);
        let image = Image {
            brokers: brokers.into_iter().map(|broker| (broker.id, broker)).collect(),
            ..Image::default()
        };
        assert_eq!(in_rack(&image, "b"), [2, 4]);
        assert!(in_rack(&image, "c").is_empty());
    }

    #[test]
    fn the_furthest_replica_that_has_the_offset_is_read_from() {
        let replicas = [(2, 40), (3, 50), (4, 50), (5, 30)];
        assert_eq!(furthest(&replicas, 20), Some(4));
        // Its next record is what a replica that has all before it will give.
        assert_eq!(furthest(&replicas[..1], 40), Some(2));
        assert_eq!(furthest(&replicas[..1], 41), None);
        assert_eq!(furthest(&[], 0), None);
    }
}
