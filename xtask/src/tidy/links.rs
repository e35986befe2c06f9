//! Links between documents lead somewhere, anchors included.

use crate::tree::Tree;

/// Relative links in Markdown files whose target does not exist.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.ending(".md") {
        for (number, target) in links(text) {
            if let Some(fault) = broken(tree, path, target) {
                faults.push(format!("{path}:{number}: {fault}"));
            }
        }
    }
    faults
}

/// Targets of `[text](target)` outside code blocks, with their line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let targets = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target);
        found.extend(targets.filter(|_| !in_code).map(|target| (number, target)));
    }
    found
}

fn broken(tree: &Tree, page: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() {
        page.to_owned()
    } else {
        resolve(page, file)
    };
    if !tree.has(&path) {
        return Some(format!("the link to {target} leads nowhere"));
    }
    let text = tree.texts.get(&path)?;
    let known = anchor.is_empty() || headings(text).any(|heading| heading == anchor);
    (!known).then(|| format!("{path} has no heading #{anchor}"))
}

/// `target` as seen from the directory of `page`.
fn resolve(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Headings as the anchors that GitHub makes of them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_files_and_anchors_are_found() {
        let mut tree = Tree::default();
        let page =
            "[a](b.md) [b](b.md#the-end) [c](../x) [d](b.md#no) [e](https://x.y/z)\n```\n[f](gone)\n```\n";
        for (path, text) in [("docs/a.md", page), ("docs/b.md", "# The end\n")] {
            tree.texts.insert(path.to_owned(), text.to_owned());
            tree.paths.push(path.to_owned());
        }
        assert_eq!(
            check(&tree),
            [
                "docs/a.md:1: the link to ../x leads nowhere",
                "docs/a.md:1: docs/b.md has no heading #no"
            ]
        );
    }
}
