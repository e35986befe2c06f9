//! File ranges to a connection.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::half::WriteHalf;
use crate::disk::File;
use crate::telemetry::metrics::{self, Counter};

/// Most bytes sent before other tasks get their turn.
const CHUNK: usize = 256 * 1024;

/// Buffer for bytes that pass through this process.
const COPY_BUFFER: usize = 64 * 1024;

static SENT: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "takhin_runtime_net_sent_file_bytes_total",
        "Bytes sent to connections straight from files (sendfile)",
    )
});

static COLD: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "takhin_runtime_net_cold_read_bytes_total",
        "Bytes that had to be fetched from the medium before they could be sent",
    )
});

/// Sends a range: with `sendfile(2)` what is in the page cache, through a buffer what is not. A cold range must be
/// read on another thread anyway, and once it is in a buffer a second pass through `sendfile(2)` only costs more. While
/// one cold chunk is sent the next one is read, so that the medium does not wait for the network.
pub(super) async fn zero_copy(
    half: &mut WriteHalf,
    file: &Arc<dyn File>,
    pos: u64,
    len: u64,
) -> io::Result<()> {
    let end = pos.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
    let mut at = pos;
    while at < end {
        let chunk = chunk_len(end - at, CHUNK);
        let chunk_end = at + chunk as u64;
        match half.socket() {
            Some(socket) if file.is_cached(at, chunk) => {
                while at < chunk_end {
                    at += send_some(socket, file, at, chunk_len(chunk_end - at, CHUNK)).await?;
                }
            }
            _ => at = send_cold(half, file, at, end).await?,
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Sends from `at` on what is not in the page cache, up to `end` or the first chunk that is. Returns where it stopped.
async fn send_cold(half: &mut WriteHalf, file: &Arc<dyn File>, mut at: u64, end: u64) -> io::Result<u64> {
    let mut bytes = fetch(file, at, chunk_len(end - at, CHUNK)).await?;
    loop {
        at += bytes.len() as u64;
        let next = chunk_len(end - at, CHUNK);
        if next == 0 || file.is_cached(at, next) {
            half.write_all(&mut VecDeque::from([bytes])).await?;
            return Ok(at);
        }
        let mut sending = VecDeque::from([bytes]);
        let (sent, fetched) = tokio::join!(half.write_all(&mut sending), fetch(file, at, next));
        sent?;
        bytes = fetched?;
    }
}

/// Waits until the socket takes bytes, then sends up to `len`; at least one.
async fn send_some(socket: &TcpStream, file: &Arc<dyn File>, pos: u64, len: usize) -> io::Result<u64> {
    let fd = file.as_fd().ok_or(io::ErrorKind::Unsupported)?;
    loop {
        let mut offset = pos;
        let sent = socket
            .async_io(Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(socket, fd, Some(&mut offset), len)?)
            })
            .await;
        match sent {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                SENT.add(n as u64);
                return Ok(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Reads a chunk on a thread that may wait for the medium.
async fn fetch(file: &Arc<dyn File>, pos: u64, len: usize) -> io::Result<Bytes> {
    let file = Arc::clone(file);
    let read = move || {
        let mut buf = vec![0; len];
        file.read_exact_at(&mut buf, pos).map(|()| Bytes::from(buf))
    };
    let bytes = tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)??;
    COLD.add(bytes.len() as u64);
    Ok(bytes)
}

/// Sends a range through a buffer: for simulated files and connections.
pub(super) async fn copy(half: &mut WriteHalf, file: &Arc<dyn File>, pos: u64, len: u64) -> io::Result<()> {
    let end = pos.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
    let mut at = pos;
    let mut queue = VecDeque::new();
    while at < end {
        let mut buf = vec![0; chunk_len(end - at, COPY_BUFFER)];
        match file.read_at(&mut buf, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                buf.truncate(n);
                at += n as u64;
            }
        }
        queue.push_back(Bytes::from(buf));
        half.write_all(&mut queue).await?;
    }
    Ok(())
}

fn chunk_len(left: u64, most: usize) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}
