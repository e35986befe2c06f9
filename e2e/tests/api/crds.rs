//! What the API server makes of the kinds.

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kubernetes::{ControlPlane, condition};

use crate::stage::{Suites, kinds};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("crds: accepted strictly, established, structural", accepted);
}

fn accepted(plane: &ControlPlane) -> Result<()> {
    for file in kinds()? {
        let file = file.to_string_lossy().into_owned();
        // As a user would; warnings would go to standard error, and make it fail.
        plane.kubectl(&[
            "apply",
            "--server-side",
            "--validate=strict",
            "--warnings-as-errors",
            "-f",
            &file,
        ])?;
    }
    let found = plane.kube().list("CustomResourceDefinition", "")?;
    ensure!(found.len() == 3, "{} kinds", found.len());
    for kind in &found {
        let name = &kind["metadata"]["name"];
        for wanted in ["Established", "NamesAccepted"] {
            let (status, _, message) = condition(kind, wanted).context("no condition")?;
            ensure!(status == "True", "{name} {wanted}: {message}");
        }
        let bad = condition(kind, "NonStructuralSchema");
        ensure!(bad.is_none(), "{name}: {bad:?}");
    }
    Ok(())
}
