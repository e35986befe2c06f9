//! Spans of a program to an OpenTelemetry collector, by OTLP over HTTP with protobuf bodies.
//!
//! Off unless somebody names a collector. [`open`] makes two things: a layer for
//! [`logging::init_with`](takhin_runtime::telemetry::logging::init_with), which takes the spans of the crates that are named and of
//! no other, and a [`Sender`], which sends what has ended.
//!
//! ```text
//! span ends → queue of 2,048, which never waits → batches of 512, or once a second → POST /v1/traces → collector
//! ```
//!
//! Invariants: ending a span neither waits nor allocates without bound, whatever the collector does. Every span that ended was
//! sent, or is counted in `takhin_traces_spans_total` under why not: `dropped` (the queue was full) or `failed` (the collector did
//! not take it). Nothing is sent twice. What this crate does makes no spans of its own.

#![forbid(unsafe_code)]

mod queue;
mod sender;
#[cfg(feature = "test-util")]
pub mod testing;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter as _};
use takhin_runtime::Env;
use takhin_runtime::telemetry::logging::ExtraLayer;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};

pub use sender::Sender;

/// Whose spans go where.
#[derive(Debug, Clone)]
pub struct TraceOptions<'a> {
    /// The collector, such as `http://otel-collector:4318`; spans go to `/v1/traces` below it.
    pub endpoint: &'a str,
    /// `service.name`: the program.
    pub service: &'static str,
    /// `service.version`.
    pub version: &'static str,
    /// `service.instance.id`: which of several.
    pub instance: &'a str,
    /// Crates whose spans are sent, with the least severe level of each; `::` parts them from their modules.
    pub crates: &'a [(&'static str, tracing::Level)],
}

/// Why no spans can be sent.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent to {endpoint}")]
pub struct TraceError {
    /// The collector.
    endpoint: String,
    #[source]
    source: ExporterBuildError,
}

/// A layer that takes spans, and what sends them: until that runs, they wait in the queue.
///
/// # Errors
/// The endpoint is no URL, or a variable `OTEL_EXPORTER_OTLP_...` of the environment asks for what is not there.
pub fn open(env: &Env, options: &TraceOptions<'_>) -> Result<(ExtraLayer, Sender), TraceError> {
    let failed = |source| TraceError {
        endpoint: options.endpoint.to_owned(),
        source,
    };
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", options.endpoint.trim_end_matches('/')))
        .with_timeout(sender::ANSWER)
        // Its pauses would hold up a thread of the program.
        .with_retry_policy(RetryPolicy::disabled())
        .with_http_client(sender::Http::new(env.clock.clone()))
        .build()
        .map_err(failed)?;
    let resource = Resource::builder()
        .with_service_name(options.service)
        .with_attributes([
            KeyValue::new("service.version", options.version),
            KeyValue::new("service.instance.id", options.instance.to_owned()),
        ])
        .build();
    exporter.set_resource(&resource);
    let (queue, ended) = queue::queue();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(queue)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(options.service))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(spans_of(options.crates));
    let sender = Sender::new(
        env.clone(),
        exporter,
        ended,
        provider,
        options.endpoint.to_owned(),
    );
    Ok((layer.boxed(), sender))
}

fn spans_of(crates: &[(&'static str, tracing::Level)]) -> Targets {
    crates
        .iter()
        .map(|(name, level)| (*name, LevelFilter::from_level(*level)))
        .collect()
}
