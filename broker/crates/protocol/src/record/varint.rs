//! Zigzag varints, as records use them: at most five bytes for 32 bits, ten for 64.

/// A varint ends early, or has more bits than its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadVarint;

/// Takes an `i32` off the front of `bytes`.
pub(super) fn take_i32(bytes: &mut &[u8]) -> Result<i32, BadVarint> {
    i32::try_from(zigzag(take(bytes, 5)?)).map_err(|_| BadVarint)
}

/// Takes an `i64` off the front of `bytes`.
pub(super) fn take_i64(bytes: &mut &[u8]) -> Result<i64, BadVarint> {
    take(bytes, 10).map(zigzag)
}

fn zigzag(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

#[inline]
fn take(bytes: &mut &[u8], most: usize) -> Result<u64, BadVarint> {
    // Most are one byte long.
    if let [byte @ 0..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Ok(u64::from(*byte));
    }
    take_long(bytes, most)
}

fn take_long(bytes: &mut &[u8], most: usize) -> Result<u64, BadVarint> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(most).enumerate() {
        // The tenth byte holds bit 63 alone.
        if i == 9 && byte > 1 {
            return Err(BadVarint);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err(BadVarint)
}

/// Bytes that the longest one has.
pub(super) const MOST: usize = 10;

/// Bytes that [`put`] appends.
pub(super) fn len(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let bits = u64::BITS - (raw | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(MOST)
}

/// Appends `value` to `out`.
pub(super) fn put(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push(raw.to_le_bytes()[0] | 0x80);
        raw >>= 7;
    }
    out.push(raw.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encodings_are_kafkas() {
        // From Kafka's ByteUtilsTest.
        let cases: [(i64, &[u8]); 6] = [
            (0, &[0]),
            (-1, &[1]),
            (63, &[0x7e]),
            (-65, &[0x81, 0x01]),
            (i32::MAX.into(), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (
                i64::MIN,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(take_i64(&mut &*out), Ok(value));
        }
    }

    #[test]
    fn too_many_bits_are_refused() {
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), Err(BadVarint));
        assert_eq!(
            take_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]),
            Err(BadVarint)
        );
        assert_eq!(take_i64(&mut &[0xff; 10][..]), Err(BadVarint));
        assert_eq!(take_i64(&mut &[0x80][..]), Err(BadVarint));
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in any::<i64>(), small in any::<i32>()) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            put(&mut out, small.into());
            let mut bytes = &*out;
            prop_assert_eq!(take_i64(&mut bytes), Ok(value));
            prop_assert_eq!(take_i32(&mut bytes), Ok(small));
            prop_assert!(bytes.is_empty());
        }
    }
}
