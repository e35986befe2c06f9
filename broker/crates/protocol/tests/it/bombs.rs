//! Compressed bodies that lie or explode.

use proptest::prelude::*;
use takhin_protocol::record::{Compression, CompressionError, compress, decompress};

use crate::records::CODECS;

#[test]
fn a_bomb_ends_at_the_budget() {
    let zeros = vec![0; 16 << 20];
    for codec in CODECS {
        let bomb = compress(codec, &zeros).unwrap();
        if codec != Compression::None {
            assert!(bomb.len() * 15 < zeros.len(), "{}: {}", codec.name(), bomb.len());
        }
        for budget in [0, 1, 100_000, zeros.len() - 1] {
            let refused = decompress(codec, &bomb, budget).unwrap_err();
            assert!(
                matches!(refused, CompressionError::Budget { budget: b } if b == budget),
                "{refused:?}"
            );
        }
        assert_eq!(decompress(codec, &bomb, zeros.len()).unwrap(), zeros);
    }
}

#[test]
fn a_snappy_length_is_not_believed() {
    // A raw block of six bytes that claims 2^30.
    let lie = [0x80, 0x80, 0x80, 0x80, 0x04, 0x00];
    assert!(matches!(
        decompress(Compression::Snappy, &lie, 1 << 31),
        Err(CompressionError::Corrupt { .. })
    ));
    assert!(matches!(
        decompress(Compression::Snappy, &lie, 1 << 20),
        Err(CompressionError::Budget { .. })
    ));
}

#[test]
fn a_zstd_window_has_a_limit() {
    // Frame header with a window of 2^31 bytes: magic, no flags, exponent 21, mantissa 0.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    assert!(matches!(
        decompress(Compression::Zstd, &frame, 1 << 20),
        Err(CompressionError::Corrupt { .. })
    ));
    // The same with a window of 2^20 is an empty frame.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 10 << 3, 0x01, 0x00, 0x00];
    assert_eq!(decompress(Compression::Zstd, &frame, 0).unwrap(), b"");
}

#[test]
fn snappy_is_read_with_and_without_framing() {
    let text = b"to be or not to be, to be or not to be".repeat(3000);
    let framed = compress(Compression::Snappy, &text).unwrap();
    assert_eq!(
        decompress(Compression::Snappy, &framed, text.len()).unwrap(),
        text
    );
    let twice = [&framed[..], &framed].concat();
    assert_eq!(
        decompress(Compression::Snappy, &twice, 2 * text.len()).unwrap(),
        text.repeat(2)
    );
    let raw = snap::raw::Encoder::new().compress_vec(&text).unwrap();
    assert_eq!(decompress(Compression::Snappy, &raw, text.len()).unwrap(), text);
    for cut in [10, 18, framed.len() - 1] {
        assert!(
            decompress(Compression::Snappy, &framed[..cut], text.len()).is_err(),
            "cut at {cut}"
        );
    }
}

proptest! {
    #[test]
    fn damaged_input_stays_within_the_budget(
        text in prop::collection::vec(0u8..4, 0..2000),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        random in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for codec in CODECS {
            let mut damaged = compress(codec, &text).unwrap();
            prop_assert_eq!(&decompress(codec, &damaged, text.len()).unwrap(), &text);
            if !damaged.is_empty() {
                let at = at.index(damaged.len());
                damaged[at] = with;
            }
            for input in [&damaged, &random] {
                if let Ok(output) = decompress(codec, input, 3000) {
                    prop_assert!(output.len() <= 3000);
                }
            }
        }
    }
}
