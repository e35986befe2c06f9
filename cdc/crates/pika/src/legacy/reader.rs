//! Items from the bytes of a connection, whichever form they have.

use bytes::{Bytes, BytesMut};

use super::{Frame, StreamError, Tagged, next_frame, next_tagged};
use crate::binlog::Item;
use crate::resp::{self, Command};

/// What arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrived {
    /// The number that `trysync` was answered with: what comes before all items.
    Auth(i64),
    /// An item.
    Item {
        /// The item. Of 2.3 it is one command, and its number is 0.
        item: Item,
        /// Bytes that it takes in the binlog.
        len: u64,
        /// Whether the next one may be of the same record.
        may_go_on: bool,
    },
}

/// Cuts what a master sends into items: framed by 3.0, tagged by 2.3. Which of them is told by the first byte.
#[derive(Debug, Default)]
pub struct Reader {
    /// What has arrived and was not taken.
    pub buffer: BytesMut,
    is_tagged: Option<bool>,
}

impl Reader {
    /// Takes the next item; `None` until all of it has arrived.
    ///
    /// # Errors
    ///
    /// [`StreamError`]; an item of more than `max` bytes is refused before it has arrived.
    pub fn next(&mut self, max: usize) -> Result<Option<Arrived>, StreamError> {
        let Some(first) = self.buffer.first() else {
            return Ok(None);
        };
        match *self.is_tagged.get_or_insert(*first == b'*') {
            true => next_tagged(&mut self.buffer, max)?.map(of_tagged).transpose(),
            false => next_frame(&mut self.buffer, max)?.map(of_frame).transpose(),
        }
    }
}

fn of_frame(frame: Frame) -> Result<Arrived, StreamError> {
    match frame {
        Frame::Auth(command) => auth(&command),
        Frame::Item(item) => Ok(Arrived::Item {
            len: item.len(),
            item,
            may_go_on: false,
        }),
    }
}

fn of_tagged(tagged: Tagged) -> Result<Arrived, StreamError> {
    let Some(tag) = tagged.tag else {
        return auth(&tagged.command);
    };
    let mut content = Vec::with_capacity(tag.len);
    resp::put_command(&mut content, &tagged.command);
    let item = Item {
        exec_time: tag.exec_time,
        origin: tag.server_id,
        logic_id: 0,
        start: tag.start,
        content: Bytes::from(content),
    };
    Ok(Arrived::Item {
        item,
        len: tag.len as u64,
        may_go_on: true,
    })
}

fn auth(command: &Command) -> Result<Arrived, StreamError> {
    let number = match command.as_slice() {
        [name, number] if name.eq_ignore_ascii_case(b"auth") => std::str::from_utf8(number).ok(),
        _ => None,
    };
    let number = number.and_then(|number| number.parse().ok());
    number.map(Arrived::Auth).ok_or(StreamError::Tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;

    #[test]
    fn either_form_is_told_by_its_first_byte() {
        let mut tagged = Reader::default();
        tagged
            .buffer
            .extend_from_slice(b"*2\r\n$4\r\nauth\r\n$2\r\n39\r\n*3\r\n$3\r\nset\r\n");
        assert_eq!(tagged.next(64), Ok(Some(Arrived::Auth(39))));
        assert_eq!(tagged.next(64), Ok(None));
        tagged.buffer.extend_from_slice(b"$1\r\nk\r\n$1\r\nv\r\n");
        assert_eq!(
            tagged.next(64),
            Err(StreamError::Tag),
            "a command without a position"
        );

        let mut framed = Reader::default();
        let item = Item {
            exec_time: 5,
            origin: 1,
            logic_id: 7,
            start: Position::new(3, 4),
            content: Bytes::from_static(b"*1\r\n$1\r\nx\r\n"),
        };
        let len = u32::try_from(item.len()).unwrap();
        framed.buffer.extend_from_slice(&[2, 0]);
        framed.buffer.extend_from_slice(&len.to_le_bytes());
        framed.buffer.extend_from_slice(&item.encode());
        let arrived = Arrived::Item {
            len: item.len(),
            item,
            may_go_on: false,
        };
        assert_eq!(framed.next(64), Ok(Some(arrived)));
        assert_eq!(framed.next(64), Ok(None));
    }
}
