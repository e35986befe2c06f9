//! Work as spans, for the collector that `telemetry.otlp_endpoint` names.

use std::fmt::Display;

use tracing::{Instrument as _, Level, Span};

/// Whose spans are sent: those of work here, and of questions to brokers in it. Batches are parts of rounds, and have none.
pub(crate) const TRACED: [(&str, Level); 2] = [("takhin_cdc", Level::DEBUG), ("takhin_client", Level::DEBUG)];

/// Does work in a span, which has to have a field `otel.status_code`, and says there whether it failed.
pub(crate) async fn traced<T, E: Display>(
    span: Span,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let done = work.instrument(span.clone()).await;
    if let Err(error) = &done {
        failed(&span, error);
    }
    done
}

/// Says in a span that its work failed.
pub(crate) fn failed(span: &Span, error: &dyn Display) {
    span.record("otel.status_code", "ERROR");
    span.record("error", error.to_string());
}

/// A span for [`traced`]: its name, and fields.
macro_rules! work_span {
    ($name:literal $(, $($field:tt)*)?) => {
        tracing::debug_span!($name, otel.status_code = tracing::field::Empty, error = tracing::field::Empty $(, $($field)*)?)
    };
}
pub(crate) use work_span;
