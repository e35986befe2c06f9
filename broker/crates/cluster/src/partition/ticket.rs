//! The answer to a produced batch, later.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::types::{ProduceError, Produced};

/// Resolves when the batch has reached the point that its `acks` asked for.
///
/// Dropping a ticket changes nothing about the batch.
#[derive(Debug)]
pub struct Ticket {
    state: State,
}

#[derive(Debug)]
enum State {
    Done(Produced),
    Waiting(oneshot::Receiver<Result<Produced, ProduceError>>),
}

impl Ticket {
    pub(super) fn done(produced: Produced) -> Self {
        Self {
            state: State::Done(produced),
        }
    }

    pub(super) fn waiting(receiver: oneshot::Receiver<Result<Produced, ProduceError>>) -> Self {
        Self {
            state: State::Waiting(receiver),
        }
    }
}

impl Future for Ticket {
    type Output = Result<Produced, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Done(produced) => Poll::Ready(Ok(*produced)),
            // The sender lives in the partition; it is dropped unused only with the partition itself.
            State::Waiting(receiver) => {
                Poll::Ready(ready!(Pin::new(receiver).poll(cx)).unwrap_or(Err(ProduceError::Unknown)))
            }
        }
    }
}
