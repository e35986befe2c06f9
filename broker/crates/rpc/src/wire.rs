//! A connection as tonic takes it: one that can be cut from outside, and that ends by itself if nobody is admitted.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use takhin_runtime::{Clock, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Ends a connection at once, whatever its buffers still hold: the library's own close waits until a peer that no
/// longer reads has taken everything, which is for ever. Clones are the same switch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut(Arc<Switch>);

#[derive(Debug, Default)]
struct Switch {
    cut: AtomicBool,
    admitted: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Cut {
    /// Ends the connection.
    pub(crate) fn cut(&self) {
        self.0.cut.store(true, Ordering::Release);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    /// Takes the limit of time off the connection.
    pub(crate) fn admit(&self) {
        self.0.admitted.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.cut.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

type Deadline = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection.
pub(crate) struct Wire {
    stream: Stream,
    cut: Cut,
    /// When it ends if nobody was admitted.
    deadline: Option<Deadline>,
    /// Told when it is gone.
    _place: Option<Place>,
}

/// Run when a connection is gone.
pub(crate) struct Place(pub(crate) Box<dyn Fn() + Send + Sync>);

impl Drop for Place {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Wire {
    /// One that this node made, and how to end it.
    pub(crate) fn dialled(stream: Stream) -> (Self, Cut) {
        let cut = Cut::default();
        let wire = Self {
            stream,
            cut: cut.clone(),
            deadline: None,
            _place: None,
        };
        (wire, cut)
    }

    /// One that somebody else made, who must be admitted within `limit`.
    pub(crate) fn accepted(stream: Stream, clock: &Clock, limit: Duration, cut: Cut, place: Place) -> Self {
        let clock = clock.clone();
        Self {
            stream,
            cut,
            deadline: Some(Box::pin(async move { clock.sleep(limit).await })),
            _place: Some(place),
        }
    }

    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(deadline) = &mut self.deadline {
            if self.cut.0.admitted.load(Ordering::Acquire) {
                self.deadline = None;
            } else if deadline.as_mut().poll(cx).is_ready() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    fn check_write(&self, cx: &Context<'_>) -> io::Result<()> {
        self.cut.0.writer.register(cx.waker());
        self.cut.check()
    }
}

/// What a handler gets to know of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) address: SocketAddr,
    pub(crate) cut: Cut,
}

impl Connected for Wire {
    type ConnectInfo = Arrival;

    fn connect_info(&self) -> Arrival {
        Arrival {
            address: self.stream.peer_addr(),
            cut: self.cut.clone(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cut.0.reader.register(cx.waker());
        self.cut.check()?;
        self.check_deadline(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_write(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_write(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_write(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_write(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
