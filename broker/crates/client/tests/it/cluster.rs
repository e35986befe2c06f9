//! A cluster of two brokers in memory, with one partition `t-0` and moods.
//!
//! It keeps Kafka's rules for sequence numbers (KIP-98: the last five batches per producer, no gap, a new epoch begins
//! at 0), so that a client that breaks them is found out, and it drops connections before or after it has done what
//! was asked, which a client cannot tell apart.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use takhin_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use takhin_protocol::messages::api_versions_response::ApiVersion;
use takhin_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use takhin_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use takhin_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use takhin_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use takhin_protocol::messages::{
    self, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey, ApiVersionsResponse, BrokerId,
    EndTxnRequest, EndTxnResponse, FetchRequest, FetchResponse, FindCoordinatorResponse,
    InitProducerIdRequest, InitProducerIdResponse, ListOffsetsResponse, MetadataResponse, ProduceRequest,
    ProduceResponse, TopicName,
};
use takhin_protocol::record::{Attributes, Batch, BatchHeader, Limits, Records, validate_produced};
use takhin_protocol::request::RequestHead;
use takhin_protocol::{ErrorCode, frame};
use takhin_runtime::clock::Instant;
use takhin_runtime::sim::{Machine, Sim};
use takhin_runtime::{Env, Stream};

use crate::coordinator::Coordinator;

/// The only topic.
pub(crate) const TOPIC: &str = "t";

/// A value that every broker refuses.
pub(crate) const REFUSED: &[u8] = b"refused";

/// Names of the brokers; their node ids are the positions.
const NAMES: [&str; 2] = ["b0", "b1"];

/// How the brokers behave, as probabilities per Produce and Fetch request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moods {
    /// The connection drops before anything is done.
    pub(crate) drop_before: f64,
    /// The connection drops instead of the answer.
    pub(crate) drop_after: f64,
    /// Leadership moves away.
    pub(crate) move_leader: f64,
    /// The oldest ApiVersions only.
    pub(crate) ancient: bool,
    /// Every correlation id is wrong.
    pub(crate) confused: bool,
}

/// What the brokers share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The partition's log; `base_offset` and leader epoch are filled in.
    pub(crate) log: Vec<Batch>,
    pub(crate) moods: Moods,
    leader: usize,
    leader_epoch: i32,
    next_producer: i64,
    producers: BTreeMap<i64, Producer>,
    coordinator: Coordinator,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: i16,
    /// First and last sequence, base offset.
    last: VecDeque<(i32, i32, i64)>,
}

/// The cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster(pub(crate) Arc<Mutex<Shared>>);

impl Cluster {
    /// Adds the brokers' machines to `sim`; they listen once [`Cluster::start`] was called.
    pub(crate) fn new(sim: &mut Sim, moods: Moods) -> (Self, Vec<Machine>) {
        let machines = NAMES.map(|name| sim.add_machine(name)).into();
        (
            Self(Arc::new(Mutex::new(Shared {
                moods,
                ..Shared::default()
            }))),
            machines,
        )
    }

    /// Where the brokers listen.
    pub(crate) fn bootstrap() -> Vec<String> {
        NAMES.map(|name| format!("{name}:9092")).into()
    }

    /// Starts listening on all machines.
    pub(crate) async fn start(&self, machines: &[Machine]) {
        for (id, machine) in machines.iter().enumerate() {
            let (env, cluster) = (machine.env(), self.clone());
            let listener = env.net.listen("0.0.0.0:9092", "test").await.unwrap();
            env.clone().tasks.spawn("broker", async move {
                while let Ok(stream) = listener.accept().await {
                    let (env, cluster) = (env.clone(), cluster.clone());
                    env.clone().tasks.spawn("broker connection", async move {
                        cluster.serve(id, &env, stream).await;
                    });
                }
            });
        }
    }

    /// All values of the log in order, with their offsets.
    pub(crate) fn values(&self) -> Vec<(i64, Bytes)> {
        let shared = self.0.lock().unwrap();
        let records = |batch: &Batch| {
            let base = batch.header.base_offset;
            Records::new(&batch.body, batch.header.records_count)
                .map(|record| {
                    let record = record.unwrap();
                    (
                        base + i64::from(record.offset_delta),
                        Bytes::copy_from_slice(record.value.unwrap()),
                    )
                })
                .collect::<Vec<_>>()
        };
        shared.log.iter().flat_map(records).collect()
    }

    /// Values that readers of committed records see, in order.
    pub(crate) fn committed(&self) -> Vec<Bytes> {
        let shared = self.0.lock().unwrap();
        let mut values = Vec::new();
        for (at, batch) in shared.log.iter().enumerate() {
            let BatchHeader {
                attributes,
                producer_id,
                ..
            } = batch.header;
            let is_seen = match attributes.has(Attributes::TRANSACTIONAL) {
                true => shared.coordinator.is_committed(at, producer_id),
                false => Some(true),
            };
            match is_seen {
                // Nobody reads beyond what is open.
                None => break,
                Some(false) => {}
                Some(true) => values.extend(
                    Records::new(&batch.body, batch.header.records_count)
                        .map(|record| Bytes::copy_from_slice(record.unwrap().value.unwrap())),
                ),
            }
        }
        values
    }

    /// Flips a bit in the body of a batch.
    pub(crate) fn damage(&self, batch: usize) {
        let body = &mut self.0.lock().unwrap().log[batch].body;
        let mut flipped = body.to_vec();
        flipped[5] ^= 1;
        *body = flipped.into();
    }

    /// Serves a connection until it ends, or a mood ends it.
    async fn serve(&self, id: usize, env: &Env, stream: Stream) {
        let (mut read, mut write) = stream.into_split();
        let mut buf = BytesMut::new();
        loop {
            while let Some(mut request) = frame::next(&mut buf, 1 << 20).unwrap() {
                let head = RequestHead::parse(&mut request).unwrap();
                let moody = matches!(
                    head.api_key,
                    ApiKey::Produce | ApiKey::Fetch | ApiKey::AddPartitionsToTxn | ApiKey::EndTxn
                );
                let moods = self.0.lock().unwrap().moods;
                if moody && env.rng.chance(moods.drop_before) {
                    return;
                }
                if moody && env.rng.chance(moods.move_leader) {
                    let mut shared = self.0.lock().unwrap();
                    shared.leader = 1 - shared.leader;
                    shared.leader_epoch += 1;
                }
                let answer = self.answer(id, env, &head, request).await;
                if moody && env.rng.chance(moods.drop_after) {
                    return;
                }
                if write.write_all(&mut VecDeque::from([answer])).await.is_err() {
                    return;
                }
            }
            if !matches!(read.read_buf(&mut buf).await, Ok(1..)) {
                return;
            }
        }
    }

    async fn answer(&self, id: usize, env: &Env, head: &RequestHead, mut body: Bytes) -> Bytes {
        let version = head.api_version;
        let confused = self.0.lock().unwrap().moods.confused && head.api_key != ApiKey::ApiVersions;
        let correlation = head.correlation_id + i32::from(confused);
        let encode = |encoded: Result<Bytes, messages::EncodeError>| encoded.unwrap();
        match head.api_key {
            ApiKey::ApiVersions => self.api_versions(head),
            ApiKey::Metadata => encode(messages::encode_response(version, correlation, &self.metadata())),
            ApiKey::InitProducerId => {
                let request: InitProducerIdRequest = messages::decode(version, &mut body).unwrap();
                let response = self.init(&request, env.clock.instant());
                encode(messages::encode_response(version, correlation, &response))
            }
            ApiKey::FindCoordinator => {
                let response = FindCoordinatorResponse::default()
                    .with_host(NAMES[0].into())
                    .with_port(9092);
                encode(messages::encode_response(version, correlation, &response))
            }
            ApiKey::AddPartitionsToTxn => {
                let request: AddPartitionsToTxnRequest = messages::decode(version, &mut body).unwrap();
                let response = self.add(&request, env.clock.instant());
                encode(messages::encode_response(version, correlation, &response))
            }
            ApiKey::EndTxn => {
                let request: EndTxnRequest = messages::decode(version, &mut body).unwrap();
                let response = self.end_transaction(&request, env.clock.instant());
                encode(messages::encode_response(version, correlation, &response))
            }
            ApiKey::Produce => {
                let request: ProduceRequest = messages::decode(version, &mut body).unwrap();
                encode(messages::encode_response(
                    version,
                    correlation,
                    &self.produce(id, &request),
                ))
            }
            ApiKey::Fetch => {
                let request: FetchRequest = messages::decode(version, &mut body).unwrap();
                if self.end() <= request.topics[0].partitions[0].fetch_offset {
                    env.clock
                        .sleep(Duration::from_millis(request.max_wait_ms.unsigned_abs().into()))
                        .await;
                }
                encode(messages::encode_response(
                    version,
                    correlation,
                    &self.fetch(id, &request),
                ))
            }
            ApiKey::ListOffsets => {
                let partition = ListOffsetsPartitionResponse::default().with_offset(self.end());
                let topic = ListOffsetsTopicResponse::default().with_partitions(vec![partition]);
                let response = ListOffsetsResponse::default().with_topics(vec![topic]);
                encode(messages::encode_response(version, correlation, &response))
            }
            other => panic!("nobody should ask for {other:?}"),
        }
    }

    fn api_versions(&self, head: &RequestHead) -> Bytes {
        let ancient = self.0.lock().unwrap().moods.ancient;
        let ranges = [
            (0, 3, 12),
            (1, 4, 12),
            (2, 1, 6),
            (3, 1, 9),
            (10, 0, 3),
            (18, 0, 3),
            (22, 0, 4),
            (24, 0, 3),
            (26, 0, 3),
        ];
        let keys = ranges.map(|(key, min, max)| {
            ApiVersion::default()
                .with_api_key(key)
                .with_min_version(min)
                .with_max_version(max)
        });
        let response = ApiVersionsResponse::default().with_api_keys(keys.into());
        let (version, response) = match head.api_version {
            version if !ancient => (version, response),
            0 => (0, response),
            _ => (0, response.with_error_code(ErrorCode::UnsupportedVersion.code())),
        };
        messages::encode_response(version, head.correlation_id, &response).unwrap()
    }

    fn init(&self, request: &InitProducerIdRequest, now: Instant) -> InitProducerIdResponse {
        let mut shared = self.0.lock().unwrap();
        let log = shared.log.len();
        shared.coordinator.look(now, log);
        shared.next_producer += 1;
        let new = shared.next_producer;
        let Some(id) = &request.transactional_id else {
            return InitProducerIdResponse::default().with_producer_id(new.into());
        };
        let owner = (request.producer_id.0, request.producer_epoch);
        let timeout = Duration::from_millis(request.transaction_timeout_ms.unsigned_abs().into());
        match shared.coordinator.init(id, owner, new, timeout, log) {
            Ok((producer, epoch)) => InitProducerIdResponse::default()
                .with_producer_id(producer.into())
                .with_producer_epoch(epoch),
            Err(code) => InitProducerIdResponse::default().with_error_code(code.code()),
        }
    }

    fn add(&self, request: &AddPartitionsToTxnRequest, now: Instant) -> AddPartitionsToTxnResponse {
        let mut shared = self.0.lock().unwrap();
        let log = shared.log.len();
        shared.coordinator.look(now, log);
        let owner = (
            request.v3_and_below_producer_id.0,
            request.v3_and_below_producer_epoch,
        );
        let added = shared
            .coordinator
            .add(&request.v3_and_below_transactional_id, owner, now);
        let partition = AddPartitionsToTxnPartitionResult::default()
            .with_partition_error_code(added.err().map_or(0, ErrorCode::code));
        let topic = AddPartitionsToTxnTopicResult::default()
            .with_name(TopicName(TOPIC.into()))
            .with_results_by_partition(vec![partition]);
        AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(vec![topic])
    }

    fn end_transaction(&self, request: &EndTxnRequest, now: Instant) -> EndTxnResponse {
        let mut shared = self.0.lock().unwrap();
        let log = shared.log.len();
        shared.coordinator.look(now, log);
        let owner = (request.producer_id.0, request.producer_epoch);
        let ended = shared
            .coordinator
            .end(&request.transactional_id, owner, request.committed, log);
        EndTxnResponse::default().with_error_code(ended.err().map_or(0, ErrorCode::code))
    }

    fn metadata(&self) -> MetadataResponse {
        let shared = self.0.lock().unwrap();
        let brokers = (0..).zip(NAMES).map(|(id, name)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(name.into())
                .with_port(9092)
        });
        let partition = MetadataResponsePartition::default()
            .with_leader_id(BrokerId(shared.leader.try_into().unwrap()))
            .with_leader_epoch(shared.leader_epoch);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(TOPIC.into())))
            .with_partitions(vec![partition]);
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_topics(vec![topic])
    }

    fn end(&self) -> i64 {
        self.0
            .lock()
            .unwrap()
            .log
            .last()
            .map_or(0, |batch| batch.header.next_offset())
    }

    fn produce(&self, id: usize, request: &ProduceRequest) -> ProduceResponse {
        let topic = &request.topic_data[0];
        let records = topic.partition_data[0].records.clone();
        let batch = validate_produced(records, &Limits::default()).unwrap();
        let is_allowed = match &request.transactional_id {
            Some(_) => {
                let owner = (batch.header.producer_id, batch.header.producer_epoch);
                self.0.lock().unwrap().coordinator.may_write(owner)
            }
            None => Ok(()),
        };
        let (code, offset) = match is_allowed.and_then(|()| self.append(id, batch)) {
            Ok(offset) => (0, offset),
            Err(code) => (code.code(), -1),
        };
        let partition = PartitionProduceResponse::default()
            .with_error_code(code)
            .with_base_offset(offset);
        let topic = TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_partition_responses(vec![partition]);
        ProduceResponse::default().with_responses(vec![topic])
    }

    fn append(&self, id: usize, mut batch: Batch) -> Result<i64, ErrorCode> {
        let base_offset = self.end();
        let mut shared = self.0.lock().unwrap();
        if shared.leader != id {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if batch.body.windows(REFUSED.len()).any(|window| window == REFUSED) {
            return Err(ErrorCode::InvalidRecord);
        }
        let BatchHeader {
            producer_id,
            producer_epoch,
            base_sequence,
            last_offset_delta,
            ..
        } = batch.header;
        if producer_id >= 0 {
            let last = base_sequence + last_offset_delta;
            // Any number is the first of a producer that nothing is known of.
            let is_new = !shared.producers.contains_key(&producer_id);
            let producer = shared.producers.entry(producer_id).or_default();
            if producer_epoch < producer.epoch {
                return Err(ErrorCode::InvalidProducerEpoch);
            }
            if producer_epoch > producer.epoch {
                *producer = Producer {
                    epoch: producer_epoch,
                    last: VecDeque::new(),
                };
            }
            if let Some((.., offset)) = producer
                .last
                .iter()
                .find(|(a, b, _)| (*a, *b) == (base_sequence, last))
            {
                return Ok(*offset);
            }
            let expected = producer.last.back().map_or(0, |(_, last, _)| last + 1);
            if base_sequence != expected && !is_new {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
            producer.last.push_back((base_sequence, last, base_offset));
            if producer.last.len() > 5 {
                producer.last.pop_front();
            }
        }
        batch.header.base_offset = base_offset;
        batch.header.partition_leader_epoch = shared.leader_epoch;
        shared.log.push(batch);
        Ok(base_offset)
    }

    fn fetch(&self, id: usize, request: &FetchRequest) -> FetchResponse {
        let end = self.end();
        let shared = self.0.lock().unwrap();
        let from = request.topics[0].partitions[0].fetch_offset;
        let code = match from {
            _ if shared.leader != id => ErrorCode::NotLeaderOrFollower.code(),
            from if from > end => ErrorCode::OffsetOutOfRange.code(),
            _ => 0,
        };
        // A batch comes whole although the fetch may begin inside it, and three at most, so that it takes many.
        let batches = shared
            .log
            .iter()
            .filter(|batch| batch.header.next_offset() > from && code == 0);
        let records: Vec<u8> = batches.take(3).flat_map(Batch::to_bytes).collect();
        let partition = PartitionData::default()
            .with_error_code(code)
            .with_high_watermark(end)
            .with_records(Some(records.into()));
        let topic = FetchableTopicResponse::default()
            .with_topic(TopicName(TOPIC.into()))
            .with_partitions(vec![partition]);
        FetchResponse::default().with_responses(vec![topic])
    }
}
