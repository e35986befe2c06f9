//! A TCP proxy that delivers late: `chaos proxy`, run on a broker's host.
//!
//! Every chunk waits for its own time, so that a delay does not limit the rate; order is kept, as TCP does.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use takhin_e2e::rng::Rng;

/// Chunks that may be on their way in each direction; a sender that is faster waits.
const UNDERWAY: usize = 1024;
const CHUNK: usize = 16 << 10;

#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Address to listen on
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Address to connect to
    #[arg(long)]
    pub(crate) to: SocketAddr,
    /// Milliseconds that everything takes, in each direction
    #[arg(long)]
    pub(crate) delay_ms: u64,
    /// Further milliseconds, drawn anew for every chunk, up to this many
    #[arg(long, default_value_t = 0)]
    pub(crate) jitter_ms: u64,
}

/// Serves until the process is killed.
pub(crate) fn serve(settings: &Settings) -> Result<()> {
    let listener = TcpListener::bind(settings.listen)?;
    crate::say("listening");
    let mut rng = Rng::new(u64::from(settings.to.port()));
    for inbound in listener.incoming() {
        let inbound = inbound?;
        // Whoever is not there is refused late: by an end of the connection.
        let Ok(outbound) = TcpStream::connect(settings.to) else {
            continue;
        };
        for (from, to) in [(&inbound, &outbound), (&outbound, &inbound)] {
            from.set_nodelay(true)?;
            let delays = Delays {
                rng: Rng::new(rng.next_u64()),
                delay: Duration::from_millis(settings.delay_ms),
                jitter_us: settings.jitter_ms * 1_000,
            };
            let (sender, receiver) = sync_channel(UNDERWAY);
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            thread::spawn(move || receive(from, &sender, delays));
            thread::spawn(move || deliver(to, &receiver));
        }
    }
    Ok(())
}

struct Delays {
    rng: Rng,
    delay: Duration,
    jitter_us: u64,
}

fn receive(mut from: TcpStream, underway: &SyncSender<(Instant, Vec<u8>)>, mut delays: Delays) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length) = from.read(&mut chunk) {
        let jitter = Duration::from_micros(delays.rng.within(0..delays.jitter_us));
        let due = Instant::now() + delays.delay + jitter;
        // Nothing is what the end of the stream is delivered as.
        if underway.send((due, chunk[..length].to_vec())).is_err() || length == 0 {
            break;
        }
    }
}

fn deliver(mut to: TcpStream, underway: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, chunk)) = underway.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if chunk.is_empty() || to.write_all(&chunk).is_err() {
            break;
        }
    }
    // The other direction may go on only after an orderly end; one that broke ends both.
    let _ = to.shutdown(Shutdown::Write);
}
