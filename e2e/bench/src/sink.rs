//! A broker that stores nothing: the limit of this load generator on this machine.
//!
//! It reads whole Produce requests, checks the CRC of their batch as every broker must, and acknowledges them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use takhin_protocol::record::scan;

use crate::wire;

/// Serves until it is killed.
pub(crate) fn serve(addr: SocketAddr) -> Result<()> {
    let next_offset = Arc::new(AtomicI64::new(0));
    for stream in TcpListener::bind(addr)?.incoming() {
        let (stream, next_offset) = (stream?, Arc::clone(&next_offset));
        // A connection's error is its end; the load generator on the other side reports it.
        thread::spawn(move || connection(stream, &next_offset));
    }
    Ok(())
}

fn connection(mut stream: TcpStream, next_offset: &AtomicI64) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = vec![0; 2 << 20];
    let (mut filled, mut answers) = (0, Vec::new());
    loop {
        let read = stream.read(&mut buf[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut at = 0;
        while let Some(prefix) = buf[at..filled].first_chunk::<4>() {
            let len = usize::try_from(i32::from_be_bytes(*prefix))?;
            ensure!(len + 4 <= buf.len(), "a request of {len} bytes");
            let Some(frame) = buf[at..filled].get(4..4 + len) else {
                break;
            };
            let asked = wire::read_produce(frame)?;
            let (header, _) = scan::check(asked.batch).context("a batch")?;
            let base_offset = next_offset.fetch_add(i64::from(header.records_count), Ordering::Relaxed);
            answers.extend_from_slice(&wire::produced(&asked, base_offset)?);
            at += 4 + len;
        }
        buf.copy_within(at..filled, 0);
        filled -= at;
        stream.write_all(&answers)?;
        answers.clear();
    }
}
