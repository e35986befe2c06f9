//! Spans that have ended and are not sent yet.

use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use takhin_runtime::telemetry::metrics::{self, Counter, Family};
use tokio::sync::mpsc;

/// Spans that wait at most.
pub(crate) const CAPACITY: usize = 2048;

static SPANS: LazyLock<Family<Counter, 1>> = LazyLock::new(|| {
    metrics::counters(
        "takhin_traces_spans_total",
        "Spans that ended, by what became of them: sent; dropped, because the queue was full; failed, because the \
         collector did not take them",
        ["result"],
    )
});

/// Notes what became of spans.
pub(crate) fn count(result: &str, spans: usize) {
    SPANS.with([result]).add(spans as u64);
}

/// The end of the queue at which spans are put in.
#[derive(Debug)]
pub(crate) struct Queue(mpsc::Sender<SpanData>);

/// An empty queue, and its other end.
pub(crate) fn queue() -> (Queue, mpsc::Receiver<SpanData>) {
    // A first loss is seen only where there was a zero before.
    for result in ["sent", "dropped", "failed"] {
        count(result, 0);
    }
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (Queue(sender), receiver)
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            count("dropped", 1);
        }
    }

    // The sender empties the queue when it is told to stop.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
