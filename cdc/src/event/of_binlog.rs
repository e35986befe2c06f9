//! Events of an item of the binlog.

use std::sync::Arc;

use takhin_pika::Position;
use takhin_pika::binlog::{Item, ItemError};
use takhin_pika::command;

use super::{Event, Kind, Place, Source};

/// The events of an item that ends at `end`; none if it says nothing about data. `index` is its number where several items
/// make one record, as in 2.3; 0 otherwise. `epoch` counts the data sets that have replaced a lost position: whatever the master
/// has at a position after that may be another change than before.
///
/// # Errors
///
/// The commands of the item make no sense.
pub fn events_of_item(
    source: &Source,
    db: &Arc<str>,
    item: &Item,
    (index, end, epoch): (u32, Position, u32),
) -> Result<Vec<Event>, ItemError> {
    let changes = item
        .commands()?
        .iter()
        .flat_map(|command| command::changes(command, item.exec_time))
        .collect::<Vec<_>>();
    let event = |(sub, change): (u32, command::Change)| Event {
        kind: Kind::Binlog,
        event_id: event_id((source, epoch), db, item, sub),
        op: change.op.into(),
        data_type: change.data_type,
        db: Arc::clone(db),
        key: change.key,
        args: change.args,
        ts_ms: i64::from(item.exec_time) * 1000,
        expire_at_ms: change.expire_at_ms,
        place: Some(Place {
            start: item.start,
            end,
            logic_id: item.logic_id,
            origin: item.origin,
            sub,
        }),
        part: None,
        snapshot: None,
        is_random: change.is_random,
        has_more_keys: change.has_more_keys,
        is_known: change.is_known,
    };
    Ok((index..).zip(changes).map(event).collect())
}

/// Tells the change from all others, of other databases and other binlogs too.
fn event_id((source, epoch): (&Source, u32), db: &str, item: &Item, sub: u32) -> String {
    let Position { filenum, offset } = item.start;
    let (binlog, term, logic_id) = (source.epoch(), item.origin, item.logic_id);
    match epoch {
        0 => format!("{binlog}:{db}:{term}:{filenum}:{offset}:{logic_id}:{sub}"),
        _ => format!("{binlog}.{epoch}:{db}:{term}:{filenum}:{offset}:{logic_id}:{sub}"),
    }
}
