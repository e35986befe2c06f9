//! What the API server makes of the kinds.

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kubernetes::{ControlPlane, condition};
use takhin_e2e::tools;

use crate::stage::{Suites, kinds};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("crds: accepted strictly, established, structural", accepted);
    suites.add("crds: what the documentation shows is accepted", shown);
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

/// The examples that Artifact Hub shows, from the chart's annotation: items of a list in a text.
fn of_catalogue(chart: &str) -> Result<Vec<String>> {
    let list = chart
        .split("artifacthub.io/crdsExamples: |\n")
        .nth(1)
        .context("no examples for Artifact Hub")?;
    let lines = list.lines().take_while(|line| line.starts_with("    "));
    let mut all: Vec<String> = Vec::new();
    for line in lines {
        let line = line.get(4..).unwrap_or_default();
        if line.starts_with("- ") {
            all.push(String::new());
        }
        let example = all.last_mut().context("a line of no item")?;
        *example += line.get(2..).unwrap_or_default();
        example.push('\n');
    }
    ensure!(all.len() == 3, "{} examples for Artifact Hub", all.len());
    Ok(all)
}

/// Every example of the README and of `docs/kubernetes.md`, parts with the whole before them that they are for, those of the chart's notes and
/// of its annotations.
fn shown(plane: &ControlPlane) -> Result<()> {
    let readme = std::fs::read_to_string(tools::checkout()?.join("README.md"))?;
    let page = readme + &std::fs::read_to_string(tools::checkout()?.join("docs/kubernetes.md"))?;
    let mut whole: Vec<String> = Vec::new();
    for block in page.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        match block.starts_with("apiVersion:") {
            true => whole.push(block.to_owned()),
            false => whole.push(format!("{}{block}", whole.last().context("a part of nothing")?)),
        }
    }
    let notes = tools::checkout()?.join("charts/takhin-operator/templates/NOTES.txt");
    let notes = std::fs::read_to_string(notes)?;
    let inner = notes.split("<<EOF\n").nth(1).context("no example in the notes")?;
    let inner = inner.split("  EOF").next().unwrap_or_default();
    whole.push(
        inner
            .lines()
            .map(|line| line.get(2..).unwrap_or_default().to_owned() + "\n")
            .collect(),
    );
    let chart = tools::checkout()?.join("charts/takhin-operator/Chart.yaml");
    whole.extend(of_catalogue(&std::fs::read_to_string(chart)?)?);
    for kind in ["TakhinCluster", "Topic", "PikaSource"] {
        let has = |example: &String| example.contains(&format!("kind: {kind}\n"));
        ensure!(whole.iter().any(has), "no example of a {kind}");
    }
    for (number, example) in whole.iter().enumerate() {
        let file = plane.folder().join(format!("shown-{number}.yaml"));
        std::fs::write(&file, example)?;
        let file = file.to_string_lossy();
        plane
            .kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &file])
            .with_context(|| example.clone())?;
    }
    Ok(())
}
