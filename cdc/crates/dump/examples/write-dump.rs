//! Writes a dump as a master of Pika makes it, of many small strings: `write-dump DIR KEYS VERSION`. For `make bench-cdc`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a program for the bench: there is nothing to simulate"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rocksdb::{DB, FlushOptions, Options, WriteBatch, WriteOptions};
use takhin_pika::command::DataType;
use takhin_pika::storage::{blackwidow, floyd, nemo};

/// Keys that are written together.
const TOGETHER: u64 = 10_000;

/// A value.
const VALUE: &[u8] = b"a value of thirty-two bytes ....";

/// Databases of 4.0, as it has by default.
const INSTANCES: u64 = 3;

/// Of a master whose binlog has nothing: how long it took, its address, where the changes go on.
const INFO: &str = "1s\n127.0.0.1\n9221\n0\n0\n";

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (dir, keys) = (words.next(), words.next().and_then(|keys| keys.parse().ok()));
    let (Some(dir), Some(keys), Some(version)) = (dir, keys, words.next()) else {
        eprintln!("usage: write-dump DIR KEYS VERSION");
        return ExitCode::from(2);
    };
    match write(&PathBuf::from(dir), keys, &version) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &Path, keys: u64, version: &str) -> Outcome {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("info"), INFO)?;
    match version.split('.').next() {
        // Version and time of expiry, 32 bits each.
        Some("2") => per_type(dir, &nemo::DIRECTORIES, keys, &[0; 8]),
        Some("3") => per_type(dir, &blackwidow::DIRECTORIES[..5], keys, &[0; 4]),
        _ => merged(dir, keys),
    }
}

/// A database for each type, of which only strings have keys; `end` is what is behind each value.
fn per_type(dir: &Path, directories: &[(&str, DataType)], keys: u64, end: &[u8]) -> Outcome {
    for (name, data_type) in directories {
        let of_type = if *data_type == DataType::String { keys } else { 0 };
        let families = blackwidow::data_family(*data_type).filter(|_| end.len() == 4);
        let db = open(&dir.join(name), families.as_slice())?;
        fill(&db, 0..of_type, 1, |number| {
            (key(number).into_bytes(), [VALUE, end].concat())
        })?;
    }
    Ok(())
}

/// Databases with all types; what a key is encoded in, and what is behind a value, is in `takhin_pika::storage::floyd`.
fn merged(dir: &Path, keys: u64) -> Outcome {
    let families: Vec<_> = DataType::ALL.into_iter().filter_map(floyd::data_family).collect();
    for instance in 0..INSTANCES {
        let db = open(&dir.join(instance.to_string()), &families)?;
        let step = usize::try_from(INSTANCES)?;
        fill(&db, instance..keys, step, |number| {
            let encoded = floyd::encode_key(key(number).as_bytes());
            // Its type; then 16 bytes that nobody uses, when it was written, and when it is gone.
            (encoded, [&[0], VALUE, &[0; 32]].concat())
        })?;
    }
    Ok(())
}

fn key(number: u64) -> String {
    format!("key:{number:012}")
}

/// A new database, with these column families.
fn open(dir: &Path, families: &[&str]) -> Result<DB, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(dir)?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let named = families.iter().map(|name| {
        let mut options = Options::default();
        match *name {
            "list_data_cf" => options.set_comparator(floyd::LIST_COMPARATOR, floyd::compare_list_keys),
            _ if dir.ends_with("lists") => {
                options.set_comparator(blackwidow::LIST_COMPARATOR, blackwidow::compare_list_keys);
            }
            _ => {}
        }
        (*name, options)
    });
    let all = std::iter::once(("default", Options::default())).chain(named);
    Ok(DB::open_cf_with_opts(&options, dir, all)?)
}

fn fill(
    db: &DB,
    numbers: std::ops::Range<u64>,
    step: usize,
    entry: impl Fn(u64) -> (Vec<u8>, Vec<u8>),
) -> Outcome {
    let mut unlogged = WriteOptions::default();
    unlogged.disable_wal(true);
    let numbers: Vec<u64> = numbers.step_by(step).collect();
    for together in numbers.chunks(usize::try_from(TOGETHER)?) {
        let mut batch = WriteBatch::default();
        for number in together {
            let (key, value) = entry(*number);
            batch.put(key, value);
        }
        db.write_opt(batch, &unlogged)?;
    }
    let mut flush = FlushOptions::default();
    flush.set_wait(true);
    Ok(db.flush_opt(&flush)?)
}
