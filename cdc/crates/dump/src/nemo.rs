//! Databases of Pika 2.3: one for each type, metas and data of a type in one key space.

use takhin_pika::command::{DataType, is_internal};
use takhin_pika::storage::{self, Damage, Meta, nemo};

use crate::blackwidow::{damaged, push};
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
        let stored = nemo::stored(value).map_err(|source| damaged(database, source))?;
        if !storage::is_alive(stored.expire_at_ms, now_ms) {
            tally.dead += 1;
        } else if !is_internal(key) {
            let mut pieces = Pieces::of(DataType::String, key, stored.expire_at_ms, bounds, &mut *emit);
            pieces.push(&[stored.value]);
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
    let Some(letter) = nemo::meta_letter(data_type) else {
        return Ok(tally);
    };
    let mut metas = database.scan(None);
    let mut data = database.scan(None);
    metas.seek(&[letter]);
    while let Some((encoded, value)) = metas.item()? {
        let Some(key) = encoded.strip_prefix(&[letter]) else {
            break;
        };
        // One that is as long as its letter separates metas from what follows.
        if key.is_empty() || is_internal(key) {
            metas.next();
            continue;
        }
        let fault = |source| damaged(database, source);
        let meta = nemo::meta(data_type, value).map_err(fault)?;
        if !meta.is_alive(now_ms) {
            tally.dead += 1;
            metas.next();
            continue;
        }
        let prefix = nemo::data_prefix(data_type, key).ok_or_else(|| fault(Damage::LongKey(key.len())))?;
        let mut pieces = Pieces::of(data_type, key, meta.expire_at_ms, bounds, &mut *emit);
        match data_type {
            DataType::List => nodes(database, &mut data, &meta, &prefix, &mut pieces)?,
            _ => elements(database, &mut data, &meta, &prefix, &mut pieces)?,
        }
        let (has_any, is_wanted) = pieces.finish();
        tally.count(has_any);
        if !is_wanted {
            return Ok(tally);
        }
        metas.next();
    }
    Ok(tally)
}

/// The elements of a key that is no list. Data that is older than the meta is of an earlier life of the key.
fn elements(
    database: &Database,
    data: &mut Scan<'_>,
    meta: &Meta,
    prefix: &[u8],
    pieces: &mut Pieces<'_>,
) -> Result<(), DumpError> {
    data.seek(prefix);
    while let Some((key, value)) = data.item()? {
        let Some(tail) = key.strip_prefix(prefix) else {
            break;
        };
        let fault = |source| damaged(database, source);
        let stored = nemo::stored(value).map_err(fault)?;
        if u64::from(stored.version) >= meta.version
            && !push(meta.data_type, tail, stored.value, pieces).map_err(fault)?
        {
            break;
        }
        data.next();
    }
    Ok(())
}

/// The elements of a list, each of which names the next one.
fn nodes(
    database: &Database,
    data: &mut Scan<'_>,
    meta: &Meta,
    prefix: &[u8],
    pieces: &mut Pieces<'_>,
) -> Result<(), DumpError> {
    let fault = |source| damaged(database, source);
    let mut next = meta.indexes.map_or(0, |(left, _)| left);
    for met in 0..meta.len {
        let broken = || {
            fault(Damage::List {
                len: meta.len,
                found: met,
            })
        };
        if next == 0 {
            return Err(broken());
        }
        let mut wanted = prefix.to_vec();
        wanted.extend_from_slice(&next.to_le_bytes());
        data.seek(&wanted);
        let (key, value) = data.item()?.ok_or_else(broken)?;
        if key != wanted {
            return Err(broken());
        }
        let stored = nemo::stored(value).map_err(fault)?;
        let (_, after, element) = nemo::list_node(stored.value).map_err(fault)?;
        if !push(DataType::List, &[], element, pieces).map_err(fault)? {
            break;
        }
        next = after;
    }
    Ok(())
}
