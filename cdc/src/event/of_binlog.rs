//! Events of an item of the binlog.

use std::sync::Arc;

use takhin_pika::Position;
use takhin_pika::binlog::{Item, ItemError};
use takhin_pika::command;

use super::{Event, Kind, Place, Source};

/// Adds the events of an item that ends at `end`; none if it says nothing about data. `index` is its number where several items
/// make one record, as in 2.3; 0 otherwise. `epoch` counts the data sets that have replaced a lost position: whatever the master
/// has at a position after that may be another change than before.
///
/// # Errors
///
/// The commands of the item make no sense; events of those before were added.
pub fn put_events(
    source: &Source,
    db: &Arc<str>,
    item: &Item,
    (index, end, epoch): (u32, Position, u32),
    events: &mut Vec<Event>,
) -> Result<(), ItemError> {
    let mut subs = index..;
    let mut put = |change: command::Change| {
        let Some(sub) = subs.next() else { return };
        events.push(Event {
            kind: Kind::Binlog,
            event_id: event_id((source, epoch), db, item, sub),
            op: change.op,
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
        });
    };
    item.each_command(|command| command::each_change(command, item.exec_time, &mut put))
}

/// Room for the numbers of an id.
const NUMBERS: usize = 48;

/// Tells the change from all others, of other databases and other binlogs too:
/// `BINLOG[.EPOCH]:DB:TERM:FILENUM:OFFSET:LOGIC-ID:SUB`.
fn event_id((source, epoch): (&Source, u32), db: &str, item: &Item, sub: u32) -> String {
    let Position { filenum, offset } = item.start;
    let binlog = source.epoch();
    let mut id = String::with_capacity(binlog.len() + db.len() + NUMBERS);
    let mut digits = itoa::Buffer::new();
    id.push_str(binlog);
    if epoch > 0 {
        id.push('.');
        id.push_str(digits.format(epoch));
    }
    id.push(':');
    id.push_str(db);
    let numbers = [
        item.origin.into(),
        filenum.into(),
        offset,
        item.logic_id,
        sub.into(),
    ];
    for number in numbers {
        id.push(':');
        id.push_str(digits.format::<u64>(number));
    }
    id
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Whoever reads events knows them again by it.
    #[test]
    fn ids_are_the_documented_ones() {
        let source = Source {
            id: "s".into(),
            host: "h".into(),
            port: 1,
            version: "3.5.5".into(),
            replication_id: "abcdefghij".into(),
        };
        let item = Item {
            exec_time: 1,
            origin: 7,
            logic_id: u64::MAX,
            start: Position::new(12, 34567),
            content: Bytes::new(),
        };
        let id = |epoch| event_id((&source, epoch), "db0", &item, 3);
        assert_eq!(id(0), "abcdefgh:db0:7:12:34567:18446744073709551615:3");
        assert_eq!(id(2), "abcdefgh.2:db0:7:12:34567:18446744073709551615:3");
    }
}
