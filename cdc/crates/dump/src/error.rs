//! What can go wrong with a dump.

use std::path::PathBuf;

use takhin_pika::storage::Damage;

/// Why a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// RocksDB does not open it.
    #[error("cannot open the database {}: {source}", path.display())]
    Open {
        /// Its directory.
        path: PathBuf,
        /// RocksDB's words.
        source: rocksdb::Error,
    },
    /// RocksDB does not read on.
    #[error("cannot read the database {}: {source}", path.display())]
    Read {
        /// Its directory.
        path: PathBuf,
        /// RocksDB's words.
        source: rocksdb::Error,
    },
    /// A key or value makes no sense.
    #[error("the database {} is damaged: {source}", path.display())]
    Damaged {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        source: Damage,
    },
}
