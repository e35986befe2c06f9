//! Databases of a dump, opened for reading only.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use rocksdb::{DB, DBRawIterator, Options, ReadOptions};
use takhin_pika::command::DataType;
use takhin_pika::storage;

use crate::error::DumpError;
use crate::piece::{Bounds, Emit, Piece, Tally};
use crate::{blackwidow, floyd, nemo};

/// Files that RocksDB keeps open of one database.
const OPEN_FILES: i32 = 256;

/// Bytes that it reads ahead of where it is.
const READ_AHEAD: usize = 1 << 20;

/// How the databases are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Pika 2.3: one database for each type, all in one column family.
    PerTypeFlat,
    /// Pika 3.0 to 3.5: one database for each type.
    PerType,
    /// Pika 4.0: several databases with all types.
    Merged,
}

/// What is in one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Flat(DataType),
    One(DataType),
    All,
}

/// A database.
pub struct Database {
    pub(crate) path: PathBuf,
    content: Content,
    pub(crate) db: DB,
}

/// The databases of a dump, by the files that it consists of (relative paths, as `strings/000012.sst`). Databases of which it
/// has no file are left out.
pub fn databases<'a>(layout: Layout, files: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = files
        .into_iter()
        .filter_map(|file| file.split_once('/'))
        .map(|(directory, _)| directory)
        .filter(|directory| content(layout, directory).is_some())
        .map(str::to_owned)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn content(layout: Layout, directory: &str) -> Option<Content> {
    let named = |directories: &[(&str, DataType)]| {
        let found = directories.iter().find(|(name, _)| *name == directory);
        found.map(|(_, data_type)| *data_type)
    };
    match layout {
        Layout::PerTypeFlat => named(&storage::nemo::DIRECTORIES).map(Content::Flat),
        Layout::PerType => named(&storage::blackwidow::DIRECTORIES).map(Content::One),
        Layout::Merged => directory.parse::<u16>().ok().map(|_| Content::All),
    }
}

impl Database {
    /// Opens the database in this directory of a dump.
    ///
    /// # Errors
    ///
    /// [`DumpError::Open`].
    pub fn open(dump: &Path, directory: &str, layout: Layout) -> Result<Self, DumpError> {
        let path = dump.join(directory);
        let content = content(layout, directory).unwrap_or(Content::All);
        let mut families = vec![("default", options(None))];
        match content {
            Content::Flat(_) => {}
            Content::One(data_type) => {
                let order: Option<Order> = (data_type == DataType::List).then_some((
                    storage::blackwidow::LIST_COMPARATOR,
                    storage::blackwidow::compare_list_keys,
                ));
                let family = storage::blackwidow::data_family(data_type);
                families.extend(family.map(|name| (name, options(order))));
            }
            Content::All => {
                for data_type in DataType::ALL {
                    let order: Option<Order> = (data_type == DataType::List)
                        .then_some((storage::floyd::LIST_COMPARATOR, storage::floyd::compare_list_keys));
                    let family = storage::floyd::data_family(data_type);
                    families.extend(family.map(|name| (name, options(order))));
                }
            }
        }
        let opened = DB::open_cf_with_opts_for_read_only(&options(None), &path, families, false);
        match opened {
            Ok(db) => Ok(Self { path, content, db }),
            Err(source) => Err(DumpError::Open { path, source }),
        }
    }

    /// About how many keys it has, as RocksDB guesses.
    pub fn estimated_keys(&self) -> u64 {
        let guess = self.db.property_int_value("rocksdb.estimate-num-keys");
        guess.ok().flatten().unwrap_or(0)
    }

    /// Emits every key that is there at `now_ms`, until `emit` returns `false`.
    ///
    /// # Errors
    ///
    /// [`DumpError`].
    pub fn read(
        &self,
        now_ms: i64,
        bounds: Bounds,
        mut emit: impl FnMut(Piece) -> bool,
    ) -> Result<Tally, DumpError> {
        let emit: Emit<'_> = &mut emit;
        match self.content {
            Content::Flat(DataType::String) => nemo::strings(self, now_ms, bounds, emit),
            Content::Flat(data_type) => nemo::collections(self, data_type, now_ms, bounds, emit),
            Content::One(DataType::String) => blackwidow::strings(self, now_ms, bounds, emit),
            Content::One(data_type) => blackwidow::collections(self, data_type, now_ms, bounds, emit),
            Content::All => floyd::read(self, now_ms, bounds, emit),
        }
    }

    /// All of a column family in order, from its beginning.
    pub(crate) fn scan(&self, family: Option<&str>) -> Scan<'_> {
        let mut options = ReadOptions::default();
        options.set_readahead_size(READ_AHEAD);
        options.fill_cache(false);
        let mut iterator = match family.and_then(|family| self.db.cf_handle(family)) {
            Some(family) => self.db.raw_iterator_cf_opt(family, options),
            None => self.db.raw_iterator_opt(options),
        };
        iterator.seek_to_first();
        Scan {
            database: self,
            iterator,
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.path.display())
    }
}

/// Key and value.
type Item<'a> = (&'a [u8], &'a [u8]);

/// A position in a column family.
pub(crate) struct Scan<'a> {
    database: &'a Database,
    iterator: DBRawIterator<'a>,
}

impl Scan<'_> {
    /// What is there; `None` at the end.
    pub(crate) fn item(&self) -> Result<Option<Item<'_>>, DumpError> {
        match self.iterator.item() {
            Some(item) => Ok(Some(item)),
            None => self
                .iterator
                .status()
                .map(|()| None)
                .map_err(|source| DumpError::Read {
                    path: self.database.path.clone(),
                    source,
                }),
        }
    }

    /// Goes to the next one.
    pub(crate) fn next(&mut self) {
        self.iterator.next();
    }

    /// Goes to the first one at or after `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) {
        self.iterator.seek(key);
    }
}

/// Name and rule of an order of keys.
type Order = (&'static str, fn(&[u8], &[u8]) -> Ordering);

fn options(order: Option<Order>) -> Options {
    let mut options = Options::default();
    options.set_max_open_files(OPEN_FILES);
    options.set_paranoid_checks(true);
    if let Some((name, compare)) = order {
        options.set_comparator(name, compare);
    }
    options
}
