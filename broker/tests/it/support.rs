//! A broker in this process, and a client that sends exactly what it is told.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use takhin_broker::Node;
use takhin_config::{NodeConfig, Sources};
use takhin_protocol::messages::{
    CreateTopicsRequest, Decodable as _, HeaderVersion as _, MetadataRequest, Request, StrBytes, TopicName,
    create_topics_request, encode_request,
};
use takhin_protocol::record::{Batch, BatchBuilder, Compression, NewRecord};
use takhin_protocol::{ErrorCode, frame};
use takhin_runtime::Env;
use takhin_runtime::net::{ReadHalf, WriteHalf};
use uuid::Uuid;

/// No single answer takes this long unless it never comes.
const NEVER: Duration = Duration::from_secs(30);

/// A running broker on ports of its own.
pub(crate) struct Broker {
    pub env: Env,
    pub config: NodeConfig,
    node: Option<Node>,
    _dir: tempfile::TempDir,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts with settings of the form `section.key=value`.
    pub(crate) async fn with(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path().join("data").to_str().unwrap(), settings);
        let env = Env::real();
        let node = Node::start(env.clone(), config.clone()).await.unwrap();
        Self {
            env,
            config,
            node: Some(node),
            _dir: dir,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.node.as_ref().unwrap().addresses()[0].1.to_string()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.env, &self.address()).await
    }

    pub(crate) async fn stop(&mut self) {
        self.node.take().unwrap().stop().await;
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.node = Some(Node::start(self.env.clone(), self.config.clone()).await.unwrap());
    }
}

/// A broker's configuration, on ports that the system chooses.
pub(crate) fn config(data_dir: &str, settings: &[&str]) -> NodeConfig {
    let mut sources = Sources::dev(data_dir);
    sources.set = vec![
        "kafka.listeners.0.bind=127.0.0.1:0".into(),
        "admin.bind=127.0.0.1:0".into(),
        "rpc.bind=127.0.0.1:0".into(),
    ];
    sources.set.extend(settings.iter().map(|s| (*s).to_owned()));
    takhin_config::load(&sources).unwrap().config
}

/// One connection.
pub(crate) struct Client {
    env: Env,
    read: ReadHalf,
    write: WriteHalf,
    input: BytesMut,
    next_correlation: i32,
}

impl Client {
    pub(crate) async fn connect(env: &Env, address: &str) -> Self {
        Self::try_connect(env, address).await.unwrap()
    }

    pub(crate) async fn try_connect(env: &Env, address: &str) -> std::io::Result<Self> {
        let (read, write) = env.net.connect(address).await?.into_split();
        Ok(Self {
            env: env.clone(),
            read,
            write,
            input: BytesMut::new(),
            next_correlation: 1,
        })
    }

    /// Sends bytes as they are. A broker that has closed already is no error: the answer will tell.
    pub(crate) async fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        let _ = self.write.write_all(&mut VecDeque::from([bytes.into()])).await;
    }

    /// Sends a request without waiting. Returns its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        let frame = encode_request(version, correlation, Some(&"it".into()), request).unwrap();
        self.send_bytes(frame).await;
        correlation
    }

    /// The next frame without its length; `None` when the broker has closed.
    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = frame::next(&mut self.input, 1 << 30).unwrap() {
                return Some(frame);
            }
            let read = self
                .env
                .clock
                .timeout(NEVER, self.read.read_buf(&mut self.input))
                .await;
            match read.expect("the broker neither answers nor closes") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends all of `bytes` while reading `answers` frames. Returns their correlation ids.
    pub(crate) async fn flood(&mut self, bytes: Vec<u8>, answers: i32) -> Vec<i32> {
        let mut bytes = VecDeque::from([Bytes::from(bytes)]);
        let Self {
            read, write, input, ..
        } = self;
        let reading = async {
            let mut ids = Vec::new();
            while ids.len() < usize::try_from(answers).unwrap() {
                while let Some(mut frame) = frame::next(input, 1 << 30).unwrap() {
                    ids.push(frame.get_i32());
                }
                if ids.len() < usize::try_from(answers).unwrap() {
                    assert_ne!(
                        read.read_buf(input).await.unwrap(),
                        0,
                        "closed after {} answers",
                        ids.len()
                    );
                }
            }
            ids
        };
        let (sent, ids) = tokio::join!(write.write_all(&mut bytes), reading);
        sent.unwrap();
        ids
    }

    /// Reads the response to the request of this correlation id; it must be the next.
    pub(crate) async fn response<R: Request>(&mut self, version: i16, correlation: i32) -> R::Response {
        let frame = self.receive().await.expect("the broker has closed");
        Self::decode::<R>(version, correlation, frame)
    }

    /// The same, from a broker that may end: `None` then.
    pub(crate) async fn try_call<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        let correlation = self.send(version, request).await;
        let frame = self.receive().await?;
        Some(Self::decode::<R>(version, correlation, frame))
    }

    fn decode<R: Request>(version: i16, correlation: i32, mut frame: Bytes) -> R::Response {
        assert_eq!(
            frame.get_i32(),
            correlation,
            "answers come in the order of requests"
        );
        if R::Response::header_version(version) >= 1 {
            assert_eq!(frame.get_u8(), 0);
        }
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} bytes follow the response", frame.len());
        response
    }

    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation = self.send(version, request).await;
        self.response::<R>(version, correlation).await
    }

    /// Creates a topic with settings. Returns its id.
    pub(crate) async fn create(&mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Uuid {
        let configs = settings.iter().map(|(key, value)| {
            create_topics_request::CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        });
        let topic = create_topics_request::CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(-1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(20_000);
        let response = self.call(7, &request).await;
        let created = &response.topics[0];
        assert_eq!(created.error_code, 0, "{:?}", created.error_message);
        created.topic_id
    }

    /// Proves that the connection works.
    pub(crate) async fn ping(&mut self) {
        let response = self
            .call(1, &MetadataRequest::default().with_topics(Some(Vec::new())))
            .await;
        assert_eq!(response.brokers.len(), 1);
    }
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn topic(name: &str) -> TopicName {
    text(name).into()
}

pub(crate) fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap()
}

/// Now, as records have it.
pub(crate) fn now_ms() -> i64 {
    Env::real().clock.now_ms()
}

/// A batch of these values, stamped with the present time.
pub(crate) fn batch(values: &[&str]) -> Batch {
    compressed(Compression::None, values)
}

pub(crate) fn compressed(codec: Compression, values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    for value in values {
        builder.push(NewRecord {
            timestamp: now_ms(),
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        });
    }
    builder.build().unwrap()
}

/// `batch` with a header changed by `change` and the checksum made right again.
pub(crate) fn altered(batch: &Batch, change: impl FnOnce(&mut Batch)) -> Bytes {
    let mut batch = batch.clone();
    change(&mut batch);
    batch.header.crc = batch.compute_crc();
    batch.to_bytes()
}
