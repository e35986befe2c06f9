//! One connection: cuts frames, begins requests, answers them in their order.
//!
//! ```text
//! socket ─▶ frame ─▶ dispatch (first stage, in order) ─▶ queue ─▶ outcome of the first in the queue ─▶ socket
//! ```
//!
//! One task does all of it. Only the first request of the queue is polled, so requests take effect in their order, as
//! in Kafka; a produce is under way from its first stage on, so those behind each other still overlap. While a reply
//! is being written nothing is read, and nothing is read while the queue is full or the node's request memory is used
//! up: TCP holds the client back. So what one connection can make us hold is bounded: the requests in the queue, and
//! one reply, or several small ones.
//!
//! A panic of a handler ends this task, and with it this connection only.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use takhin_protocol::frame;
use takhin_runtime::File;
use takhin_runtime::net::{ReadHalf, Stream, WriteHalf};
use tokio::time::Instant;
use tracing::{debug, trace};

use crate::budget::{self, Budget, Taken};
use crate::context::Peer;
use crate::dispatch::{self, Pending};
use crate::reply::{CloseReason, Outcome, Part, Reply};

/// Bytes asked of the socket when nothing says how much is coming.
const FIRST_READ: usize = 4 * 1024;
/// A frame's buffer grows by this, or by what was received already if that is more.
const READ_AHEAD: usize = 64 * 1024;
/// Replies that are ready together are written together, up to this.
const WRITE_TOGETHER: usize = 256 * 1024;

/// Files are sent in pieces of this, each of which has its time.
const FILE_PIECE: u64 = 4 << 20;

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Closed {
    /// By the client.
    ByPeer,
    /// By a failure of the network.
    Lost(io::Error),
    /// By us.
    ByUs(CloseReason),
}

/// A request whose work has begun.
struct Queued {
    work: Pending,
    api: usize,
    received: Instant,
    /// When its first stage was over.
    begun: Instant,
    _memory: Taken,
}

/// What a connection waits for.
enum Event {
    /// The first request of the queue is decided.
    Outcome(Outcome),
    /// Bytes arrived; 0 is the end.
    Read(io::Result<usize>),
    /// The next frame may be received.
    Memory(Taken),
    /// A limit of time may have passed.
    Tick,
    /// The broker stops.
    Stopping,
}

/// One client's connection.
pub(crate) struct Connection {
    peer: Arc<Peer>,
    budget: Budget,
    read: ReadHalf,
    write: WriteHalf,
    input: BytesMut,
    /// Memory for the frame at the front of `input`, once its length is known.
    memory: Option<Taken>,
    /// The wait for that memory.
    memory_wait: Option<Waiting<Taken>>,
    queue: VecDeque<Queued>,
    /// Requests answered by the write under way, and when each was decided.
    answered: Vec<(Queued, Instant)>,
    /// Replies of the write under way.
    outgoing: VecDeque<Reply>,
    /// Pieces of them that are next.
    bytes: VecDeque<Bytes>,
    /// Length of the largest frame that this client has sent whole: so much it may be trusted with.
    largest_frame: usize,
    last_active: Instant,
    /// Since when a part of a frame has been lying in `input` while we were ready to read the rest.
    partial_since: Option<Instant>,
    tick: Waiting<()>,
    tick_at: Instant,
    stop: Waiting<()>,
    stopping: bool,
}

impl Connection {
    pub(crate) fn new(peer: Arc<Peer>, budget: Budget, stream: Stream) -> Self {
        let (read, write) = stream.into_split();
        let env = &peer.broker.env;
        let now = env.clock.instant();
        let stop = peer.broker.stopping.clone();
        Self {
            budget,
            read,
            write,
            input: BytesMut::new(),
            memory: None,
            memory_wait: None,
            queue: VecDeque::new(),
            answered: Vec::new(),
            outgoing: VecDeque::new(),
            bytes: VecDeque::new(),
            largest_frame: 0,
            last_active: now,
            partial_since: None,
            tick: Box::pin(std::future::ready(())),
            tick_at: now,
            stop: Box::pin(async move { stop.wait().await }),
            stopping: false,
            peer,
        }
    }

    /// Serves the connection until it ends.
    pub(crate) async fn run(mut self) -> Closed {
        loop {
            if let Err(reason) = self.begin_requests() {
                return Closed::ByUs(reason);
            }
            if self.stopping && self.queue.is_empty() {
                return Closed::ByUs(CloseReason::Stopping);
            }
            self.watch_time();
            let done = match self.next_event().await {
                Event::Outcome(outcome) => self.answer(outcome).await,
                Event::Read(Ok(0)) => Err(Closed::ByPeer),
                Event::Read(Ok(_)) => {
                    self.last_active = self.now();
                    Ok(())
                }
                Event::Read(Err(error)) => Err(Closed::Lost(error)),
                Event::Memory(taken) => {
                    self.memory_wait = None;
                    self.memory = Some(taken);
                    Ok(())
                }
                Event::Tick => self.check_time().map_err(Closed::ByUs),
                Event::Stopping => {
                    self.stopping = true;
                    Ok(())
                }
            };
            if let Err(closed) = done {
                return closed;
            }
        }
    }

    fn now(&self) -> Instant {
        self.peer.broker.env.clock.instant()
    }

    fn has_room(&self) -> bool {
        self.queue.len() < self.peer.broker.config.kafka.limits.max_pipelined_requests as usize
    }

    /// Begins every request that is here whole, as long as there is room, and makes room for the rest of the next.
    fn begin_requests(&mut self) -> Result<(), CloseReason> {
        if self.stopping || self.memory_wait.is_some() {
            return Ok(());
        }
        let max = self.peer.broker.config.kafka.limits.max_request_size.as_usize();
        while self.has_room() {
            let Some(length) = frame_len(&self.input) else {
                self.reserve(FIRST_READ);
                return Ok(());
            };
            let whole = usize::try_from(length)
                .ok()
                .filter(|len| (frame::MIN_FRAME..=max).contains(len));
            let Some(whole) = whole else {
                debug!(length, "frame length is out of range");
                return Err(CloseReason::BadRequest);
            };
            if self.memory.is_none() {
                let Some(key) = api_key(&self.input) else {
                    self.reserve(FIRST_READ);
                    return Ok(());
                };
                let cost = budget::cost(key, whole);
                self.memory = self.budget.try_take(cost);
                if self.memory.is_none() {
                    self.memory_wait = Some(Box::pin(self.budget.clone().take(cost)));
                    return Ok(());
                }
            }
            let missing = (whole + 4).saturating_sub(self.input.len());
            if missing > 0 {
                self.reserve(missing);
                return Ok(());
            }
            self.begin_request(max)?;
        }
        Ok(())
    }

    fn begin_request(&mut self, max: usize) -> Result<(), CloseReason> {
        let received = self.now();
        self.partial_since = None;
        let (Ok(Some(frame)), Some(memory)) = (frame::next(&mut self.input, max), self.memory.take()) else {
            return Err(CloseReason::Fault);
        };
        self.largest_frame = self.largest_frame.max(frame.len());
        let (api, work) = dispatch::start(&self.peer, frame, received).map_err(|error| {
            debug!(error = &error as &dyn std::error::Error, "request refused");
            CloseReason::BadRequest
        })?;
        self.queue.push_back(Queued {
            work,
            api,
            received,
            begun: self.now(),
            _memory: memory,
        });
        Ok(())
    }

    /// Makes room for `wanted` bytes, but never far beyond what this client has really sent: a length alone costs
    /// nothing. An idle connection keeps no buffer to speak of.
    fn reserve(&mut self, wanted: usize) {
        let trusted = self.input.len().max(self.largest_frame).max(READ_AHEAD);
        let room = wanted.min(trusted);
        if self.input.is_empty() && self.input.capacity() > READ_AHEAD {
            self.input = BytesMut::new();
        }
        if self.input.capacity() - self.input.len() < room {
            self.input.reserve(room);
        }
    }

    async fn next_event(&mut self) -> Event {
        let can_read = self.has_room() && self.memory_wait.is_none() && !self.stopping;
        let Self {
            queue,
            read,
            input,
            memory_wait,
            tick,
            stop,
            stopping,
            ..
        } = self;
        tokio::select! {
            biased;
            outcome = first_outcome(queue), if !queue.is_empty() => Event::Outcome(outcome),
            n = read.read_buf(input), if can_read => Event::Read(n),
            taken = wait_or_never(memory_wait), if memory_wait.is_some() => Event::Memory(taken),
            () = stop, if !*stopping => Event::Stopping,
            () = tick => Event::Tick,
        }
    }

    /// Answers the first request, and those behind it that are decided already.
    async fn answer(&mut self, first: Outcome) -> Result<(), Closed> {
        let mut bytes = 0;
        let mut next = Some(first);
        let mut ending = None;
        while let Some(outcome) = next.take() {
            let Some(queued) = self.queue.pop_front() else {
                break;
            };
            self.answered.push((queued, self.now()));
            match outcome {
                Outcome::Reply(reply) => {
                    bytes += reply.len();
                    self.outgoing.push_back(reply);
                }
                Outcome::Silent => {}
                Outcome::Close(reason) => {
                    ending = Some(reason);
                    break;
                }
            }
            if bytes < WRITE_TOGETHER && !self.queue.is_empty() {
                next = decided(&mut self.queue).await;
            }
        }
        self.send().await?;
        self.account();
        match ending {
            Some(reason) => Err(Closed::ByUs(reason)),
            None => Ok(()),
        }
    }

    /// Writes the outgoing replies.
    async fn send(&mut self) -> Result<(), Closed> {
        while let Some(reply) = self.outgoing.pop_front() {
            let parts = match reply {
                Reply::Bytes(frame) => {
                    self.bytes.push_back(frame);
                    continue;
                }
                Reply::Parts(parts) => parts,
            };
            for part in parts {
                match part {
                    Part::Bytes(piece) => self.bytes.push_back(piece),
                    Part::File { file, pos, len } => {
                        self.flush().await?;
                        self.send_file(&file, pos, len as u64).await?;
                    }
                }
            }
        }
        self.flush().await
    }

    /// Sends a range of a file, a piece at a time: a client may be slow, but must take a piece in the time for which
    /// it might have been idle.
    async fn send_file(&mut self, file: &Arc<dyn File>, pos: u64, len: u64) -> Result<(), Closed> {
        let env = &self.peer.broker.env;
        let limit = self.peer.broker.config.kafka.limits.connections_max_idle;
        let mut sent = 0;
        while sent < len {
            let piece = (len - sent).min(FILE_PIECE);
            let sending = self.write.send_file(file, pos + sent, piece);
            match env.clock.timeout(limit, sending).await {
                Ok(done) => done.map_err(Closed::Lost)?,
                Err(_) => return Err(Closed::ByUs(CloseReason::SlowReader)),
            }
            sent += piece;
        }
        Ok(())
    }

    /// Writes what is queued. A client that takes nothing for as long as it might have been idle is gone.
    async fn flush(&mut self) -> Result<(), Closed> {
        let env = &self.peer.broker.env;
        let limit = self.peer.broker.config.kafka.limits.connections_max_idle;
        while !self.bytes.is_empty() {
            let before = waiting_bytes(&self.bytes);
            match env
                .clock
                .timeout(limit, self.write.write_all(&mut self.bytes))
                .await
            {
                Ok(done) => return done.map_err(Closed::Lost),
                Err(_) if waiting_bytes(&self.bytes) == before => {
                    return Err(Closed::ByUs(CloseReason::SlowReader));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Counts what was answered, and gives back its memory.
    fn account(&mut self) {
        let sent = self.now();
        self.last_active = sent;
        for (queued, decided) in self.answered.drain(..) {
            let total = sent.saturating_duration_since(queued.received);
            let metrics = self.peer.broker.metrics.api(queued.api);
            metrics.requests.inc();
            metrics
                .local
                .observe(queued.begun.saturating_duration_since(queued.received));
            metrics
                .remote
                .observe(decided.saturating_duration_since(queued.begun));
            metrics.send.observe(sent.saturating_duration_since(decided));
            metrics.total.observe(total);
            trace!(api = crate::api::TABLE[queued.api].name, ?total, "answered");
        }
    }

    /// Notes whether a frame is under way, and has the tick come when its time, or the connection's, is over.
    fn watch_time(&mut self) {
        let reading = self.has_room() && self.memory_wait.is_none();
        if self.input.is_empty() || !reading {
            self.partial_since = None;
        } else if self.partial_since.is_none() {
            self.partial_since = Some(self.now());
        }
        let limits = &self.peer.broker.config.kafka.limits;
        let mut due = self.last_active + limits.connections_max_idle;
        if let Some(since) = self.partial_since {
            due = due.min(since + limits.request_receive_timeout);
        }
        if due < self.tick_at {
            self.set_tick(due);
        }
    }

    fn set_tick(&mut self, at: Instant) {
        let clock = self.peer.broker.env.clock.clone();
        self.tick = Box::pin(async move { clock.sleep_until(at).await });
        self.tick_at = at;
    }

    /// The tick only says that time may be over; activity since then has moved the limits.
    fn check_time(&mut self) -> Result<(), CloseReason> {
        let now = self.now();
        let limits = &self.peer.broker.config.kafka.limits;
        let (max_idle, receive_timeout) = (limits.connections_max_idle, limits.request_receive_timeout);
        if self
            .partial_since
            .is_some_and(|since| now >= since + receive_timeout)
        {
            return Err(CloseReason::SlowFrame);
        }
        // A connection with an unanswered request is not idle.
        if !self.queue.is_empty() {
            self.last_active = now;
        }
        if now >= self.last_active + max_idle {
            return Err(CloseReason::Idle);
        }
        let idle_at = self.last_active + max_idle;
        let due = self
            .partial_since
            .map_or(idle_at, |since| idle_at.min(since + receive_timeout));
        self.set_tick(due);
        Ok(())
    }
}

/// The length that a frame at the front of `input` claims.
fn frame_len(input: &[u8]) -> Option<i32> {
    input.first_chunk().map(|prefix| i32::from_be_bytes(*prefix))
}

/// The API key of the frame at the front of `input`.
fn api_key(input: &[u8]) -> Option<i16> {
    input
        .get(4..)
        .and_then(<[u8]>::first_chunk)
        .map(|key| i16::from_be_bytes(*key))
}

/// Waits for the first request of the queue.
///
/// Cancel safe: the work stays in the queue until its outcome is returned.
async fn first_outcome(queue: &mut VecDeque<Queued>) -> Outcome {
    poll_fn(|cx| poll_first(queue, cx)).await
}

/// The outcome of the first request, if it is decided; does not wait.
async fn decided(queue: &mut VecDeque<Queued>) -> Option<Outcome> {
    poll_fn(|cx| match poll_first(queue, cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn poll_first(queue: &mut VecDeque<Queued>, cx: &mut std::task::Context<'_>) -> Poll<Outcome> {
    let Some(first) = queue.front_mut() else {
        return Poll::Pending;
    };
    match &mut first.work {
        // Taken once: the caller removes the request with its outcome.
        Pending::Ready(outcome) => {
            Poll::Ready(std::mem::replace(outcome, Outcome::Close(CloseReason::Fault)))
        }
        Pending::Later(work) => work.as_mut().poll(cx),
    }
}

async fn wait_or_never<T>(waiting: &mut Option<Waiting<T>>) -> T {
    match waiting {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}

fn waiting_bytes(bytes: &VecDeque<Bytes>) -> usize {
    bytes.iter().map(Bytes::len).sum()
}
