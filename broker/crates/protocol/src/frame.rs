//! Frames of the Kafka protocol: a signed 32-bit length, then that many bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Shortest frame there is, in bytes: a response header v0. A request's header is longer and says so itself.
pub const MIN_FRAME: usize = 4;

/// How far the buffer grows ahead of the bytes received, in bytes.
const READ_AHEAD: usize = 64 * 1024;

/// Why a connection's bytes are not a sequence of frames; the connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative or too small to hold a header.
    #[error("frame length {length} is too small")]
    TooSmall {
        /// The claimed length.
        length: i32,
    },
    /// The length is above the limit.
    #[error("frame length {length} is above the limit of {max}")]
    TooLarge {
        /// The claimed length.
        length: i32,
        /// The limit, inclusive.
        max: usize,
    },
}

/// Takes the next whole frame, without its length prefix, off the front of `buf`.
///
/// Returns `None` until the frame is complete; `buf` then has room for more, though never more than the bytes
/// received so far plus a constant, so that a claimed length alone costs nothing. `max` is inclusive, in bytes.
///
/// The frame shares `buf`'s allocation: who keeps a small part of it for long should copy that part.
///
/// # Errors
///
/// A length below [`MIN_FRAME`] or above `max`. `buf` is unchanged, so the error repeats.
pub fn next(buf: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = buf.first_chunk::<4>() else {
        reserve(buf, READ_AHEAD);
        return Ok(None);
    };
    let length = i32::from_be_bytes(*prefix);
    let len = usize::try_from(length).map_err(|_| FrameError::TooSmall { length })?;
    if len < MIN_FRAME {
        return Err(FrameError::TooSmall { length });
    }
    if len > max {
        return Err(FrameError::TooLarge { length, max });
    }
    let missing = (len + 4).saturating_sub(buf.len());
    if missing > 0 {
        reserve(buf, missing);
        return Ok(None);
    }
    buf.advance(4);
    Ok(Some(buf.split_to(len).freeze()))
}

/// Makes room for `wanted` bytes, or for as many as were received already if that is less: large frames
/// double the buffer as they arrive.
fn reserve(buf: &mut BytesMut, wanted: usize) {
    let room = wanted.min(buf.len().max(READ_AHEAD));
    if buf.capacity() - buf.len() < room {
        buf.reserve(room);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_length(length: i32) -> BytesMut {
        BytesMut::from(&length.to_be_bytes()[..])
    }

    #[test]
    fn impossible_lengths_are_refused_and_claims_cost_nothing() {
        let max = 100 * 1024 * 1024;
        for length in [0, 1, 3, -1, i32::MIN] {
            assert_eq!(
                next(&mut with_length(length), max),
                Err(FrameError::TooSmall { length })
            );
        }
        for length in [100 * 1024 * 1024 + 1, i32::MAX] {
            assert_eq!(
                next(&mut with_length(length), max),
                Err(FrameError::TooLarge { length, max })
            );
        }
        let mut buf = with_length(100 * 1024 * 1024);
        assert_eq!(next(&mut buf, max), Ok(None));
        assert!(buf.capacity() <= 2 * READ_AHEAD, "{}", buf.capacity());
    }

    #[test]
    fn a_large_frame_doubles_the_buffer_and_no_more() {
        let mut buf = with_length(1 << 24);
        while next(&mut buf, 1 << 24).unwrap().is_none() {
            assert!(buf.capacity() <= 4 * buf.len() + 2 * READ_AHEAD);
            let room = buf.capacity() - buf.len();
            assert!(room > 0);
            buf.extend_from_slice(&vec![1; room.min((1 << 24) + 4 - buf.len())]);
        }
        assert!(buf.is_empty());
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_bytes_arrive(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 4..200), 0..8),
            chunk in 1usize..50,
        ) {
            let mut wire = Vec::new();
            for frame in &frames {
                wire.extend_from_slice(&i32::try_from(frame.len()).unwrap().to_be_bytes());
                wire.extend_from_slice(frame);
            }
            let (mut buf, mut got) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(chunk) {
                buf.extend_from_slice(piece);
                while let Some(frame) = next(&mut buf, 200).unwrap() {
                    got.push(frame.to_vec());
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(buf.is_empty());
        }
    }
}
