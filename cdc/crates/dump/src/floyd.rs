//! Databases of Pika 4.0: all types in each.

use takhin_pika::command::{DataType, is_internal};
use takhin_pika::storage::floyd::{self, Entry};
use takhin_pika::storage::{self, Damage, Meta};

use crate::blackwidow::{damaged, index, push};
use crate::database::{Database, Scan};
use crate::error::DumpError;
use crate::piece::{Bounds, Emit, Pieces, Tally};

pub(crate) fn read(
    database: &Database,
    now_ms: i64,
    bounds: Bounds,
    emit: Emit<'_>,
) -> Result<Tally, DumpError> {
    let mut tally = Tally::default();
    let mut entries = database.scan(None);
    let mut data = DataType::ALL.map(|data_type| database.scan(floyd::data_family(data_type)));
    while let Some((encoded, value)) = entries.item()? {
        let fault = |source| damaged(database, source);
        let key = match floyd::user_key(encoded) {
            Ok(key) => key,
            Err(Damage::CutKey) => {
                tally.damaged += 1;
                entries.next();
                continue;
            }
            Err(source) => return Err(fault(source)),
        };
        let entry = floyd::entry(value).map_err(fault)?;
        let is_alive = match &entry {
            Entry::String { expire_at_ms, .. } => storage::is_alive(*expire_at_ms, now_ms),
            Entry::Meta(meta) => meta.is_alive(now_ms),
        };
        if !is_alive || is_internal(&key) {
            tally.dead += u64::from(!is_alive);
            entries.next();
            continue;
        }
        let (has_any, is_wanted) = match entry {
            Entry::String { value, expire_at_ms } => {
                let mut pieces = Pieces::of(DataType::String, &key, expire_at_ms, bounds, &mut *emit);
                pieces.push(&[value]);
                pieces.finish()
            }
            Entry::Meta(meta) => {
                let mut pieces = Pieces::of(meta.data_type, &key, meta.expire_at_ms, bounds, &mut *emit);
                let prefix = floyd::data_prefix(encoded, meta.version).map_err(fault)?;
                let at = DataType::ALL
                    .iter()
                    .position(|data_type| *data_type == meta.data_type);
                let scan = &mut data[at.unwrap_or_default()];
                elements(database, scan, &meta, &prefix, &mut pieces)?;
                pieces.finish()
            }
        };
        tally.count(has_any);
        if !is_wanted {
            return Ok(tally);
        }
        entries.next();
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
    let fault = |source| damaged(database, source);
    let mut from = prefix.to_vec();
    let mut end = None;
    if let Some((left, right)) = meta.indexes {
        from.extend_from_slice(&left.saturating_add(1).to_le_bytes());
        end = Some(right);
    }
    data.seek(&from);
    while let Some((key, value)) = data.item()? {
        if !key.starts_with(prefix) {
            break;
        }
        let tail = floyd::tail(prefix, key).map_err(fault)?;
        if end.is_some_and(|end| index(tail).is_none_or(|index| index >= end)) {
            break;
        }
        let payload = floyd::payload(meta.data_type, value).map_err(fault)?;
        if !push(meta.data_type, tail, payload, pieces).map_err(fault)? {
            break;
        }
        data.next();
    }
    Ok(())
}
