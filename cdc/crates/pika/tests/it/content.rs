//! Words of commands as the fixtures write them.

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use takhin_pika_testing::fixture::{Bytestring, bytestring};

/// Whether `words` are what the fixture tells, byte for byte; of long ones by their hash.
pub(crate) fn are_same(words: &[Bytes], told: &Value) -> bool {
    let Some(told) = told.as_array() else { return false };
    words.len() == told.len() && words.iter().zip(told).all(|(word, told)| is_same(word, told))
}

fn is_same(word: &Bytes, told: &Value) -> bool {
    match bytestring(told) {
        Ok(Bytestring::Bytes(bytes)) => bytes == *word,
        Ok(Bytestring::Hashed(len, hash)) => {
            let found: String = Sha256::digest(word)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            word.len() as u64 == len && found == hash
        }
        Err(_) => false,
    }
}
