//! Checks a batch in a segment file. Used by recovery and by `dump-log`.

use super::batch::{BatchHeader, CRC_FROM, HEADER_LEN, crc32c};

/// Why the bytes at a position of a segment file are not a whole, sound batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The bytes end before the batch does. At the end of a file this is a torn write; otherwise ask again
    /// with more bytes.
    #[error("batch needs {needed} bytes")]
    Incomplete {
        /// Bytes needed from the batch's start: those of the header, or of the whole batch.
        needed: usize,
    },
    /// The magic byte is not 2. A region of zeros looks like this.
    #[error("magic byte is {magic}, not 2")]
    Magic {
        /// The magic byte.
        magic: i8,
    },
    /// The length cannot be that of a batch.
    #[error("batch length {batch_length} is out of range")]
    Length {
        /// The header's batch length, in bytes.
        batch_length: i32,
    },
    /// The base offset is negative, or the offset after the batch is out of range. The CRC does not cover it.
    #[error("base offset {base_offset} is out of range")]
    BaseOffset {
        /// The base offset.
        base_offset: i64,
    },
    /// The checksum is wrong.
    #[error("batch has checksum {stored:#010x} but its bytes give {computed:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
}

/// Reads the header at the start of `bytes` and checks what can be checked without the body.
///
/// # Errors
///
/// Any [`Damage`] but a wrong CRC.
pub fn header(bytes: &[u8]) -> Result<BatchHeader, Damage> {
    let head = bytes
        .first_chunk::<HEADER_LEN>()
        .ok_or(Damage::Incomplete { needed: HEADER_LEN })?;
    let header = BatchHeader::parse(head);
    let BatchHeader {
        magic,
        batch_length,
        base_offset,
        last_offset_delta,
        ..
    } = header;
    if magic != 2 {
        return Err(Damage::Magic { magic });
    }
    if header.total_len() < HEADER_LEN {
        return Err(Damage::Length { batch_length });
    }
    let next_offset = base_offset
        .checked_add(i64::from(last_offset_delta))
        .and_then(|last| last.checked_add(1));
    if base_offset < 0 || next_offset.is_none_or(|next| next < base_offset) {
        return Err(Damage::BaseOffset { base_offset });
    }
    Ok(header)
}

/// Checks the batch at the start of `bytes`: header, then CRC over the rest.
///
/// Returns the header and the batch's length in bytes. More bytes may follow. Hidden entries are batches too.
///
/// # Errors
///
/// [`Damage`], the first that is found.
pub fn check(bytes: &[u8]) -> Result<(BatchHeader, usize), Damage> {
    let header = header(bytes)?;
    let needed = header.total_len();
    let batch = bytes.get(..needed).ok_or(Damage::Incomplete { needed })?;
    let computed = crc32c(&batch[CRC_FROM..]);
    if computed != header.crc {
        return Err(Damage::Crc {
            stored: header.crc,
            computed,
        });
    }
    Ok((header, needed))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::Batch;

    #[test]
    fn each_kind_of_damage_has_its_name() {
        let good = Batch::hidden(7, 1, 0, Bytes::from_static(b"vote"))
            .to_bytes()
            .to_vec();
        let damaged = |at: usize, with: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + with.len()].copy_from_slice(with);
            check(&bytes).unwrap_err()
        };
        let (header, len) = check(&[&good[..], b"next"].concat()).unwrap();
        assert!(header.is_hidden());
        assert_eq!((len, header.next_offset()), (good.len(), 7));
        assert_eq!(check(&good[..60]), Err(Damage::Incomplete { needed: 61 }));
        assert_eq!(check(&good[..64]), Err(Damage::Incomplete { needed: 65 }));
        assert_eq!(check(&[0; 100]), Err(Damage::Magic { magic: 0 }));
        assert_eq!(damaged(8, &[0, 0, 0, 48]), Damage::Length { batch_length: 48 });
        assert_eq!(damaged(8, &[0xff; 4]), Damage::Length { batch_length: -1 });
        assert_eq!(damaged(0, &[0xff; 8]), Damage::BaseOffset { base_offset: -1 });
        assert!(matches!(damaged(64, b"?"), Damage::Crc { .. }));
    }
}
