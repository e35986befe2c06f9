//! Commands of sorted sets.

use std::collections::BTreeMap;

use super::{Word, float, number, range};

/// By score, those of the same score by name.
fn by_rank(members: &BTreeMap<Word, f64>) -> Vec<Word> {
    let mut ranked: Vec<(&Word, &f64)> = members.iter().collect();
    ranked.sort_by(|a, b| a.1.total_cmp(b.1).then_with(|| a.0.cmp(b.0)));
    ranked.into_iter().map(|(member, _)| member.clone()).collect()
}

pub(super) fn change(members: &mut BTreeMap<Word, f64>, op: &str, args: &[Word]) -> bool {
    let ranked = by_rank(members);
    let gone: Vec<Word> = match op {
        "zadd" => {
            members.extend(args.chunks(2).map(|pair| (pair[1].clone(), float(&pair[0]))));
            return true;
        }
        "zincrby" => {
            *members.entry(args[1].clone()).or_default() += float(&args[0]);
            return true;
        }
        "zrem" => args.to_vec(),
        "zremrangebyrank" => ranked[range(&args[0], &args[1], ranked.len())].to_vec(),
        "zremrangebyscore" => {
            let is_in = |member: &Word| is_score_in(members[member], &args[0], &args[1]);
            ranked.into_iter().filter(is_in).collect()
        }
        "zremrangebylex" => {
            let is_in = |member: &Word| is_name_in(member, &args[0], &args[1]);
            ranked.into_iter().filter(is_in).collect()
        }
        "zpopmin" | "zpopmax" => {
            let count = args
                .first()
                .map_or(1, |count| usize::try_from(number(count)).unwrap());
            if op == "zpopmin" {
                ranked.into_iter().take(count).collect()
            } else {
                ranked.into_iter().rev().take(count).collect()
            }
        }
        _ => return false,
    };
    members.retain(|member, _| !gone.contains(member));
    true
}

/// Bounds count themselves, unless a parenthesis is before them.
fn is_score_in(score: f64, min: &[u8], max: &[u8]) -> bool {
    let is_above = match min.strip_prefix(b"(") {
        Some(min) => score > float(min),
        None => score >= float(min),
    };
    is_above
        && match max.strip_prefix(b"(") {
            Some(max) => score < float(max),
            None => score <= float(max),
        }
}

fn is_name_in(name: &[u8], min: &[u8], max: &[u8]) -> bool {
    let is_above = match min.split_first() {
        Some((b'-', _)) => true,
        Some((b'(', min)) => name > min,
        Some((b'[', min)) => name >= min,
        _ => false,
    };
    is_above
        && match max.split_first() {
            Some((b'+', _)) => true,
            Some((b'(', max)) => name < max,
            Some((b'[', max)) => name <= max,
            _ => false,
        }
}

/// `zunionstore` and `zinterstore`: what follows the number of keys and the keys says weights and how scores come together.
pub(super) fn combine(op: &str, sources: &[BTreeMap<Word, f64>], options: &[Word]) -> BTreeMap<Word, f64> {
    let at = |name: &[u8]| options.iter().position(|word| word.eq_ignore_ascii_case(name));
    let weight = |source: usize| at(b"weights").map_or(1.0, |at| float(&options[at + 1 + source]));
    let aggregate = at(b"aggregate").map(|at| options[at + 1].to_ascii_lowercase());
    let mut found: BTreeMap<Word, Vec<f64>> = BTreeMap::new();
    for (number, source) in sources.iter().enumerate() {
        for (member, score) in source {
            let scores = found.entry(member.clone()).or_default();
            scores.push(score * weight(number));
        }
    }
    if op == "zinterstore" {
        found.retain(|_, scores| scores.len() == sources.len());
    }
    let together = |scores: Vec<f64>| match aggregate.as_deref() {
        Some(b"min") => scores.into_iter().fold(f64::INFINITY, f64::min),
        Some(b"max") => scores.into_iter().fold(f64::NEG_INFINITY, f64::max),
        _ => scores.into_iter().sum(),
    };
    let one = |(member, scores)| (member, together(scores));
    found.into_iter().map(one).collect()
}
