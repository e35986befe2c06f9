//! Keys as commands, in pieces of bounded size.

use bytes::Bytes;
use takhin_pika::command::DataType;

/// How large a piece may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Elements: fields, members, list elements.
    pub elements: usize,
    /// Bytes of them, unless a single one has more.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            elements: 512,
            bytes: 512 << 10,
        }
    }
}

/// A value or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Type of the value.
    pub data_type: DataType,
    /// The key.
    pub key: Bytes,
    /// Name of the command that writes this piece.
    pub op: &'static str,
    /// What follows its name, the key first.
    pub args: Vec<Bytes>,
    /// When the value is gone, in milliseconds since 1970.
    pub expire_at_ms: Option<i64>,
    /// 0 for the first piece of the key in this type.
    pub index: u32,
    /// Whether it is the last one.
    pub is_last: bool,
}

impl Piece {
    /// Bytes of its words.
    pub fn len(&self) -> usize {
        self.args.iter().map(Bytes::len).sum()
    }

    /// Whether it has no words, which it always has.
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }
}

/// What was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Keys that were emitted; a key of several types counts once for each.
    pub keys: u64,
    /// Keys that had expired, or were empty.
    pub dead: u64,
    /// Keys that Pika has cut (see [`Damage::CutKey`](takhin_pika::storage::Damage::CutKey)).
    pub damaged: u64,
}

impl Tally {
    /// One more key; one that has nothing does not exist.
    pub(crate) fn count(&mut self, has_any: bool) {
        match has_any {
            true => self.keys += 1,
            false => self.dead += 1,
        }
    }
}

/// Takes pieces; `false` if no more are wanted.
pub(crate) type Emit<'a> = &'a mut dyn FnMut(Piece) -> bool;

/// Puts elements of one key together to pieces.
pub(crate) struct Pieces<'a> {
    bounds: Bounds,
    emit: Emit<'a>,
    data_type: DataType,
    op: &'static str,
    key: Bytes,
    expire_at_ms: Option<i64>,
    args: Vec<Bytes>,
    elements: usize,
    bytes: usize,
    index: u32,
    /// A piece that is whole, until it is known whether it is the last one.
    held: Option<Piece>,
    is_wanted: bool,
}

impl<'a> Pieces<'a> {
    pub(crate) fn of(
        data_type: DataType,
        key: &[u8],
        expire_at_ms: Option<i64>,
        bounds: Bounds,
        emit: Emit<'a>,
    ) -> Self {
        let op = match data_type {
            DataType::String => "set",
            DataType::Hash => "hmset",
            DataType::List => "rpush",
            DataType::Set => "sadd",
            DataType::Zset => "zadd",
            DataType::Stream => "xadd",
        };
        Self {
            bounds,
            emit,
            data_type,
            op,
            key: Bytes::copy_from_slice(key),
            expire_at_ms,
            args: Vec::new(),
            elements: 0,
            bytes: 0,
            index: 0,
            held: None,
            is_wanted: true,
        }
    }

    /// Adds an element; `false` if no more are wanted.
    pub(crate) fn push(&mut self, words: &[&[u8]]) -> bool {
        let bytes: usize = words.iter().map(|word| word.len()).sum();
        let is_full = self.elements >= self.bounds.elements || self.bytes + bytes > self.bounds.bytes;
        // Every entry of a stream is a command of its own.
        if self.elements > 0 && (is_full || self.data_type == DataType::Stream) {
            self.close();
        }
        self.args
            .extend(words.iter().map(|word| Bytes::copy_from_slice(word)));
        self.elements += 1;
        self.bytes += bytes;
        self.is_wanted
    }

    fn close(&mut self) {
        let mut args = vec![self.key.clone()];
        args.append(&mut self.args);
        self.hold(self.op, args);
        (self.elements, self.bytes) = (0, 0);
    }

    fn hold(&mut self, op: &'static str, args: Vec<Bytes>) {
        let piece = Piece {
            data_type: self.data_type,
            key: self.key.clone(),
            op,
            args,
            expire_at_ms: self.expire_at_ms,
            index: self.index,
            is_last: false,
        };
        self.index = self.index.saturating_add(1);
        if let Some(before) = self.held.replace(piece) {
            self.is_wanted = self.is_wanted && (self.emit)(before);
        }
    }

    /// The end of the key, with its expiry if it has one. Returns whether it had any element, and whether more pieces are
    /// wanted.
    pub(crate) fn finish(mut self) -> (bool, bool) {
        if self.elements > 0 {
            self.close();
        }
        if self.held.is_none() {
            return (false, self.is_wanted);
        }
        if let Some(at) = self.expire_at_ms {
            let args = vec![self.key.clone(), Bytes::from(at.to_string())];
            self.hold("pexpireat", args);
        }
        if let Some(mut last) = self.held.take() {
            last.is_last = true;
            self.is_wanted = self.is_wanted && (self.emit)(last);
        }
        (true, self.is_wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_cut_into_pieces_of_bounded_size() {
        let bounds = Bounds {
            elements: 3,
            bytes: 40,
        };
        let mut told = Vec::new();
        let mut emit = |piece: Piece| {
            let words: Vec<_> = piece.args.iter().map(|arg| arg.len()).collect();
            told.push((piece.op, piece.index, piece.is_last, words));
            true
        };
        let mut pieces = Pieces::of(DataType::Set, b"k", Some(7), bounds, &mut emit);
        for len in [1, 1, 1, 1, 50, 30, 10] {
            assert!(pieces.push(&[&vec![0; len]]));
        }
        assert_eq!(pieces.finish(), (true, true));
        let expected = [
            ("sadd", 0, false, vec![1, 1, 1, 1]),
            ("sadd", 1, false, vec![1, 1]),
            ("sadd", 2, false, vec![1, 50]),
            ("sadd", 3, false, vec![1, 30, 10]),
            ("pexpireat", 4, true, vec![1, 1]),
        ];
        assert_eq!(told, expected);
    }
}
