//! Words and marks that do not belong into the repository.

use crate::tree::Tree;

/// Marks of unfinished work; only the first may stay, with an issue number.
const MARKS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("HA", "CK"),
];

/// Advertising and worn words, each with what to write.
const WORDS: &[(&str, &str)] = &[
    (concat!("blaz", "ing"), "a number"),
    (concat!("seam", "less"), "what happens"),
    (concat!("cutting", "-edge"), "what is new"),
    (concat!("world", "-class"), "a number"),
    (concat!("enterprise", "-grade"), "what it withstands"),
    (concat!("production", "-ready"), "what was tested"),
    (concat!("utili", "ze"), "use"),
    (concat!("lever", "age "), "use"),
    (concat!("white", "list"), "allow-list"),
    (concat!("black", "list"), "deny-list"),
];

/// Directories that exist on somebody's machine only.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
];

/// Texts of others, and lists of names that are not ours.
const EXEMPT: &[&str] = &["Cargo.lock", "LICENSE", "go.sum", "package-lock.json"];

/// Banned marks, words and paths in every text.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    let texts = tree
        .texts
        .iter()
        .filter(|(path, _)| !EXEMPT.iter().any(|name| path.ends_with(name)));
    for (path, text) in texts {
        for (number, line) in text.lines().enumerate() {
            faults.extend(
                line_faults(line)
                    .into_iter()
                    .map(|fault| format!("{path}:{}: {fault}", number + 1)),
            );
        }
    }
    faults
}

fn line_faults(line: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for mark in MARKS.iter().filter(|mark| has_word(line, mark)) {
        let numbered = line.contains(&format!("{}(#", MARKS[0]));
        if !(numbered && *mark == MARKS[0]) {
            faults.push(format!("{mark}: finish it, or write {}(#ISSUE): ...", MARKS[0]));
        }
    }
    let lower = line.to_lowercase();
    for (word, instead) in WORDS.iter().filter(|(word, _)| lower.contains(word)) {
        faults.push(format!("{word:?}: write {instead}"));
    }
    for path in MACHINE_PATHS.iter().filter(|path| has_path(line, path)) {
        faults.push(format!("a path below {path} exists on one machine only"));
    }
    faults
}

/// Whether `word` stands in `line` with no letter on either side.
fn has_word(line: &str, word: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !letter(line[..at].chars().next_back()) && !letter(line[at + word.len()..].chars().next())
    })
}

/// Whether an absolute path begins with `path`; in the middle of a longer one it is a name like any other.
fn has_path(line: &str, path: &str) -> bool {
    let part = |c: Option<char>| {
        c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '}' | '$'))
    };
    line.match_indices(path)
        .any(|(at, _)| !part(line[..at].chars().next_back()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_need_a_number_and_paths_a_boundary() {
        let mark = MARKS[0];
        assert_eq!(line_faults(&format!("// {mark}: later")).len(), 1);
        assert!(line_faults(&format!("// {mark}(#12): later")).is_empty());
        assert!(line_faults("MASTODON").is_empty());
        assert_eq!(line_faults(&format!("see {}x", MACHINE_PATHS[0])).len(), 1);
        assert!(line_faults(&format!("see docs{}x", MACHINE_PATHS[0])).is_empty());
    }
}
