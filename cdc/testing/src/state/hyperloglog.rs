//! HyperLogLog as Pika keeps it: a string of 2^17 bytes, each the highest rank of the words whose hash ends in its number.

use super::Word;

const BITS: u32 = 17;
const SEED: u32 = 313;

pub(super) fn add(registers: &mut Word, words: &[Word], version: &str) -> bool {
    registers.resize(1 << BITS, 0);
    for word in words {
        let hash = murmur3(word);
        let left = 32 - BITS;
        // 2.3 counts zeros from the other end of what is left of the hash.
        let zeros = if version.starts_with("2.") {
            (hash << BITS).leading_zeros()
        } else {
            (hash >> BITS).trailing_zeros()
        };
        let rank = u8::try_from(zeros.min(left) + 1).unwrap();
        let register = &mut registers[(hash & ((1 << BITS) - 1)) as usize];
        *register = (*register).max(rank);
    }
    true
}

/// `pfmerge`: the destination counts too.
pub(super) fn merge(all: &[Word]) -> Word {
    let mut merged = vec![0; 1 << BITS];
    for registers in all {
        let pairs = merged.iter_mut().zip(registers);
        pairs.for_each(|(most, own)| *most = (*most).max(*own));
    }
    merged
}

/// MurmurHash3 of 32 bits.
fn murmur3(word: &[u8]) -> u32 {
    let scramble = |block: u32| {
        let block = block.wrapping_mul(0xcc9e_2d51).rotate_left(15);
        block.wrapping_mul(0x1b87_3593)
    };
    let mut hash = SEED;
    let (blocks, tail) = word.as_chunks::<4>();
    for block in blocks {
        hash ^= scramble(u32::from_le_bytes(*block));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    hash ^= scramble(u32::from_le_bytes(last));
    hash ^= u32::try_from(word.len()).unwrap();
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
