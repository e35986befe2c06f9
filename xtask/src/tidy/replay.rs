//! What keeps a simulated broker from replaying, and neither the compiler nor clippy sees.

use super::source;
use crate::tree::Tree;

/// What is simulated.
const SIMULATED: &str = "broker/";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let simulated = tree.ending(".rs").filter(|(path, _)| path.starts_with(SIMULATED));
    simulated
        .flat_map(|(path, text)| {
            let code = source::code_of(text);
            let mut faults = unbiased(path, &code);
            faults.extend(unordered(path, &code));
            faults
        })
        .collect()
}

/// Choices that tokio leaves to a number which the operating system seeds.
fn unbiased(path: &str, code: &str) -> Vec<String> {
    code.match_indices("select!")
        .filter(|(at, name)| {
            let body = code[at + name.len()..]
                .trim_start()
                .trim_start_matches(['{', '(']);
            !body.trim_start().starts_with("biased;")
        })
        .map(|(at, _)| {
            let line = line_of(code, at);
            format!("{path}:{line}: `select!` without `biased;` chooses by chance: say in which order")
        })
        .collect()
}

/// Collections whose order the operating system seeds.
fn unordered(path: &str, code: &str) -> Vec<String> {
    let named = code.lines().zip(1..).filter_map(|(text, line)| {
        let name = ["HashMap", "HashSet"]
            .into_iter()
            .find(|name| text.contains(name))?;
        Some(format!(
            "{path}:{line}: a {name} is iterated in an order of chance: use a BTree{}",
            &name[4..]
        ))
    });
    named.collect()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chooses_by_chance_is_found_with_its_line() {
        let code = "\ntokio::select! {\n    biased;\n    a = b => {}\n}\nselect! { x = y => {} }";
        let faults = unbiased("a.rs", code);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("a.rs:6: "), "{faults:?}");
    }

    #[test]
    fn collections_without_an_order_are_found() {
        let faults = unordered("a.rs", "use std::collections::{BTreeMap, HashSet};\nlet a = 1;");
        assert_eq!(
            faults,
            ["a.rs:1: a HashSet is iterated in an order of chance: use a BTreeSet"]
        );
    }
}
