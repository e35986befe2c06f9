//! One pipelined connection without blocking, and the loop over many of them on one thread.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::wire::{self, Outgoing, PRODUCE_TAIL};

/// Room for answers: those to Produce have about 60 bytes.
const INPUT: usize = 64 * 1024;

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// When it was handed to the connection.
    pub(crate) at: Instant,
    /// Which records: the first one's number in the run, and how many.
    pub(crate) first: u64,
    /// Number of records.
    pub(crate) records: usize,
}

impl Sent {
    /// So many records, sent now, whose numbers are of no interest.
    pub(crate) fn now(records: usize) -> Self {
        Self {
            at: Instant::now(),
            first: 0,
            records,
        }
    }
}

/// A connection to a broker that carries Produce requests.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    out: VecDeque<(Outgoing, usize)>,
    input: Vec<u8>,
    filled: usize,
    correlation: i32,
    in_flight: VecDeque<Sent>,
}

impl Conn {
    fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            out: VecDeque::new(),
            input: vec![0; INPUT],
            filled: 0,
            correlation: 0,
            in_flight: VecDeque::new(),
        })
    }

    /// Requests without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Sends a request, or as much of it as the socket takes.
    pub(crate) fn send(&mut self, mut request: Outgoing, sent: Sent) -> Result<()> {
        self.correlation = self.correlation.wrapping_add(1);
        wire::set_correlation(&mut request.head, self.correlation);
        self.out.push_back((request, 0));
        self.in_flight.push_back(sent);
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while let Some((request, written)) = self.out.front_mut() {
            let parts = [&request.head[..], &request.body[..], &PRODUCE_TAIL[..]];
            let total: usize = parts.iter().map(|part| part.len()).sum();
            let mut skip = *written;
            let slices = parts.map(|part| {
                let from = skip.min(part.len());
                skip -= from;
                IoSlice::new(&part[from..])
            });
            match self.stream.write_vectored(&slices) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(n) => *written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e).context("writing a request"),
            }
            if *written == total {
                self.out.pop_front();
            }
        }
        Ok(())
    }

    /// Reads what has arrived and calls `on_ack` for every answer.
    fn receive(&mut self, now: Instant, on_ack: &mut impl FnMut(Sent, i64, Instant)) -> Result<()> {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => bail!("the broker closed the connection"),
            Ok(n) => self.filled += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e).context("reading an answer"),
        }
        let mut at = 0;
        while let Some(prefix) = self.input[at..self.filled].first_chunk::<4>() {
            let len = usize::try_from(i32::from_be_bytes(*prefix))?;
            ensure!(len + 4 <= INPUT, "an answer of {len} bytes to a produce request");
            let Some(frame) = self.input[at..self.filled].get(4..4 + len) else {
                break;
            };
            let acked = wire::read_produced(frame)?;
            ensure!(acked.error == 0, "produce failed with error {}", acked.error);
            let Some(sent) = self.in_flight.pop_front() else {
                bail!("an answer without a request")
            };
            on_ack(sent, acked.base_offset, now);
            at += 4 + len;
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

/// Connections that one thread serves.
#[derive(Debug)]
pub(crate) struct Conns(pub(crate) Vec<Conn>);

impl Conns {
    /// Opens a connection to each of these addresses, in their order.
    pub(crate) fn open(addresses: impl IntoIterator<Item = SocketAddr>) -> Result<Self> {
        let conns = addresses.into_iter().map(Conn::open);
        conns.collect::<Result<_>>().map(Self)
    }

    /// Whether every request was answered.
    pub(crate) fn idle(&self) -> bool {
        self.0.iter().all(|conn| conn.in_flight.is_empty())
    }

    /// Waits for answers until `timeout` and calls `on_ack` with connection, request and base offset of each.
    /// Writes on where sockets have room again.
    pub(crate) fn turn(
        &mut self,
        timeout: Duration,
        mut on_ack: impl FnMut(usize, Sent, i64, Instant),
    ) -> Result<()> {
        let mut fds: Vec<_> = self
            .0
            .iter()
            .map(|conn| PollFd::new(&conn.stream, interest(conn)))
            .collect();
        let timeout = Timespec::try_from(timeout).context("timeout")?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(io::Error::from(e)).context("poll"),
        }
        let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
        let now = Instant::now();
        for (index, (conn, ready)) in self.0.iter_mut().zip(ready).enumerate() {
            if ready.contains(PollFlags::OUT) {
                conn.flush()?;
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                conn.receive(now, &mut |sent, base_offset, at| {
                    on_ack(index, sent, base_offset, at)
                })?;
            }
        }
        Ok(())
    }
}

fn interest(conn: &Conn) -> PollFlags {
    if conn.out.is_empty() {
        PollFlags::IN
    } else {
        PollFlags::IN | PollFlags::OUT
    }
}
