//! Commands of streams. Pika writes the id that it gave into the binlog.

use super::{Word, number};

type Entries = Vec<(Word, Vec<Word>)>;

pub(super) fn change(entries: &mut Entries, op: &str, args: &[Word]) -> bool {
    match op {
        "xadd" => {
            let mut at = usize::from(args[0].eq_ignore_ascii_case(b"nomkstream"));
            let options = is_bound(&args[at]).then(|| at..behind_bound(args, at));
            at = options.as_ref().map_or(at, |options| options.end);
            entries.push((args[at].clone(), args[at + 1..].to_vec()));
            if let Some(options) = options {
                trim(entries, &args[options]);
            }
        }
        "xdel" => entries.retain(|(id, _)| !args.contains(id)),
        "xtrim" => trim(entries, args),
        _ => return false,
    }
    true
}

fn is_bound(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"maxlen") || word.eq_ignore_ascii_case(b"minid")
}

/// Where what follows the bound at `at` begins: its name, `=` or `~`, the bound, and a limit.
fn behind_bound(args: &[Word], at: usize) -> usize {
    let at = at + 2 + usize::from(matches!(args[at + 1].as_slice(), b"=" | b"~"));
    if args[at].eq_ignore_ascii_case(b"limit") {
        at + 2
    } else {
        at
    }
}

/// Milliseconds and number of an entry.
fn id(word: &[u8]) -> (i64, i64) {
    let mut parts = word.split(|byte| *byte == b'-').map(number);
    (parts.next().unwrap(), parts.next().unwrap_or(0))
}

fn trim(entries: &mut Entries, options: &[Word]) {
    let bound = &options[1 + usize::from(matches!(options[1].as_slice(), b"=" | b"~"))];
    if options[0].eq_ignore_ascii_case(b"maxlen") {
        let most = usize::try_from(number(bound)).unwrap();
        entries.drain(..entries.len().saturating_sub(most));
    } else {
        entries.retain(|(own, _)| id(own) >= id(bound));
    }
}
