//! Reads the RocksDB databases of a Pika dump, key by key.
//!
//! - [`databases`]: which databases a dump consists of.
//! - [`Database`]: one of them, opened for reading only, log files included.
//! - [`Piece`]: a key's value, or a part of it, as the command that writes it.
//!
//! Memory is bounded whatever the data: a piece has a bounded number of elements and bytes (one element may be larger), and
//! nothing is kept between pieces. Values that had expired, data of earlier lives of a key, and keys that Pika itself has
//! damaged are left out; the latter are counted.
//!
//! This crate alone names RocksDB, which it links as a shared library: see `.cargo/config.toml`. RocksDB opens files by
//! itself, not through `Env`: what it reads is a copy that belongs to this process alone.

#![forbid(unsafe_code)]

mod blackwidow;
mod database;
mod error;
mod floyd;
mod nemo;
mod piece;

pub use database::{Database, Layout, databases};
pub use error::DumpError;
pub use piece::{Bounds, Piece, Tally};
