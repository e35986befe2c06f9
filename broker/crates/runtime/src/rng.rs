//! Randomness: from the operating system, or from one seed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;

/// A source of random numbers; clones share it.
#[derive(Clone)]
pub struct Rng(Arc<Mutex<Source>>);

enum Source {
    /// A cryptographic generator, seeded by the operating system.
    Os(Box<StdRng>),
    /// SplitMix64: the same numbers from the same seed in every version and on every machine.
    Seeded(u64),
}

impl Rng {
    /// A cryptographic generator, seeded by the operating system.
    ///
    /// # Panics
    /// When the operating system has no entropy to give, which ends a program that is just starting.
    pub fn from_os() -> Self {
        Self(Arc::new(Mutex::new(Source::Os(Box::new(rand::make_rng())))))
    }

    /// A predictable generator for simulations and tests.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Source::Seeded(seed))))
    }

    /// A random number.
    pub fn next_u64(&self) -> u64 {
        match &mut *self.0.lock() {
            Source::Os(rng) => rng.next_u64(),
            Source::Seeded(state) => split_mix(state),
        }
    }

    /// A number in `range`, uniform but for a bias below 2^-64 times its length; `range.start` if it is empty.
    pub fn range(&self, range: Range<u64>) -> u64 {
        let span = range.end.saturating_sub(range.start);
        let scaled = (u128::from(self.next_u64()) * u128::from(span)) >> 64;
        // Less than `span`, so it fits.
        range.start + u64::try_from(scaled).unwrap_or(0)
    }

    /// A fraction from 0.0 (inclusive) to 1.0 (exclusive).
    pub fn unit(&self) -> f64 {
        // 53 bits are what a double holds exactly.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability, 0.0 to 1.0.
    pub fn chance(&self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Fills `buf`.
    pub fn fill(&self, buf: &mut [u8]) {
        match &mut *self.0.lock() {
            Source::Os(rng) => rng.fill_bytes(buf),
            Source::Seeded(state) => {
                for chunk in buf.chunks_mut(8) {
                    chunk.copy_from_slice(&split_mix(state).to_le_bytes()[..chunk.len()]);
                }
            }
        }
    }

    /// The 16 bytes of a random UUID (version 4, RFC 9562 section 5.4).
    pub fn uuid(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes
    }

    /// An independent generator: from the operating system again, or seeded by this one's next number.
    #[must_use]
    pub fn fork(&self) -> Self {
        let seeded = matches!(&*self.0.lock(), Source::Seeded(_));
        if seeded {
            Self::from_seed(self.next_u64())
        } else {
            Self::from_os()
        }
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state would tell what comes next.
        f.write_str("Rng")
    }
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_numbers_never_change() {
        // First outputs of SplitMix64 for seed 1234567, from the reference implementation.
        let rng = Rng::from_seed(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
        let mut a = [0; 11];
        let mut b = [0; 11];
        Rng::from_seed(7).fill(&mut a);
        Rng::from_seed(7).fill(&mut b);
        assert_eq!(a, b);
    }

    #[test]
    fn range_stays_inside_and_reaches_both_ends() {
        let rng = Rng::from_seed(1);
        let drawn: std::collections::BTreeSet<_> = (0..1000).map(|_| rng.range(10..15)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
        assert_eq!(rng.range(5..5), 5);
    }

    #[test]
    fn uuids_are_version_4_and_differ() {
        let rng = Rng::from_os();
        let (a, b) = (rng.uuid(), rng.uuid());
        assert_ne!(a, b);
        assert_eq!((a[6] >> 4, a[8] >> 6), (4, 2));
    }
}
