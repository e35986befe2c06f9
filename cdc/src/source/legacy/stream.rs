//! The connection that the master makes, and what comes over it.

use takhin_pika::frame::MAX_FRAME;
use takhin_pika::legacy::{Arrived, Chain, Reader, Step};
use takhin_runtime::{Listener, Stream};
use tracing::{debug, warn};

use super::{Legacy, Received, SENDER, Taker};
use crate::metrics;
use crate::source::error::SourceError;
use crate::source::redis::address;

/// Room for what is read at a time, in bytes.
const READ_ROOM: usize = 256 << 10;

/// Room that is too little.
const LITTLE_ROOM: usize = 16 << 10;

impl Legacy {
    /// Takes the connections of the master one after the other. It connects again where it could not send; what is lost by
    /// that is missed by `chain`.
    pub(super) async fn listen<T: Taker>(
        &self,
        (listener, listening): (&Listener, &str),
        number: i64,
        mut chain: Chain,
        taker: &T,
    ) -> SourceError {
        let after = self.timeout.max(SENDER);
        // Connections that are not the master's do not put it off.
        let mut due = self.env.clock.instant() + after;
        loop {
            let left = due.saturating_duration_since(self.env.clock.instant());
            let stream = match self.env.clock.timeout(left, self.accept(listener)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return error,
                Err(_) => {
                    let listening = listening.to_owned();
                    return SourceError::NotReached { listening, after };
                }
            };
            debug!("the master has connected");
            chain.begin_again();
            match self.receive(stream, number, &mut chain, taker).await {
                Ok(true) => due = self.env.clock.instant() + after,
                Ok(false) => {}
                Err(error) => return error,
            }
            debug!("the master's connection has ended");
        }
    }

    /// The next connection that the master makes.
    async fn accept(&self, listener: &Listener) -> Result<Stream, SourceError> {
        loop {
            let accepted = listener.accept().await;
            let stream = accepted.map_err(|source| SourceError::Connect {
                address: address(&self.host, self.port),
                source,
            })?;
            let from = stream.peer_addr().ip();
            if from == self.peer {
                return Ok(stream);
            }
            warn!(%from, master = %self.peer, "a connection that is not the master's was refused");
        }
    }

    /// Receives until the connection ends. Returns whether it was one of the master that answered with `number`.
    async fn receive<T: Taker>(
        &self,
        stream: Stream,
        number: i64,
        chain: &mut Chain,
        taker: &T,
    ) -> Result<bool, SourceError> {
        // Nothing is ever sent; without this half the master would see an end.
        let (mut reading, _writing) = stream.into_split();
        let mut reader = Reader::default();
        let mut is_known = false;
        loop {
            let mut commands = Vec::new();
            while let Some(arrived) = self.next(&mut reader)? {
                match arrived {
                    Arrived::Auth(of) if of == number => is_known = true,
                    Arrived::Item { item, len, may_go_on } if is_known => {
                        let step = chain.take(item.start, len, may_go_on);
                        let step = step.map_err(|gap| SourceError::Missing {
                            db: Self::DB.to_owned(),
                            expected: gap.expected,
                            found: gap.found,
                        });
                        match step {
                            Ok(Step::New { index, end }) => commands.push(Received { item, index, end }),
                            Ok(Step::Known) => metrics::DUPLICATES.with([Self::DB]).inc(),
                            Err(missing) => {
                                metrics::GAPS.with([Self::DB]).inc();
                                self.hand_on(commands, chain, taker).await?;
                                return Err(missing);
                            }
                        }
                    }
                    // Another slave's, or somebody who says nothing.
                    Arrived::Auth(_) | Arrived::Item { .. } => {
                        warn!("a connection without the number that the master gave was closed");
                        return Ok(false);
                    }
                }
            }
            self.hand_on(commands, chain, taker).await?;
            if reader.buffer.capacity() - reader.buffer.len() < LITTLE_ROOM {
                reader.buffer.reserve(READ_ROOM);
            }
            let read = reading.read_buf(&mut reader.buffer);
            let read = match is_known {
                true => read.await,
                // Masters say at once whose connection it is.
                false => match self.env.clock.timeout(self.timeout, read).await {
                    Ok(read) => read,
                    Err(_) => return Ok(false),
                },
            };
            match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(is_known),
            }
        }
    }

    fn next(&self, reader: &mut Reader) -> Result<Option<Arrived>, SourceError> {
        reader.next(MAX_FRAME).map_err(|source| SourceError::Stream {
            address: address(&self.host, self.port),
            source,
        })
    }

    async fn hand_on<T: Taker>(
        &self,
        commands: Vec<Received>,
        chain: &Chain,
        taker: &T,
    ) -> Result<(), SourceError> {
        if commands.is_empty() {
            return Ok(());
        }
        {
            let mut state = self.state.lock();
            (state.end, state.heard, state.is_waiting) = (chain.end(), self.env.clock.instant(), true);
        }
        let taken = taker.take(commands).await;
        let mut state = self.state.lock();
        (state.heard, state.is_waiting) = (self.env.clock.instant(), false);
        taken
    }
}
