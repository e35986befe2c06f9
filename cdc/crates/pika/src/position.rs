//! Positions in a binlog: files of records, each cut into blocks.

use std::fmt;

/// Bytes of a block; fragments of a record do not cross it.
const BLOCK: u64 = 64 * 1024;

/// Bytes before each fragment.
const FRAGMENT_HEADER: u64 = 8;

/// A byte position in the binlog of one database. Positions are ordered as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Position {
    /// Number of the file, as in `write2file12`.
    pub filenum: u32,
    /// Bytes from its beginning, block framing included.
    pub offset: u64,
}

impl Position {
    /// The position of a byte in a file.
    pub const fn new(filenum: u32, offset: u64) -> Self {
        Self { filenum, offset }
    }

    /// Where a record of `len` bytes ends that is written from here on in the same file. `None` past what offsets hold.
    pub fn after(self, len: u64) -> Option<Self> {
        let (mut left, mut at) = (len, self.offset);
        let room = BLOCK - at % BLOCK;
        let mut room = if room < FRAGMENT_HEADER {
            // Too little for a header: the writer leaves it out.
            at = at.checked_add(room)?;
            BLOCK
        } else {
            room
        };
        let first = left.min(room - FRAGMENT_HEADER);
        at = at.checked_add(FRAGMENT_HEADER)?.checked_add(first)?;
        left -= first;
        if left > 0 {
            // All further blocks are full but the last one.
            room = BLOCK - FRAGMENT_HEADER;
            let fragments = left.div_ceil(room);
            at = at
                .checked_add(left)?
                .checked_add(fragments.checked_mul(FRAGMENT_HEADER)?)?;
        }
        Some(Self { offset: at, ..self })
    }

    /// Bytes from here to `later`, if files have `file_size` bytes, which they exceed by less than one record.
    pub fn bytes_to(self, later: Self, file_size: u64) -> u64 {
        let files = u64::from(later.filenum.saturating_sub(self.filenum));
        (files.saturating_mul(file_size).saturating_add(later.offset)).saturating_sub(self.offset)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.filenum, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The writer's own loop, fragment by fragment.
    fn by_steps(mut at: u64, len: u64) -> u64 {
        let mut left = len;
        loop {
            let mut room = BLOCK - at % BLOCK;
            if room < FRAGMENT_HEADER {
                at += room;
                room = BLOCK;
            }
            let fragment = left.min(room - FRAGMENT_HEADER);
            at += FRAGMENT_HEADER + fragment;
            left -= fragment;
            if left == 0 {
                return at;
            }
        }
    }

    #[test]
    fn ends_are_those_that_were_checked() {
        let end = |offset, len| Position::new(3, offset).after(len).unwrap().offset;
        assert_eq!(end(65528, 100), 65644);
        assert_eq!(end(65529, 100), 65644);
        assert_eq!(end(0, 65528), 65536);
        assert_eq!(end(0, 65529), 65545);
        assert_eq!(end(34567, 61), 34636);
    }

    proptest! {
        #[test]
        fn an_end_is_where_the_writer_stops(at in 0..300_000_u64, len in 1..300_000_u64) {
            prop_assert_eq!(Position::new(0, at).after(len).unwrap().offset, by_steps(at, len));
        }
    }
}
