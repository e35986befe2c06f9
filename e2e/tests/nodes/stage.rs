//! The Kubernetes that the tests share, with the operator on it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kubernetes::nodes::Cluster;
use takhin_e2e::{process, stage, tools};

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

/// All tests, in the order in which they run.
pub(crate) type Suites = stage::Suites<Cluster>;

/// The list for them.
pub(crate) fn suites() -> Suites {
    Suites::new(stage::Stage { set, judge })
}

fn set() -> Result<Cluster> {
    let cluster = Cluster::start(NODES, &[images()?])?;
    install(&cluster).with_context(|| seen(&cluster))?;
    Ok(cluster)
}

fn judge(cluster: &mut Cluster, done: Result<()>) -> Result<()> {
    done.and_then(|()| nothing_forbidden(cluster))
        .with_context(|| seen(cluster))?;
    cluster.check()
}

/// Fails if the operator was not allowed to do something.
fn nothing_forbidden(cluster: &Cluster) -> Result<()> {
    let mut asked = cluster.plane().audit().of_user(OPERATOR)?;
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

/// Installs the chart, as the documentation says, with the images of this checkout.
fn install(cluster: &Cluster) -> Result<()> {
    let chart = tools::checkout()?.join("charts/takhin-operator");
    let chart = chart.to_string_lossy();
    let images = format!("defaultImages.broker=takhin/takhin:{TAG},defaultImages.cdc=takhin/takhin:{TAG}");
    let tag = format!("image.tag={TAG}");
    cluster.plane().helm(&[
        "install",
        "takhin",
        &chart,
        "--namespace",
        SYSTEM,
        "--create-namespace",
        "--set",
        &images,
        "--set",
        &tag,
        "--wait",
        "--timeout=110s",
    ])?;
    Ok(())
}

/// What there is, for messages.
fn seen(cluster: &Cluster) -> String {
    let ask = |arguments: &[&str]| {
        let answer = cluster.plane().kubectl(arguments);
        let text = answer.unwrap_or_else(|error| format!("{error:#}"));
        format!("$ kubectl {}\n{}", arguments.join(" "), process::tail(&text, 80))
    };
    let parts = [
        ask(&["get", "nodes,pods,pvc,pv,takhin", "-A", "-o", "wide"]),
        ask(&["get", "events", "-A", "--sort-by=.lastTimestamp"]),
        ask(&["get", "takhinclusters,topics", "-A", "-o", "yaml"]),
        ask(&[
            "logs",
            "-n",
            SYSTEM,
            "-l",
            "app.kubernetes.io/name=takhin-operator",
            "--tail=40",
            "--prefix",
        ]),
        cluster.logs(),
    ];
    parts.join("\n")
}
