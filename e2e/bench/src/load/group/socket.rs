//! A connection without blocking that carries one small request at a time, for loops over thousands of them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};

use crate::admin::Admin;

/// Longest answer that makes sense: a leader is told all members of its group.
const MAX_ANSWER: usize = 4 << 20;

/// A connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    out: Bytes,
    input: BytesMut,
}

impl Socket {
    /// Connects and asks for versions, as clients do. The answer also says that the connection was accepted: thousands
    /// that are opened faster than that overflow the broker's queue, and each wait a second for their next try.
    pub(super) fn open(addr: SocketAddr) -> Result<Self> {
        let mut admin = Admin::connect(addr)?;
        admin.versions()?;
        let stream = admin.into_stream();
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            out: Bytes::new(),
            input: BytesMut::new(),
        })
    }

    /// Sends a frame, or as much of it as the socket takes; [`Self::flush`] sends the rest.
    pub(super) fn send(&mut self, frame: Bytes) -> Result<()> {
        ensure!(self.out.is_empty(), "a request before the last one has left");
        self.out = frame;
        self.flush()
    }

    /// Writes what is left of a frame, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(n) => self.out.advance(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).context("writing a request"),
            }
        }
        Ok(())
    }

    /// Reads all that has arrived; `scratch` is room for it. Returns an answer, without its length prefix, if it is
    /// whole.
    pub(super) fn receive(&mut self, scratch: &mut [u8]) -> Result<Option<Bytes>> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(n) => self.input.extend_from_slice(&scratch[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).context("reading an answer"),
            }
        }
        let Some(prefix) = self.input.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = usize::try_from(i32::from_be_bytes(*prefix))?;
        ensure!(len <= MAX_ANSWER, "an answer of {len} bytes");
        if self.input.len() < 4 + len {
            return Ok(None);
        }
        self.input.advance(4);
        let answer = self.input.split_to(len).freeze();
        ensure!(self.input.is_empty(), "an answer to a request that was not sent");
        // Else ten thousand connections would each keep the room of their largest answer.
        self.input = BytesMut::new();
        Ok(Some(answer))
    }
}
