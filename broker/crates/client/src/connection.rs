//! One connection: pipelined requests, answers in order.
//!
//! ```text
//! send ── permit ── queue ──> writer task ── frames ──> broker
//!                               │ who waits for what, in the order written
//!                               v
//! Reply <── frame ── reader task <── frames ── broker
//! ```
//!
//! Kafka answers a connection's requests in their order, so the oldest waiter gets the next frame; the correlation
//! id only proves it. When either task ends, everybody who waits learns that the connection is closed.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use takhin_protocol::messages::{self, ApiVersionsRequest, Request, StrBytes};
use takhin_protocol::{ErrorCode, frame};
use takhin_runtime::clock::Instant;
use takhin_runtime::{Env, JoinHandle, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::field::Empty;
use tracing::{Instrument as _, debug, debug_span};

use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::versions::Versions;

/// Frames gathered by one write.
const GATHER: usize = 32;

/// Shortest frame with a correlation id, in bytes.
const MIN_ANSWER: usize = 4;

/// A connection to one broker. Clones share it; it closes when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    env: Env,
    address: String,
    client_id: StrBytes,
    request_timeout: Duration,
    correlation: AtomicI32,
    permits: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<Queued>,
    versions: Versions,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

/// A frame to write, and who waits for its answer.
#[derive(Debug)]
struct Queued {
    frame: Bytes,
    waiter: Waiter,
}

#[derive(Debug)]
struct Waiter {
    correlation_id: i32,
    answer: oneshot::Sender<Result<Bytes, ClientError>>,
    /// Returned when the answer has come, whoever still waits for it.
    permit: OwnedSemaphorePermit,
}

/// An answer that is yet to come. Dropping it gives up the answer, not the request.
#[derive(Debug)]
pub struct Reply<R> {
    connection: Connection,
    version: i16,
    deadline: Instant,
    answer: oneshot::Receiver<Result<Bytes, ClientError>>,
    request: PhantomData<fn() -> R>,
}

impl Connection {
    /// Connects to `address` (`HOST:PORT`) and learns which versions the broker has.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`] and all of [`Connection::call`].
    pub async fn open(env: &Env, config: &ClientConfig, address: &str) -> Result<Self, ClientError> {
        let connect = |source| ClientError::Connect {
            address: address.to_owned(),
            source,
        };
        let stream = match env
            .clock
            .timeout(config.connect_timeout, env.net.connect(address))
            .await
        {
            Ok(stream) => stream.map_err(connect)?,
            Err(_) => return Err(connect(std::io::ErrorKind::TimedOut.into())),
        };
        let (read, write) = stream.into_split();
        let (queue, queued) = mpsc::unbounded_channel();
        let (waiting, waiters) = mpsc::unbounded_channel();
        let reader = Reader {
            half: read,
            address: address.to_owned(),
            max: config.max_response_bytes,
            waiters,
        };
        let mut inner = Inner {
            env: env.clone(),
            address: address.to_owned(),
            client_id: StrBytes::from_string(config.client_id.clone()),
            request_timeout: config.request_timeout,
            correlation: AtomicI32::new(0),
            permits: Arc::new(Semaphore::new(config.max_in_flight.max(1))),
            queue,
            versions: Versions::before_negotiation(),
            writer: env
                .tasks
                .spawn("client writer", write_frames(write, queued, waiting)),
            reader: env.tasks.spawn("client reader", reader.run()),
        };
        inner.versions = inner.negotiate().await?;
        Ok(Self(Arc::new(inner)))
    }

    /// The address it was opened with.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Whether it has ended. An open one may end before it is used.
    pub fn is_closed(&self) -> bool {
        self.0.reader.is_finished() || self.0.writer.is_finished()
    }

    /// Closes it; whoever waits gets [`ClientError::Closed`].
    pub fn close(&self) {
        self.0.close();
    }

    /// The newest version of `R` that both sides have, but at most `at_most`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unsupported`].
    pub fn version<R: Request>(&self, at_most: i16) -> Result<i16, ClientError> {
        self.0
            .versions
            .pick::<R>(at_most)
            .ok_or_else(|| ClientError::Unsupported {
                address: self.0.address.clone(),
                api_key: R::KEY,
            })
    }

    /// Sends a request in its newest common version and waits for the answer.
    ///
    /// # Errors
    ///
    /// See [`Connection::send`] and [`Reply::wait`].
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response, ClientError> {
        let span = debug_span!(
            "kafka",
            otel.kind = "client",
            otel.name = api_name::<R>(),
            address = self.address(),
            otel.status_code = Empty,
        );
        let call = async {
            let mut reply = self.send(self.version::<R>(i16::MAX)?, request).await?;
            reply.wait().await
        };
        let answer = call.instrument(span.clone()).await;
        if answer.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        answer
    }

    /// Sends a request once a place in flight is free. Requests are written in the order in which their calls of
    /// `send` return.
    ///
    /// # Errors
    ///
    /// [`ClientError::Encode`], [`ClientError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing was sent.
    pub async fn send<R: Request>(&self, version: i16, request: &R) -> Result<Reply<R>, ClientError> {
        let (answer, deadline) = self.0.enqueue(version, request).await?;
        Ok(Reply {
            connection: self.clone(),
            version,
            deadline,
            answer,
            request: PhantomData,
        })
    }
}

impl<R: Request> Reply<R> {
    /// Waits for the answer.
    ///
    /// # Errors
    ///
    /// [`ClientError::TimedOut`], which also closes the connection, [`ClientError::Closed`],
    /// [`ClientError::Frame`], [`ClientError::Mismatch`], [`ClientError::Decode`].
    ///
    /// # Cancel safety
    ///
    /// Safe; the wait goes on where it was.
    pub async fn wait(&mut self) -> Result<R::Response, ClientError> {
        let mut frame = self.connection.0.answer(self.deadline, &mut self.answer).await?;
        Ok(messages::decode_response::<R>(self.version, &mut frame)?.1)
    }
}

impl Inner {
    async fn enqueue<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> Result<(oneshot::Receiver<Result<Bytes, ClientError>>, Instant), ClientError> {
        let closed = || ClientError::Closed {
            address: self.address.clone(),
        };
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| closed())?;
        let correlation_id = self.correlation.fetch_add(1, Ordering::Relaxed);
        let frame = messages::encode_request(version, correlation_id, Some(&self.client_id), request)?;
        let (answer, receiver) = oneshot::channel();
        let waiter = Waiter {
            correlation_id,
            answer,
            permit,
        };
        self.queue.send(Queued { frame, waiter }).map_err(|_| closed())?;
        Ok((receiver, self.env.clock.instant() + self.request_timeout))
    }

    /// The frame that answers a request.
    async fn answer(
        &self,
        deadline: Instant,
        answer: &mut oneshot::Receiver<Result<Bytes, ClientError>>,
    ) -> Result<Bytes, ClientError> {
        let left = deadline.saturating_duration_since(self.env.clock.instant());
        match self.env.clock.timeout(left, answer).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => Err(ClientError::Closed {
                address: self.address.clone(),
            }),
            Err(_) => {
                self.close();
                Err(ClientError::TimedOut {
                    address: self.address.clone(),
                    after: self.request_timeout,
                })
            }
        }
    }

    /// Asks for the broker's versions.
    async fn negotiate(&self) -> Result<Versions, ClientError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("takhin-client"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        for version in [3, 0] {
            let (mut answer, deadline) = self.enqueue(version, &request).await?;
            let mut frame = self.answer(deadline, &mut answer).await?;
            // A broker that lacks the version says so in version 0, which every broker has (KIP-511).
            let unsupported = ErrorCode::UnsupportedVersion.code().to_be_bytes();
            if version > 0 && frame.get(MIN_ANSWER..MIN_ANSWER + 2) == Some(&unsupported) {
                continue;
            }
            let (_, response) = messages::decode_response::<ApiVersionsRequest>(version, &mut frame)?;
            ClientError::check(response.error_code, || {
                format!("api versions of {}", self.address)
            })?;
            return Ok(Versions::of(&response));
        }
        Err(ClientError::Unsupported {
            address: self.address.clone(),
            api_key: ApiVersionsRequest::KEY,
        })
    }

    fn close(&self) {
        self.permits.close();
        self.writer.abort();
        self.reader.abort();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// The name of an API, such as `Metadata`.
fn api_name<R>() -> &'static str {
    let name = std::any::type_name::<R>();
    let name = name.rsplit("::").next().unwrap_or(name);
    name.strip_suffix("Request").unwrap_or(name)
}

/// Writes what is queued, many frames at once. Each waiter goes to the reader before its frame goes out.
async fn write_frames(
    mut half: WriteHalf,
    mut queue: mpsc::UnboundedReceiver<Queued>,
    waiting: mpsc::UnboundedSender<Waiter>,
) {
    let (mut gathered, mut frames) = (Vec::with_capacity(GATHER), VecDeque::with_capacity(GATHER));
    while queue.recv_many(&mut gathered, GATHER).await > 0 {
        for Queued { frame, waiter } in gathered.drain(..) {
            if waiting.send(waiter).is_err() {
                return;
            }
            frames.push_back(frame);
        }
        if let Err(e) = half.write_all(&mut frames).await {
            debug!(error = %e, "writing requests failed");
            return;
        }
    }
}

struct Reader {
    half: ReadHalf,
    address: String,
    max: usize,
    waiters: mpsc::UnboundedReceiver<Waiter>,
}

impl Reader {
    /// Hands answers to waiters until the stream ends or makes no sense. Those who still wait then see their
    /// channel closed.
    async fn run(mut self) {
        let mut buf = BytesMut::new();
        loop {
            match frame::next(&mut buf, self.max) {
                Ok(Some(frame)) => {
                    if !self.hand_over(frame) {
                        return;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(source) => {
                    if let Ok(waiter) = self.waiters.try_recv() {
                        let error = ClientError::Frame {
                            address: self.address.clone(),
                            source,
                        };
                        // Who gave up waiting needs no error.
                        let _ = waiter.answer.send(Err(error));
                    }
                    return;
                }
            }
            match self.half.read_buf(&mut buf).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) => {
                    debug!(error = %e, "reading answers failed");
                    return;
                }
            }
        }
    }

    /// Whether the answer belongs to the oldest waiter.
    fn hand_over(&mut self, frame: Bytes) -> bool {
        let Ok(waiter) = self.waiters.try_recv() else {
            return false;
        };
        let Some(correlation_id) = frame.first_chunk::<MIN_ANSWER>() else {
            return false;
        };
        let fits = i32::from_be_bytes(*correlation_id) == waiter.correlation_id;
        let answer = if fits {
            Ok(frame)
        } else {
            Err(ClientError::Mismatch {
                address: self.address.clone(),
            })
        };
        // Who gave up waiting needs no answer.
        let _ = waiter.answer.send(answer);
        drop(waiter.permit);
        fits
    }
}
