//! Databases of Pika 3.0 to 3.5: one for each type.

use takhin_pika::command::{DataType, is_internal};
use takhin_pika::storage::{self, Damage, Meta, StreamId, blackwidow};

use crate::database::{Database, Scan};
use crate::error::DumpError;
use crate::piece::{Bounds, Emit, Pieces, Tally};

pub(crate) fn strings(
    database: &Database,
    now_ms: i64,
    bounds: Bounds,
    emit: Emit<'_>,
) -> Result<Tally, DumpError> {
    let mut tally = Tally::default();
    let mut scan = database.scan(None);
    while let Some((key, value)) = scan.item()? {
        let (value, expire_at_ms) = blackwidow::string(value).map_err(|source| damaged(database, source))?;
        if !storage::is_alive(expire_at_ms, now_ms) {
            tally.dead += 1;
        } else if !is_internal(key) {
            let mut pieces = Pieces::of(DataType::String, key, expire_at_ms, bounds, &mut *emit);
            pieces.push(&[value]);
            tally.keys += 1;
            if !pieces.finish().1 {
                return Ok(tally);
            }
        }
        scan.next();
    }
    Ok(tally)
}

pub(crate) fn collections(
    database: &Database,
    data_type: DataType,
    now_ms: i64,
    bounds: Bounds,
    emit: Emit<'_>,
) -> Result<Tally, DumpError> {
    let mut tally = Tally::default();
    let mut metas = database.scan(None);
    let mut data = database.scan(blackwidow::data_family(data_type));
    while let Some((key, value)) = metas.item()? {
        let meta = blackwidow::meta(data_type, value).map_err(|source| damaged(database, source))?;
        if is_internal(key) {
            metas.next();
            continue;
        }
        if !meta.is_alive(now_ms) {
            tally.dead += 1;
            metas.next();
            continue;
        }
        let mut pieces = Pieces::of(data_type, key, meta.expire_at_ms, bounds, &mut *emit);
        let prefix = blackwidow::data_prefix(key, meta.version);
        elements(database, &mut data, &meta, &prefix, &mut pieces)?;
        let (has_any, is_wanted) = pieces.finish();
        tally.count(has_any);
        if !is_wanted {
            return Ok(tally);
        }
        metas.next();
    }
    Ok(tally)
}

/// The elements of one key.
fn elements(
    database: &Database,
    data: &mut Scan<'_>,
    meta: &Meta,
    prefix: &[u8],
    pieces: &mut Pieces<'_>,
) -> Result<(), DumpError> {
    let mut from = prefix.to_vec();
    let mut end = None;
    if let Some((left, right)) = meta.indexes {
        from.extend_from_slice(&left.saturating_add(1).to_le_bytes());
        end = Some(right);
    }
    data.seek(&from);
    while let Some((key, value)) = data.item()? {
        let Some(tail) = key.strip_prefix(prefix) else {
            break;
        };
        if end.is_some_and(|end| index(tail).is_none_or(|index| index >= end)) {
            break;
        }
        let pushed = push(meta.data_type, tail, value, pieces);
        if !pushed.map_err(|source| damaged(database, source))? {
            break;
        }
        data.next();
    }
    Ok(())
}

/// The index of a list element.
pub(crate) fn index(tail: &[u8]) -> Option<u64> {
    tail.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Adds an element, from the end of its key and its value; `false` if no more are wanted.
pub(crate) fn push(
    data_type: DataType,
    tail: &[u8],
    value: &[u8],
    pieces: &mut Pieces<'_>,
) -> Result<bool, Damage> {
    Ok(match data_type {
        DataType::String | DataType::List => pieces.push(&[value]),
        DataType::Hash => pieces.push(&[tail, value]),
        DataType::Set => pieces.push(&[tail]),
        DataType::Zset => {
            let score = storage::score_text(storage::score(value)?);
            pieces.push(&[score.as_bytes(), tail])
        }
        DataType::Stream => {
            let id = StreamId::decode(tail)?.to_string();
            let mut words = vec![id.as_bytes()];
            words.extend(storage::stream_fields(value)?);
            pieces.push(&words)
        }
    })
}

pub(crate) fn damaged(database: &Database, source: Damage) -> DumpError {
    DumpError::Damaged {
        path: database.path.clone(),
        source,
    }
}
