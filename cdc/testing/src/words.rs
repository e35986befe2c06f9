//! Words of commands as the fixtures write them.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::fixture::{Bytestring, bytestring};

/// Whether `word` is what the fixture tells, byte for byte; of a long one by its hash.
pub fn is_same(word: &[u8], told: &Value) -> bool {
    match bytestring(told).unwrap() {
        Bytestring::Bytes(bytes) => bytes == word,
        Bytestring::Hashed(len, hash) => {
            let found: String = Sha256::digest(word)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            word.len() as u64 == len && found == hash
        }
    }
}
