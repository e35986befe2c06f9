//! The list of tests, and the Kubernetes that they share, with the operator on it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Conclusion, Trial};
use takhin_e2e::kubernetes::nodes::Cluster;
use takhin_e2e::{process, tools};

/// Where the operator is.
pub(crate) const SYSTEM: &str = "takhin-system";

/// Tag of the images.
const TAG: &str = "e2e";

/// Nodes, each in a zone of its own.
const NODES: u8 = 3;

/// Time for building images.
const BUILD_LIMIT: Duration = Duration::from_secs(45 * 60);

/// All tests, in the order in which they run.
#[derive(Debug, Default)]
pub(crate) struct Suites {
    shared: Arc<Mutex<Option<Cluster>>>,
    trials: Vec<Trial>,
}

impl Suites {
    /// Adds a test, which gets the shared cluster. A test that fails takes it with it: the next one finds a fresh one.
    pub(crate) fn add(&mut self, name: &str, test: fn(&Cluster) -> Result<()>) {
        let shared = Arc::clone(&self.shared);
        self.trials.push(Trial::test(name.to_owned(), move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = Instant::now();
            let result = with_cluster(&mut shared, test);
            eprintln!("        {:.1} s", begun.elapsed().as_secs_f64());
            result.map_err(|error| {
                let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
                causes.join("\n").into()
            })
        }));
    }

    pub(crate) fn run(self, arguments: &Arguments) -> Conclusion {
        let conclusion = libtest_mimic::run(arguments, self.trials);
        // Statics and `exit` run no destructors: the cluster ends here.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        conclusion
    }
}

fn with_cluster(shared: &mut Option<Cluster>, test: fn(&Cluster) -> Result<()>) -> Result<()> {
    let mut cluster = match shared.take() {
        Some(cluster) => cluster,
        None => {
            let cluster = Cluster::start(NODES, &[images()?])?;
            install(&cluster).with_context(|| seen(&cluster))?;
            cluster
        }
    };
    test(&cluster).with_context(|| seen(&cluster))?;
    cluster.check()?;
    *shared = Some(cluster);
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
