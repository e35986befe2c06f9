//! The house rules, one file each. A rule takes the tree and returns what is wrong, each with its place.

mod crates;
mod functions;
mod links;
mod modules;
mod replay;
mod root_files;
mod source;
mod words;

use crate::tree::Tree;

/// Lines that a Rust file may have: beyond that two things live in it.
const MAX_FILE_LINES: usize = 800;

/// Finds what breaks a rule, one line each.
type Rule = fn(&Tree) -> Vec<String>;

/// Checks every rule; the summary says how much was looked at.
pub(crate) fn run() -> Result<String, Vec<String>> {
    let tree = Tree::read()?;
    let rules: [(&str, Rule); 8] = [
        ("file length", file_length),
        ("function length", functions::check),
        ("crates", crates::check),
        ("modules", modules::check),
        ("root files", root_files::check),
        ("words", words::check),
        ("links", links::check),
        ("replay", replay::check),
    ];
    let faults: Vec<String> = rules
        .iter()
        .flat_map(|(name, rule)| {
            rule(&tree)
                .into_iter()
                .map(move |fault| format!("{fault} ({name})"))
        })
        .collect();
    let lines: usize = tree.ending(".rs").map(|(_, text)| text.lines().count()).sum();
    if faults.is_empty() {
        Ok(format!(
            "tidy: {} files, {lines} lines of Rust, {} rules kept",
            tree.paths.len(),
            rules.len()
        ))
    } else {
        Err(faults)
    }
}

fn file_length(tree: &Tree) -> Vec<String> {
    tree.ending(".rs")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines; split it, {MAX_FILE_LINES} is the most"))
        .collect()
}
