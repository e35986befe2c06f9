//! Record batches: what is accepted is kept byte for byte, within its limits, and reads to the end.

use bytes::Bytes;
use takhin_protocol::record::{Limits, RecordCheck, scan, validate_produced};

/// Takes `data` as a producer's records for one partition; the second time with its CRC made right, since no
/// fuzzer guesses one.
///
/// # Panics
/// When a batch is accepted that a later reader would refuse, or that is not what was sent.
pub fn record_batch(data: &[u8]) {
    check(Bytes::copy_from_slice(data));
    check(with_right_crc(data));
}

fn check(sent: Bytes) {
    let limits = Limits {
        max_bytes: 1 << 20,
        records: RecordCheck::All { budget: 1 << 20 },
        ..Limits::default()
    };
    let header_only = Limits {
        records: RecordCheck::HeaderOnly,
        ..limits
    };
    let Ok(batch) = validate_produced(Some(sent.clone()), &limits) else {
        // Looking at less may accept more; it must not break.
        let _ = validate_produced(Some(sent), &header_only);
        return;
    };
    assert!(
        validate_produced(Some(sent.clone()), &header_only).is_ok(),
        "looking at less refuses more"
    );
    assert_eq!(
        batch.to_bytes(),
        sent,
        "an accepted batch is passed on as it came"
    );
    assert_eq!(batch.compute_crc(), batch.header.crc);
    assert!(batch.header.records_count > 0 && !batch.header.is_hidden());
    assert_eq!(
        i64::from(batch.header.records_count),
        batch.header.next_offset() - batch.header.base_offset
    );
    let on_disk = scan::check(&sent).map(|(_, len)| len);
    assert_eq!(
        on_disk.ok(),
        Some(sent.len()),
        "recovery would cut what was acknowledged"
    );
}

/// `data` with batch length and CRC as they would have to be.
fn with_right_crc(data: &[u8]) -> Bytes {
    let mut bytes = data.to_vec();
    if let Some(length) = bytes
        .len()
        .checked_sub(12)
        .and_then(|len| i32::try_from(len).ok())
        && bytes.len() >= takhin_protocol::record::HEADER_LEN
    {
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let mut head = [0; takhin_protocol::record::HEADER_LEN];
        head.copy_from_slice(&bytes[..takhin_protocol::record::HEADER_LEN]);
        let header = takhin_protocol::record::BatchHeader::parse(&head);
        let body = Bytes::copy_from_slice(&bytes[takhin_protocol::record::HEADER_LEN..]);
        let crc = takhin_protocol::record::Batch { header, body }.compute_crc();
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    bytes.into()
}
