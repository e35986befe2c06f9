//! What masters send and store: any bytes give an answer or an error, arrival in pieces changes nothing, and what was read is
//! written as it was read.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use takhin_pika::binlog::Item;
use takhin_pika::command::{self, DataType};
use takhin_pika::info::{self, DumpInfo, ServerInfo};
use takhin_pika::legacy::{Arrived, Chain, Reader, Step};
use takhin_pika::message::{InnerRequest, InnerResponse, TransferRequest, TransferResponse};
use takhin_pika::storage::{self, blackwidow, floyd, nemo};
use takhin_pika::{Position, frame, resp};

/// Longest message or command that is taken.
const MAX: usize = 1 << 20;

/// Bytes after which binlog files roll.
const FILE_SIZE: u64 = 100 << 20;

/// Slack of what is kept over the bytes that were given.
const SLACK: usize = 4096;

/// An item of the binlog, and the commands in it.
///
/// # Panics
/// When an item is not written as it was read, or its commands are longer than it.
pub fn pika_binlog_item(data: &[u8]) {
    let Ok(item) = Item::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    let again = Item::decode(item.encode());
    assert_eq!(again.as_ref().ok(), Some(&item), "{again:?}");
    let Ok(commands) = item.commands() else { return };
    let words = commands.iter().flatten().map(Bytes::len).sum::<usize>();
    assert!(
        words <= item.content.len(),
        "{words} bytes of words in {}",
        item.content.len()
    );
    for command in &commands {
        let changes = command::changes(command, item.exec_time);
        assert!(
            changes.len() <= command.len() + 1,
            "{} changes of {command:?}",
            changes.len()
        );
    }
    let _ = item.start.after(item.len());
    let _ = item.follows(Position::new(item.start.filenum, item.start.offset));
}

/// What a Redis port says: commands and answers, in pieces whose size the first byte gives, and at once; and the texts in them.
///
/// # Panics
/// When it matters how they arrive, or commands are not written as they were read.
pub fn pika_resp(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (ServerInfo::parse(text), DumpInfo::parse(text));
        let _ = (info::binlog_end(text, "db0"), info::legacy_binlog_end(text));
    }
    arrives(data, |buffer| resp::next_command(buffer, MAX).map_err(drop));
    arrives(data, |buffer| resp::next_answer(buffer, MAX).map_err(drop));
    let Ok(commands) = resp::commands(&Bytes::copy_from_slice(data)) else {
        return;
    };
    let mut written = Vec::new();
    commands
        .iter()
        .for_each(|command| resp::put_command(&mut written, command));
    assert_eq!(resp::commands(&written.into()).ok(), Some(commands));
}

/// Frames with protobuf messages in them, in pieces and at once; each is read as all four kinds.
///
/// # Panics
/// When it matters how they arrive, or a message is not written as it was read.
pub fn pika_frame(data: &[u8]) {
    fn read<M: frame::Message + Default + PartialEq>(bytes: &Bytes) {
        if let Ok(message) = frame::decode::<M>(bytes.clone()) {
            let mut written = BytesMut::from(&frame::encode(&message)[..]);
            let framed = frame::next(&mut written, usize::MAX >> 1).ok().flatten();
            let again = framed.and_then(|bytes| frame::decode::<M>(bytes).ok());
            assert!(again == Some(message), "a message changes when it is written");
        }
    }
    for bytes in arrives(data, |buffer| frame::next(buffer, MAX).map_err(drop)) {
        read::<InnerRequest>(&bytes);
        read::<InnerResponse>(&bytes);
        read::<TransferRequest>(&bytes);
        read::<TransferResponse>(&bytes);
    }
}

/// The stream of masters before 3.1, in pieces and at once, and what follows what in it.
///
/// # Panics
/// When it matters how it arrives, or a gap changes what was taken before it.
pub fn pika_legacy(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let read = |pieces: std::slice::Chunks<'_, u8>| {
        let mut reader = Reader::default();
        let mut found = Vec::new();
        for piece in pieces {
            reader.buffer.extend_from_slice(piece);
            loop {
                match reader.next(MAX) {
                    Ok(Some(arrived)) => found.push(arrived),
                    Ok(None) => break,
                    Err(_) => return (found, true),
                }
            }
        }
        (found, false)
    };
    let whole = read(stream.chunks(usize::MAX >> 1));
    assert_eq!(whole, read(stream.chunks(usize::from(*first) + 1)));
    follow(&whole.0);
}

/// Items as they come, from the first one on.
fn follow(found: &[Arrived]) {
    let mut chain: Option<Chain> = None;
    for arrived in found {
        let Arrived::Item { item, len, may_go_on } = arrived else {
            // The master connects again.
            if let Some(chain) = &mut chain {
                chain.begin_again();
            }
            continue;
        };
        let chain = chain.get_or_insert_with(|| Chain::new(item.start, None, FILE_SIZE));
        let before = (chain.end(), chain.last());
        match chain.take(item.start, *len, *may_go_on) {
            Ok(Step::New { end, .. }) => assert_eq!(chain.end(), end),
            Ok(Step::Known) => assert_eq!(chain.last(), before.1),
            Err(gap) => assert_eq!((chain.end(), chain.last()), before, "{gap}"),
        }
    }
}

/// Keys and values of a dump, of every layout and type.
///
/// # Panics
/// When keys do not read back, or what a value holds is longer than it.
pub fn pika_dump(data: &[u8]) {
    for data_type in DataType::ALL {
        let _ = (blackwidow::meta(data_type, data), nemo::meta(data_type, data));
        if let Ok(payload) = floyd::payload(data_type, data) {
            assert!(payload.len() <= data.len());
        }
    }
    let _ = (
        blackwidow::string(data),
        floyd::entry(data),
        floyd::data_prefix(data, 7),
    );
    let _ = (nemo::stored(data), nemo::list_node(data), storage::score(data));
    if let Ok(id) = storage::StreamId::decode(data) {
        assert!(id.to_string().contains('-'));
    }
    if let Ok(fields) = storage::stream_fields(data) {
        let len = fields.iter().map(|field| field.len()).sum::<usize>();
        assert!(len <= data.len(), "{len} bytes of fields in {}", data.len());
    }
    if let Ok(key) = floyd::user_key(data) {
        assert!(key.len() <= data.len());
    }
    let encoded = floyd::encode_key(data);
    assert_eq!(
        floyd::user_key(&encoded).ok().as_deref(),
        Some(data),
        "a key does not read back"
    );
    let (half, rest) = data.split_at(data.len() / 2);
    for compare in [blackwidow::compare_list_keys, floyd::compare_list_keys] {
        assert_eq!(compare(half, rest), compare(rest, half).reverse());
    }
}

/// What is taken from a stream, which must be the same in pieces and at once.
fn arrives<T: PartialEq + Debug>(
    data: &[u8],
    next: impl Fn(&mut BytesMut) -> Result<Option<T>, ()>,
) -> Vec<T> {
    let Some((first, stream)) = data.split_first() else {
        return Vec::new();
    };
    let read = |pieces: std::slice::Chunks<'_, u8>| {
        let (mut buffer, mut found, mut received) = (BytesMut::new(), Vec::new(), 0);
        for piece in pieces {
            received += piece.len();
            buffer.extend_from_slice(piece);
            loop {
                match next(&mut buffer) {
                    Ok(Some(taken)) => found.push(taken),
                    Ok(None) => break,
                    Err(()) => return (found, true),
                }
            }
            assert!(
                buffer.capacity() <= 2 * received + SLACK,
                "{} bytes for {received} received",
                buffer.capacity()
            );
        }
        (found, false)
    };
    let (whole, is_broken) = read(stream.chunks(usize::MAX >> 1));
    let (pieces, is_broken_too) = read(stream.chunks(usize::from(*first) + 1));
    assert_eq!(
        (&whole, is_broken),
        (&pieces, is_broken_too),
        "it matters how it arrives"
    );
    whole
}
