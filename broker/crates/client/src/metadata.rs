//! What the client knows about the cluster.

use std::collections::BTreeMap;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{BrokerId, MetadataResponse};

/// Brokers, topics and leaders, as of the answers so far.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    brokers: BTreeMap<i32, String>,
    topics: BTreeMap<String, BTreeMap<i32, Leader>>,
}

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Its broker; `None` while there is none.
    pub broker: Option<i32>,
    /// The leader epoch; -1 if the broker does not say.
    pub epoch: i32,
}

impl Metadata {
    /// Broker ids and their addresses, ascending.
    pub fn brokers(&self) -> impl Iterator<Item = (i32, &str)> {
        self.brokers.iter().map(|(id, address)| (*id, address.as_str()))
    }

    /// Address of a broker.
    pub(crate) fn address(&self, broker: i32) -> Option<&str> {
        self.brokers.get(&broker).map(String::as_str)
    }

    /// Number of partitions of a topic, if it is known.
    pub fn partitions(&self, topic: &str) -> Option<usize> {
        self.topics.get(topic).map(BTreeMap::len)
    }

    /// The leader of a partition, if the partition is known.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<Leader> {
        self.topics.get(topic)?.get(&partition).copied()
    }

    /// Takes an answer in. Brokers are replaced; topics are replaced one by one, except that a partition never goes
    /// back to an older leader epoch (KIP-320): brokers learn about elections at different times.
    pub(crate) fn merge(&mut self, response: &MetadataResponse) {
        let broker = |b: &takhin_protocol::messages::metadata_response::MetadataResponseBroker| {
            (b.node_id.0, address(&b.host, b.port))
        };
        self.brokers = response.brokers.iter().map(broker).collect();
        for topic in &response.topics {
            let Some(name) = &topic.name else { continue };
            if topic.error_code == ErrorCode::UnknownTopicOrPartition.code() {
                self.topics.remove(name.0.as_str());
            }
            if topic.error_code != 0 {
                continue;
            }
            let known = self.topics.get(name.0.as_str());
            let partitions = topic.partitions.iter().map(|partition| {
                let new = Leader {
                    broker: (partition.leader_id >= BrokerId(0)).then_some(partition.leader_id.0),
                    epoch: partition.leader_epoch,
                };
                let index = partition.partition_index;
                let old = known
                    .and_then(|known| known.get(&index))
                    .filter(|old| old.epoch > new.epoch);
                (index, old.copied().unwrap_or(new))
            });
            let partitions = partitions.collect();
            self.topics.insert(name.0.to_string(), partitions);
        }
    }

    /// Forgets a topic, which may be deleted and created anew with epochs that begin again.
    pub(crate) fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }
}

/// `HOST:PORT`, with brackets around an IPv6 address.
pub(crate) fn address(host: &str, port: i32) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use takhin_protocol::messages::TopicName;
    use takhin_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

    use super::*;

    fn led_by(leader: i32, epoch: i32) -> MetadataResponse {
        let partition = MetadataResponsePartition::default()
            .with_leader_id(BrokerId(leader))
            .with_leader_epoch(epoch);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName("t".into())))
            .with_partitions(vec![partition]);
        MetadataResponse::default().with_topics(vec![topic])
    }

    #[test]
    fn a_leader_epoch_never_goes_back() {
        let mut metadata = Metadata::default();
        metadata.merge(&led_by(1, 5));
        metadata.merge(&led_by(2, 4));
        assert_eq!(
            metadata.leader("t", 0),
            Some(Leader {
                broker: Some(1),
                epoch: 5
            })
        );
        metadata.merge(&led_by(-1, 6));
        assert_eq!(
            metadata.leader("t", 0),
            Some(Leader {
                broker: None,
                epoch: 6
            })
        );
        metadata.forget("t");
        metadata.merge(&led_by(2, 0));
        assert_eq!(
            metadata.leader("t", 0),
            Some(Leader {
                broker: Some(2),
                epoch: 0
            })
        );
        assert_eq!(address("::1", 9092), "[::1]:9092");
    }
}
