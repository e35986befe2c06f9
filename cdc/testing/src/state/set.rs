//! Commands of sets. `spop` is none of them: which member it takes is not in the binlog.

use std::collections::BTreeSet;

use super::Word;

pub(super) fn change(members: &mut BTreeSet<Word>, op: &str, args: &[Word]) -> bool {
    match op {
        "sadd" => members.extend(args.iter().cloned()),
        "srem" => members.retain(|member| !args.contains(member)),
        _ => return false,
    }
    true
}

/// `sunionstore` and its like.
pub(super) fn combine(op: &str, sources: Vec<BTreeSet<Word>>) -> BTreeSet<Word> {
    let combined = sources.into_iter().reduce(|one, other| match op {
        "sunionstore" => &one | &other,
        "sinterstore" => &one & &other,
        _ => &one - &other,
    });
    combined.unwrap_or_default()
}
