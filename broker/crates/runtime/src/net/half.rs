//! The two halves of a connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::{Arc, LazyLock};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
#[cfg(feature = "test-util")]
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::send_file;
use super::sockets::Writer;
use crate::disk::File;
use crate::telemetry::metrics::{self, Counter};

/// Room that a read makes when its buffer has none, in bytes.
const READ_RESERVE: usize = 8 * 1024;

/// Most buffers gathered by one write.
const MAX_SLICES: usize = 64;

static RECEIVED: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "takhin_runtime_net_received_bytes_total",
        "Bytes read from connections",
    )
});

static COPIED: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "takhin_runtime_net_sent_copied_bytes_total",
        "Bytes written to connections from this process's memory",
    )
});

/// Reads from a connection.
#[derive(Debug)]
pub struct ReadHalf(ReadKind);

#[derive(Debug)]
enum ReadKind {
    Tcp(OwnedReadHalf),
    #[cfg(feature = "test-util")]
    Simulated(super::sim::Reader),
}

/// Writes to a connection. Dropping it closes this direction.
#[derive(Debug)]
pub struct WriteHalf(WriteKind);

#[derive(Debug)]
enum WriteKind {
    Tcp(Arc<Writer>),
    #[cfg(feature = "test-util")]
    Simulated(super::sim::Writer),
}

impl ReadHalf {
    pub(super) fn tcp(half: OwnedReadHalf) -> Self {
        Self(ReadKind::Tcp(half))
    }

    #[cfg(feature = "test-util")]
    pub(super) fn simulated(half: super::sim::Reader) -> Self {
        Self(ReadKind::Simulated(half))
    }

    /// Appends what has arrived to `buf`, up to its spare capacity (8 KiB are made if it has none), waiting for
    /// at least one byte. Returns their number; 0 once the peer has closed its direction.
    ///
    /// # Cancel safety
    /// Safe; no byte is lost.
    pub async fn read_buf(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        if buf.len() == buf.capacity() {
            buf.reserve(READ_RESERVE);
        }
        let n = match &mut self.0 {
            ReadKind::Tcp(half) => half.read_buf(buf).await?,
            #[cfg(feature = "test-util")]
            ReadKind::Simulated(half) => half.read_buf(buf).await?,
        };
        RECEIVED.add(n as u64);
        Ok(n)
    }
}

impl WriteHalf {
    pub(super) fn tcp(half: Arc<Writer>) -> Self {
        Self(WriteKind::Tcp(half))
    }

    #[cfg(feature = "test-util")]
    pub(super) fn simulated(half: super::sim::Writer) -> Self {
        Self(WriteKind::Simulated(half))
    }

    /// Writes all buffers, many with one system call, and takes them out of the queue as they go.
    ///
    /// # Cancel safety
    /// Safe; `bufs` holds what is left to write.
    pub async fn write_all(&mut self, bufs: &mut VecDeque<Bytes>) -> io::Result<()> {
        loop {
            while bufs.front().is_some_and(|buf| !buf.has_remaining()) {
                bufs.pop_front();
            }
            if bufs.is_empty() {
                return Ok(());
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut used = 0;
            for (slice, buf) in slices.iter_mut().zip(&*bufs) {
                *slice = IoSlice::new(buf);
                used += 1;
            }
            let n = self.write_some(&slices[..used]).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            COPIED.add(n as u64);
            advance(bufs, n);
        }
    }

    /// Sends `len` bytes of `file` from `pos`, from page cache to socket where the system can, in chunks between
    /// which other tasks run. Bytes that must come from the medium first are fetched on a thread for blocking
    /// work.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before; then, as after every error, the stream is of no more use.
    ///
    /// # Cancel safety
    /// Not safe: nobody knows how much was sent.
    pub async fn send_file(&mut self, file: &Arc<dyn File>, pos: u64, len: u64) -> io::Result<()> {
        if self.socket().is_some() && file.as_fd().is_some() {
            send_file::zero_copy(self, file, pos, len).await
        } else {
            send_file::copy(self, file, pos, len).await
        }
    }

    pub(super) fn socket(&self) -> Option<&TcpStream> {
        match &self.0 {
            WriteKind::Tcp(half) => Some(half.socket()),
            #[cfg(feature = "test-util")]
            WriteKind::Simulated(_) => None,
        }
    }

    /// Closes this direction; the peer reads the end of the stream.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match &mut self.0 {
            WriteKind::Tcp(half) => poll_fn(|cx| half.poll_shutdown(cx)).await,
            #[cfg(feature = "test-util")]
            WriteKind::Simulated(half) => half.shutdown().await,
        }
    }

    async fn write_some(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.0 {
            WriteKind::Tcp(half) => poll_fn(|cx| half.poll_write(cx, slices)).await,
            #[cfg(feature = "test-util")]
            WriteKind::Simulated(half) => half.write_vectored(slices).await,
        }
    }
}

/// Takes `n` bytes from the front.
fn advance(bufs: &mut VecDeque<Bytes>, mut n: usize) {
    while n > 0 {
        let Some(front) = bufs.front_mut() else { return };
        let step = n.min(front.len());
        front.advance(step);
        n -= step;
        if front.is_empty() {
            bufs.pop_front();
        }
    }
}
