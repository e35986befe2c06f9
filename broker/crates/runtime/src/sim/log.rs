//! Log lines as part of the record.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::Trace;

/// Adds the events of this thread to `trace` until the guard drops.
pub(super) fn record(trace: &Trace) -> DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry().with(Recorder(trace.clone())))
}

struct Recorder(Trace);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        let meta = event.metadata();
        // Only our own: libraries may log addresses, thread names or times of the real machine.
        if meta.target().starts_with("takhin") {
            let mut line = format!("{} {}", meta.level(), meta.target());
            event.record(&mut Fields(&mut line));
            self.0.line(&line);
        }
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
