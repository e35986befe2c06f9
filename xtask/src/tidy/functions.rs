//! A function fits on a screen. Longer ones of the past are listed in `xtask/long-functions.txt` with their
//! length; the list only gets shorter.

use std::collections::BTreeMap;

use super::source::code_of;
use crate::tree::Tree;

/// Lines from `fn` to the closing brace, both included.
const MAX_LINES: usize = 70;

const LIST: &str = "xtask/long-functions.txt";

/// Functions over the limit that are not listed, and list entries that no longer say how it is.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut allowed = allowed(tree.texts.get(LIST).map_or("", String::as_str));
    let mut faults = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(_, text)| !is_generated(text)) {
        for function in functions(text)
            .into_iter()
            .filter(|function| function.lines > MAX_LINES)
        {
            let (name, line, lines) = (function.name, function.line, function.lines);
            match allowed.remove(&format!("{path} {name}")) {
                Some(limit) if lines == limit => {}
                Some(limit) => {
                    let verb = if lines > limit {
                        "split it"
                    } else {
                        "lower the entry"
                    };
                    faults.push(format!(
                        "{path}:{line}: fn {name} has {lines} lines, {LIST} says {limit}; {verb}"
                    ));
                }
                None => faults.push(format!(
                    "{path}:{line}: fn {name} has {lines} lines; {MAX_LINES} is the most"
                )),
            }
        }
    }
    faults.extend(
        allowed
            .keys()
            .map(|entry| format!("{LIST}: {entry} is short or gone; remove the entry")),
    );
    faults
}

/// Nobody reads it on a screen, and `generate --check` compares it.
fn is_generated(text: &str) -> bool {
    text.lines()
        .take(3)
        .any(|line| line.starts_with("// This file is @generated"))
}

/// Lines of the form `path name lines`.
fn allowed(list: &str) -> BTreeMap<String, usize> {
    let entries = list.lines().filter(|line| !line.starts_with('#'));
    entries
        .filter_map(|line| {
            let (entry, lines) = line.rsplit_once(' ')?;
            Some((entry.to_owned(), lines.parse().ok()?))
        })
        .collect()
}

struct Function {
    name: String,
    /// Line of the `fn`, from 1.
    line: usize,
    lines: usize,
}

fn functions(source: &str) -> Vec<Function> {
    let code = code_of(source);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        if code[..at].ends_with(word) {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| word(*c)).collect();
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(&code[at..]) {
            let line = code[..at].matches('\n').count() + 1;
            found.push(Function {
                name,
                line,
                lines: code[at..at + end].matches('\n').count() + 1,
            });
        }
    }
    found
}

/// Length of a function from `fn` to its closing brace; `None` for a declaration without body.
fn body_end(code: &str) -> Option<usize> {
    // A semicolon inside brackets belongs to an array type of the signature.
    let (mut braces, mut brackets) = (0usize, 0usize);
    for (at, c) in code.char_indices() {
        match c {
            '{' => braces += 1,
            '}' if braces <= 1 => return (braces == 1).then_some(at + 1),
            '}' => braces -= 1,
            '[' => brackets += 1,
            ']' => brackets = brackets.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree {
            texts: BTreeMap::from([(path.to_owned(), text.to_owned())]),
            paths: vec![path.to_owned()],
        }
    }

    #[test]
    fn a_function_of_71_lines_is_found_and_one_of_70_is_not() {
        let body = |lines: usize| {
            format!(
                "trait T {{ fn g(x: [u8; 2]); }}\nfn f() {{{}}}\n",
                "\n".repeat(lines - 1)
            )
        };
        assert!(check(&tree("a.rs", &body(70))).is_empty());
        assert_eq!(
            check(&tree("a.rs", &body(71))),
            ["a.rs:2: fn f has 71 lines; 70 is the most"]
        );
    }

    #[test]
    fn the_list_only_shrinks() {
        let mut tree = tree("a.rs", &format!("fn f() {{{}}}", "\n".repeat(80)));
        let mut with = |entry: &str| {
            tree.texts.insert(LIST.to_owned(), entry.to_owned());
            check(&tree).len()
        };
        assert_eq!(
            (with("a.rs f 81"), with("a.rs f 80"), with("a.rs f 90")),
            (0, 1, 1)
        );
        assert_eq!(with("a.rs f 81\nb.rs g 90"), 1);
    }
}
