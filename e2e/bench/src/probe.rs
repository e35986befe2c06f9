//! What this machine can do at this moment, in a few hundred milliseconds per probe.
//!
//! The identifiers are those of the measured limits in `docs/performance.md`. A scenario is probed before and after;
//! where the two differ by more than a fifth, the neighbours were too loud for its figures to mean anything.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::cold::Pages;

const MIB: usize = 1 << 20;

/// The limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// L-MEM: memcpy of 64 MiB, MB/s.
    pub(crate) memcpy: f64,
    /// L-SYNC: append of 4 KiB and fdatasync, median in µs.
    pub(crate) sync: f64,
    /// L-SYNC: overwrite of 4 KiB in a pre-zeroed file and fdatasync, median in µs.
    pub(crate) sync_zeroed: f64,
    /// L-SYNC: overwrites of 1 MiB in a pre-zeroed file, each with fdatasync, MB/s.
    pub(crate) sync_zeroed_large: f64,
    /// L-SEQ: buffered sequential write into warm pages, with the final fsync, MB/s.
    pub(crate) sequential: f64,
    /// L-RPC: 1 KiB there and 60 bytes back over loopback, median in µs.
    pub(crate) rpc: f64,
    /// L-SEND: page-cached file to socket by pread and write of 64 KiB, MB/s.
    pub(crate) send: f64,
    /// L-COLD: sequential read of a file that is on the disk only, MB/s.
    pub(crate) cold: f64,
}

/// Which limits bear on a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bears {
    /// Memory, network and buffered writes.
    Cached,
    /// Those and fdatasync.
    Flushed,
    /// Memory, network and reads.
    Read,
    /// Memory, network and reads from the disk.
    Cold,
}

impl Limits {
    /// Probes, with files in `dir`.
    pub(crate) fn probe(dir: &Path) -> Result<Self> {
        let path = dir.join("probe");
        let limits = Self {
            memcpy: memcpy(),
            sync: sync_appends(&path)?,
            sync_zeroed: sync_zeroed(&path, 4096, 200)?.0,
            sync_zeroed_large: sync_zeroed(&path, MIB, 64)?.1,
            sequential: sequential(&path)?,
            rpc: rpc()?,
            send: send(&path)?,
            cold: cold(&path)?,
        };
        fs::remove_file(path)?;
        Ok(limits)
    }

    /// Largest change from `self` to `after` in anything that bears on a scenario: 0.2 is a fifth.
    pub(crate) fn drift(&self, after: &Self, bears: Bears) -> f64 {
        let mut both = vec![(self.memcpy, after.memcpy), (self.rpc, after.rpc)];
        match bears {
            Bears::Cached => both.push((self.sequential, after.sequential)),
            Bears::Flushed => both.extend([(self.sequential, after.sequential), (self.sync, after.sync)]),
            Bears::Cold => both.push((self.cold, after.cold)),
            Bears::Read => both.push((self.send, after.send)),
        }
        both.iter()
            .map(|(a, b)| a.max(*b) / a.min(*b).max(1e-9) - 1.0)
            .fold(0.0, f64::max)
    }

    /// For the raw results.
    pub(crate) fn to_json(self) -> Value {
        json!({
            "memcpy_mb_s": self.memcpy, "sync_us": self.sync, "sync_zeroed_us": self.sync_zeroed,
            "sync_zeroed_1mib_mb_s": self.sync_zeroed_large, "sequential_mb_s": self.sequential,
            "rpc_us": self.rpc, "send_mb_s": self.send,
            "cold_mb_s": self.cold,
        })
    }
}

fn mb_s(bytes: usize, elapsed: Duration) -> f64 {
    bytes as f64 / 1e6 / elapsed.as_secs_f64()
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn memcpy() -> f64 {
    let (from, mut to) = (vec![1_u8; 64 * MIB], vec![2_u8; 64 * MIB]);
    let rounds = 8;
    let begin = Instant::now();
    for _ in 0..rounds {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    }
    mb_s(rounds * 64 * MIB, begin.elapsed())
}

fn sync_appends(path: &Path) -> Result<f64> {
    let mut file = File::create(path)?;
    let times = (0..200).map(|_| {
        let begin = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        Ok(begin.elapsed())
    });
    Ok(median_us(times.collect::<Result<_>>()?))
}

/// Median in µs and MB/s of overwriting pieces, each with fdatasync.
fn sync_zeroed(path: &Path, piece: usize, count: usize) -> Result<(f64, f64)> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0; piece * count])?;
    file.sync_all()?;
    let bytes = vec![7; piece];
    let begin = Instant::now();
    let times = (0..count).map(|index| {
        let begin = Instant::now();
        file.write_all_at(&bytes, (index * piece) as u64)?;
        file.sync_data()?;
        Ok(begin.elapsed())
    });
    let times = times.collect::<Result<Vec<_>>>()?;
    let rate = mb_s(piece * count, begin.elapsed());
    Ok((median_us(times), rate))
}

fn sequential(path: &Path) -> Result<f64> {
    let file = File::create(path)?;
    let bytes = vec![7; MIB];
    let write = || -> Result<()> {
        for index in 0..256 {
            file.write_all_at(&bytes, (index * MIB) as u64)?;
        }
        Ok(file.sync_data()?)
    };
    write()?;
    let begin = Instant::now();
    write()?;
    Ok(mb_s(256 * MIB, begin.elapsed()))
}

fn rpc() -> Result<f64> {
    let (mut near, mut far) = pair()?;
    let server = thread::spawn(move || -> Result<()> {
        let mut request = [0; 1024];
        while far.read_exact(&mut request).is_ok() {
            far.write_all(&[0; 60])?;
        }
        Ok(())
    });
    let times = (0..5000).map(|_| {
        let begin = Instant::now();
        near.write_all(&[0; 1024])?;
        near.read_exact(&mut [0; 60])?;
        Ok(begin.elapsed())
    });
    let median = median_us(times.collect::<Result<_>>()?);
    drop(near);
    server
        .join()
        .map_err(|_| anyhow!("the probe's server panicked"))??;
    Ok(median)
}

/// Expects 256 MiB at `path`.
fn send(path: &Path) -> Result<f64> {
    let file = File::open(path)?;
    let total = 256 * MIB;
    let (mut near, mut far) = pair()?;
    let receiver = thread::spawn(move || -> Result<()> {
        let mut buf = vec![0; 256 * 1024];
        while far.read(&mut buf)? > 0 {}
        Ok(())
    });
    let mut buf = vec![0; 64 * 1024];
    let begin = Instant::now();
    for at in (0..total).step_by(buf.len()) {
        file.read_exact_at(&mut buf, at as u64)?;
        near.write_all(&buf)?;
    }
    drop(near);
    receiver
        .join()
        .map_err(|_| anyhow!("the probe's receiver panicked"))??;
    Ok(mb_s(total, begin.elapsed()))
}

/// Expects 256 MiB at `path`.
fn cold(path: &Path) -> Result<f64> {
    let pages = Pages::of(path);
    pages.write()?;
    pages.forget()?;
    let file = File::open(path)?;
    let mut buf = vec![0; MIB];
    let begin = Instant::now();
    for index in 0..256 {
        file.read_exact_at(&mut buf, (index * MIB) as u64)?;
    }
    Ok(mb_s(256 * MIB, begin.elapsed()))
}

fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Writes and deletes a file of `bytes`: where the host takes free memory back, the first touch of a page costs ten
/// times the next, and whoever runs first would pay for both.
pub(crate) fn pre_touch(dir: &Path, bytes: u64) -> Result<()> {
    let path = dir.join("pre-touch");
    let mut file = File::create(&path)?;
    let piece = vec![7; MIB];
    for _ in 0..bytes.div_ceil(MIB as u64) {
        file.write_all(&piece)?;
    }
    fs::remove_file(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_that_of_the_worst_limit_that_bears() {
        let quiet = Limits {
            memcpy: 100.0,
            sync: 100.0,
            sync_zeroed: 100.0,
            sync_zeroed_large: 100.0,
            sequential: 100.0,
            rpc: 100.0,
            send: 100.0,
            cold: 100.0,
        };
        let loud = Limits {
            sync: 300.0,
            rpc: 110.0,
            send: 50.0,
            cold: 62.5,
            ..quiet
        };
        let percent = |bears| (quiet.drift(&loud, bears) * 100.0).round();
        assert_eq!(
            [Bears::Cached, Bears::Flushed, Bears::Read, Bears::Cold].map(percent),
            [10.0, 200.0, 100.0, 60.0]
        );
    }
}
