//! Items of the binlog, as they travel: a header of 34 bytes and commands.

use bytes::{Buf, Bytes, BytesMut};

use crate::position::Position;
use crate::resp::{self, Command, RespError};

/// Bytes before the commands.
pub const HEADER_LEN: usize = 34;

/// The only kind of item.
const TYPE_FIRST: u16 = 1;

/// An item of the binlog (Pika 3.0 and later).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// When the command was executed, in seconds since 1970.
    pub exec_time: u32,
    /// The master's `server-id` up to 3.2, its term from 3.3 on.
    pub origin: u32,
    /// Number of the item in its database: a gap in it is a gap in the binlog.
    pub logic_id: u64,
    /// Where it begins, as the master had it before it chose the file: the first item of a file shows where the file
    /// before it ended.
    pub start: Position,
    /// The commands.
    pub content: Bytes,
}

/// Why bytes are no item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// It is shorter than its header.
    #[error("a binlog item has {0} bytes and no whole header")]
    Short(usize),
    /// Its kind is unknown.
    #[error("a binlog item has the unknown kind {0}")]
    Kind(u16),
    /// Its length contradicts its header.
    #[error("a binlog item has {found} bytes of commands where its header says {claimed}")]
    Length {
        /// Bytes after the header.
        found: usize,
        /// Bytes that the header claims.
        claimed: u32,
    },
    /// Its commands make no sense.
    #[error("the commands of a binlog item make no sense: {0}")]
    Content(#[from] RespError),
}

impl Item {
    /// Reads an item.
    ///
    /// # Errors
    ///
    /// [`ItemError`], the commands not looked at.
    pub fn decode(mut bytes: Bytes) -> Result<Self, ItemError> {
        if bytes.len() < HEADER_LEN {
            return Err(ItemError::Short(bytes.len()));
        }
        let kind = bytes.get_u16_le();
        if kind != TYPE_FIRST {
            return Err(ItemError::Kind(kind));
        }
        let exec_time = bytes.get_u32_le();
        let origin = bytes.get_u32_le();
        let logic_id = bytes.get_u64_le();
        let filenum = bytes.get_u32_le();
        let offset = bytes.get_u64_le();
        let claimed = bytes.get_u32_le();
        if usize::try_from(claimed) != Ok(bytes.len()) {
            return Err(ItemError::Length {
                found: bytes.len(),
                claimed,
            });
        }
        Ok(Self {
            exec_time,
            origin,
            logic_id,
            start: Position::new(filenum, offset),
            content: bytes,
        })
    }

    /// The bytes that [`Item::decode`] reads.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_LEN + self.content.len());
        bytes.extend_from_slice(&TYPE_FIRST.to_le_bytes());
        bytes.extend_from_slice(&self.exec_time.to_le_bytes());
        bytes.extend_from_slice(&self.origin.to_le_bytes());
        bytes.extend_from_slice(&self.logic_id.to_le_bytes());
        bytes.extend_from_slice(&self.start.filenum.to_le_bytes());
        bytes.extend_from_slice(&self.start.offset.to_le_bytes());
        let len = u32::try_from(self.content.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&self.content);
        bytes.freeze()
    }

    /// Its commands, one at least.
    ///
    /// # Errors
    ///
    /// [`ItemError::Content`].
    pub fn commands(&self) -> Result<Vec<Command>, ItemError> {
        Ok(resp::commands(&self.content)?)
    }

    /// Calls `each` with its commands, in order; with one at least.
    ///
    /// # Errors
    ///
    /// [`ItemError::Content`]; those before what is wrong were told.
    pub fn each_command(&self, each: impl FnMut(Command)) -> Result<(), ItemError> {
        Ok(resp::each_command(&self.content, each)?)
    }

    /// Bytes of the item as the binlog counts them.
    pub fn len(&self) -> u64 {
        (HEADER_LEN + self.content.len()) as u64
    }

    /// Never: an item has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether it is what a slave has filled its binlog with up to its master's position (3.0.10 to 3.3.5): nothing was executed, and
    /// the header says nothing.
    pub fn is_padding(&self) -> bool {
        let is_blank = (self.exec_time, self.origin, self.logic_id) == (0, 0, 0);
        is_blank && self.start == Position::default() && self.content.starts_with(b"*2\r\n$7\r\npadding\r\n")
    }

    /// Whether the item may follow one that ended at `end`, for a master that is nobody's slave: it begins there, or, as
    /// the first of a file, shows that end although it lies at the beginning of the next file.
    pub fn follows(&self, end: Position) -> bool {
        let began_anew = end.offset == 0 && self.start.filenum.checked_add(1) == Some(end.filenum);
        self.start == end || began_anew
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample of the reference, byte for byte.
    #[test]
    fn the_known_item_is_read_and_written() {
        let content = Bytes::from_static(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
        let item = Item {
            exec_time: 1_700_000_000,
            origin: 1,
            logic_id: 8899,
            start: Position::new(12, 34567),
            content,
        };
        let hex = "010000f1536501000000c3220000000000000c00000007870000000000001b000000";
        let mut known: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        known.extend_from_slice(&item.content);
        assert_eq!(item.encode(), known);
        assert_eq!(Item::decode(known.clone().into()).unwrap(), item);
        assert_eq!(item.start.after(item.len()), Some(Position::new(12, 34636)));

        known.push(0);
        let longer = Item::decode(known.clone().into());
        assert_eq!(
            longer,
            Err(ItemError::Length {
                found: 28,
                claimed: 27
            })
        );
        known[0] = 2;
        assert_eq!(Item::decode(known.into()), Err(ItemError::Kind(2)));
    }
}
