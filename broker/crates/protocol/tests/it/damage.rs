//! Batches with wrong bytes in them, and bytes that never were a batch.

use bytes::Bytes;
use proptest::prelude::*;
use takhin_protocol::record::{Batch, Compression, HEADER_LEN, Limits, Records, scan, validate_produced};

use crate::records::{CODECS, Owned, batch};
use crate::rules::reading_all;

fn some_records() -> Vec<Owned> {
    let record = |timestamp: i64| Owned {
        timestamp,
        key: Some(b"key".to_vec()),
        value: Some(vec![b'v'; 20]),
        headers: vec![("h".into(), None)],
    };
    (0..5).map(record).collect()
}

/// The leader epoch is the one thing that a producer may send as it likes: outside the CRC, replaced on append.
#[test]
fn every_changed_byte_is_refused_or_the_leader_epochs() {
    for codec in [Compression::None, Compression::Lz4] {
        let good = batch(&some_records(), codec).to_bytes();
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = good.to_vec();
                bytes[at] ^= flip;
                let validated = validate_produced(Some(bytes.clone().into()), &Limits::default());
                let epoch = (12..16).contains(&at);
                assert_eq!(validated.is_ok(), epoch, "byte {at} ^ {flip}");
                // On disk the base offset is not 0, so it can change unnoticed as long as it is an offset.
                let base_offset = (0..8).contains(&at) && scan::header(&bytes).is_ok();
                assert_eq!(
                    scan::check(&bytes).is_ok(),
                    epoch || base_offset,
                    "byte {at} ^ {flip}"
                );
            }
        }
    }
}

#[test]
fn every_cut_is_incomplete() {
    let good = batch(&some_records(), Compression::None).to_bytes();
    for len in 0..good.len() {
        let needed = if len < HEADER_LEN { HEADER_LEN } else { good.len() };
        assert_eq!(
            scan::check(&good[..len]),
            Err(scan::Damage::Incomplete { needed }),
            "cut at {len}"
        );
        assert!(validate_produced(Some(good.slice(..len)), &Limits::default()).is_err());
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in any::<i32>()) {
        let mut with_magic = bytes.clone();
        if let Some(magic) = with_magic.get_mut(16) {
            *magic = 2;
        }
        for bytes in [&bytes, &with_magic] {
            prop_assert!(validate_produced(Some(Bytes::copy_from_slice(bytes)), &reading_all()).is_err());
            let _ = scan::check(bytes);
        }
        let read: Vec<_> = Records::new(&bytes, count).collect();
        prop_assert!(read.len() <= bytes.len() / 7 + 1);
    }

    /// Damage that the checksum does not show, because whoever did it computed the checksum anew.
    #[test]
    fn a_hostile_producer_gets_an_error_or_a_batch_that_reads(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        codec in prop::sample::select(CODECS.to_vec()),
    ) {
        let good = batch(&some_records(), codec);
        let mut body = good.body.to_vec();
        for (at, with) in changes {
            let at = at.index(body.len());
            body[at] = with;
        }
        let mut hostile = Batch { header: good.header, body: body.into() };
        hostile.header.crc = hostile.compute_crc();
        if let Ok(batch) = validate_produced(Some(hostile.to_bytes()), &reading_all()) {
            prop_assert_eq!(crate::records::read(&batch).len(), 5);
        }
    }
}
