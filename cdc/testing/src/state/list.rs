//! Commands of lists.

use super::{Word, index, number, range};

pub(super) fn change(list: &mut Vec<Word>, op: &str, args: &[Word], is_there: bool) -> bool {
    match op {
        "rpushx" | "lpushx" if !is_there => {}
        "rpush" | "rpushx" => list.extend(args.iter().cloned()),
        "lpush" | "lpushx" => args.iter().for_each(|word| list.insert(0, word.clone())),
        "lpop" if list.is_empty() => {}
        "lpop" => drop(list.remove(0)),
        "rpop" => drop(list.pop()),
        "lset" => {
            let at = usize::try_from(index(&args[0], list.len())).unwrap();
            list[at].clone_from(&args[1]);
        }
        "linsert" => {
            if let Some(at) = list.iter().position(|word| *word == args[1]) {
                let is_before = args[0].eq_ignore_ascii_case(b"before");
                list.insert(at + usize::from(!is_before), args[2].clone());
            }
        }
        "lrem" => remove(list, number(&args[0]), &args[1]),
        "ltrim" => *list = list[range(&args[0], &args[1], list.len())].to_vec(),
        _ => return false,
    }
    true
}

/// `lrem`: the first so many, the last ones if it is less than zero, all if it is zero.
fn remove(list: &mut Vec<Word>, count: i64, word: &Word) {
    let mut left = usize::try_from(count.unsigned_abs()).unwrap();
    if count == 0 {
        left = list.len();
    }
    if count < 0 {
        list.reverse();
    }
    list.retain(|own| {
        let goes = left > 0 && own == word;
        left -= usize::from(goes);
        !goes
    });
    if count < 0 {
        list.reverse();
    }
}
