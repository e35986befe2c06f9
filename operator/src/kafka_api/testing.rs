//! A broker in memory, as far as topics are made known and deleted; it notes what else it was asked to do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use takhin_protocol::messages::api_versions_response::ApiVersion;
use takhin_protocol::messages::delete_topics_response::DeletableTopicResult;
use takhin_protocol::messages::metadata_response::MetadataResponseTopic;
use takhin_protocol::messages::{
    self, ApiKey, ApiVersionsResponse, DeleteTopicsRequest, DeleteTopicsResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use takhin_protocol::request::RequestHead;
use takhin_protocol::{ErrorCode, frame};
use takhin_runtime::{Env, Stream, watch};
use uuid::Uuid;

/// What it has, in their newest versions: Metadata, CreateTopics, DeleteTopics, CreatePartitions,
/// IncrementalAlterConfigs, AlterPartitionReassignments, UnregisterBroker.
const APIS: [(i16, i16); 7] = [(3, 12), (19, 7), (20, 6), (37, 3), (44, 1), (45, 0), (64, 0)];

/// The broker; clones share what it has.
#[derive(Clone)]
pub(crate) struct Broker(Arc<Mutex<State>>, watch::Receiver<bool>);

struct State {
    topics: BTreeMap<String, Uuid>,
    /// Topics that there ever were.
    made: u128,
    asked: Vec<ApiKey>,
    /// Topics that somebody makes anew once they have been told of.
    remade: Vec<String>,
    greeted: watch::Sender<u32>,
    hold: watch::Sender<bool>,
}

impl Default for Broker {
    fn default() -> Self {
        let (hold, held) = watch::channel(false);
        let (greeted, _) = watch::channel(0);
        let state = State {
            topics: BTreeMap::new(),
            made: 0,
            asked: Vec::new(),
            remade: Vec::new(),
            greeted,
            hold,
        };
        Self(Arc::new(Mutex::new(state)), held)
    }
}

impl Broker {
    /// Listens, and returns the port.
    pub(crate) async fn listen(&self, env: &Env, address: &str) -> u16 {
        let listener = env.net.listen(address, "test").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (env, broker) = (env.clone(), self.clone());
        env.clone().tasks.spawn("broker", async move {
            while let Ok(stream) = listener.accept().await {
                env.tasks.spawn("broker connection", broker.clone().serve(stream));
            }
        });
        port
    }

    /// Whether new connections have to wait.
    pub(crate) fn hold(&self, hold: bool) {
        self.0.lock().hold.send_replace(hold);
    }

    /// Returns when one more has connected.
    pub(crate) async fn greeted(&self) {
        let mut greeted = self.0.lock().greeted.subscribe();
        greeted.changed().await.unwrap();
    }

    /// What it was asked to change, since the last time.
    pub(crate) fn asked(&self) -> Vec<ApiKey> {
        std::mem::take(&mut self.0.lock().asked)
    }

    /// It has this topic.
    pub(crate) fn put(&self, topic: &str) {
        self.0.lock().make(topic);
    }

    /// Whether it has this topic.
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.0.lock().topics.contains_key(topic)
    }

    /// Somebody makes this topic anew once it has been told of.
    pub(crate) fn make_anew(&self, topic: &str) {
        self.0.lock().remade.push(topic.to_owned());
    }

    async fn serve(self, stream: Stream) {
        let (mut read, mut write) = stream.into_split();
        let mut buf = BytesMut::new();
        loop {
            while let Some(mut request) = frame::next(&mut buf, 1 << 20).unwrap() {
                let head = RequestHead::parse(&mut request).unwrap();
                if head.api_key == ApiKey::ApiVersions {
                    self.0.lock().greeted.send_if_modified(|greeted| {
                        *greeted += 1;
                        true
                    });
                    self.1.clone().wait_for(|held| !held).await.unwrap();
                }
                // What it does not do ends the connection, as far as a client can tell.
                let Some(answer) = self.0.lock().answer(&head, request) else {
                    return;
                };
                if write.write_all(&mut VecDeque::from([answer])).await.is_err() {
                    return;
                }
            }
            if !matches!(read.read_buf(&mut buf).await, Ok(1..)) {
                return;
            }
        }
    }
}

impl State {
    fn make(&mut self, topic: &str) {
        self.made += 1;
        self.topics.insert(topic.to_owned(), Uuid::from_u128(self.made));
    }

    fn answer(&mut self, head: &RequestHead, mut body: Bytes) -> Option<Bytes> {
        let (version, id) = (head.api_version, head.correlation_id);
        let encoded = match head.api_key {
            ApiKey::ApiVersions => {
                let api = |(key, max)| {
                    let api = ApiVersion::default().with_api_key(key);
                    api.with_max_version(max)
                };
                let response = ApiVersionsResponse::default().with_api_keys(APIS.map(api).into());
                messages::encode_response(version, id, &response)
            }
            ApiKey::Metadata => {
                let request: MetadataRequest = messages::decode(version, &mut body).unwrap();
                messages::encode_response(version, id, &self.tell(&request))
            }
            ApiKey::DeleteTopics => {
                self.asked.push(head.api_key);
                let request: DeleteTopicsRequest = messages::decode(version, &mut body).unwrap();
                messages::encode_response(version, id, &self.delete(request))
            }
            other => {
                self.asked.push(other);
                return None;
            }
        };
        Some(encoded.unwrap())
    }

    fn tell(&mut self, request: &MetadataRequest) -> MetadataResponse {
        let names = request.topics.iter().flatten();
        let topics = names.filter_map(|topic| topic.name.clone()).map(|name| {
            let topic = MetadataResponseTopic::default();
            let topic = match self.topics.get(name.as_str()) {
                Some(id) => topic.with_topic_id(*id),
                None => topic.with_error_code(ErrorCode::UnknownTopicOrPartition.code()),
            };
            topic.with_name(Some(name))
        });
        let response = MetadataResponse::default().with_topics(topics.collect());
        for name in std::mem::take(&mut self.remade) {
            self.make(&name);
        }
        response
    }

    fn delete(&mut self, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let results = request.topics.into_iter().map(|topic| {
            let found = self.topics.iter().find(|(name, id)| match &topic.name {
                Some(asked) => asked.as_str() == name.as_str(),
                None => topic.topic_id == **id,
            });
            let found = found.map(|(name, _)| name.clone());
            let code = match (&found, &topic.name) {
                (Some(_), _) => ErrorCode::NoError,
                (None, Some(_)) => ErrorCode::UnknownTopicOrPartition,
                (None, None) => ErrorCode::UnknownTopicId,
            };
            if let Some(name) = &found {
                self.topics.remove(name);
            }
            DeletableTopicResult::default()
                .with_name(found.map(|name| TopicName(name.into())).or(topic.name))
                .with_topic_id(topic.topic_id)
                .with_error_code(code.code())
        });
        let results = results.collect();
        DeleteTopicsResponse::default().with_responses(results)
    }
}
