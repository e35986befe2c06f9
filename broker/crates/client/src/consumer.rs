//! Consumes by assignment: the caller says which partitions, and keeps the offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use takhin_protocol::messages::fetch_response::PartitionData;
use takhin_protocol::messages::{BrokerId, FetchRequest, FetchResponse, StrBytes, TopicName};
use takhin_protocol::record::scan;
use tracing::debug;

use crate::aborted::Aborted;
use crate::admin::OffsetSpec;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::connection::{Connection, Reply};
use crate::error::{ClientError, Damage};
use crate::record::{ConsumedRecord, of_batch};

/// From 13 on Fetch names topics by id.
const MAX_VERSION: i16 = 12;

/// Which records of transactions are returned (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// All, those of transactions that are open or were aborted included.
    #[default]
    ReadUncommitted,
    /// Those of transactions that were committed; what lies behind the beginning of an open one waits for its end.
    ReadCommitted,
}

/// Settings of a [`Consumer`].
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Which records of transactions are returned.
    pub isolation: Isolation,
    /// How long a broker may wait for a record.
    pub max_wait: Duration,
    /// Most bytes per answer; a batch that is longer comes alone.
    pub max_bytes: i32,
    /// Most bytes per partition and answer.
    pub partition_max_bytes: i32,
    /// Where to go on when a position is out of range; `None` is an error.
    pub reset: Option<OffsetSpec>,
}

impl Default for ConsumerConfig {
    /// Kafka's, except that a position out of range is an error.
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            max_wait: Duration::from_millis(500),
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            reset: None,
        }
    }
}

/// Reads partitions from positions of its own (without a session).
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    /// The next offset wanted. In this order partitions are asked for, but for `turn`.
    positions: BTreeMap<(String, i32), i64>,
    /// Where the next request begins, so that no partition starves when others fill the answers.
    turn: usize,
    /// Whether something failed that newer metadata may mend.
    stale: bool,
    backoff: Backoff,
}

/// A request under way: its broker's partitions with the offsets asked for.
struct Asked {
    reply: Reply<FetchRequest>,
    offsets: BTreeMap<(String, i32), i64>,
}

impl Consumer {
    /// A consumer without partitions.
    pub fn new(client: Client, config: ConsumerConfig) -> Self {
        let backoff = client.backoff(None);
        Self {
            client,
            config,
            positions: BTreeMap::new(),
            turn: 0,
            stale: false,
            backoff,
        }
    }

    /// Adds a partition, or moves in it: `offset` is the first that [`Consumer::poll`] returns.
    pub fn assign(&mut self, topic: &str, partition: i32, offset: i64) {
        self.positions.insert((topic.to_owned(), partition), offset);
    }

    /// Removes a partition.
    pub fn unassign(&mut self, topic: &str, partition: i32) {
        self.positions.remove(&(topic.to_owned(), partition));
    }

    /// The next offset of a partition that [`Consumer::poll`] has not returned.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.positions.get(&(topic.to_owned(), partition)).copied()
    }

    /// Fetches once from each leader and returns the records in offset order per partition; none if nothing came
    /// in time. Failures that may pass are waited out and give no records.
    ///
    /// # Errors
    ///
    /// [`ClientError::OffsetOutOfRange`] without a `reset`, [`ClientError::Damaged`], [`ClientError::Code`]. Positions
    /// are as before for the partition at fault, so that the next poll repeats it; records of other partitions that
    /// came with it come again.
    ///
    /// # Cancel safety
    ///
    /// Safe; positions move only with the records returned.
    pub async fn poll(&mut self) -> Result<Vec<ConsumedRecord>, ClientError> {
        match self.fetch().await {
            Ok((records, moved)) => {
                self.positions.extend(moved);
                self.backoff.reset();
                Ok(records)
            }
            Err(ClientError::OffsetOutOfRange {
                topic,
                partition,
                offset,
            }) => {
                let Some(spec) = self.config.reset else {
                    return Err(ClientError::OffsetOutOfRange {
                        topic,
                        partition,
                        offset,
                    });
                };
                let offset = self.client.offset(&topic, partition, spec).await?;
                if let Some(offset) = offset {
                    self.assign(&topic, partition, offset);
                }
                Ok(Vec::new())
            }
            Err(error) if error.is_retriable() => {
                debug!(error = %error, "fetch will be repeated");
                self.backoff.pause().await;
                self.stale = true;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Asks who leads now, after something failed.
    async fn refresh(&mut self) -> Result<(), ClientError> {
        let mut topics: Vec<_> = self.positions.keys().map(|(topic, _)| topic.as_str()).collect();
        topics.dedup();
        self.client.refresh(&topics).await?;
        self.stale = false;
        Ok(())
    }

    /// Asks all leaders at once, then reads their answers. What fails fails the whole, unless it may pass and other
    /// answers brought records.
    async fn fetch(&mut self) -> Result<(Vec<ConsumedRecord>, BTreeMap<(String, i32), i64>), ClientError> {
        if self.stale {
            self.refresh().await?;
        }
        let mut failed = None;
        let mut asked = Vec::new();
        for (connection, offsets) in self.by_leader().await? {
            match self.ask(&connection, &offsets).await {
                Ok(reply) => asked.push(Asked { reply, offsets }),
                Err(error) => failed = Some(error),
            }
        }
        self.turn = self.turn.wrapping_add(1);
        let (mut records, mut moved) = (Vec::new(), BTreeMap::new());
        for Asked { mut reply, offsets } in asked {
            let read = match reply.wait().await {
                Ok(response) => read(&response, &offsets, &mut records, &mut moved),
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                failed = Some(error);
            }
        }
        match failed {
            // Met again by the next poll, and waited out there.
            Some(error) if error.is_retriable() && !moved.is_empty() => {
                debug!(error = %error, "a part of the fetch failed");
                self.stale = true;
                Ok((records, moved))
            }
            Some(error) => Err(error),
            None => Ok((records, moved)),
        }
    }

    /// The partitions by the connection to their leader.
    async fn by_leader(&self) -> Result<Vec<(Connection, BTreeMap<(String, i32), i64>)>, ClientError> {
        let mut by_address = BTreeMap::new();
        for ((topic, partition), offset) in &self.positions {
            let (connection, _) = self.client.leader(topic, *partition).await?;
            let (_, offsets) = by_address
                .entry(connection.address().to_owned())
                .or_insert_with(|| (connection, BTreeMap::new()));
            offsets.insert((topic.clone(), *partition), *offset);
        }
        Ok(by_address.into_values().collect())
    }

    async fn ask(
        &self,
        connection: &Connection,
        offsets: &BTreeMap<(String, i32), i64>,
    ) -> Result<Reply<FetchRequest>, ClientError> {
        let metadata = self.client.metadata();
        let mut topics: Vec<FetchTopic> = Vec::new();
        let from = self.turn % offsets.len().max(1);
        for ((topic, partition), offset) in offsets.iter().skip(from).chain(offsets.iter().take(from)) {
            let epoch = metadata
                .leader(topic, *partition)
                .map_or(-1, |leader| leader.epoch);
            let wanted = FetchPartition::default()
                .with_partition(*partition)
                .with_current_leader_epoch(epoch)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(self.config.partition_max_bytes);
            match topics.last_mut().filter(|last| last.topic.0.as_str() == topic) {
                Some(last) => last.partitions.push(wanted),
                None => topics.push(
                    FetchTopic::default()
                        .with_topic(TopicName(StrBytes::from_string(topic.clone())))
                        .with_partitions(vec![wanted]),
                ),
            }
        }
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(self.config.max_wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(self.config.max_bytes)
            .with_isolation_level(match self.config.isolation {
                Isolation::ReadUncommitted => 0,
                Isolation::ReadCommitted => 1,
            })
            .with_session_epoch(-1)
            .with_topics(topics);
        connection
            .send(connection.version::<FetchRequest>(MAX_VERSION)?, &request)
            .await
    }
}

/// Takes the records out of an answer, and where each partition goes on.
fn read(
    response: &FetchResponse,
    offsets: &BTreeMap<(String, i32), i64>,
    records: &mut Vec<ConsumedRecord>,
    moved: &mut BTreeMap<(String, i32), i64>,
) -> Result<(), ClientError> {
    ClientError::check(response.error_code, || "fetch".into())?;
    let mut failed = Ok(());
    for topic in &response.responses {
        for partition in &topic.partitions {
            let key = (topic.topic.0.to_string(), partition.partition_index);
            // What was not asked for is nobody's.
            let Some(from) = offsets.get(&key) else { continue };
            match read_partition(&key, *from, partition, records) {
                Ok(next) if next > *from => drop(moved.insert(key, next)),
                Ok(_) => {}
                Err(error) => failed = Err(error),
            }
        }
    }
    failed
}

/// Appends the records of a partition and returns the offset after them; nothing is appended on an error.
fn read_partition(
    (topic, partition): &(String, i32),
    from: i64,
    data: &PartitionData,
    records: &mut Vec<ConsumedRecord>,
) -> Result<i64, ClientError> {
    if data.error_code == ErrorCode::OffsetOutOfRange.code() {
        return Err(ClientError::OffsetOutOfRange {
            topic: topic.clone(),
            partition: *partition,
            offset: from,
        });
    }
    ClientError::check(data.error_code, || format!("fetch of {topic}-{partition}"))?;
    let damaged = |offset, source| ClientError::Damaged {
        topic: topic.clone(),
        partition: *partition,
        offset,
        source,
    };
    let mut rest = data.records.clone().unwrap_or_default();
    let (mut next, before) = (from, records.len());
    let mut aborted = Aborted::of(data);
    while !rest.is_empty() {
        let checked = match scan::check(&rest) {
            // Brokers may cut the last batch.
            Err(scan::Damage::Incomplete { .. }) => break,
            checked => checked,
        };
        let batch = checked
            .map_err(|e| damaged(next, e.into()))
            .and_then(|(header, len)| {
                let batch: Bytes = rest.split_to(len);
                let damaged = |e: Damage| damaged(header.base_offset, e);
                let read = match aborted.has(&header, &batch).map_err(damaged)? {
                    true => Vec::new(),
                    false => of_batch(&header, &batch, next).map_err(damaged)?,
                };
                Ok((header, read))
            });
        let (header, read) = match batch {
            Ok(batch) => batch,
            Err(error) => {
                records.truncate(before);
                return Err(error);
            }
        };
        records.extend(read.into_iter().map(|(offset, record)| ConsumedRecord {
            topic: topic.clone(),
            partition: *partition,
            offset,
            leader_epoch: header.partition_leader_epoch,
            record,
        }));
        next = next.max(header.next_offset());
    }
    Ok(next)
}
