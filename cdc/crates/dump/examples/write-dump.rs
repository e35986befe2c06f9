//! Writes a dump as a master of Pika 3.5 makes it, of many small strings: `write-dump DIR KEYS`. For `make bench-cdc`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a program for the bench: there is nothing to simulate"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rocksdb::{DB, FlushOptions, Options, WriteBatch, WriteOptions};

/// Keys that are written together.
const TOGETHER: u64 = 10_000;

/// A value, and the end of a value that never expires.
const VALUE: &[u8] = b"a value of thirty-two bytes ....";
const NO_EXPIRY: [u8; 4] = [0; 4];

/// Of a master whose binlog has nothing: how long it took, its address, where the changes go on.
const INFO: &str = "1s\n127.0.0.1\n9221\n0\n0\n";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (dir, keys) = (words.next(), words.next().and_then(|keys| keys.parse().ok()));
    let (Some(dir), Some(keys)) = (dir, keys) else {
        eprintln!("usage: write-dump DIR KEYS");
        return ExitCode::from(2);
    };
    match write(&PathBuf::from(dir), keys) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &Path, keys: u64) -> Result<(), Box<dyn std::error::Error>> {
    let strings = dir.join("strings");
    std::fs::create_dir_all(&strings)?;
    std::fs::write(dir.join("info"), INFO)?;
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, &strings)?;
    let mut unlogged = WriteOptions::default();
    unlogged.disable_wal(true);
    for from in (0..keys).step_by(usize::try_from(TOGETHER)?) {
        let mut batch = WriteBatch::default();
        for number in from..(from + TOGETHER).min(keys) {
            batch.put(format!("key:{number:012}"), [VALUE, &NO_EXPIRY].concat());
        }
        db.write_opt(batch, &unlogged)?;
    }
    let mut flush = FlushOptions::default();
    flush.set_wait(true);
    Ok(db.flush_opt(&flush)?)
}
