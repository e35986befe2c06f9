//! Commands and answers as Redis writes them.

use std::io::Write as _;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

/// Most digits of a number: those of the longest `i64` with its sign.
const MAX_DIGITS: usize = 20;

/// Bytes of the shortest word, `$0\r\n\r\n`: how many words a count may claim depends on it.
const SHORTEST_WORD: usize = 6;

/// A command: its words, the name first; never empty.
pub type Command = Vec<Bytes>;

/// Why bytes are no command or answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RespError {
    /// Something else stands where a mark is to be.
    #[error("{found:#04x} stands where {wanted:?} is to be")]
    Mark {
        /// What is there.
        found: u8,
        /// What is to be there.
        wanted: char,
    },
    /// A count or length is no number, or negative.
    #[error("a count or length is no number")]
    Number,
    /// A command without words.
    #[error("a command has no words")]
    Empty,
    /// The bytes end within a command.
    #[error("it ends within a command")]
    Cut,
    /// A command is longer than allowed.
    #[error("a command has more than {0} bytes")]
    TooLong(usize),
}

/// All commands that `content` consists of; one at least.
///
/// # Errors
///
/// [`RespError`]; what remains after the last command must be nothing.
pub fn commands(content: &Bytes) -> Result<Vec<Command>, RespError> {
    let mut commands = Vec::new();
    each_command(content, |command| commands.push(command))?;
    Ok(commands)
}

/// Calls `each` with the commands that `content` consists of, in order; with one at least.
///
/// # Errors
///
/// As [`commands`]; those before what is wrong were told.
pub fn each_command(content: &Bytes, mut each: impl FnMut(Command)) -> Result<(), RespError> {
    let mut from = 0;
    while from < content.len() || from == 0 {
        let slice = |word: Range<usize>| content.slice(from + word.start..from + word.end);
        let (words, end) = scan(&content[from..], slice)?.ok_or(RespError::Cut)?;
        each(words);
        from += end;
    }
    Ok(())
}

/// Takes the next command from a stream, with its length in bytes; `None` until all of it has arrived.
///
/// # Errors
///
/// [`RespError`]; a command that can only be longer than `max` bytes is refused before it has arrived.
pub fn next_command(buffer: &mut BytesMut, max: usize) -> Result<Option<(Command, usize)>, RespError> {
    match scan(buffer, |word| word)? {
        Some((_, len)) if len > max => Err(RespError::TooLong(max)),
        Some((words, len)) => {
            let bytes = buffer.split_to(len).freeze();
            Ok(Some((
                words.into_iter().map(|word| bytes.slice(word)).collect(),
                len,
            )))
        }
        None if buffer.len() > max => Err(RespError::TooLong(max)),
        None => Ok(None),
    }
}

/// Appends a command.
pub fn put_command<W: AsRef<[u8]>>(out: &mut Vec<u8>, words: &[W]) {
    put_count(out, words.len());
    for word in words {
        put_word(out, word.as_ref());
    }
}

/// Appends the beginning of a command of so many words.
pub fn put_count(out: &mut Vec<u8>, words: usize) {
    put_number(out, b'*', words);
}

/// Appends a word of a command.
pub fn put_word(out: &mut Vec<u8>, word: &[u8]) {
    put_number(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn put_number(out: &mut Vec<u8>, mark: u8, number: usize) {
    out.push(mark);
    match u8::try_from(number) {
        Ok(digit @ ..10) => out.push(b'0' + digit),
        // Writing to memory does not fail.
        _ => drop(write!(out, "{number}")),
    }
    out.extend_from_slice(b"\r\n");
}

/// An answer to a command; arrays are not among those that a slave asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `+OK`.
    Line(Bytes),
    /// `-ERR ...`, without the mark.
    Error(Bytes),
    /// `:1`.
    Integer(i64),
    /// `$2..`; `None` is the null string.
    Bulk(Option<Bytes>),
}

/// Takes the next answer from a stream; `None` until all of it has arrived.
///
/// # Errors
///
/// [`RespError`]; an answer that can only be longer than `max` bytes is refused before it has arrived.
pub fn next_answer(buffer: &mut BytesMut, max: usize) -> Result<Option<Answer>, RespError> {
    let too_long = |len: usize| {
        if len > max {
            Err(RespError::TooLong(max))
        } else {
            Ok(())
        }
    };
    let Some(&mark) = buffer.first() else {
        return Ok(None);
    };
    let Some(line) = line(&buffer[1..]) else {
        return too_long(buffer.len()).map(|()| None);
    };
    let rest = 1 + line.len() + 2;
    too_long(rest)?;
    let answer = match mark {
        b'$' if line == b"-1" => Answer::Bulk(None),
        b'$' => {
            let len = length(line)?;
            too_long(len)?;
            if buffer.len() < rest + len + 2 {
                return Ok(None);
            }
            end_of_word(&buffer[rest + len..])?;
            buffer.advance(rest);
            let bulk = buffer.split_to(len).freeze();
            buffer.advance(2);
            return Ok(Some(Answer::Bulk(Some(bulk))));
        }
        b':' => Answer::Integer(number(line)?),
        b'+' => Answer::Line(Bytes::copy_from_slice(line)),
        b'-' => Answer::Error(Bytes::copy_from_slice(line)),
        found => return Err(RespError::Mark { found, wanted: '$' }),
    };
    buffer.advance(rest);
    Ok(Some(answer))
}

/// Takes the mark and count of an array, whose members are answers; `None` if something else comes next, or too little of
/// it has arrived to tell.
///
/// # Errors
///
/// [`RespError::Number`].
pub fn next_array(buffer: &mut BytesMut) -> Result<Option<usize>, RespError> {
    if buffer.first() != Some(&b'*') {
        return Ok(None);
    }
    let Some((count, end)) = header(buffer, 0, '*')? else {
        return Ok(None);
    };
    buffer.advance(end);
    Ok(Some(count))
}

/// Finds the first command: what `word` makes of where each of its words is, and where it ends. `None` if it is cut.
fn scan<W>(bytes: &[u8], word: impl Fn(Range<usize>) -> W) -> Result<Option<(Vec<W>, usize)>, RespError> {
    let Some((count, mut at)) = header(bytes, 0, '*')? else {
        return Ok(None);
    };
    if count == 0 {
        return Err(RespError::Empty);
    }
    // A count alone reserves no more than the bytes that are there can hold.
    let mut words = Vec::with_capacity(count.min(bytes.len() / SHORTEST_WORD));
    for _ in 0..count {
        let Some((len, start)) = header(bytes, at, '$')? else {
            return Ok(None);
        };
        let end = start.checked_add(len).ok_or(RespError::Number)?;
        if bytes.len().saturating_sub(2) < end {
            return Ok(None);
        }
        end_of_word(&bytes[end..])?;
        words.push(word(start..end));
        at = end + 2;
    }
    Ok(Some((words, at)))
}

/// The number after the mark at `at`, and where what it announces begins.
fn header(bytes: &[u8], at: usize, wanted: char) -> Result<Option<(usize, usize)>, RespError> {
    let Some((&found, rest)) = bytes.get(at..).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    if char::from(found) != wanted {
        return Err(RespError::Mark { found, wanted });
    }
    // Nearly all of them.
    match rest {
        [one @ b'0'..=b'9', b'\r', b'\n', ..] => return Ok(Some((usize::from(one - b'0'), at + 4))),
        [ten @ b'0'..=b'9', one @ b'0'..=b'9', b'\r', b'\n', ..] => {
            return Ok(Some((
                usize::from(ten - b'0') * 10 + usize::from(one - b'0'),
                at + 5,
            )));
        }
        _ => {}
    }
    match line(&rest[..rest.len().min(MAX_DIGITS + 2)]) {
        Some(line) => Ok(Some((length(line)?, at + 1 + line.len() + 2))),
        None if rest.len() >= MAX_DIGITS + 2 => Err(RespError::Number),
        None => Ok(None),
    }
}

/// What stands before the first `\r\n`.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some(&bytes[..end])
}

fn end_of_word(bytes: &[u8]) -> Result<(), RespError> {
    match bytes {
        [b'\r', b'\n', ..] => Ok(()),
        [found, ..] => Err(RespError::Mark {
            found: *found,
            wanted: '\r',
        }),
        [] => Err(RespError::Cut),
    }
}

fn number(digits: &[u8]) -> Result<i64, RespError> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(RespError::Number)
}

fn length(digits: &[u8]) -> Result<usize, RespError> {
    usize::try_from(number(digits)?).map_err(|_| RespError::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_nothing_backs_reserves_nothing() {
        let claim = Bytes::from_static(b"*9223372036854775807\r\n$1\r\na\r\n");
        assert_eq!(commands(&claim), Err(RespError::Cut));
        let claim = Bytes::from_static(b"*1\r\n$9223372036854775807\r\na\r\n");
        assert_eq!(commands(&claim), Err(RespError::Cut));
        assert_eq!(commands(&Bytes::from_static(b"*-1\r\n")), Err(RespError::Number));
        assert_eq!(commands(&Bytes::from_static(b"*0\r\n")), Err(RespError::Empty));
    }

    #[test]
    fn answers_are_told_apart() {
        let mut stream = BytesMut::from(&b"+OK\r\n-ERR no\r\n:39\r\n$4\r\nwa\r\n\r\n$-1\r\n$9\r\ncut"[..]);
        let mut answers = Vec::new();
        while let Some(answer) = next_answer(&mut stream, 64).unwrap() {
            answers.push(answer);
        }
        let bulk = Answer::Bulk(Some(Bytes::from_static(b"wa\r\n")));
        let line = Answer::Line(Bytes::from_static(b"OK"));
        let error = Answer::Error(Bytes::from_static(b"ERR no"));
        assert_eq!(
            answers,
            [line, error, Answer::Integer(39), bulk, Answer::Bulk(None)]
        );
        assert_eq!(&stream[..], b"$9\r\ncut");
        assert_eq!(next_array(&mut stream), Ok(None));
        let mut array = BytesMut::from(&b"*2\r\n$1\r\na"[..]);
        assert_eq!(
            (next_array(&mut array), &array[..]),
            (Ok(Some(2)), &b"$1\r\na"[..])
        );
        assert_eq!(next_array(&mut BytesMut::from(&b"*1"[..])), Ok(None));
        assert_eq!(next_answer(&mut stream, 8), Err(RespError::TooLong(8)));
    }
}
