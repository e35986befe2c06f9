//! All connections of a node, so that all of them can be broken at once, from any thread: also from one that is not the
//! runtime's, whose threads may all be waiting for a disk.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::Shutdown;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// Connections that wait to be taken; as many as tokio lets wait.
pub(super) const BACKLOG: u32 = 1024;

/// The connections that are open, one entry each as long as it is, and the listeners.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: Mutex<Open>,
    mended: Notify,
}

#[derive(Debug, Default)]
struct Open {
    severed: bool,
    next: u64,
    writers: BTreeMap<u64, Weak<Writer>>,
    listeners: Vec<Weak<TcpListener>>,
    /// How often it was mended.
    mended: u64,
}

impl Sockets {
    /// Takes a connection in, and apart.
    ///
    /// # Errors
    /// ECONNABORTED while connections are severed: to who listens it is as if the peer had gone.
    pub(super) fn enter(self: &Arc<Self>, stream: TcpStream) -> io::Result<(OwnedReadHalf, Arc<Writer>)> {
        let (read, half) = stream.into_split();
        let mut open = self.open.lock();
        if open.severed {
            return Err(Errno::CONNABORTED.into());
        }
        let number = open.next;
        open.next += 1;
        let writer = Arc::new(Writer {
            half,
            number,
            sockets: Arc::clone(self),
        });
        open.writers.insert(number, Arc::downgrade(&writer));
        Ok((read, writer))
    }

    /// Takes a listener in; returns how often connections were let in anew so far.
    ///
    /// One whose port the system chose is not shut: it would get another one. Who connects to it waits.
    pub(super) fn listen(&self, listener: &Arc<TcpListener>, is_port_chosen: bool) -> u64 {
        let mut open = self.open.lock();
        if !is_port_chosen {
            open.listeners.retain(|listener| listener.strong_count() > 0);
            open.listeners.push(Arc::downgrade(listener));
        }
        open.mended
    }

    /// See [`Net::sever`](super::Net::sever).
    pub(super) fn sever(&self, is_last: impl Fn(SocketAddr) -> bool) -> usize {
        let mut writers: Vec<Arc<Writer>> = {
            let mut open = self.open.lock();
            open.severed = true;
            for listener in open.listeners.iter().filter_map(Weak::upgrade) {
                // Linux closes it for connections, which are refused then, and keeps its address. Who waits in `accept`
                // gets EINVAL.
                let _ = rustix::net::shutdown(&listener, Shutdown::Both);
            }
            open.writers.values().filter_map(Weak::upgrade).collect()
        };
        writers.sort_by_cached_key(|writer| writer.socket().local_addr().is_ok_and(&is_last));
        for writer in &writers {
            // One that is closed already has nothing to be broken.
            let _ = rustix::net::shutdown(writer.socket(), Shutdown::Both);
        }
        writers.len()
    }

    /// See [`Net::mend`](super::Net::mend).
    pub(super) fn mend(&self) -> io::Result<()> {
        let mut open = self.open.lock();
        if open.severed {
            for listener in open.listeners.iter().filter_map(Weak::upgrade) {
                rustix::net::listen(&listener, BACKLOG.cast_signed())?;
            }
            open.severed = false;
            open.mended += 1;
            self.mended.notify_waiters();
        }
        Ok(())
    }

    /// Returns once connections may be taken, with how often that was so anew.
    pub(super) async fn mended(&self) -> u64 {
        loop {
            let mended = self.mended.notified();
            tokio::pin!(mended);
            mended.as_mut().enable();
            {
                let open = self.open.lock();
                if !open.severed {
                    return open.mended;
                }
            }
            mended.await;
        }
    }
}

/// The direction of a connection that is written to. Dropping it closes this direction.
#[derive(Debug)]
pub(super) struct Writer {
    half: OwnedWriteHalf,
    number: u64,
    sockets: Arc<Sockets>,
}

impl Writer {
    pub(super) fn socket(&self) -> &TcpStream {
        self.half.as_ref()
    }

    /// Writes some of the bytes. One task at a time.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket().poll_write_ready(cx))?;
            match self.half.try_write_vectored(slices) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Nothing is held back.
    pub(super) fn poll_flush(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes this direction; the peer reads the end of the stream.
    pub(super) fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(self.socket(), Shutdown::Write).map_err(io::Error::from))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sockets.open.lock().writers.remove(&self.number);
    }
}
