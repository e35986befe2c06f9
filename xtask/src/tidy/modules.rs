//! Every source file is part of its crate: a file that no module declares is never compiled, and nobody notices.

use crate::tree::Tree;

/// Files below a `src` or `tests` directory that no parent declares.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let declared = |path: &str| {
        let Some((folder, file)) = path.rsplit_once('/') else {
            return true;
        };
        let Some(name) = file.strip_suffix(".rs") else {
            return true;
        };
        let (folder, name) = match name {
            "main" | "lib" | "build" => return true,
            "mod" => match folder.rsplit_once('/') {
                Some((above, name)) => (above, name),
                None => return true,
            },
            name => (folder, name),
        };
        // Cargo takes these as they lie.
        if folder.ends_with("/examples")
            || folder.ends_with("/tests")
            || folder.ends_with("/fuzz_targets")
            || folder.ends_with("/benches")
        {
            return true;
        }
        let parents = [
            format!("{folder}/mod.rs"),
            format!("{folder}/lib.rs"),
            format!("{folder}/main.rs"),
            format!("{folder}.rs"),
        ];
        let line = format!("mod {name};");
        parents
            .iter()
            .filter_map(|parent| tree.texts.get(parent))
            .any(|text| {
                text.lines().any(|code| {
                    code.trim_end()
                        .strip_suffix(&*line)
                        .is_some_and(|before| before.is_empty() || before.ends_with([' ', '\t']))
                })
            })
    };
    let orphan = |path: &&str| (path.contains("/src/") || path.contains("/tests/")) && !declared(path);
    let paths = tree.ending(".rs").map(|(path, _)| path).filter(orphan);
    paths
        .map(|path| format!("{path}: no module declares it; add `mod` to its parent or delete it"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_mod_line_is_found() {
        let mut tree = Tree::default();
        for (path, text) in [
            ("a/src/lib.rs", "pub(crate) mod one;\nmod two;\n"),
            ("a/src/one.rs", "mod inner;"),
            ("a/src/one/inner.rs", ""),
            ("a/src/two/mod.rs", ""),
            ("a/src/two/lost.rs", ""),
            ("a/src/wo.rs", ""),
            ("a/tests/it.rs", ""),
        ] {
            tree.texts.insert(path.to_owned(), text.to_owned());
        }
        let found = check(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("a/src/two/lost.rs") && found[1].starts_with("a/src/wo.rs"));
    }
}
