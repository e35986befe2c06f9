//! Crates: each says what it is for, and imports go down the layers only.

use crate::tree::Tree;

/// What a crate may import of ours; programs and test crates may import everything.
const LAYERS: &[(&str, &[&str])] = &[
    ("takhin-protocol", &[]),
    ("takhin-config", &[]),
    ("takhin-runtime", &[]),
    ("takhin-traces", &["takhin-runtime"]),
    (
        "takhin-storage",
        &["takhin-protocol", "takhin-config", "takhin-runtime"],
    ),
    ("takhin-coordinator", &["takhin-protocol"]),
    (
        "takhin-rpc",
        &["takhin-protocol", "takhin-config", "takhin-runtime"],
    ),
    (
        "takhin-cluster",
        &[
            "takhin-protocol",
            "takhin-config",
            "takhin-runtime",
            "takhin-storage",
            "takhin-rpc",
        ],
    ),
    (
        "takhin-client",
        &["takhin-protocol", "takhin-config", "takhin-runtime"],
    ),
    (
        "takhin-operator",
        &[
            "takhin-client",
            "takhin-config",
            "takhin-runtime",
            "takhin-traces",
        ],
    ),
    ("takhin-pika", &[]),
    ("takhin-pika-dump", &["takhin-pika"]),
    (
        "takhin-cdc",
        &[
            "takhin-client",
            "takhin-config",
            "takhin-runtime",
            "takhin-traces",
            "takhin-pika",
            "takhin-pika-dump",
        ],
    ),
];

/// Libraries of others that only these crates may name.
const WALLS: &[(&str, &[&str])] = &[
    ("openraft", &["takhin-cluster"]),
    ("kafka-protocol", &["takhin-protocol"]),
    ("hyper", &["takhin-runtime"]),
    ("tonic", &["takhin-rpc"]),
    ("prost", &["takhin-rpc", "takhin-pika", "takhin-traces"]),
    ("opentelemetry", &["takhin-traces"]),
    ("opentelemetry_sdk", &["takhin-traces"]),
    ("opentelemetry-otlp", &["takhin-traces"]),
    ("tracing-opentelemetry", &["takhin-traces"]),
    ("rustix", &["takhin-runtime"]),
    ("serde_norway", &["takhin-config"]),
    ("kube", &["takhin-operator", "takhin-e2e"]),
    ("k8s-openapi", &["takhin-operator", "takhin-e2e"]),
    ("schemars", &["takhin-operator"]),
    ("rocksdb", &["takhin-pika-dump"]),
];

/// Lines of documentation that a library's `lib.rs` begins with, at least.
const LIBRARY_DOC_LINES: usize = 4;

/// Crate documentation, layers and walls of every manifest.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, manifest) in tree.ending("Cargo.toml") {
        let Some(name) = package_name(manifest) else {
            continue;
        };
        let folder = path.trim_end_matches("Cargo.toml");
        faults.extend(documentation(tree, folder));
        for dependency in dependencies(manifest) {
            if let Some(fault) = import(&name, &dependency) {
                faults.push(format!("{path}: {fault}"));
            }
        }
    }
    faults
}

fn documentation(tree: &Tree, folder: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, least) in [("src/lib.rs", LIBRARY_DOC_LINES), ("src/main.rs", 1)] {
        let path = format!("{folder}{file}");
        let Some(text) = tree.texts.get(&path) else {
            continue;
        };
        let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
        if lines < least {
            faults.push(format!(
                "{path}: begins with {lines} lines of `//!`; say what the crate is for ({least} or more)"
            ));
        }
    }
    faults
}

fn import(name: &str, dependency: &str) -> Option<String> {
    if let Some((_, only)) = WALLS.iter().find(|(library, _)| *library == dependency) {
        let outside = !only.contains(&name) && LAYERS.iter().any(|(crate_, _)| *crate_ == name);
        return outside.then(|| format!("{name} names {dependency}, which only {} may", only.join(" and ")));
    }
    let (_, allowed) = LAYERS.iter().find(|(crate_, _)| *crate_ == name)?;
    let ours = dependency.starts_with("takhin-");
    (ours && !allowed.contains(&dependency))
        .then(|| format!("{name} imports {dependency}, against the layer rule"))
}

fn package_name(manifest: &str) -> Option<String> {
    let package = manifest.split("[package]").nth(1)?;
    let line = package.lines().find(|line| line.starts_with("name"))?;
    line.split('"').nth(1).map(str::to_owned)
}

/// Names in `[dependencies]` and `[build-dependencies]`; tests may import what they like.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.contains("dev-dependencies");
        } else if inside && let Some((name, _)) = line.split_once('=') {
            names.push(name.trim().trim_end_matches(".workspace").to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_upwards_or_through_a_wall_is_found() {
        assert!(import("takhin-storage", "takhin-runtime").is_none());
        assert!(import("takhin-storage", "takhin-cluster").is_some());
        assert!(import("takhin-config", "takhin-protocol").is_some());
        assert!(import("takhin-broker", "takhin-client").is_none());
        assert!(import("takhin-cluster", "openraft").is_none());
        assert!(import("takhin-client", "openraft").is_some());
        assert!(import("takhin-operator", "takhin-cluster").is_some());
        assert!(import("takhin-operator", "kube").is_none());
        assert!(import("takhin-runtime", "kube").is_some());
        assert!(import("takhin-pika", "prost").is_none());
        assert!(import("takhin-client", "prost").is_some());
    }

    #[test]
    fn manifests_are_read_as_far_as_needed() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\nb.workspace = true\n[dev-dependencies]\nc = \"1\"\n\
                        [target.'cfg(unix)'.dependencies]\nd = { version = \"1\" }\n";
        assert_eq!(package_name(manifest).as_deref(), Some("x"));
        assert_eq!(dependencies(manifest), ["a", "b", "d"]);
    }
}
