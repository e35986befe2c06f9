//! Measures what a flush round costs by number of dirty files and way of syncing.
//!
//! `cargo run -p takhin-storage --example flush_rounds -- DIR` with a directory on the disk in question. The
//! figures in `docs/adr/0003-flush-rounds.md` are from here.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for a developer's terminal"
)]

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use takhin_runtime::clock::Clock;
use takhin_runtime::disk::{Disk, File, OpenMode};
use takhin_runtime::{RealDisk, thread};

const ROUNDS: usize = 60;

fn main() {
    let dir: PathBuf = std::env::args().nth(1).expect("usage: flush_rounds DIR").into();
    let dir = dir.join("flush-rounds");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    foreign(&disk, &dir);
    println!("| dirty files | bytes each | fdatasync, 1 thread | 4 threads | 8 threads | syncfs |");
    println!("|---|---|---|---|---|---|");
    for bytes in [1 << 10, 64 << 10] {
        for files in [1, 2, 4, 8, 16, 32, 100, 300] {
            disk.create_dir_all(&dir).unwrap();
            let row: Vec<String> = [Some(1), Some(4), Some(8), None]
                .into_iter()
                .map(|threads| {
                    let (p50, p99) = measure(&disk, &dir, files, bytes, threads);
                    format!("{:.2} / {:.2}", ms(p50), ms(p99))
                })
                .collect();
            println!("| {files} | {bytes} | {} |", row.join(" | "));
            disk.remove_dir_all(&dir).unwrap();
        }
    }
}

/// The same round of 8 files while somebody else has written 64 MiB that nobody asked to be durable.
fn foreign(disk: &Arc<dyn Disk>, dir: &std::path::Path) {
    disk.create_dir_all(dir).unwrap();
    let open = |name: String| disk.open(&dir.join(name), OpenMode::CreateOrWrite).unwrap();
    let files: Vec<Arc<dyn File>> = (0..8).map(|i| open(format!("{i}.log"))).collect();
    let other = open("other".into());
    let clock = Clock::real();
    let bulk = vec![3; 64 << 20];
    for threads in [Some(4), None] {
        let mut times: Vec<Duration> = (0..15_u64)
            .map(|round| {
                other.set_len(0).unwrap();
                other.write_at(&mut [IoSlice::new(&bulk)], 0).unwrap();
                for file in &files {
                    file.write_at(&mut [IoSlice::new(&[7; 1024])], round * 1024)
                        .unwrap();
                }
                let begun = clock.instant();
                match threads {
                    Some(threads) => thread::parallel(threads, &files, |f| f.sync_data().unwrap()).clear(),
                    None => disk.sync_fs(dir).unwrap(),
                }
                clock.instant().duration_since(begun)
            })
            .collect();
        times.sort_unstable();
        println!(
            "8 files beside 64 MiB of other dirty data, {threads:?} threads: median {:.2} ms",
            ms(times[7])
        );
    }
    disk.remove_dir_all(dir).unwrap();
}

/// Median and 99th percentile of rounds that append `bytes` to each of `files` files and make them durable.
fn measure(
    disk: &Arc<dyn Disk>,
    dir: &std::path::Path,
    files: usize,
    bytes: usize,
    threads: Option<usize>,
) -> (Duration, Duration) {
    let open = |i| {
        disk.open(&dir.join(format!("{i}.log")), OpenMode::CreateOrWrite)
            .unwrap()
    };
    let files: Vec<Arc<dyn File>> = (0..files).map(open).collect();
    let clock = Clock::real();
    let payload = vec![7; bytes];
    let mut pos = 0;
    disk.sync_fs(dir).unwrap();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            for file in &files {
                file.write_at(&mut [IoSlice::new(&payload)], pos).unwrap();
            }
            pos += bytes as u64;
            let begun = clock.instant();
            match threads {
                Some(threads) => thread::parallel(threads, &files, |f| f.sync_data().unwrap()).clear(),
                None => disk.sync_fs(dir).unwrap(),
            }
            clock.instant().duration_since(begun)
        })
        .collect();
    times.sort_unstable();
    (times[ROUNDS / 2], times[ROUNDS * 99 / 100])
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
