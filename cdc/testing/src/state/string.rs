//! Commands of strings.

use super::{Word, float, number};

fn has_option(op: &str, args: &[Word], option: &str) -> bool {
    let is_it = |word: &Word| word.eq_ignore_ascii_case(option.as_bytes());
    op == "set" && args.iter().skip(1).any(is_it)
}

/// Whether it does nothing where the key is missing.
pub(super) fn is_only_if_there(op: &str, args: &[Word]) -> bool {
    has_option(op, args, "xx")
}

/// Whether it does nothing where the key is there.
pub(super) fn is_only_if_missing(op: &str, args: &[Word]) -> bool {
    op == "setnx" || has_option(op, args, "nx")
}

/// Makes it so long at least.
fn extend(text: &mut Word, len: usize) {
    text.resize(text.len().max(len), 0);
}

pub(super) fn change(text: &mut Word, op: &str, args: &[Word], is_there: bool) -> bool {
    match op {
        "set" | "setnx" if is_there && is_only_if_missing(op, args) => {}
        "set" | "getset" | "setnx" => text.clone_from(&args[0]),
        "pksetexat" | "setex" | "psetex" => text.clone_from(&args[1]),
        "append" => text.extend_from_slice(&args[0]),
        "setrange" => {
            let at = usize::try_from(number(&args[0])).unwrap();
            extend(text, at + args[1].len());
            text[at..at + args[1].len()].copy_from_slice(&args[1]);
        }
        "setbit" => {
            let at = usize::try_from(number(&args[0])).unwrap();
            extend(text, at / 8 + 1);
            let bit = 0x80 >> (at % 8);
            if args[1] == b"1" {
                text[at / 8] |= bit;
            } else {
                text[at / 8] &= !bit;
            }
        }
        "incr" | "incrby" | "decr" | "decrby" => {
            let old = if is_there { number(text) } else { 0 };
            let by = args.first().map_or(1, |by| number(by));
            let by = if op.starts_with("incr") { by } else { -by };
            *text = (old + by).to_string().into_bytes();
        }
        "incrbyfloat" => {
            let old = if is_there { float(text) } else { 0.0 };
            *text = (old + float(&args[0])).to_string().into_bytes();
        }
        _ => return false,
    }
    true
}

/// `bitop`: shorter ones count as if zeros followed.
pub(super) fn bit_operation(name: &[u8], sources: &[Word]) -> Word {
    let len = sources.iter().map(Vec::len).max().unwrap_or(0);
    let at = |source: &Word, index: usize| source.get(index).copied().unwrap_or(0);
    let byte = |index: usize| {
        let bytes = sources.iter().map(|source| at(source, index));
        let found = match name.to_ascii_lowercase().as_slice() {
            b"and" => bytes.reduce(|a, b| a & b),
            b"or" => bytes.reduce(|a, b| a | b),
            b"xor" => bytes.reduce(|a, b| a ^ b),
            b"not" => bytes.map(|byte| !byte).next(),
            other => panic!("{other:?}"),
        };
        found.unwrap_or(0)
    };
    (0..len).map(byte).collect()
}
