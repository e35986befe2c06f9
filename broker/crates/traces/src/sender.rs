//! Sends spans that have ended, batch by batch.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter as _};
use takhin_runtime::{Clock, Env, Shutdown};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::queue::count;

/// Time that a collector has for an answer, connecting included.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Most spans in one request.
const BATCH: usize = 512;

/// How long a span waits for others.
const PAUSE: Duration = Duration::from_secs(1);

/// Time for what is left when the program ends.
const LAST: Duration = Duration::from_secs(2);

/// Largest answer; a collector says little.
const MAX_ANSWER: usize = 64 * 1024;

/// Sends spans until it is told to stop.
#[derive(Debug)]
pub struct Sender {
    env: Env,
    exporter: SpanExporter,
    ended: mpsc::Receiver<SpanData>,
    /// Spans are made as long as it is there.
    _provider: SdkTracerProvider,
    endpoint: String,
    /// Whether the collector took the last batch; unknown at first.
    is_reached: Option<bool>,
}

impl Sender {
    pub(crate) fn new(
        env: Env,
        exporter: SpanExporter,
        ended: mpsc::Receiver<SpanData>,
        provider: SdkTracerProvider,
        endpoint: String,
    ) -> Self {
        Self {
            env,
            exporter,
            ended,
            _provider: provider,
            endpoint,
            is_reached: None,
        }
    }

    /// Sends until `stop`, and then what is left, for two seconds at most.
    pub async fn run(mut self, stop: Shutdown) {
        let clock = self.env.clock.clone();
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.wait() => break,
                () = gather(&mut self.ended, &mut batch, &clock) => {}
            }
            self.send(std::mem::take(&mut batch)).await;
        }
        self.ended.close();
        let last = async {
            fill(&mut self.ended, &mut batch);
            while !batch.is_empty() {
                self.send(std::mem::take(&mut batch)).await;
                fill(&mut self.ended, &mut batch);
            }
        };
        // What is still there then is lost with the program, which nobody asks for numbers any more.
        let _ = clock.timeout(LAST, last).await;
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        count(if sent.is_ok() { "sent" } else { "failed" }, spans);
        let was_reached = self.is_reached.replace(sent.is_ok());
        match sent {
            Ok(()) if was_reached != Some(true) => info!(endpoint = self.endpoint, "spans are being sent"),
            Err(error) if was_reached != Some(false) => {
                warn!(endpoint = self.endpoint, %error, "spans are lost: the collector does not take them");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Makes the next batch: full, or a while after its first span. Cancel safe: what was gathered is in `batch`.
async fn gather(ended: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>, clock: &Clock) {
    if batch.is_empty() && ended.recv_many(batch, BATCH).await == 0 {
        // Nobody makes spans any more.
        std::future::pending().await
    }
    let filled = async {
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            if ended.recv_many(batch, room).await == 0 {
                break;
            }
        }
    };
    let _ = clock.timeout(PAUSE, filled).await;
}

/// Adds what is there.
fn fill(ended: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    while batch.len() < BATCH
        && let Ok(span) = ended.try_recv()
    {
        batch.push(span);
    }
}

/// HTTP without TLS: a collector is on the own machine, or in the own Kubernetes.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    clock: Clock,
}

impl Http {
    pub(crate) fn new(clock: Clock) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(ANSWER));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .build(connector);
        Self { client, clock }
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let (head, body) = self.client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        self.clock
            .timeout(ANSWER, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER.as_secs()).into()))
    }
}
