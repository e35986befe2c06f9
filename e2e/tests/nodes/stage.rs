//! The Kubernetes that the tests share, with the operator on it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use takhin_e2e::kubernetes::nodes::Cluster;
use takhin_e2e::kubernetes::{Existing, Ground, ground, text};
use takhin_e2e::{process, stage, tools, wait};

/// Where the operator is.
pub(crate) const SYSTEM: &str = "takhin-system";

/// Who the operator is to the API server.
pub(crate) const OPERATOR: &str = "system:serviceaccount:takhin-system:takhin";

/// Tag of the images.
const TAG: &str = "e2e";

/// Nodes, each in a zone of its own.
const NODES: u8 = 3;

/// Time for building images.
const BUILD_LIMIT: Duration = Duration::from_secs(45 * 60);

/// How long it took to install the chart.
static INSTALLED: OnceLock<Duration> = OnceLock::new();

/// How long it took until the first chart was installed and its operator ready.
pub(crate) fn installed_in() -> Duration {
    INSTALLED.get().copied().unwrap_or_default()
}

/// All tests, in the order in which they run.
pub(crate) type Suites = stage::Suites<Ground>;

/// The list for them.
pub(crate) fn suites() -> Suites {
    Suites::new(stage::Stage { set, judge })
}

/// Whether tests may harm the nodes and look into the audit log: those of their own.
pub(crate) fn local() -> bool {
    ground::exists().is_ok_and(|exists| !exists)
}

fn set() -> Result<Ground> {
    let ground = match ground::exists()? {
        true => Ground::Existing(Box::new(Existing::find()?)),
        false => Ground::Made(Box::new(Cluster::start(NODES, &[images()?])?)),
    };
    let begun = Instant::now();
    release(&ground, "charts/takhin-operator").with_context(|| seen(&ground))?;
    // Of the first one, where there was nothing before.
    let _ = INSTALLED.set(begun.elapsed());
    Ok(ground)
}

fn judge(ground: &mut Ground, done: Result<()>) -> Result<()> {
    done.and_then(|()| nothing_forbidden(ground))
        .with_context(|| seen(ground))?;
    ground.check()
}

/// Fails if the operator was not allowed to do something.
fn nothing_forbidden(ground: &Ground) -> Result<()> {
    let Ok(made) = ground.made() else {
        // Whoever made it has the audit log, if there is one.
        return Ok(());
    };
    let mut asked = made.plane().audit().of_user(OPERATOR)?;
    asked.retain(|entry| entry.is_forbidden);
    ensure!(asked.is_empty(), "the operator is not allowed: {asked:#?}");
    Ok(())
}

/// The archive with the images.
fn images() -> Result<PathBuf> {
    let mut build = Command::new("bash");
    build.arg(tools::checkout()?.join("e2e/setup/images.sh")).arg(TAG);
    Ok(process::run(&mut build, BUILD_LIMIT)?.text().trim().into())
}

/// Installs a chart of this checkout, or upgrades to it, with the images of this checkout.
pub(crate) fn release(cluster: &Ground, chart: &str) -> Result<()> {
    let chart = tools::checkout()?.join(chart);
    let tag = std::env::var("E2E_IMAGE_TAG").unwrap_or_else(|_| TAG.to_owned());
    let registry = std::env::var("E2E_IMAGE_REGISTRY").unwrap_or_default();
    let slash = if registry.is_empty() { "" } else { "/" };
    let broker = format!("{registry}{slash}takhin/takhin:{tag}");
    let values = format!(
        "image.registry={registry},image.tag={tag},defaultImages.broker={broker},defaultImages.cdc={broker}"
    );
    cluster
        .helm(&[
            "upgrade",
            "--install",
            "takhin",
            &chart.to_string_lossy(),
            "--namespace",
            SYSTEM,
            "--create-namespace",
            "--set",
            &values,
            "--wait",
            &timeout(110)?,
        ])
        .map(drop)
}

/// How long kubectl or helm are to wait: within what one call of them may take.
pub(crate) fn timeout(seconds: u64) -> Result<String> {
    let scaled = wait::scaled(Duration::from_secs(seconds))?;
    Ok(format!("--timeout={}s", scaled.as_secs()))
}

/// What there is, for messages: whoever reads them on a hosted runner has nothing else.
fn seen(cluster: &Ground) -> String {
    let ask = |arguments: &[&str]| said(cluster, arguments, 80);
    let mut parts = vec![
        ask(&["get", "nodes,pods,pvc,pv,takhin", "-A", "-o", "wide"]),
        // Those of events.k8s.io have no other time that all have.
        ask(&["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]),
        said(
            cluster,
            &["get", "takhinclusters,topics,pikasources", "-A", "-o", "yaml"],
            300,
        ),
    ];
    match cluster.kube().list("Pod", "") {
        Ok(pods) => parts.extend(pods.iter().flat_map(|pod| logs(cluster, pod))),
        Err(error) => parts.push(format!("no logs: {error:#}")),
    }
    parts.push(cluster.logs());
    parts.join("\n")
}

fn said(cluster: &Ground, arguments: &[&str], lines: usize) -> String {
    let text = cluster.kubectl(arguments);
    let text = text.unwrap_or_else(|error| format!("{error:#}"));
    format!(
        "$ kubectl {}\n{}",
        arguments.join(" "),
        process::tail(&text, lines)
    )
}

/// The end of what our programs say in a pod, and of what those said that ran in it before.
fn logs(cluster: &Ground, pod: &Value) -> Vec<String> {
    let labels = pod.pointer("/metadata/labels");
    let ours = ["takhin-operator", "takhin", "takhin-cdc"];
    let is_ours = labels.is_some_and(|labels| ours.contains(&text(labels, "/app.kubernetes.io~1name")));
    if !is_ours {
        return Vec::new();
    }
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let asked = ["logs", "-n", namespace, name, "--all-containers", "--tail=40"];
    let mut parts = vec![said(cluster, &asked, 40)];
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let restarted = |one: &Value| one["restartCount"].as_u64() > Some(0);
    if containers.is_some_and(|all| all.iter().any(restarted)) {
        parts.push(said(cluster, &[&asked[..], &["--previous"]].concat(), 40));
    }
    parts
}
