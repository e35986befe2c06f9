//! One registry of metrics for the whole process.
//!
//! Each crate declares its own metrics in its `metrics.rs`, in a `static` [`LazyLock`] or a
//! struct made at start:
//!
//! ```
//! use std::time::Duration;
//! use takhin_runtime::telemetry::metrics;
//!
//! let rolled = metrics::counter("takhin_doc_segments_rolled_total", "Segments closed and replaced by a new one");
//! let seconds = metrics::histograms("takhin_doc_request_seconds", "Time from frame to reply", ["api"]);
//! rolled.inc();
//! let produce = seconds.with(["Produce"]); // look up once, keep the handle
//! produce.observe(Duration::from_millis(3));
//! assert!(metrics::encode().contains("takhin_doc_segments_rolled_total 1"));
//! ```
//!
//! Names follow `takhin_<room>_<what>_<unit>` in base units, counters with `_total`. Handles are cheap to clone
//! and update without a lock. Asking twice for a name gives the same metric.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

pub use super::histogram::{BUCKETS_SECONDS, Histogram};

/// `Content-Type` of what [`encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

static REGISTRY: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct State {
    registry: Registry,
    known: BTreeMap<String, Known>,
}

/// What a name was registered as.
#[derive(Clone)]
enum Known {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Counters(Labelled<Counter>),
    Gauges(Labelled<Gauge>),
    Histograms(Labelled<Histogram>),
    Sampled,
}

/// A number that only grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(prometheus_client::metrics::counter::Counter);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }
    /// Current value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(prometheus_client::metrics::gauge::Gauge);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.inc_by(n);
    }
    /// Current value.
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

type Labels = Vec<(&'static str, String)>;
type Labelled<M> = family::Family<Labels, M>;

/// A metric with labels. Every label must have few values: API names, error codes, listeners.
#[derive(Debug, Clone)]
pub struct Family<M, const N: usize> {
    names: [&'static str; N],
    family: Labelled<M>,
}

impl<M: Clone + Default, const N: usize> Family<M, N> {
    /// The metric of these label values, in the order of the label names. Look it up once and keep it: the
    /// lookup takes a lock, the metric does not.
    pub fn with(&self, values: [&str; N]) -> M {
        self.family.get_or_create_owned(&self.labels(values))
    }

    /// Removes a series; handles to it go on counting unseen.
    pub fn remove(&self, values: [&str; N]) {
        self.family.remove(&self.labels(values));
    }

    fn labels(&self, values: [&str; N]) -> Labels {
        self.names
            .into_iter()
            .zip(values)
            .map(|(name, value)| (name, value.to_owned()))
            .collect()
    }
}

/// A counter; `name` ends in `_total`.
pub fn counter(name: &str, help: &str) -> Counter {
    match register(name, help, || Known::Counter(Counter::default())) {
        Known::Counter(metric) => metric,
        _ => clash(name),
    }
}

/// A gauge.
pub fn gauge(name: &str, help: &str) -> Gauge {
    match register(name, help, || Known::Gauge(Gauge::default())) {
        Known::Gauge(metric) => metric,
        _ => clash(name),
    }
}

/// A histogram of durations; `name` ends in `_seconds`.
pub fn histogram(name: &str, help: &str) -> Histogram {
    match register(name, help, || Known::Histogram(Histogram::default())) {
        Known::Histogram(metric) => metric,
        _ => clash(name),
    }
}

/// A counter with labels; `name` ends in `_total`.
pub fn counters<const N: usize>(name: &str, help: &str, labels: [&'static str; N]) -> Family<Counter, N> {
    match register(name, help, || Known::Counters(Labelled::default())) {
        Known::Counters(family) => Family {
            names: labels,
            family,
        },
        _ => clash(name),
    }
}

/// A gauge with labels.
pub fn gauges<const N: usize>(name: &str, help: &str, labels: [&'static str; N]) -> Family<Gauge, N> {
    match register(name, help, || Known::Gauges(Labelled::default())) {
        Known::Gauges(family) => Family {
            names: labels,
            family,
        },
        _ => clash(name),
    }
}

/// A histogram of durations with labels; `name` ends in `_seconds`.
pub fn histograms<const N: usize>(name: &str, help: &str, labels: [&'static str; N]) -> Family<Histogram, N> {
    match register(name, help, || Known::Histograms(Labelled::default())) {
        Known::Histograms(family) => Family {
            names: labels,
            family,
        },
        _ => clash(name),
    }
}

/// A number read at each scrape; a counter if `name` ends in `_total`, else a gauge. `None` leaves it out. The
/// first registration of a name stays.
pub fn sampled(
    name: &'static str,
    help: &'static str,
    read: impl Fn() -> Option<f64> + Send + Sync + 'static,
) {
    let mut state = REGISTRY.lock();
    if state.known.insert(name.to_owned(), Known::Sampled).is_none() {
        state.registry.register_collector(Box::new(Sampled {
            name,
            help,
            read: Box::new(read),
        }));
    }
}

/// All metrics in the OpenMetrics text format, with content type [`CONTENT_TYPE`].
pub fn encode() -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &REGISTRY.lock().registry)
        .expect("a String takes any text");
    text
}

fn register(name: &str, help: &str, make: impl FnOnce() -> Known) -> Known {
    let mut state = REGISTRY.lock();
    if let Some(known) = state.known.get(name) {
        return known.clone();
    }
    let known = make();
    // OpenMetrics writes the suffix of a counter itself.
    let (base, help) = (name.strip_suffix("_total").unwrap_or(name), help.to_owned());
    let registry = &mut state.registry;
    match known.clone() {
        Known::Counter(metric) => registry.register(base, help, metric.0),
        Known::Gauge(metric) => registry.register(base, help, metric.0),
        Known::Histogram(metric) => registry.register(base, help, metric),
        Known::Counters(family) => registry.register(base, help, family),
        Known::Gauges(family) => registry.register(base, help, family),
        Known::Histograms(family) => registry.register(base, help, family),
        Known::Sampled => {}
    }
    state.known.insert(name.to_owned(), known.clone());
    known
}

fn clash(name: &str) -> ! {
    panic!("metric {name} is declared twice with different kinds")
}

impl prometheus_client::metrics::TypedMetric for Counter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Counter {
    fn encode(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl prometheus_client::metrics::TypedMetric for Gauge {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Gauge {
    fn encode(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

struct Sampled {
    name: &'static str,
    help: &'static str,
    read: Box<dyn Fn() -> Option<f64> + Send + Sync>,
}

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sampled({})", self.name)
    }
}

impl Collector for Sampled {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(value) = (self.read)() else { return Ok(()) };
        match self.name.strip_suffix("_total") {
            Some(base) => {
                let metric = ConstCounter::new(value);
                metric.encode(encoder.encode_descriptor(base, self.help, None, MetricType::Counter)?)
            }
            None => {
                let metric = ConstGauge::new(value);
                metric.encode(encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?)
            }
        }
    }
}
