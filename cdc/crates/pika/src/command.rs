//! What the commands of a binlog do, as far as that can be told without the data: type, keys, expiry.

use std::borrow::Cow;

use bytes::Bytes;

use crate::resp::Command;

/// Types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    /// Strings, and what Pika keeps in strings: bitmaps and HyperLogLogs.
    String,
    /// Hashes.
    Hash,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Sorted sets, and geographic positions, which Pika keeps in them.
    Zset,
    /// Streams.
    Stream,
}

impl DataType {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::String,
        Self::Hash,
        Self::List,
        Self::Set,
        Self::Zset,
        Self::Stream,
    ];

    /// Its name in events and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Hash => "hash",
            Self::List => "list",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Stream => "stream",
        }
    }

    /// The type of this name, in any case.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|of| of.name().as_bytes().eq_ignore_ascii_case(name))
    }
}

/// One change, as far as a command tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Name of the command, in lower case.
    pub op: Cow<'static, str>,
    /// Type of the value. `None` where the command acts on whatever has the key, or on no key.
    pub data_type: Option<DataType>,
    /// The key that it changes, of several the first; `None` if it acts on the whole database.
    pub key: Option<Bytes>,
    /// What follows the name of the command.
    pub args: Vec<Bytes>,
    /// When the value is gone, in milliseconds since 1970; `None` if the command does not say.
    pub expire_at_ms: Option<i64>,
    /// Whether the outcome depends on chance: nobody else can find out which member was taken.
    pub is_random: bool,
    /// Whether it touches more keys than `key`.
    pub has_more_keys: bool,
    /// Whether the command is in our table. One that is not is taken to have its key first.
    pub is_known: bool,
}

/// How a command names its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// The first word is the only key.
    One,
    /// Every word is a key, and each could be a command of its own.
    Each,
    /// Keys and values in turns, and each pair could be a `set`.
    Pairs,
    /// The first word is the only key that it changes, and others are read.
    More,
    /// The first two words are keys, and it changes both.
    Two,
    /// Keys and values in turns, all or none of which it changes.
    PairsOrNone,
    /// As `More`, after a word that is none.
    MoreAfterOne,
    /// There is none: the command acts on a whole database.
    None,
}

/// How a command says when the value is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Never,
    /// In the second word: so many seconds after its execution.
    Seconds,
    /// In the second word: so many milliseconds after its execution.
    Millis,
    /// In the second word: the time in seconds; none if it is zero or less.
    Time,
    /// In the second word: the time in seconds, which is over if it is zero or less, so that the key goes.
    Deadline,
    /// As `Deadline`, in milliseconds.
    DeadlineMillis,
    /// Behind `EX` or `PX`.
    Options,
}

type Row = (&'static str, Option<DataType>, Keys, Expiry);

const STRING: Option<DataType> = Some(DataType::String);
const HASH: Option<DataType> = Some(DataType::Hash);
const LIST: Option<DataType> = Some(DataType::List);
const SET: Option<DataType> = Some(DataType::Set);
const ZSET: Option<DataType> = Some(DataType::Zset);
const STREAM: Option<DataType> = Some(DataType::Stream);

/// Every command that a binlog may hold, in order of their names.
const TABLE: &[Row] = &[
    ("append", STRING, Keys::One, Expiry::Never),
    ("bitop", STRING, Keys::MoreAfterOne, Expiry::Never),
    ("blpop", LIST, Keys::One, Expiry::Never),
    ("brpop", LIST, Keys::One, Expiry::Never),
    ("decr", STRING, Keys::One, Expiry::Never),
    ("decrby", STRING, Keys::One, Expiry::Never),
    ("del", None, Keys::Each, Expiry::Never),
    ("delvx", STRING, Keys::One, Expiry::Never),
    ("expire", None, Keys::One, Expiry::Seconds),
    ("expireat", None, Keys::One, Expiry::Deadline),
    ("flushall", None, Keys::None, Expiry::Never),
    ("flushdb", None, Keys::None, Expiry::Never),
    ("geoadd", ZSET, Keys::One, Expiry::Never),
    ("getset", STRING, Keys::One, Expiry::Never),
    ("hdel", HASH, Keys::One, Expiry::Never),
    ("hincrby", HASH, Keys::One, Expiry::Never),
    ("hincrbyfloat", HASH, Keys::One, Expiry::Never),
    ("hmset", HASH, Keys::One, Expiry::Never),
    ("hset", HASH, Keys::One, Expiry::Never),
    ("hsetnx", HASH, Keys::One, Expiry::Never),
    ("incr", STRING, Keys::One, Expiry::Never),
    ("incrby", STRING, Keys::One, Expiry::Never),
    ("incrbyfloat", STRING, Keys::One, Expiry::Never),
    ("linsert", LIST, Keys::One, Expiry::Never),
    ("lpop", LIST, Keys::One, Expiry::Never),
    ("lpush", LIST, Keys::One, Expiry::Never),
    ("lpushx", LIST, Keys::One, Expiry::Never),
    ("lrem", LIST, Keys::One, Expiry::Never),
    ("lset", LIST, Keys::One, Expiry::Never),
    ("ltrim", LIST, Keys::One, Expiry::Never),
    ("mset", STRING, Keys::Pairs, Expiry::Never),
    // Sets all of its keys or none, which the binlog does not tell: it stays whole.
    ("msetnx", STRING, Keys::PairsOrNone, Expiry::Never),
    ("persist", None, Keys::One, Expiry::Never),
    ("pexpire", None, Keys::One, Expiry::Millis),
    ("pexpireat", None, Keys::One, Expiry::DeadlineMillis),
    ("pfadd", STRING, Keys::One, Expiry::Never),
    ("pfmerge", STRING, Keys::More, Expiry::Never),
    ("pkpatternmatchdel", None, Keys::None, Expiry::Never),
    ("pksetexat", STRING, Keys::One, Expiry::Time),
    ("psetex", STRING, Keys::One, Expiry::Millis),
    ("rpop", LIST, Keys::One, Expiry::Never),
    ("rpoplpush", LIST, Keys::Two, Expiry::Never),
    ("rpush", LIST, Keys::One, Expiry::Never),
    ("rpushx", LIST, Keys::One, Expiry::Never),
    ("sadd", SET, Keys::One, Expiry::Never),
    ("sdiffstore", SET, Keys::More, Expiry::Never),
    ("set", STRING, Keys::One, Expiry::Options),
    ("setbit", STRING, Keys::One, Expiry::Never),
    ("setex", STRING, Keys::One, Expiry::Seconds),
    ("setnx", STRING, Keys::One, Expiry::Never),
    ("setrange", STRING, Keys::One, Expiry::Never),
    ("sinterstore", SET, Keys::More, Expiry::Never),
    ("smove", SET, Keys::Two, Expiry::Never),
    ("spop", SET, Keys::One, Expiry::Never),
    ("srem", SET, Keys::One, Expiry::Never),
    ("sunionstore", SET, Keys::More, Expiry::Never),
    ("unlink", None, Keys::Each, Expiry::Never),
    ("xadd", STREAM, Keys::One, Expiry::Never),
    ("xdel", STREAM, Keys::One, Expiry::Never),
    ("xtrim", STREAM, Keys::One, Expiry::Never),
    ("zadd", ZSET, Keys::One, Expiry::Never),
    ("zincrby", ZSET, Keys::One, Expiry::Never),
    ("zinterstore", ZSET, Keys::More, Expiry::Never),
    ("zpopmax", ZSET, Keys::One, Expiry::Never),
    ("zpopmin", ZSET, Keys::One, Expiry::Never),
    ("zrem", ZSET, Keys::One, Expiry::Never),
    ("zremrangebylex", ZSET, Keys::One, Expiry::Never),
    ("zremrangebyrank", ZSET, Keys::One, Expiry::Never),
    ("zremrangebyscore", ZSET, Keys::One, Expiry::Never),
    ("zunionstore", ZSET, Keys::More, Expiry::Never),
];

/// Commands that say nothing about data: filling of files, and what Pika tells its own slaves.
const IGNORED: &[&str] = &[
    "clearcache",
    "clearreplicationid",
    "dummy",
    "exec",
    "multi",
    "padding",
    "slotsmgrt-exec-wrapper",
];

/// Where Pika keeps notes of its own among the keys of its users (slot migration).
const INTERNAL_KEYS: [&[u8]; 2] = [b"_internal:slotkey:4migrate:", b"_internal:slottag:4migrate:"];

/// A time from here on is in milliseconds, whatever unit it was meant to have: in seconds it would be the year 5138.
const FIRST_MILLIS: i64 = 100_000_000_000;

/// Bytes of the longest name of a command that is known.
const LONGEST_NAME: usize = 32;

/// The row of a command's name, in any case.
fn row_of(name: &[u8]) -> Option<&'static Row> {
    let mut lower = [0; LONGEST_NAME];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let at = TABLE.binary_search_by_key(&&*lower, |row| row.0.as_bytes());
    at.ok().map(|at| &TABLE[at])
}

/// The changes that a command makes; none if it says nothing about data. `exec_time` is in seconds since 1970.
pub fn changes(command: &Command, exec_time: u32) -> Vec<Change> {
    let mut changes = Vec::new();
    each_change(command.clone(), exec_time, |change| changes.push(change));
    changes
}

/// Calls `each` with the changes that a command makes, in order.
pub fn each_change(mut command: Command, exec_time: u32, mut each: impl FnMut(Change)) {
    if command.is_empty() {
        return;
    }
    let name = command.remove(0);
    let args = command;
    if args.first().is_some_and(|key| is_internal(key)) {
        return;
    }
    let row = row_of(&name);
    let name = match row {
        Some(row) => Cow::Borrowed(row.0),
        None => Cow::Owned(String::from_utf8_lossy(&name).to_ascii_lowercase()),
    };
    if row.is_none() && IGNORED.contains(&&*name) {
        return;
    }
    let (_, data_type, keys, expiry) = row.copied().unwrap_or(("", None, Keys::One, Expiry::Never));
    let change = |op: Cow<'static, str>, key: Option<Bytes>, args: Vec<Bytes>| Change {
        data_type,
        key,
        expire_at_ms: expire_at(expiry, &args, exec_time),
        is_random: op == "spop",
        has_more_keys: false,
        is_known: row.is_some(),
        op,
        args,
    };
    let (first, second) = (args.first().cloned(), args.get(1).cloned());
    match keys {
        Keys::Each if args.is_empty() => each(change(name, None, args)),
        Keys::Each => {
            for key in args {
                each(change(name.clone(), Some(key.clone()), vec![key]));
            }
        }
        Keys::Pairs if !args.is_empty() && args.len().is_multiple_of(2) => {
            for pair in args.chunks(2) {
                each(change("set".into(), pair.first().cloned(), pair.to_vec()));
            }
        }
        Keys::One | Keys::Pairs => each(change(name, first, args)),
        Keys::More | Keys::Two | Keys::PairsOrNone => each(Change {
            has_more_keys: true,
            ..change(name, first, args)
        }),
        Keys::MoreAfterOne => each(Change {
            has_more_keys: true,
            ..change(name, second, args)
        }),
        Keys::None => {
            // A type after `flushdb` bounds what goes.
            let data_type = first.and_then(|word| DataType::of_name(&word));
            each(Change {
                data_type,
                ..change(name, None, args)
            });
        }
    }
}

/// The keys behind the first one that a command changes, in lower case and not split, as a [`Change`] has it. Those that it only reads
/// are not among them.
pub fn other_keys<'a>(op: &str, args: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> {
    let (step, count) = match row_of(op.as_bytes()).map(|row| row.2) {
        Some(Keys::Two) => (1, 1),
        Some(Keys::PairsOrNone) => (2, usize::MAX),
        _ => (1, 0),
    };
    args.iter().skip(step).step_by(step).take(count)
}

/// Whether a key is one of Pika's own notes.
pub fn is_internal(key: &[u8]) -> bool {
    INTERNAL_KEYS.iter().any(|prefix| key.starts_with(prefix))
}

/// A time that should be in seconds but may be in milliseconds, in milliseconds; `None` for none (zero or less).
pub fn to_millis(time: i64) -> Option<i64> {
    match time {
        ..=0 => None,
        FIRST_MILLIS.. => Some(time),
        seconds => Some(seconds * 1000),
    }
}

fn expire_at(expiry: Expiry, args: &[Bytes], exec_time: u32) -> Option<i64> {
    let number = |word: Option<&Bytes>| std::str::from_utf8(word?).ok()?.parse::<i64>().ok();
    let after = |millis: Option<i64>| (i64::from(exec_time) * 1000).checked_add(millis?);
    let seconds = |word| number(word).and_then(|seconds| seconds.checked_mul(1000));
    match expiry {
        Expiry::Never => None,
        Expiry::Seconds => after(seconds(args.get(1))),
        Expiry::Millis => after(number(args.get(1))),
        Expiry::Time => to_millis(number(args.get(1))?),
        Expiry::Deadline => number(args.get(1)).map(|time| to_millis(time).unwrap_or(0)),
        // Pika takes it as it is: seconds by mistake are long over.
        Expiry::DeadlineMillis => number(args.get(1)).map(|time| time.max(0)),
        Expiry::Options => {
            let at = |name: &[u8]| {
                args.iter()
                    .skip(2)
                    .position(|word| word.eq_ignore_ascii_case(name))
            };
            let value = |name| at(name).and_then(|at| args.get(at + 3));
            after(seconds(value(b"ex")).or_else(|| number(value(b"px"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Command {
        text.split(' ')
            .map(|word| Bytes::copy_from_slice(word.as_bytes()))
            .collect()
    }

    /// Op, key and expiry of what a command changes at second 1000.
    fn told(text: &str) -> Vec<(String, Option<String>, Option<i64>)> {
        changes(&command(text), 1000)
            .into_iter()
            .map(|change| {
                let key = change.key.map(|key| String::from_utf8(key.to_vec()).unwrap());
                (change.op.into_owned(), key, change.expire_at_ms)
            })
            .collect()
    }

    fn one(op: &str, key: &str, expire_at: Option<i64>) -> (String, Option<String>, Option<i64>) {
        (op.to_owned(), Some(key.to_owned()), expire_at)
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(TABLE.windows(2).all(|rows| rows[0].0 < rows[1].0));
        assert!(TABLE.iter().all(|row| row.0.len() <= LONGEST_NAME));
        assert!(TABLE.iter().all(|row| !IGNORED.contains(&row.0)));
    }

    #[test]
    fn expiry_is_absolute_whatever_the_command_says() {
        assert_eq!(told("SETEX k 5 v"), [one("setex", "k", Some(1_005_000))]);
        assert_eq!(told("set k v nx PX 1500"), [one("set", "k", Some(1_001_500))]);
        assert_eq!(told("set k ex 5"), [one("set", "k", None)]);
        assert_eq!(told("expire k 5"), [one("expire", "k", Some(1_005_000))]);
        assert_eq!(told("pexpire k 5"), [one("pexpire", "k", Some(1_000_005))]);
        assert_eq!(
            told("expireat k 1700000000"),
            [one("expireat", "k", Some(1_700_000_000_000))]
        );
        assert_eq!(
            told("pksetexat k 1700000000 v"),
            [one("pksetexat", "k", Some(1_700_000_000_000))]
        );
        // Pika 4.0.1 writes PSETEX in milliseconds.
        assert_eq!(
            told("pksetexat k 1700000000123 v"),
            [one("pksetexat", "k", Some(1_700_000_000_123))]
        );
        assert_eq!(told("pksetexat k 0 v"), [one("pksetexat", "k", None)]);
        assert_eq!(told("setex k 9223372036854775807 v"), [one("setex", "k", None)]);
    }

    /// A time that is over deletes the key. "No expiry" would have it stay.
    #[test]
    fn a_deadline_in_the_past_is_one() {
        let at = |text: &str| told(text).remove(0).2;
        for (text, expected) in [
            ("expireat k 0", Some(0)),
            ("expireat k -1", Some(0)),
            ("expireat k 1", Some(1000)),
            ("expireat k 1700000000123", Some(1_700_000_000_123)),
            ("expireat k soon", None),
            ("pexpireat k 0", Some(0)),
            ("pexpireat k -1", Some(0)),
            ("pexpireat k 1893456000", Some(1_893_456_000)),
            ("pexpireat k 1700000000123", Some(1_700_000_000_123)),
            ("expire k -1", Some(999_000)),
            ("persist k", None),
        ] {
            assert_eq!(at(text), expected, "{text}");
        }
    }

    #[test]
    fn what_can_be_split_by_key_is() {
        assert_eq!(
            told("mset a 1 b 2"),
            [one("set", "a", None), one("set", "b", None)]
        );
        assert_eq!(told("DEL a b"), [one("del", "a", None), one("del", "b", None)]);
        assert_eq!(told("bitop and d a b"), [one("bitop", "d", None)]);
        assert!(changes(&command("smove a b m"), 0)[0].has_more_keys);
        assert_eq!(told("flushdb"), [("flushdb".to_owned(), None, None)]);
        assert_eq!(
            changes(&command("flushdb SET"), 0)[0].data_type,
            Some(DataType::Set)
        );
        assert_eq!(told("padding ***"), []);
        assert_eq!(told("sadd _internal:slotkey:4migrate:7 k"), []);
        let unknown = &changes(&command("NewThing k v"), 0)[0];
        assert_eq!(
            (&*unknown.op, unknown.is_known, unknown.key.as_deref()),
            ("newthing", false, Some(&b"k"[..]))
        );
    }
}
