//! The binlog as masters of Pika 2.3 and 3.0 send it, over a connection that they make.

mod chain;
mod reader;

use bytes::{Buf, Bytes, BytesMut};

use crate::binlog::{Item, ItemError};
use crate::position::Position;
use crate::resp::{self, Command, RespError};

pub use chain::{Chain, Gap, LastRecord, Step};
pub use reader::{Arrived, Reader};

/// Marks the four words that 2.3 appends to a command.
const MAGIC: &[u8] = b"__PIKA_X#$SKGI";

/// Bytes before what 3.0 sends.
const FRAME_HEADER: usize = 6;

/// What arrives from a 3.0 master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first frame: a command, `auth` and the number that `trysync` was answered with.
    Auth(Command),
    /// An item.
    Item(Item),
}

/// What arrives from a 2.3 master: a command with its position, or the `auth` before all others without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The command without what the master appended.
    pub command: Command,
    /// Where and when it was executed.
    pub tag: Option<Tag>,
}

/// The words that a 2.3 master appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The master's `server-id`.
    pub server_id: u32,
    /// When the command was executed, in seconds since 1970.
    pub exec_time: u32,
    /// Where its record begins. Several commands of one record have the same.
    pub start: Position,
    /// Bytes of the command as sent, tag included.
    pub len: usize,
}

/// Why a stream makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A frame is of an unknown kind.
    #[error("a frame has the unknown kind {0}")]
    Kind(u16),
    /// A frame is longer than allowed.
    #[error("a frame has {len} bytes, more than the {max} allowed")]
    TooLong {
        /// What it claims.
        len: u32,
        /// The bound.
        max: usize,
    },
    /// A command makes no sense.
    #[error("a command makes no sense: {0}")]
    Command(#[from] RespError),
    /// An item makes no sense.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// The words after a command are not those that a master appends.
    #[error("the words that a master appends to a command are malformed")]
    Tag,
}

/// Takes the next frame of a 3.0 master; `None` until all of it has arrived.
///
/// # Errors
///
/// [`StreamError`]; a frame of more than `max` bytes is refused before it has arrived.
pub fn next_frame(buffer: &mut BytesMut, max: usize) -> Result<Option<Frame>, StreamError> {
    let Some(header) = buffer.first_chunk::<FRAME_HEADER>() else {
        return Ok(None);
    };
    let kind = u16::from_le_bytes([header[0], header[1]]);
    let claimed = u32::from_le_bytes([header[2], header[3], header[4], header[5]]);
    if !matches!(kind, 1 | 2) {
        return Err(StreamError::Kind(kind));
    }
    let len = usize::try_from(claimed)
        .ok()
        .filter(|len| *len <= max)
        .ok_or(StreamError::TooLong { len: claimed, max })?;
    if buffer.len() < FRAME_HEADER + len {
        return Ok(None);
    }
    buffer.advance(FRAME_HEADER);
    let body = buffer.split_to(len).freeze();
    if kind == 2 {
        return Ok(Some(Frame::Item(Item::decode(body)?)));
    }
    let mut commands = resp::commands(&body)?;
    match (commands.pop(), commands.is_empty()) {
        (Some(command), true) => Ok(Some(Frame::Auth(command))),
        _ => Err(StreamError::Command(RespError::Empty)),
    }
}

/// Takes the next command of a 2.3 master; `None` until all of it has arrived.
///
/// # Errors
///
/// [`StreamError`]; a command of more than `max` bytes is refused before it has arrived.
pub fn next_tagged(buffer: &mut BytesMut, max: usize) -> Result<Option<Tagged>, StreamError> {
    let Some((mut command, len)) = resp::next_command(buffer, max)? else {
        return Ok(None);
    };
    let untagged = command
        .len()
        .checked_sub(4)
        .filter(|at| *at > 0 && command[*at] == MAGIC);
    let Some(at) = untagged else {
        return Ok(Some(Tagged { command, tag: None }));
    };
    let tag = tag(&command[at..], len).ok_or(StreamError::Tag)?;
    command.truncate(at);
    Ok(Some(Tagged {
        command,
        tag: Some(tag),
    }))
}

fn tag(words: &[Bytes], len: usize) -> Option<Tag> {
    let [_, server_id, place, _] = words else {
        return None;
    };
    let mut place = place.clone();
    if place.len() != 16 {
        return None;
    }
    let exec_time = place.get_u32_le();
    let filenum = place.get_u32_le();
    Some(Tag {
        server_id: std::str::from_utf8(server_id).ok()?.parse().ok()?,
        exec_time,
        start: Position::new(filenum, place.get_u64_le()),
        len,
    })
}
