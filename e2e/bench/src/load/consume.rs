//! Consumers: one blocking connection and thread each, partitions dealt out among them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use takhin_protocol::record::{BatchHeader, scan};

use super::{Outcome, Span, Target, histogram};
use crate::wire::{self, FetchLimits, Position};

/// Where consumers begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// At offset 0, and there again whenever the end given per partition is reached.
    Again {
        /// End of each partition, exclusive.
        end: i64,
    },
    /// At offset 0 of an empty topic, following a producer.
    Tail,
}

/// Consumers of one topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Consume {
    /// Connections.
    pub(crate) connections: i32,
    /// Where they begin.
    pub(crate) from: From,
    /// Bytes of a record's value, to count what arrives.
    pub(crate) value_len: usize,
    /// Duration.
    pub(crate) span: Span,
}

impl Consume {
    /// Runs it; every batch's checksum is verified, as Kafka's consumer does.
    pub(crate) fn run(&self, target: &Target) -> Result<Outcome> {
        let stop = AtomicBool::new(false);
        let (records, requests) = (AtomicU64::new(0), AtomicU64::new(0));
        let read = || (records.load(Ordering::Relaxed), requests.load(Ordering::Relaxed));
        thread::scope(|scope| {
            let consumers: Vec<_> = (0..self.connections)
                .map(|mine| {
                    let (stop, records, requests) = (&stop, &records, &requests);
                    scope.spawn(move || self.consume(target, mine, stop, records, requests))
                })
                .collect();
            let window = || -> Result<_> {
                thread::sleep(self.span.warm_up);
                let (first, before, begin) = (read(), target.usage()?, Instant::now());
                thread::sleep(self.span.measured);
                Ok((first, read(), target.usage_since(before)?, begin.elapsed()))
            };
            let window = window();
            // First of all, or a failure would leave them running and this scope waiting.
            stop.store(true, Ordering::Relaxed);
            for consumer in consumers {
                consumer.join().map_err(|_| anyhow!("a consumer panicked"))??;
            }
            let (first, last, broker, elapsed) = window?;
            let records = last.0 - first.0;
            ensure!(records > 0, "nothing was consumed");
            Ok(Outcome {
                requests: last.1 - first.1,
                records,
                bytes: records * self.value_len as u64,
                elapsed,
                latency: histogram()?,
                broker,
                total_records: last.0,
            })
        })
    }

    fn consume(
        &self,
        target: &Target,
        mine: i32,
        stop: &AtomicBool,
        records: &AtomicU64,
        requests: &AtomicU64,
    ) -> Result<()> {
        let mut at: Vec<_> = (0..target.partitions)
            .filter(|partition| partition % self.connections == mine)
            .map(|partition| Position { partition, offset: 0 })
            .collect();
        let mut fetcher = Fetcher::connect(target.addr)?;
        while !stop.load(Ordering::Relaxed) {
            fetcher.fetch(&target.topic, &mut at, |_, header| {
                let count = u64::try_from(header.records_count).unwrap_or(0);
                records.fetch_add(count, Ordering::Relaxed);
            })?;
            requests.fetch_add(1, Ordering::Relaxed);
            if let From::Again { end } = self.from {
                for position in at.iter_mut().filter(|position| position.offset >= end) {
                    position.offset = 0;
                }
            }
            // Kafka rotates too, so that no partition starves when one fills the response.
            at.rotate_left(1);
        }
        Ok(())
    }
}

/// A blocking connection that fetches.
#[derive(Debug)]
pub(crate) struct Fetcher {
    stream: TcpStream,
    buf: Vec<u8>,
    correlation: i32,
}

impl Fetcher {
    /// Connects.
    pub(crate) fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            stream,
            buf: Vec::new(),
            correlation: 0,
        })
    }

    /// Fetches once, calls `each` per batch with its partition, and moves the positions on.
    pub(crate) fn fetch(
        &mut self,
        topic: &str,
        at: &mut [Position],
        mut each: impl FnMut(i32, &BatchHeader),
    ) -> Result<()> {
        self.correlation = self.correlation.wrapping_add(1);
        let request = wire::fetch(topic, at, FetchLimits::default(), self.correlation)?;
        self.stream.write_all(&request)?;
        let mut prefix = [0; 4];
        self.stream
            .read_exact(&mut prefix)
            .context("reading a fetch response")?;
        let len = usize::try_from(i32::from_be_bytes(prefix))?;
        ensure!(len <= 128 << 20, "a fetch response of {len} bytes");
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        self.stream
            .read_exact(&mut self.buf[..len])
            .context("reading a fetch response")?;
        wire::read_fetched(&self.buf[..len], |partition, records| {
            let Some(position) = at.iter_mut().find(|position| position.partition == partition) else {
                bail!("partition {partition} was not asked for");
            };
            position.offset = walk(records, position.offset, |header| each(partition, header))?;
            Ok(())
        })
    }
}

/// Verifies the batches in `records` and returns the offset after the last one. A batch cut off at the end, which
/// brokers may send, counts for nothing.
fn walk(mut records: &[u8], mut next: i64, mut each: impl FnMut(&BatchHeader)) -> Result<i64> {
    while !records.is_empty() {
        match scan::check(records) {
            Ok((header, len)) => {
                ensure!(header.next_offset() > next, "a batch before the offset asked for");
                each(&header);
                next = header.next_offset();
                records = &records[len..];
            }
            Err(scan::Damage::Incomplete { .. }) => break,
            Err(damage) => return Err(damage).context("a fetched batch"),
        }
    }
    Ok(next)
}
