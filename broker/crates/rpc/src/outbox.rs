//! What waits to go out on one stream of a link, and the calls that wait for their answer.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use prost::Message;
use takhin_runtime::Published;
use tokio::sync::oneshot;

use crate::envelope::{Body, Envelope, Role};
use crate::error::{CallError, LinkError};
use crate::generated::{Failure, failure::Reason};
use crate::metrics::OutboxGauges;
use crate::settings::Settings;

type Answer = Result<Bytes, CallError>;

/// One stream's way out.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    max_bytes: usize,
    max_calls: usize,
    /// Why the link ended, shared by its streams.
    ended: Published<Option<LinkError>>,
    gauges: OutboxGauges,
}

#[derive(Debug, Default)]
struct State {
    ended: Option<LinkError>,
    /// What the transport takes next, in order.
    ready: VecDeque<Envelope>,
    ready_bytes: usize,
    /// What there is no room for yet, by correlation, which grows.
    line: BTreeMap<u64, Envelope>,
    /// Who waits: in line, or for an answer.
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// Calls that left the line and have no answer.
    outstanding: usize,
    last_correlation: u64,
    transport: Option<Waker>,
}

impl Outbox {
    /// The way out of a stream that begins with `hello`. `ended` is told when it ends.
    pub(crate) fn new(
        hello: Envelope,
        settings: &Settings,
        ended: Published<Option<LinkError>>,
        gauges: OutboxGauges,
    ) -> Arc<Self> {
        let state = State {
            ready: VecDeque::from([hello]),
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            max_bytes: settings.queued_bytes,
            max_calls: settings.outstanding_calls,
            ended,
            gauges,
        })
    }

    /// Puts a request in line. The ticket resolves with the answer, or, for one without an answer, once it has left
    /// the line.
    pub(crate) fn submit(self: &Arc<Self>, role: Role, kind: u16, body: Body) -> Result<Ticket, CallError> {
        let mut state = self.state.lock();
        if let Some(why) = &state.ended {
            return Err(CallError::Unreachable(why.clone()));
        }
        state.last_correlation += 1;
        let correlation = state.last_correlation;
        let (tell, answer) = oneshot::channel();
        let mut envelope = Envelope::new(role, kind, body);
        envelope.correlation = correlation;
        state.waiting.insert(correlation, tell);
        state.line.insert(correlation, envelope);
        self.admit(&mut state);
        Ok(Ticket {
            outbox: Arc::clone(self),
            correlation,
            answer,
        })
    }

    /// Asks for a sign of life, unless the last request for one was not even sent.
    pub(crate) fn ping(&self) {
        let mut state = self.state.lock();
        if state.ended.is_none() && state.ready.is_empty() {
            self.push(&mut state, Envelope::new(Role::Request, 0, Body::default()));
        }
    }

    /// Hands an answer to who waits for it. What nobody waits for any more is dropped.
    pub(crate) fn answer(&self, envelope: Envelope) {
        let waiting = {
            let mut state = self.state.lock();
            // What was not sent cannot have been answered.
            if state.line.contains_key(&envelope.correlation) {
                return;
            }
            let waiting = state.waiting.remove(&envelope.correlation);
            if waiting.is_some() {
                self.settle(&mut state);
            }
            waiting
        };
        if let Some(waiting) = waiting {
            // Whoever waited may have given up in this moment.
            let _ = waiting.send(read_answer(envelope));
        }
    }

    /// Fails everything that waits, and everything from now on. Only the first reason counts.
    pub(crate) fn end(&self, why: LinkError) {
        let (waiting, transport) = {
            let mut state = self.state.lock();
            if state.ended.is_some() {
                return;
            }
            state.ended = Some(why.clone());
            state.ready.clear();
            state.line.clear();
            self.gauges
                .queued_bytes
                .add(-signed(std::mem::take(&mut state.ready_bytes)));
            self.gauges
                .outstanding
                .add(-signed(std::mem::take(&mut state.outstanding)));
            (std::mem::take(&mut state.waiting), state.transport.take())
        };
        for tell in waiting.into_values() {
            let _ = tell.send(Err(CallError::Unreachable(why.clone())));
        }
        if let Some(transport) = transport {
            transport.wake();
        }
        self.ended.update(|ended| {
            ended.get_or_insert(why);
        });
    }

    /// Lets out of the line what there is room for, in order.
    fn admit(&self, state: &mut State) {
        while let Some(first) = state.line.first_entry() {
            let (cost, one_way) = (first.get().cost(), first.get().role == Role::OneWay);
            let fits = state.ready.is_empty() || state.ready_bytes + cost <= self.max_bytes;
            if !fits || (!one_way && state.outstanding >= self.max_calls) {
                return;
            }
            let envelope = first.remove();
            if one_way {
                if let Some(tell) = state.waiting.remove(&envelope.correlation) {
                    let _ = tell.send(Ok(Bytes::new()));
                }
            } else {
                state.outstanding += 1;
                self.gauges.outstanding.add(1);
            }
            self.push(state, envelope);
        }
    }

    fn push(&self, state: &mut State, envelope: Envelope) {
        let cost = envelope.cost();
        state.ready_bytes += cost;
        self.gauges.queued_bytes.add(signed(cost));
        state.ready.push_back(envelope);
        if let Some(transport) = state.transport.take() {
            transport.wake();
        }
    }

    /// A call that was sent needs no answer any more.
    fn settle(&self, state: &mut State) {
        state.outstanding -= 1;
        self.gauges.outstanding.add(-1);
        self.admit(state);
    }

    /// Nobody waits for this one any more; whether it was still in line.
    fn forget(&self, correlation: u64) -> bool {
        let mut state = self.state.lock();
        let in_line = state.line.remove(&correlation).is_some();
        let waited = state.waiting.remove(&correlation).is_some();
        if in_line {
            self.admit(&mut state);
        } else if waited {
            self.settle(&mut state);
        }
        in_line
    }
}

fn read_answer(envelope: Envelope) -> Answer {
    match envelope.role {
        Role::Answer => Ok(envelope.body.into_bytes()),
        Role::Failure => {
            let failure = Failure::decode(envelope.body.into_bytes()).unwrap_or_default();
            Err(match failure.reason() {
                Reason::Dropped => CallError::Dropped,
                Reason::AnswerTooLarge => CallError::AnswerTooLarge,
            })
        }
        Role::Request | Role::OneWay | Role::Greeting => Err(CallError::Unreachable(LinkError::broken(
            "an answer of another role",
        ))),
    }
}

/// For gauges; queues hold less than 2^63 bytes.
pub(crate) fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Waits for the answer of one call. Dropping it gives the call up; one that is still in line is never sent.
#[derive(Debug)]
pub(crate) struct Ticket {
    outbox: Arc<Outbox>,
    correlation: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Ticket {
    /// What to say when the time of the call has passed.
    pub(crate) fn expire(self) -> CallError {
        if self.outbox.forget(self.correlation) {
            CallError::Busy
        } else {
            CallError::Timeout
        }
    }
}

impl Future for Ticket {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| {
            // An outbox answers everybody; only its end with the runtime leaves one without.
            answer.unwrap_or(Err(CallError::Unreachable(LinkError::Stopped)))
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.outbox.forget(self.correlation);
    }
}

/// What the transport reads. When it drops this, the stream is gone.
#[derive(Debug)]
pub(crate) struct Outgoing(pub(crate) Arc<Outbox>);

impl Stream for Outgoing {
    type Item = Envelope;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Envelope>> {
        let outbox = &self.0;
        let mut state = outbox.state.lock();
        if state.ended.is_some() {
            return Poll::Ready(None);
        }
        let Some(envelope) = state.ready.pop_front() else {
            state.transport = Some(cx.waker().clone());
            return Poll::Pending;
        };
        // The hello was never counted.
        if envelope.role != Role::Greeting {
            let cost = envelope.cost();
            state.ready_bytes -= cost;
            outbox.gauges.queued_bytes.add(-signed(cost));
        }
        outbox.admit(&mut state);
        Poll::Ready(Some(envelope))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.0.end(LinkError::broken("the connection is gone"));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn outbox(queued_bytes: usize, outstanding_calls: usize) -> (Arc<Outbox>, Outgoing) {
        let settings = Settings {
            queued_bytes,
            outstanding_calls,
            ..Settings::default()
        };
        let hello = Envelope::new(Role::Greeting, 0, Body::default());
        let outbox = Outbox::new(hello, &settings, Published::default(), OutboxGauges::default());
        let mut outgoing = Outgoing(Arc::clone(&outbox));
        assert_eq!(next(&mut outgoing), Some(0), "the hello goes first");
        (outbox, outgoing)
    }

    /// Correlation of what the transport takes next.
    fn next(outgoing: &mut Outgoing) -> Option<u64> {
        outgoing
            .next()
            .now_or_never()
            .flatten()
            .map(|envelope| envelope.correlation)
    }

    fn call(outbox: &Arc<Outbox>, role: Role, len: usize) -> Ticket {
        outbox.submit(role, 0, vec![0; len].into()).unwrap()
    }

    fn answer(outbox: &Outbox, correlation: u64) {
        let mut answer = Envelope::new(Role::Answer, 0, Body::default());
        answer.correlation = correlation;
        outbox.answer(answer);
    }

    #[test]
    fn the_line_keeps_its_order_and_its_bounds() {
        let (outbox, mut outgoing) = outbox(2_000, 3);
        let calls: Vec<_> = (0..5).map(|_| call(&outbox, Role::Request, 800)).collect();
        let told = call(&outbox, Role::OneWay, 0);
        assert_eq!(outbox.state.lock().ready_bytes, 2 * 928);
        assert_eq!(outbox.state.lock().line.len(), 4);
        assert_eq!(
            [next(&mut outgoing), next(&mut outgoing), next(&mut outgoing)],
            [Some(1), Some(2), Some(3)]
        );
        assert_eq!(next(&mut outgoing), None, "three calls have no answer");
        answer(&outbox, 5);
        answer(&outbox, 2);
        answer(&outbox, 2);
        assert_eq!([next(&mut outgoing), next(&mut outgoing)], [Some(4), None]);
        let mut calls = calls.into_iter();
        drop(calls.next());
        assert_eq!([next(&mut outgoing), next(&mut outgoing)], [Some(5), Some(6)]);
        assert!(told.now_or_never().unwrap().is_ok());
        assert!(calls.next().unwrap().now_or_never().unwrap().is_ok());
        assert!(calls.next().unwrap().now_or_never().is_none());
        assert_eq!(outbox.state.lock().outstanding, 2);
    }

    #[test]
    fn a_call_in_line_was_never_sent_and_a_large_one_goes_alone() {
        let (outbox, mut outgoing) = outbox(1_000, 10);
        let large = call(&outbox, Role::Request, 5_000);
        let waits = call(&outbox, Role::Request, 1);
        let late = call(&outbox, Role::Request, 1);
        assert!(matches!(waits.expire(), CallError::Busy));
        assert_eq!(
            [next(&mut outgoing), next(&mut outgoing), next(&mut outgoing)],
            [Some(1), Some(3), None]
        );
        assert!(matches!(large.expire(), CallError::Timeout));
        assert_eq!(outbox.state.lock().outstanding, 1);
        drop(outgoing);
        assert!(matches!(
            late.now_or_never(),
            Some(Err(CallError::Unreachable(_)))
        ));
        assert!(outbox.submit(Role::Request, 0, Body::default()).is_err());
        assert!(outbox.ended.get().is_some());
        assert_eq!(outbox.state.lock().outstanding, 0);
    }
}
