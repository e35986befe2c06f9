//! One direction of a simulated connection: a bounded buffer whose bytes arrive after a delay, in order.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Link;
use crate::sim::trace::hash_bytes;

/// Bytes under way or unread before a writer must wait.
const CAPACITY: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Pipe {
    /// Shown in the record: `from:port>to:port`.
    name: String,
    link: Link,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes and when they arrive; empty ones are the end of the stream.
    segments: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes read of the first segment.
    consumed: usize,
    buffered: usize,
    ended: bool,
    reader_gone: bool,
    broken: Option<io::ErrorKind>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn new(name: String, link: Link) -> Arc<Self> {
        Arc::new(Self {
            name,
            link,
            state: Mutex::default(),
        })
    }

    /// Fails reads and writes from now on; what was under way is lost.
    pub(super) fn break_with(&self, kind: io::ErrorKind) {
        let mut state = self.state.lock();
        state.broken.get_or_insert(kind);
        state.wake_both();
    }

    /// Makes both ends look again, after the link changed.
    pub(super) fn wake(&self) {
        self.state.lock().wake_both();
    }

    fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let (arrival, blocked) = (self.link.arrival(), self.link.is_blocked());
        let mut state = self.state.lock();
        if let Some(kind) = state.broken {
            return Poll::Ready(Err(kind.into()));
        }
        // A peer's end is news that has to arrive as well.
        if state.ended || (state.reader_gone && !blocked) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let take = total.min(CAPACITY - state.buffered);
        if take == 0 && total > 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut bytes = Vec::with_capacity(take);
        for buf in bufs {
            bytes.extend_from_slice(&buf[..buf.len().min(take - bytes.len())]);
        }
        if take > 0 {
            state.push(arrival, bytes);
        }
        Poll::Ready(Ok(take))
    }

    /// Sends the end of the stream; again is fine.
    fn end(&self) {
        let arrival = self.link.arrival();
        let mut state = self.state.lock();
        if !state.ended {
            state.ended = true;
            state.push(arrival, Vec::new());
        }
    }

    fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Result<Poll<io::Result<()>>, Instant> {
        let blocked = self.link.is_blocked();
        let mut state = self.state.lock();
        if let Some(kind) = state.broken {
            return Ok(Poll::Ready(Err(kind.into())));
        }
        state.reader = Some(cx.waker().clone());
        let Some((arrival, _)) = state.segments.front() else {
            return Ok(Poll::Pending);
        };
        if blocked {
            return Ok(Poll::Pending);
        }
        if *arrival > Instant::now() {
            return Err(*arrival);
        }
        let consumed = state.consumed;
        let Some((_, bytes)) = state.segments.front() else {
            return Ok(Poll::Pending);
        };
        let step = buf.remaining().min(bytes.len() - consumed);
        if step > 0 {
            let bytes = &bytes[consumed..consumed + step];
            buf.put_slice(bytes);
            self.link
                .trace()
                .event("deliver", &self.name, &[step as u64, hash_bytes(bytes)]);
            let finished = consumed + step == state.segments.front().map_or(0, |(_, bytes)| bytes.len());
            state.consumed = if finished { 0 } else { consumed + step };
            if finished {
                state.segments.pop_front();
            }
            state.buffered -= step;
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
        }
        Ok(Poll::Ready(Ok(())))
    }

    fn reader_gone(&self) {
        let mut state = self.state.lock();
        state.reader_gone = true;
        state.wake_both();
    }
}

impl State {
    fn push(&mut self, arrival: Instant, bytes: Vec<u8>) {
        // A stream keeps its order, however the delays fall.
        let arrival = self
            .segments
            .back()
            .map_or(arrival, |(last, _)| arrival.max(*last));
        self.buffered += bytes.len();
        self.segments.push_back((arrival, bytes));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wake_both(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) pipe: Arc<Pipe>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// The writing end; dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) pipe: Arc<Pipe>,
}

impl Reader {
    pub(super) fn new(pipe: Arc<Pipe>) -> Self {
        Self { pipe, sleep: None }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let arrival = match self.pipe.poll_read(cx, buf) {
                Ok(poll) => return poll,
                Err(arrival) => arrival,
            };
            let mut sleep = Box::pin(tokio::time::sleep_until(arrival));
            let waiting = sleep.as_mut().poll(cx).is_pending();
            self.sleep = Some(sleep);
            if waiting {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.pipe.reader_gone();
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.pipe.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pipe.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.pipe.end();
    }
}
