//! Spans of this process, as a collector receives them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use takhin_runtime::telemetry::metrics;
use takhin_runtime::{Env, Shutdown};
use takhin_traces::testing::{Collector, Received};
use takhin_traces::{TraceOptions, open};
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt as _;

/// Spans by what became of them: sent, dropped, failed.
fn counts() -> [u64; 3] {
    let text = metrics::encode();
    ["sent", "dropped", "failed"].map(|result| {
        let series = format!("takhin_traces_spans_total{{result=\"{result}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
        line.parse().unwrap()
    })
}

fn options<'a>(endpoint: &'a str, crates: &'a [(&'static str, Level)]) -> TraceOptions<'a> {
    TraceOptions {
        endpoint,
        service: "takhin-test",
        version: "1.2.3",
        instance: "one",
        crates,
    }
}

async fn until(env: &Env, what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            env.clock.sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = env.clock.timeout(Duration::from_secs(30), wait).await;
    assert!(waited.is_ok(), "{what}; counted {:?}", counts());
}

fn named<'a>(spans: &'a [Received], name: &str) -> &'a Received {
    let mut found = spans.iter().filter(|span| span.name == name);
    let first = found.next().unwrap();
    assert_eq!(found.next(), None, "sent once");
    first
}

/// One test: the counters are the process's.
#[tokio::test]
async fn spans_are_sent_while_they_are_taken_and_counted_while_not() {
    let env = Env::real();
    let collector = Collector::start().unwrap();
    let endpoint = collector.endpoint();
    let (layer, sender) = open(&env, &options(&endpoint, &[("it", Level::DEBUG)])).unwrap();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let stop = Shutdown::new();

    {
        let outer = tracing::info_span!(
            "outer",
            kind = "Topic",
            outcome = tracing::field::Empty,
            otel.status_code = tracing::field::Empty
        )
        .entered();
        tracing::debug_span!("inner", status = 200).in_scope(|| {});
        tracing::trace_span!("too fine").in_scope(|| {});
        tracing::info_span!(target: "hyper", "of others").in_scope(|| {});
        outer.record("outcome", "error");
        outer.record("otel.status_code", "ERROR");
    }
    let running = env.tasks.spawn("traces", sender.run(stop.clone()));
    until(&env, "two spans arrive", || collector.spans().len() == 2).await;
    let spans = collector.spans();
    let (outer, inner) = (named(&spans, "outer"), named(&spans, "inner"));
    assert_eq!(outer.service, "takhin-test");
    assert_eq!(outer.attributes["kind"], "Topic");
    assert_eq!(outer.attributes["outcome"], "error");
    assert!(outer.is_error && !inner.is_error);
    assert_eq!(inner.attributes["status"], "200");
    assert_eq!((&inner.trace, &inner.parent), (&outer.trace, &outer.id));
    until(&env, "they are counted", || counts() == [2, 0, 0]).await;

    // A collector that does not take them: what there is is lost and counted, and nobody waits.
    collector.refuse(true);
    tracing::info_span!("refused").in_scope(|| {});
    until(&env, "it is counted", || counts() == [2, 0, 1]).await;
    collector.refuse(false);

    // More than the queue holds, while nobody takes them out: this runtime has one thread.
    for _ in 0..3000 {
        tracing::info_span!("many").in_scope(|| {});
    }
    until(&env, "what fits is sent", || {
        let [sent, dropped, failed] = counts();
        sent + dropped + failed == 3003
    })
    .await;
    let [sent, dropped, failed] = counts();
    assert_eq!((sent, dropped, failed), (2 + 2048, 3000 - 2048, 1));
    assert_eq!(collector.spans().len(), 2050);

    // What is there at the end is sent.
    tracing::info_span!("last").in_scope(|| {});
    stop.trigger();
    running.await.unwrap();
    named(&collector.spans(), "last");
}

#[test]
fn a_collector_without_an_address_is_named() {
    let env = Env::real();
    let error = open(&env, &options("http://a b", &[])).err().unwrap();
    assert!(error.to_string().contains("http://a b"), "{error}");
}
