//! The chart with the real helm, and the plain manifests with the real kubectl.

use std::fs;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{ControlPlane, Operator, text};
use takhin_e2e::tools;

use crate::room::{SOON, chart, namespace};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "helm: lint, what values make, and values that the schema refuses",
        lint,
    );
    suites.add("helm: installed, upgraded, removed; the kinds stay", |plane| {
        installed(plane, "helm-installed", ControlPlane::helm)
    });
    suites.add("helm: the same with Helm 3", |plane| {
        lint_with(plane, ControlPlane::helm3)?;
        installed(plane, "helm3-installed", ControlPlane::helm3)
    });
    suites.add("helm: the plain manifests do the same", plain);
}

/// Helm 4 or Helm 3.
type Helm = fn(&ControlPlane, &[&str]) -> Result<String>;

fn lint(plane: &ControlPlane) -> Result<()> {
    lint_with(plane, ControlPlane::helm)?;
    golden(plane)
}

/// What `charts/takhin-operator/ci` has values for.
const VALUES: [&str; 3] = ["default", "everything", "namespaces"];

/// What the chart makes of values of `ci`, as it was looked at once and committed.
fn golden(plane: &ControlPlane) -> Result<()> {
    for name in VALUES {
        // Kinds and dashboards are files of their own, which are tested as such.
        let without = ["--set", "crds.install=false,metrics.dashboards.enabled=false"];
        let is = rendered(plane, ControlPlane::helm, name, &without)?;
        let path = tools::checkout()?.join(format!("e2e/tests/api/helm/{name}.yaml"));
        let was = fs::read_to_string(&path)?;
        if is != was {
            let line = is
                .lines()
                .zip(was.lines())
                .take_while(|(is, was)| is == was)
                .count()
                + 1;
            bail!(
                "{} is not what the chart makes, from line {line} on; if that is wished for, it becomes:\n{is}",
                path.display()
            );
        }
    }
    Ok(())
}

fn rendered(plane: &ControlPlane, helm: Helm, values: &str, more: &[&str]) -> Result<String> {
    let chart = chart()?;
    let values = format!("{chart}/ci/{values}-values.yaml");
    let place = ["template", "takhin", &chart, "--namespace", "takhin-system"];
    let given = ["--values", &values, "--api-versions", "monitoring.coreos.com/v1"];
    helm(plane, &[&place[..], &given[..], more].concat())
}

fn lint_with(plane: &ControlPlane, helm: Helm) -> Result<()> {
    let chart = chart()?;
    helm(plane, &["lint", "--strict", &chart])?;
    for name in VALUES {
        let values = format!("{chart}/ci/{name}-values.yaml");
        helm(plane, &["lint", "--strict", &chart, "--values", &values])?;
    }
    let dashboards = rendered(
        plane,
        helm,
        "everything",
        &["--show-only", "templates/dashboards.yaml"],
    )?;
    for wanted in [
        "takhin-brokers.json: |",
        "takhin-operator.json: |",
        "takhin-cdc.json: |",
        "grafana_dashboard: \"1\"",
    ] {
        ensure!(dashboards.contains(wanted), "no {wanted}");
    }
    // A value that is wrong, and what has to be named.
    for (value, named) in [
        ("replicas=3", "replicas"),
        ("replicaCount=many", "replicaCount"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("watchNamespaces=a", "watchNamespaces"),
        ("metrics.serviceMonitor.enable=true", "enable"),
        ("logFormat=xml", "logFormat"),
        ("traces.otlpEndpoint=https://collector:4318", "otlpEndpoint"),
        ("metrics.dashboards.enabled=maybe", "enabled"),
    ] {
        let said = helm(plane, &["template", "takhin", &chart, "--set", value]);
        let Err(said) = said else {
            bail!("--set {value} is accepted");
        };
        ensure!(said.to_string().contains(named), "--set {value}: {said}");
    }
    Ok(())
}

fn installed(plane: &ControlPlane, space: &str, helm: Helm) -> Result<()> {
    let (kube, chart) = (plane.kube(), chart()?);
    namespace(kube, space)?;
    // The kinds are there already, applied by hand; a release takes them over only if it is told to.
    let release = ["takhin", &chart, "--namespace", space, "--take-ownership"];
    helm(plane, &[&["install"], &release[..]].concat())?;
    // Nothing makes pods run here; that they are made says that they are restricted.
    kube.wait(("Deployment", space, "takhin"), "two pods", SOON, |found| {
        (found["status"]["replicas"] == 2).then_some(())
    })?;
    works(plane, space, "takhin")?;
    helm(
        plane,
        &[&["upgrade"], &release[..], &["--set", "replicaCount=1"]].concat(),
    )?;
    kube.wait(("Deployment", space, "takhin"), "one pod", SOON, |found| {
        (found["spec"]["replicas"] == 1).then_some(())
    })?;
    helm(plane, &["rollback", "takhin", "1", "--namespace", space])?;
    kube.wait(("Deployment", space, "takhin"), "two pods again", SOON, |found| {
        (found["spec"]["replicas"] == 2).then_some(())
    })?;
    helm(plane, &["uninstall", "takhin", "--namespace", space])?;
    kube.gone("Deployment", space, "takhin", SOON)?;
    for kind in [
        "takhinclusters.takhin.io",
        "topics.takhin.io",
        "pikasources.takhin.io",
    ] {
        ensure!(
            kube.get("CustomResourceDefinition", "", kind)?.is_some(),
            "{kind} is gone"
        );
    }
    kube.delete("Namespace", "", space)
}

fn plain(plane: &ControlPlane) -> Result<()> {
    let file = tools::checkout()?.join("manifests/takhin-operator.yaml");
    plane.kubectl(&[
        "apply",
        "--server-side",
        "--validate=strict",
        "--warnings-as-errors",
        "-f",
        &file.to_string_lossy(),
    ])?;
    let (kube, space) = (plane.kube(), "takhin-system");
    kube.wait(
        ("Deployment", space, "takhin-operator"),
        "two pods",
        SOON,
        |found| (found["status"]["replicas"] == 2).then_some(()),
    )?;
    works(plane, space, "takhin-operator")?;
    plane.kubectl(&["delete", "-f", &file.to_string_lossy(), "--wait=false"])?;
    Ok(())
}

/// An operator with the installed account looks after all namespaces.
fn works(plane: &ControlPlane, space: &str, account: &str) -> Result<()> {
    let kube = plane.kube();
    let kubeconfig = plane.service_account(space, account)?;
    let log = plane.audit().from_now()?;
    let mut operator = Operator::start(
        &kubeconfig,
        plane.folder(),
        &format!("{space}-all"),
        &["--lease-namespace", space],
    )?;
    operator.ready()?;
    let shop = format!("{space}-shop");
    namespace(kube, &shop)?;
    let object = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "takhin.io/v1alpha1",
            "kind": kind,
            "metadata": { "name": name, "namespace": shop },
            "spec": spec,
        })
    };
    let spec = json!({ "replicas": 1, "storage": { "type": "Ephemeral" } });
    kube.apply(&object("TakhinCluster", "demo", spec))?;
    kube.wait(("Pod", &shop, "demo-0"), "to be there", SOON, |pod| {
        (!pod.is_null()).then_some(())
    })?;
    // What `helm test` runs in a pod: with an operator that is ready, and in a namespace that is there.
    operator.check(plane.admin(), &shop)?;
    let nowhere = operator.check(plane.admin(), "no-such-namespace");
    let said = nowhere.map_or_else(|error| error.to_string(), |()| "nothing".to_owned());
    ensure!(
        said.contains("takes no TakhinCluster in namespace no-such-namespace"),
        "{said}"
    );
    let lease = kube.get("Lease", space, "takhin-operator")?.unwrap_or_default();
    ensure!(
        text(&lease, "/spec/holderIdentity").starts_with(space),
        "{lease:#}"
    );
    operator.stop()?;
    let user = format!("system:serviceaccount:{space}:{account}");
    let forbidden: Vec<_> = log
        .of_user(&user)?
        .into_iter()
        .filter(|entry| entry.is_forbidden)
        .collect();
    ensure!(forbidden.is_empty(), "not allowed: {forbidden:#?}");
    kube.delete("Namespace", "", &shop)?;
    Ok(())
}
