//! A connection, before it is split.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::half::{ReadHalf, WriteHalf};
use super::sockets::{Sockets, Writer};

/// A byte stream to a peer.
///
/// Protocols of our own split it ([`Stream::into_split`]); libraries (HTTP, TLS) use it through [`AsyncRead`] and
/// [`AsyncWrite`].
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp {
        read: OwnedReadHalf,
        write: Arc<Writer>,
        local: SocketAddr,
        peer: SocketAddr,
    },
    #[cfg(feature = "test-util")]
    Simulated(super::sim::SimStream),
}

impl Stream {
    /// Without Nagle's delay: whoever writes here has gathered already.
    pub(super) fn tcp(stream: TcpStream, sockets: &Arc<Sockets>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let (read, write) = sockets.enter(stream)?;
        Ok(Self(Kind::Tcp {
            read,
            write,
            local,
            peer,
        }))
    }

    #[cfg(feature = "test-util")]
    pub(super) fn simulated(stream: super::sim::SimStream) -> Self {
        Self(Kind::Simulated(stream))
    }

    /// Two halves that can be used by two tasks.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self.0 {
            Kind::Tcp { read, write, .. } => (ReadHalf::tcp(read), WriteHalf::tcp(write)),
            #[cfg(feature = "test-util")]
            Kind::Simulated(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::simulated(read), WriteHalf::simulated(write))
            }
        }
    }

    /// Address of the other end.
    pub fn peer_addr(&self) -> SocketAddr {
        match &self.0 {
            Kind::Tcp { peer, .. } => *peer,
            #[cfg(feature = "test-util")]
            Kind::Simulated(stream) => stream.peer_addr(),
        }
    }

    /// Address of this end.
    pub fn local_addr(&self) -> SocketAddr {
        match &self.0 {
            Kind::Tcp { local, .. } => *local,
            #[cfg(feature = "test-util")]
            Kind::Simulated(stream) => stream.local_addr(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp { read, .. } => Pin::new(read).poll_read(cx, buf),
            #[cfg(feature = "test-util")]
            Kind::Simulated(stream) => Pin::new(&mut stream.read).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp { write, .. } => write.poll_write(cx, &[IoSlice::new(buf)]),
            #[cfg(feature = "test-util")]
            Kind::Simulated(stream) => Pin::new(&mut stream.write).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp { write, .. } => write.poll_write(cx, bufs),
            #[cfg(feature = "test-util")]
            Kind::Simulated(stream) => Pin::new(&mut stream.write).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp { write, .. } => write.poll_flush(cx),
            #[cfg(feature = "test-util")]
            Kind::Simulated(stream) => Pin::new(&mut stream.write).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp { write, .. } => write.poll_shutdown(cx),
            #[cfg(feature = "test-util")]
            Kind::Simulated(stream) => Pin::new(&mut stream.write).poll_shutdown(cx),
        }
    }
}
