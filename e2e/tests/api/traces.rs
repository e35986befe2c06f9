//! Spans of the operator, as a collector receives them.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::kubernetes::ControlPlane;
use takhin_e2e::wait;
use takhin_traces::testing::{Collector, Received};

use crate::room::{Room, SOON};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "traces: passes with their calls, and what is lost is counted",
        told,
    );
}

fn told(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "traces")?;
    let collector = Collector::start()?;
    collector.refuse(true);
    let endpoint = collector.endpoint();
    let mut operator = room.operator(
        "operator",
        &["--no-leader-election", "--otlp-endpoint", &endpoint],
    )?;
    operator.ready()?;
    room.small_cluster("prod")?;
    // A collector that is away holds nothing up.
    room.condition("TakhinCluster", "prod", "Ready", ("False", "BrokersNotReady"))?;
    let lost = "takhin_traces_spans_total{result=\"failed\"}";
    wait::until("lost spans to be counted", SOON, || {
        Ok(operator.metric(lost)? > 0.0)
    })?;

    collector.refuse(false);
    let _broker = room.broker("prod").with_context(|| operator.tail())?;
    room.topic("orders", "prod", json!({ "partitions": 1 }))?;
    room.condition("Topic", "orders", "Ready", ("True", "Synced"))?;
    let is_cluster = |span: &Received| {
        let is = |key: &str, value: &str| span.attributes.get(key).is_some_and(|found| found == value);
        span.service == "takhin-operator"
            && is("kind", "TakhinCluster")
            && is("namespace", &room.name)
            && is("name", "prod")
            && is("outcome", "success")
            && span.attributes.contains_key("reconcile_id")
    };
    for (kind, call) in [
        ("TakhinCluster", "get statefulsets"),
        ("TakhinCluster", "GET /v1/cluster/health"),
        ("Topic", "CreateTopics"),
        ("Topic", "patch topics/status"),
    ] {
        let what = format!("a pass over a {kind} with the call {call} in it");
        wait::until(&what, SOON, || Ok(is_in(&collector.spans(), kind, call)))
            .with_context(|| operator.tail())?;
    }
    ensure!(
        collector.spans().iter().any(is_cluster),
        "{:#?}",
        collector.spans()
    );
    operator.stop()?;
    room.leave()
}

/// Whether there is a pass over a resource of this kind, and a call of this name in it, at any depth.
fn is_in(spans: &[Received], kind: &str, call: &str) -> bool {
    let passes: Vec<&Received> = spans
        .iter()
        .filter(|span| span.name == "reconcile" && span.attributes.get("kind").is_some_and(|is| is == kind))
        .collect();
    spans.iter().filter(|span| span.name == call).any(|span| {
        passes
            .iter()
            .any(|pass| pass.trace == span.trace && pass.id == span.parent)
    })
}
