//! Answers on their way back, and the bound on what has none.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use parking_lot::Mutex;
use prost::Message;
use takhin_runtime::telemetry::metrics::Gauge;
use tokio::sync::Notify;
use tonic::Status;

use crate::envelope::{Body, Envelope, Role};
use crate::generated::{Failure, failure::Reason};
use crate::outbox::signed;
use crate::settings::Settings;

/// The way back of one stream.
#[derive(Debug)]
pub(crate) struct Replies {
    state: Mutex<State>,
    /// Told when there may be room for another request.
    room: Notify,
    max_bytes: usize,
    max_body: usize,
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Envelope>,
    /// Costs of requests without an answer and of answers not taken by the transport.
    held: usize,
    /// Nothing comes after what is ready.
    finished: bool,
    /// The transport is gone.
    gone: bool,
    transport: Option<Waker>,
}

impl Replies {
    pub(crate) fn new(settings: &Settings, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            room: Notify::new(),
            max_bytes: settings.unanswered_bytes,
            max_body: settings.max_body,
            gauge,
        })
    }

    /// Waits until another request may be read; `false` when nobody would get the answer.
    ///
    /// # Cancel safety
    /// Safe. For one task at a time.
    pub(crate) async fn room(&self) -> bool {
        loop {
            {
                let state = self.state.lock();
                if state.gone {
                    return false;
                }
                if state.held < self.max_bytes {
                    return true;
                }
            }
            self.room.notified().await;
        }
    }

    /// Counts a request until its answer is sent.
    pub(crate) fn take(self: &Arc<Self>, request: &Envelope) -> Reply {
        let cost = request.cost();
        self.state.lock().held += cost;
        self.gauge.add(signed(cost));
        Reply {
            replies: Some(Arc::clone(self)),
            correlation: request.correlation,
            expected: request.role == Role::Request,
            cost,
        }
    }

    /// Sends what is no answer to a request.
    pub(crate) fn push(&self, envelope: Envelope) {
        self.settle(0, Some(envelope));
    }

    /// Nothing more comes; what is ready is still sent.
    pub(crate) fn finish(&self) {
        let transport = {
            let mut state = self.state.lock();
            state.finished = true;
            state.transport.take()
        };
        if let Some(transport) = transport {
            transport.wake();
        }
    }

    /// Gives back what a request held, and sends its answer.
    fn settle(&self, cost: usize, answer: Option<Envelope>) {
        let mut state = self.state.lock();
        state.held -= cost;
        let mut change = -signed(cost);
        if let Some(answer) = answer.filter(|_| !state.gone && !state.finished) {
            state.held += answer.cost();
            change += signed(answer.cost());
            state.ready.push_back(answer);
        }
        self.gauge.add(change);
        let transport = state.transport.take();
        drop(state);
        if let Some(transport) = transport {
            transport.wake();
        }
        self.room.notify_one();
    }
}

/// Where the answer to one request goes. Dropped without one, the caller gets
/// [`CallError::Dropped`](crate::CallError::Dropped).
#[derive(Debug)]
pub struct Reply {
    /// Taken when it is answered.
    replies: Option<Arc<Replies>>,
    correlation: u64,
    expected: bool,
    cost: usize,
}

impl Reply {
    /// Answers. If the link is gone by now, nobody hears it.
    pub fn send(mut self, body: impl Into<Body>) {
        let body = body.into();
        let Some(replies) = self.replies.take() else {
            return;
        };
        let answer = if body.len() > replies.max_body {
            failure(Reason::AnswerTooLarge)
        } else {
            Envelope::new(Role::Answer, 0, body)
        };
        self.settle(&replies, answer);
    }

    /// Whether the caller waits for an answer; one to [`Peer::tell`](crate::Peer::tell) is dropped.
    pub fn is_expected(&self) -> bool {
        self.expected
    }

    fn settle(&self, replies: &Replies, mut answer: Envelope) {
        answer.correlation = self.correlation;
        replies.settle(self.cost, self.expected.then_some(answer));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(replies) = self.replies.take() {
            self.settle(&replies, failure(Reason::Dropped));
        }
    }
}

fn failure(reason: Reason) -> Envelope {
    let mut failure = Failure::default();
    failure.set_reason(reason);
    Envelope::new(Role::Failure, 0, failure.encode_to_vec().into())
}

/// What the transport reads. When it drops this, nobody gets an answer any more.
#[derive(Debug)]
pub(crate) struct Returning(pub(crate) Arc<Replies>);

impl Stream for Returning {
    type Item = Result<Envelope, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.state.lock();
        let Some(envelope) = state.ready.pop_front() else {
            if state.finished {
                return Poll::Ready(None);
            }
            state.transport = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let cost = envelope.cost();
        state.held -= cost;
        drop(state);
        self.0.gauge.add(-signed(cost));
        self.0.room.notify_one();
        Poll::Ready(Some(Ok(envelope)))
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.gone = true;
        let unsent: usize = state.ready.drain(..).map(|envelope| envelope.cost()).sum();
        state.held -= unsent;
        drop(state);
        self.0.gauge.add(-signed(unsent));
        self.0.room.notify_one();
    }
}
