//! Connections of a captured session, put together from its packets.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use takhin_pika::frame::{self, MAX_FRAME};
use takhin_pika::message::{InnerRequest, InnerResponse, TransferRequest, TransferResponse};

use crate::pcap;

/// One connection.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Port that was connected to.
    pub server_port: u16,
    /// Port that connected.
    pub client_port: u16,
    /// What the client sent.
    pub to_server: Bytes,
    /// What the server sent.
    pub to_client: Bytes,
}

/// What a message was.
#[derive(Debug, Clone)]
pub enum Message {
    /// From the slave.
    Request(InnerRequest),
    /// From the master.
    Response(InnerResponse),
}

/// A direction while it is put together.
#[derive(Debug, Default)]
struct Direction {
    next: Option<u32>,
    bytes: Vec<u8>,
}

/// Client ports begin here, servers' are below.
const EPHEMERAL: u16 = 32_768;

/// The connections of a capture, in the order in which they appear. What was sent before the capture began is not there.
///
/// # Errors
///
/// When the file is no capture, or bytes of a connection are missing.
pub fn connections(capture: &[u8]) -> Result<Vec<Connection>> {
    let mut order = Vec::new();
    let mut directions: BTreeMap<(u16, u16), Direction> = BTreeMap::new();
    for segment in pcap::segments(capture)? {
        let (from, to) = (segment.from, segment.to);
        let (client, server) = (from.max(to), from.min(to));
        if client < EPHEMERAL || server >= EPHEMERAL {
            continue;
        }
        if !order.contains(&(client, server)) {
            order.push((client, server));
        }
        let direction = directions.entry((from, to)).or_default();
        let first = segment.sequence.wrapping_add(u32::from(segment.is_syn));
        direction.next.get_or_insert(first);
        direction.take(segment.sequence, segment.payload)?;
    }
    let mut side = |key| {
        directions
            .remove(&key)
            .map(|direction| Bytes::from(direction.bytes))
            .unwrap_or_default()
    };
    Ok(order
        .into_iter()
        .map(|(client, server)| Connection {
            server_port: server,
            client_port: client,
            to_server: side((client, server)),
            to_client: side((server, client)),
        })
        .collect())
}

impl Direction {
    fn take(&mut self, sequence: u32, payload: &[u8]) -> Result<()> {
        let Some(next) = self.next else { return Ok(()) };
        if payload.is_empty() {
            return Ok(());
        }
        // What was sent again is skipped.
        let known = next.wrapping_sub(sequence);
        ensure!(
            known < u32::MAX / 2,
            "{} bytes are missing",
            sequence.wrapping_sub(next)
        );
        if let Some(new) = payload.get(known as usize..) {
            self.bytes.extend_from_slice(new);
            self.next = Some(next.wrapping_add(u32::try_from(new.len())?));
        }
        Ok(())
    }
}

impl Connection {
    /// What the slave sent on a replication connection.
    ///
    /// # Errors
    ///
    /// When that is no sequence of messages.
    pub fn requests(&self) -> Result<Vec<InnerRequest>> {
        frames(&self.to_server)?
            .into_iter()
            .map(|bytes| Ok(frame::decode(bytes)?))
            .collect()
    }

    /// What the master sent on a replication connection.
    ///
    /// # Errors
    ///
    /// When that is no sequence of messages.
    pub fn responses(&self) -> Result<Vec<InnerResponse>> {
        frames(&self.to_client)?
            .into_iter()
            .map(|bytes| Ok(frame::decode(bytes)?))
            .collect()
    }

    /// Requests and answers of a file transfer.
    ///
    /// # Errors
    ///
    /// When that is no sequence of messages.
    pub fn transfer(&self) -> Result<(Vec<TransferRequest>, Vec<TransferResponse>)> {
        let requests = frames(&self.to_server)?
            .into_iter()
            .map(|bytes| Ok(frame::decode(bytes)?));
        let responses = frames(&self.to_client)?
            .into_iter()
            .map(|bytes| Ok(frame::decode(bytes)?));
        Ok((
            requests.collect::<Result<_>>()?,
            responses.collect::<Result<_>>()?,
        ))
    }
}

/// The frames of a stream; one that is cut at the end of the capture is left out.
///
/// # Errors
///
/// When a length is nonsense.
pub fn frames(stream: &Bytes) -> Result<Vec<Bytes>> {
    let mut buffer = BytesMut::from(&stream[..]);
    let mut frames = Vec::new();
    while let Some(bytes) = frame::next(&mut buffer, MAX_FRAME).context("no frames")? {
        frames.push(bytes);
    }
    Ok(frames)
}
