//! Databases that were written here, by chance and in every codec that RocksDB has, hold what was written.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rocksdb::{ColumnFamilyDescriptor, DB, DBCompressionType, Options};
use takhin_pika::command::DataType;
use takhin_pika::storage::{blackwidow, floyd};
use takhin_pika_dump::{Bounds, Database, Layout, Piece};

type Word = Vec<u8>;
/// Which of two keys comes first.
type Order = fn(&[u8], &[u8]) -> Ordering;
type Outcome = Result<(), rocksdb::Error>;

const CODECS: [DBCompressionType; 7] = [
    DBCompressionType::None,
    DBCompressionType::Snappy,
    DBCompressionType::Zlib,
    DBCompressionType::Bz2,
    DBCompressionType::Lz4,
    DBCompressionType::Lz4hc,
    DBCompressionType::Zstd,
];

/// What is in a dump.
#[derive(Debug, Clone, Default, PartialEq)]
struct Content {
    strings: BTreeMap<Word, Word>,
    hashes: BTreeMap<Word, BTreeMap<Word, Word>>,
    lists: BTreeMap<Word, Vec<Word>>,
}

/// Any bytes, zeros among them, repeated so that there is something to compress.
fn word() -> impl Strategy<Value = Word> {
    let some = vec(prop_oneof![Just(0), any::<u8>()], 0..12);
    (some, 1..20_usize).prop_map(|(word, times)| word.repeat(times))
}

fn content() -> impl Strategy<Value = Content> {
    let key = || vec(prop_oneof![Just(0), Just(b'a'), any::<u8>()], 1..9);
    let hashes = btree_map(key(), btree_map(word(), word(), 1..6), 0..8);
    let lists = btree_map(key(), vec(word(), 1..6), 0..8);
    let all = (btree_map(key(), word(), 0..20), hashes, lists);
    all.prop_map(|(strings, hashes, lists)| Content {
        strings,
        hashes,
        lists,
    })
}

/// A new database with a family more, in this order if it has one of its own.
fn open(
    dir: &Path,
    codec: DBCompressionType,
    families: &[&str],
    order: Option<(&str, Order)>,
) -> Result<DB, rocksdb::Error> {
    let options = || {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_compression_type(codec);
        options
    };
    let of = |name: &&str| {
        let mut options = options();
        if let Some((comparator, compare)) = order.filter(|_| *name == "data_cf" || *name == "list_data_cf") {
            options.set_comparator(comparator, compare);
        }
        ColumnFamilyDescriptor::new(*name, options)
    };
    let default = ColumnFamilyDescriptor::new("default", options());
    let all: Vec<_> = std::iter::once(default).chain(families.iter().map(of)).collect();
    std::fs::create_dir_all(dir).unwrap();
    DB::open_cf_descriptors(&options(), dir, all)
}

/// As 3.0 to 3.5 have it; the version of a collection is 7.
fn write_per_type(dir: &Path, content: &Content, codec: DBCompressionType) -> Outcome {
    let strings = open(&dir.join("strings"), codec, &[], None)?;
    for (key, value) in &content.strings {
        strings.put(key, [&value[..], &[0; 4]].concat())?;
    }
    strings.flush()?;
    let hashes = open(&dir.join("hashes"), codec, &["data_cf"], None)?;
    let data = hashes.cf_handle("data_cf").unwrap();
    for (key, fields) in &content.hashes {
        let count = u32::try_from(fields.len()).unwrap().to_le_bytes();
        hashes.put(key, [&count[..], &[7, 0, 0, 0], &[0; 4]].concat())?;
        for (field, value) in fields {
            hashes.put_cf(
                data,
                [blackwidow::data_prefix(key, 7), field.clone()].concat(),
                value,
            )?;
        }
    }
    hashes.flush_cf(data)?;
    let order = (
        blackwidow::LIST_COMPARATOR,
        blackwidow::compare_list_keys as Order,
    );
    let lists = open(&dir.join("lists"), codec, &["data_cf"], Some(order))?;
    let data = lists.cf_handle("data_cf").unwrap();
    for (key, words) in &content.lists {
        // In the middle of all indexes, as servers begin.
        let left = u64::MAX / 2;
        let (len, right) = (words.len() as u64, left + 1 + words.len() as u64);
        let meta = [&len.to_le_bytes()[..], &[7, 0, 0, 0], &[0; 4]].concat();
        lists.put(
            key,
            [meta, left.to_le_bytes().into(), right.to_le_bytes().into()].concat(),
        )?;
        for (index, word) in (left + 1..).zip(words) {
            let at = [&blackwidow::data_prefix(key, 7)[..], &index.to_le_bytes()].concat();
            lists.put_cf(data, at, word)?;
        }
    }
    lists.flush_cf(data)
}

/// As 4.0 has it.
fn write_merged(dir: &Path, content: &Content, codec: DBCompressionType) -> Outcome {
    let families: Vec<_> = DataType::ALL.into_iter().filter_map(floyd::data_family).collect();
    let order = (floyd::LIST_COMPARATOR, floyd::compare_list_keys as Order);
    let db = open(&dir.join("0"), codec, &families, Some(order))?;
    for (key, value) in &content.strings {
        let stored = [&[0], &value[..], &[0; 32]].concat();
        db.put(floyd::encode_key(key), stored)?;
    }
    let data = db.cf_handle("hash_data_cf").unwrap();
    let hashes = content.hashes.iter();
    for (key, fields) in hashes.filter(|(key, _)| !content.strings.contains_key(*key)) {
        let encoded = floyd::encode_key(key);
        let count = u32::try_from(fields.len()).unwrap().to_le_bytes();
        let meta = [&[1], &count[..], &7_u64.to_le_bytes(), &[0; 32]].concat();
        db.put(&encoded, meta)?;
        let prefix = floyd::data_prefix(&encoded, 7).unwrap();
        for (field, value) in fields {
            let at = [&prefix[..], field, &[0; 16]].concat();
            db.put_cf(data, at, [&value[..], &[0; 24]].concat())?;
        }
    }
    db.flush_cf(data)?;
    db.flush()
}

/// What is read, put together from pieces of two elements.
fn read(dir: &Path, layout: Layout, directories: &[&str]) -> Content {
    let mut content = Content::default();
    let bounds = Bounds {
        elements: 2,
        bytes: 1 << 20,
    };
    let mut put = |piece: Piece| {
        let key = piece.key.to_vec();
        let words: Vec<Word> = piece.args[1..].iter().map(|word| word.to_vec()).collect();
        match piece.op {
            "set" => drop(content.strings.insert(key, words[0].clone())),
            "hmset" => {
                let pairs = words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                content.hashes.entry(key).or_default().extend(pairs);
            }
            "rpush" => content.lists.entry(key).or_default().extend(words),
            other => panic!("{other}"),
        }
        true
    };
    for directory in directories {
        let database = Database::open(dir, directory, layout).unwrap();
        let tally = database.read(1, bounds, &mut put).unwrap();
        assert_eq!((tally.dead, tally.damaged), (0, 0), "{directory}");
    }
    content
}

#[test]
fn what_is_written_is_read_in_every_codec() {
    for codec in CODECS {
        let mut runner = TestRunner::new(Config {
            failure_persistence: None,
            ..Config::with_cases(6)
        });
        let tested = runner.run(&content(), |content| {
            let work = tempfile::tempdir().unwrap();
            let dir = work.path().join("3.5");
            write_per_type(&dir, &content, codec).unwrap();
            let found = read(&dir, Layout::PerType, &["strings", "hashes", "lists"]);
            prop_assert_eq!(&found, &content);
            let dir = work.path().join("4.0");
            write_merged(&dir, &content, codec).unwrap();
            let mut merged = content;
            let Content {
                strings,
                hashes,
                lists,
            } = &mut merged;
            // One key has one type there.
            hashes.retain(|key, _| !strings.contains_key(key));
            lists.clear();
            prop_assert_eq!(&read(&dir, Layout::Merged, &["0"]), &merged);
            Ok(())
        });
        assert!(tested.is_ok(), "{codec:?}: {tested:?}");
    }
}
