//! Commands of hashes.

use std::collections::BTreeMap;

use super::{Word, float, number};

pub(super) fn change(fields: &mut BTreeMap<Word, Word>, op: &str, args: &[Word]) -> bool {
    match op {
        "hset" | "hmset" => fields.extend(args.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()))),
        "hsetnx" => {
            fields.entry(args[0].clone()).or_insert_with(|| args[1].clone());
        }
        "hdel" => args.iter().for_each(|field| drop(fields.remove(field))),
        "hincrby" => {
            let old = fields.get(&args[0]).map_or(0, |old| number(old));
            fields.insert(args[0].clone(), (old + number(&args[1])).to_string().into_bytes());
        }
        "hincrbyfloat" => {
            let old = fields.get(&args[0]).map_or(0.0, |old| float(old));
            fields.insert(args[0].clone(), (old + float(&args[1])).to_string().into_bytes());
        }
        _ => return false,
    }
    true
}
