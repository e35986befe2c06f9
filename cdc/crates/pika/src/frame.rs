//! Frames of protobuf messages: a length in four bytes, big endian, and the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
/// What frames hold.
pub use prost::Message;

/// Longest message that Pika sends or takes.
pub const MAX_FRAME: usize = 512 << 20;

/// Bytes before a message.
const LENGTH: usize = 4;

/// Why a stream makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A message is longer than allowed.
    #[error("a message of {len} bytes is announced, more than the {max} allowed")]
    TooLong {
        /// What is announced.
        len: u32,
        /// The bound.
        max: usize,
    },
    /// A message makes no sense.
    #[error("a message makes no sense: {0}")]
    Message(#[from] prost::DecodeError),
}

/// Takes the next message's bytes; `None` until all of them have arrived.
///
/// # Errors
///
/// [`FrameError::TooLong`], before the message has arrived.
pub fn next(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let claimed = u32::from_be_bytes(*length);
    let len = usize::try_from(claimed)
        .ok()
        .filter(|len| *len <= max)
        .ok_or(FrameError::TooLong { len: claimed, max })?;
    if buffer.len() < LENGTH + len {
        // Not all at once: a length alone is no reason to reserve.
        return Ok(None);
    }
    buffer.advance(LENGTH);
    Ok(Some(buffer.split_to(len).freeze()))
}

/// Reads a message. What it lacks has its default, as older masters send less.
///
/// # Errors
///
/// [`FrameError::Message`].
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, FrameError> {
    Ok(M::decode(bytes)?)
}

/// A message with its length before it.
pub fn encode<M: Message>(message: &M) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(LENGTH + len);
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    // A BytesMut grows: there is always room.
    let _ = message.encode(&mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{
        BinlogOffset, BinlogSyncRequest, FileRequest, InnerRequest, InnerResponse, Kind, MetaSyncRequest,
        Node, Slot, Status, TransferKind, TransferRequest, TrySyncRequest,
    };

    fn hex(message: &impl Message) -> String {
        let frame = encode(message);
        assert_eq!(
            frame
                .first_chunk::<4>()
                .map(|len| u32::from_be_bytes(*len) as usize),
            Some(frame.len() - 4)
        );
        frame[4..].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn node() -> Node {
        Node {
            ip: "10.0.0.2".into(),
            port: 9231,
        }
    }

    fn slot() -> Slot {
        Slot {
            db_name: "db0".into(),
            slot_id: 0,
        }
    }

    fn at(filenum: u32, offset: u64) -> BinlogOffset {
        BinlogOffset {
            filenum,
            offset,
            term: None,
            index: None,
        }
    }

    /// The samples of the reference, byte for byte.
    #[test]
    fn known_messages_are_written() {
        let mut request = InnerRequest {
            r#type: Kind::MetaSync.into(),
            meta_sync: Some(MetaSyncRequest {
                node: node(),
                auth: Some("abc".into()),
            }),
            ..InnerRequest::default()
        };
        assert_eq!(hex(&request), "080112140a0d0a0831302e302e302e32108f481203616263");
        request = InnerRequest {
            r#type: Kind::TrySync.into(),
            try_sync: Some(TrySyncRequest {
                node: node(),
                slot: slot(),
                binlog_offset: at(12, 34567),
            }),
            ..InnerRequest::default()
        };
        assert_eq!(
            hex(&request),
            "08021a200a0d0a0831302e302e302e32108f4812070a0364623010001a06080c10878e02"
        );
        request = InnerRequest {
            r#type: Kind::BinlogSync.into(),
            binlog_sync: Some(BinlogSyncRequest {
                node: node(),
                db_name: "db0".into(),
                slot_id: 0,
                ack_range_start: at(0, 0),
                ack_range_end: at(0, 0),
                session_id: 7,
                first_send: false,
            }),
            ..InnerRequest::default()
        };
        assert_eq!(
            hex(&request),
            "08042a260a0d0a0831302e302e302e32108f48120364623018002204080010002a040800100030073800"
        );
        let file = TransferRequest {
            r#type: TransferKind::TransferFile.into(),
            reader_index: 1,
            db_name: "db0".into(),
            slot_id: 0,
            file_req: Some(FileRequest {
                filename: "0/CURRENT".into(),
                count: 4 << 20,
                offset: 0,
            }),
        };
        assert_eq!(
            hex(&file),
            "080210011a0364623020002a120a09302f43555252454e5410808080021800"
        );
    }

    #[test]
    fn an_older_master_may_leave_fields_out() {
        // kOk, classic mode, db0 with one slot; no instances, run id or replication id.
        let bytes = Bytes::from_static(&[8, 1, 16, 1, 34, 11, 8, 1, 18, 7, 10, 3, b'd', b'b', b'0', 16, 1]);
        let response: InnerResponse = decode(bytes).unwrap();
        assert_eq!(response.code(), Status::Ok);
        let meta = response.meta_sync.unwrap();
        assert_eq!(
            (meta.dbs_info[0].db_name.as_str(), meta.replication_id),
            ("db0", None)
        );
    }

    #[test]
    fn a_claimed_length_is_bounded() {
        let mut stream = BytesMut::from(&[0x7f, 0xff, 0xff, 0xff, 1][..]);
        let refused = next(&mut stream, MAX_FRAME);
        assert!(matches!(
            refused,
            Err(FrameError::TooLong { len: 0x7fff_ffff, .. })
        ));
    }
}
