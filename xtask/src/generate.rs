//! What is generated and committed, the pages of `docs/reference/` above all: each is what one command prints.

use std::process::Command;

use crate::tree::root;

/// Page and the arguments of the `cargo` that prints it.
const PAGES: &[(&str, &str)] = &[
    (
        "docs/reference/configuration.md",
        "run -q -p takhin-config --example reference -- node",
    ),
    (
        "docs/reference/topic-config.md",
        "run -q -p takhin-config --example reference -- topic",
    ),
    (
        "docs/reference/group-config.md",
        "run -q -p takhin-config --example reference -- group",
    ),
    (
        "docs/reference/cdc-configuration.md",
        "run -q -p takhin-config --example reference -- cdc",
    ),
    ("docs/reference/kafka-apis.md", "run -q -p takhin-broker -- docs"),
    (
        "docs/reference/admin-api.json",
        "run -q -p takhin-broker -- docs admin-api",
    ),
    (
        "broker/crates/rpc/src/generated.rs",
        "run -q -p takhin-protos -- broker/crates/rpc/proto/link.proto",
    ),
    (
        "crds/takhinclusters.yaml",
        "run -q -p takhin-operator -- crd --kind TakhinCluster",
    ),
    (
        "charts/takhin-operator/templates/crds/takhinclusters.yaml",
        "run -q -p takhin-operator -- crd --helm --kind TakhinCluster",
    ),
    (
        "crds/topics.yaml",
        "run -q -p takhin-operator -- crd --kind Topic",
    ),
    (
        "charts/takhin-operator/templates/crds/topics.yaml",
        "run -q -p takhin-operator -- crd --helm --kind Topic",
    ),
    (
        "crds/pikasources.yaml",
        "run -q -p takhin-operator -- crd --kind PikaSource",
    ),
    (
        "charts/takhin-operator/templates/crds/pikasources.yaml",
        "run -q -p takhin-operator -- crd --helm --kind PikaSource",
    ),
    (
        "charts/takhin-operator/files/rules.yaml",
        "run -q -p takhin-operator -- rules",
    ),
    ("docs/reference/chart-values.md", "run -q -p xtask -- values"),
    (
        "operator/tests/golden/small.yaml",
        "run -q -p takhin-operator -- render operator/tests/golden/small.in.yaml --image takhin/takhin:test --operator-namespace takhin-system",
    ),
    (
        "operator/tests/golden/prod.yaml",
        "run -q -p takhin-operator -- render operator/tests/golden/prod.in.yaml --image takhin/takhin:test --operator-namespace takhin-system",
    ),
    (
        "manifests/takhin-operator.yaml",
        "run -q -p takhin-operator -- manifests",
    ),
    (
        "cdc/crates/pika/src/generated.rs",
        "run -q -p takhin-protos -- cdc/crates/pika/proto/pika.proto",
    ),
];

/// Writes all pages, or compares them if `check`.
pub(crate) fn run(check: bool) -> Result<String, Vec<String>> {
    let mut faults = Vec::new();
    for (page, arguments) in PAGES {
        if let Err(fault) = one(page, arguments, check) {
            faults.push(fault);
        }
    }
    let verb = if check { "current" } else { "written" };
    if faults.is_empty() {
        Ok(format!("generate: {} pages {verb}", PAGES.len()))
    } else {
        Err(faults)
    }
}

fn one(page: &str, arguments: &str, check: bool) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(arguments.split(' '))
        .output()
        .map_err(|error| format!("{page}: cannot run cargo: {error}"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{page}: cargo {arguments} failed:\n{told}"));
    }
    let path = root().join(page);
    if check {
        let committed = std::fs::read(&path).unwrap_or_default();
        return if committed == output.stdout {
            Ok(())
        } else {
            Err(format!("{page} is stale: run `make generate`"))
        };
    }
    std::fs::write(&path, &output.stdout).map_err(|error| format!("{page}: {error}"))
}
