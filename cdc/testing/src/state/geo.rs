//! Places of `geoadd`: a sorted set whose scores are geohashes.

use std::collections::BTreeMap;

use super::{Word, float};

/// The latitudes that can be written, those of Mercator's projection.
const LATITUDE: f64 = 85.051_128_78;

pub(super) fn add(members: &mut BTreeMap<Word, f64>, args: &[Word], version: &str) -> bool {
    // 2.3 keeps fewer digits.
    let bits = if version.starts_with("2.") { 18 } else { 26 };
    for place in args.chunks(3) {
        let score = hash(float(&place[0]), float(&place[1]), bits);
        members.insert(place[2].clone(), score);
    }
    true
}

/// Bits of both in turns, that of the longitude first: each says in which half of what is left the place is.
fn hash(longitude: f64, latitude: f64, bits: u32) -> f64 {
    let mut along = (longitude + 180.0) / 360.0;
    let mut up = (latitude + LATITUDE) / (2.0 * LATITUDE);
    let mut hash = 0.0;
    for _ in 0..bits {
        for part in [&mut along, &mut up] {
            *part *= 2.0;
            let bit = if *part >= 1.0 { 1.0 } else { 0.0 };
            *part -= bit;
            hash = hash * 2.0 + bit;
        }
    }
    hash
}
