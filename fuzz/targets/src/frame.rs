//! Frames: arrival in pieces changes nothing, and a claimed length alone allocates nothing.

use bytes::BytesMut;
use takhin_protocol::frame;

const MAX_FRAME: usize = 1 << 20;

/// Slack of a buffer over twice what it received: the decoder's read-ahead, rounded up by the allocator.
const SLACK: usize = 256 * 1024;

/// Feeds `data` to the frame decoder in pieces, whose size the first byte gives, and at once.
///
/// # Panics
/// When the frames differ, or a buffer grows far past the bytes received.
pub fn frame_decode(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let whole = frames(stream.chunks(usize::MAX >> 1));
    let pieces = frames(stream.chunks(usize::from(*first) + 1));
    assert_eq!(whole, pieces, "frames depend on how they arrive");
}

/// The frames, and whether the stream ends with an error.
fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<bytes::Bytes>, bool) {
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    let mut received = 0;
    for piece in pieces {
        received += piece.len();
        buffer.extend_from_slice(piece);
        loop {
            match frame::next(&mut buffer, MAX_FRAME) {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
        assert!(
            buffer.capacity() <= 2 * received + SLACK,
            "{} bytes for {received} received",
            buffer.capacity()
        );
    }
    (found, false)
}
