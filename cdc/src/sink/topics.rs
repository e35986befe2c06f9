//! The topics that events and positions go to.

use std::collections::BTreeMap;

use takhin_client::{Client, ClientError, ErrorCode, TopicToCreate};
use takhin_config::units::Limit;
use takhin_config::{ByteSize, CdcConfig};
use tracing::{info, warn};

use super::error::SinkError;

/// What a batch may have beside the largest record.
const BATCH_EXTRA: u64 = 64 << 10;

/// Bytes after which a segment of positions is closed, and may be compacted.
const OFFSETS_SEGMENT: u64 = 8 << 20;

/// Names, and how many partitions each has.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Where the data set goes to.
    pub snapshot: String,
    /// Where changes go to.
    pub binlog: String,
    /// Where positions are kept.
    pub offsets: String,
    partitions: BTreeMap<String, i32>,
}

impl Topics {
    /// The topics of a configuration, of which nobody was asked yet.
    pub fn named(config: &CdcConfig) -> Self {
        let (snapshot, binlog) = config.topics();
        Self {
            snapshot,
            binlog,
            offsets: config.sink.topic_offsets.clone(),
            partitions: BTreeMap::new(),
        }
    }

    /// The topics of a configuration, those that are missing created unless that is not wanted.
    ///
    /// # Errors
    ///
    /// [`SinkError`].
    pub async fn prepare(client: &Client, config: &CdcConfig) -> Result<Self, SinkError> {
        let mut topics = Self::named(config);
        topics.partitions = topics.found(client).await?;
        let missing: Vec<_> = topics
            .wanted(config)
            .into_iter()
            .filter(|topic| !topics.partitions.contains_key(&topic.name))
            .collect();
        if let Some(topic) = missing.first() {
            if !config.sink.create_topics {
                return Err(SinkError::Missing(topic.name.clone()));
            }
            create(client, &missing).await?;
            topics.partitions = client
                .retry(None, async || topics.all(client).await)
                .await
                .map_err(|source| failed("see the new topics", source))?;
        }
        Ok(topics)
    }

    /// One of the topics that does not exist any more.
    pub(super) async fn gone(&self, client: &Client) -> Result<Option<String>, SinkError> {
        let found = self.found(client).await?;
        let mut names = [&self.snapshot, &self.binlog, &self.offsets].into_iter();
        Ok(names.find(|name| !found.contains_key(*name)).cloned())
    }

    /// Has events go to no more partitions than they went to before, as was `noted`: in one that was added since, those of a key
    /// would not be behind the ones of before.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unequal`] where nothing is noted yet, and the two have not as many.
    pub fn keep(&mut self, noted: impl Iterator<Item = u32>) -> Result<(), SinkError> {
        let least = noted.filter(|count| *count > 0).min();
        let Some(least) = least.and_then(|count| i32::try_from(count).ok()) else {
            let (of_snapshot, of_binlog) = (self.partitions(&self.snapshot), self.partitions(&self.binlog));
            if of_snapshot == of_binlog {
                return Ok(());
            }
            return Err(SinkError::Unequal {
                snapshot: (self.snapshot.clone(), of_snapshot),
                binlog: (self.binlog.clone(), of_binlog),
            });
        };
        for topic in [&self.snapshot, &self.binlog] {
            if let Some(count) = self.partitions.get_mut(topic).filter(|count| **count > least) {
                warn!(
                    topic,
                    partitions = *count,
                    "only the first {least} partitions are written to, as before: events of a key stay in order; another \
                     source.id begins anew with all of them"
                );
                *count = least;
            }
        }
        Ok(())
    }

    /// Partitions of a topic; 1 if it is none of these.
    pub fn partitions(&self, topic: &str) -> i32 {
        self.partitions.get(topic).copied().unwrap_or(1)
    }

    async fn found(&self, client: &Client) -> Result<BTreeMap<String, i32>, SinkError> {
        let names = [&*self.snapshot, &self.binlog, &self.offsets];
        let described = client
            .describe_topics(Some(&names))
            .await
            .map_err(|source| failed("ask for the topics", source))?;
        let count = |len: usize| i32::try_from(len).unwrap_or(i32::MAX).max(1);
        let counts = described
            .into_iter()
            .map(|topic| (topic.name, count(topic.partitions.len())));
        Ok(counts.collect())
    }

    /// All of them, or an error that may pass.
    async fn all(&self, client: &Client) -> Result<BTreeMap<String, i32>, ClientError> {
        let found = match self.found(client).await {
            Ok(found) => found,
            Err(SinkError::Client { source, .. }) => return Err(source),
            Err(_) => BTreeMap::new(),
        };
        for topic in [&self.snapshot, &self.binlog, &self.offsets] {
            if !found.contains_key(topic) {
                return Err(ClientError::NoLeader {
                    topic: topic.clone(),
                    partition: 0,
                });
            }
        }
        Ok(found)
    }

    /// What the topics are to be like.
    fn wanted(&self, config: &CdcConfig) -> Vec<TopicToCreate> {
        let sink = &config.sink;
        let replication_factor = i16::try_from(sink.replication_factor)
            .ok()
            .filter(|factor| *factor > 0);
        let max_record = sink.max_record_size.max(ByteSize::mib(1)).as_u64() + BATCH_EXTRA;
        let of_events = |name: &String, retention: Limit<std::time::Duration>| TopicToCreate {
            name: name.clone(),
            partitions: Some(i32::from(sink.partitions)),
            replication_factor,
            configs: vec![
                ("cleanup.policy".to_owned(), "delete".to_owned()),
                ("retention.ms".to_owned(), millis(retention)),
                ("max.message.bytes".to_owned(), max_record.to_string()),
            ],
        };
        let mut topics = vec![of_events(&self.binlog, sink.binlog_retention)];
        if self.snapshot != self.binlog {
            topics.push(of_events(&self.snapshot, sink.snapshot_retention));
        }
        topics.push(TopicToCreate {
            name: self.offsets.clone(),
            partitions: Some(1),
            replication_factor,
            configs: vec![
                ("cleanup.policy".to_owned(), "compact".to_owned()),
                // It is read whole at each start, and with `exactly_once` each transaction adds to it.
                ("segment.bytes".to_owned(), OFFSETS_SEGMENT.to_string()),
            ],
        });
        topics
    }
}

async fn create(client: &Client, topics: &[TopicToCreate]) -> Result<(), SinkError> {
    let outcomes = client
        .create_topics(topics)
        .await
        .map_err(|source| failed("create topics", source))?;
    for (topic, outcome) in outcomes {
        match outcome {
            Ok(()) => info!(topic, "topic created"),
            Err(refusal) if refusal.is(ErrorCode::TopicAlreadyExists) => {}
            Err(refusal) => {
                return Err(SinkError::Create {
                    topic,
                    why: refusal.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// A duration in the words of a topic's settings.
fn millis(limit: Limit<std::time::Duration>) -> String {
    match limit {
        Limit::At(duration) => duration.as_millis().to_string(),
        Limit::Unlimited => "-1".to_owned(),
    }
}

pub(super) fn failed(what: &str, source: ClientError) -> SinkError {
    SinkError::Client {
        what: what.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(of_snapshot: i32, of_binlog: i32) -> Topics {
        let mut topics = Topics::named(&CdcConfig::default());
        let counts = [(&topics.snapshot, of_snapshot), (&topics.binlog, of_binlog)];
        topics.partitions = counts.map(|(topic, count)| (topic.clone(), count)).into();
        topics
    }

    /// The data set of a key would be in another partition than its changes, and what is said to all partitions not in all of them.
    #[test]
    fn topics_of_unequal_partitions_are_refused_before_anything_is_in_them() {
        let refused = topics(12, 4).keep([0].into_iter()).unwrap_err().to_string();
        assert_eq!(
            refused,
            "sink.topic_snapshot is pika.pika.snapshot with 12 partitions, and sink.topic_binlog pika.pika.binlog with 4: give \
             both as many, or set sink.mode to single"
        );
        topics(4, 4).keep([].into_iter()).unwrap();
        // Somebody has added some since.
        let mut more = topics(12, 6);
        more.keep([0, 4].into_iter()).unwrap();
        assert_eq!(
            (more.partitions(&more.snapshot), more.partitions(&more.binlog)),
            (4, 4)
        );
    }
}
