//! What the chart's dashboards and alerts ask Prometheus for.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;
use takhin_e2e::kubernetes::Ground;
use takhin_e2e::kubernetes::text;
use takhin_e2e::{tools, wait};

use crate::house::LIMIT;

/// Every metric that a dashboard or an alert names is exported by some pod. Brokers, operators and a takhin-cdc must run. Some have
/// no series until they mean something, as the lag of a source in bytes does before its master has said where it is.
pub(crate) fn check(cluster: &Ground) -> Result<()> {
    let files = named()?;
    wait::until("every metric of the dashboards to be exported", LIMIT, || {
        let exported = exported(cluster)?;
        let missing = files.iter().flat_map(|(file, named)| {
            let missing = named.difference(&exported);
            missing.map(move |name| format!("{name} of {file}"))
        });
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            eprintln!("        nothing exports {}", missing.join(", "));
        }
        Ok(missing.is_empty())
    })
}

/// The files that name metrics, and which.
fn named() -> Result<Vec<(String, BTreeSet<String>)>> {
    let chart = tools::checkout()?.join("charts/takhin-operator");
    let mut files = vec![chart.join("templates/monitoring.yaml")];
    for file in fs::read_dir(chart.join("files/dashboards"))? {
        files.push(file?.path());
    }
    ensure!(files.len() > 3, "dashboards are missing: {files:?}");
    let mut all = Vec::new();
    for file in files {
        let named = metrics(&fs::read_to_string(&file)?);
        ensure!(named.len() > 3, "{} names {named:?} only", file.display());
        all.push((file.display().to_string(), named));
    }
    Ok(all)
}

/// The words of a text that are names of metrics.
fn metrics(content: &str) -> BTreeSet<String> {
    let words = content.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let ours = words.filter(|word| word.starts_with("takhin_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// The names of all series that all pods have.
fn exported(cluster: &Ground) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut pods = 0;
    for pod in cluster.kube().list("Pod", "")? {
        let (namespace, name) = (text(&pod, "/metadata/namespace"), text(&pod, "/metadata/name"));
        let Some(port) = port(&pod) else { continue };
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
        let page = match cluster.kubectl(&["get", "--raw", &path]) {
            Ok(page) => page,
            // It was on its way out.
            Err(_) if goes(cluster, namespace, name)? => continue,
            Err(error) => return Err(error.context(name.to_owned())),
        };
        let series = page.lines().filter(|line| !line.starts_with('#'));
        let names = series.filter_map(|line| line.split(['{', ' ']).next());
        all.extend(names.map(str::to_owned));
        pods += 1;
    }
    // Three brokers, two operators, one takhin-cdc.
    ensure!(pods >= 6, "{pods} pods have metrics");
    Ok(all)
}

/// Whether a pod is gone, or about to be.
fn goes(cluster: &Ground, namespace: &str, name: &str) -> Result<bool> {
    let found = cluster.kube().get("Pod", namespace, name)?;
    Ok(found.is_none_or(|pod| !text(&pod, "/metadata/deletionTimestamp").is_empty()))
}

/// Where a pod has its metrics.
fn port(pod: &Value) -> Option<u64> {
    let ports = pod.pointer("/spec/containers/0/ports")?.as_array()?;
    let found = ports
        .iter()
        .find(|port| port["name"] == "admin" || port["name"] == "http");
    found?["containerPort"].as_u64()
}
