//! The root holds only what a visitor needs first.

use std::collections::BTreeSet;

use crate::tree::Tree;

const ALLOWED: &[&str] = &[
    ".cargo",
    ".ci",
    ".config",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile.broker",
    "Dockerfile.operator",
    "LICENSE",
    "Makefile",
    "NOTICE",
    "README.md",
    "broker",
    "cdc",
    "charts",
    "clippy.toml",
    "crds",
    "deny.toml",
    "docs",
    "e2e",
    "fuzz",
    "manifests",
    "operator",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "xtask",
];

/// Names in the root that are not on the list.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let names: BTreeSet<&str> = tree
        .paths
        .iter()
        .filter_map(|path| path.split('/').next())
        .collect();
    let strays = names.into_iter().filter(|name| !ALLOWED.contains(name));
    strays
        .map(|name| {
            format!(
                "{name}: does not belong into the root; move it, or add it to {}",
                file!()
            )
        })
        .collect()
}
