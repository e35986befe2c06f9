//! Spans of the program, as a collector receives them.

use takhin_pika_testing::master::{Master, Settings};
use takhin_traces::testing::{Collector, Received};

use crate::broker::{Broker, until};
use crate::cdc::Cdc;

fn has(spans: &[Received], name: &str, is: impl Fn(&Received) -> bool) -> bool {
    spans.iter().any(|span| span.name == name && is(span))
}

#[test]
fn work_is_told_as_spans_and_a_collector_that_is_away_holds_nothing_up() {
    let master = Master::start(Settings::default()).unwrap();
    let broker = Broker::shared();
    let collector = Collector::start().unwrap();
    collector.refuse(true);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set(&format!("telemetry.otlp_endpoint={}", collector.endpoint()));
    cdc.start_and_wait();
    master.execute("db0", &[b"SET", b"key", b"value"]);
    let lost = "takhin_traces_spans_total{result=\"failed\"}";
    until("spans are lost and counted", || cdc.metric(lost) > 0.0);
    until("the change is written all the same", || {
        master.acked("db0") == Some(master.end("db0"))
    });

    collector.refuse(false);
    master.execute("db0", &[b"SET", b"key", b"other"]);
    until("a round is told", || {
        has(&collector.spans(), "round", |span| {
            span.service == "takhin-cdc" && !span.is_error
        })
    });

    // An attempt that fails: its span says why.
    drop(master);
    until("a failed connection is told", || {
        has(&collector.spans(), "connect", |span| {
            span.is_error && !span.attributes["error"].is_empty()
        })
    });
    let spans = collector.spans();
    let prepare = spans.iter().find(|span| span.name == "prepare").unwrap();
    let is_in_it = |span: &Received| span.trace == prepare.trace && span.parent == prepare.id;
    assert!(has(&spans, "Metadata", is_in_it), "{spans:#?}");
    assert!(cdc.stop().success());
}
