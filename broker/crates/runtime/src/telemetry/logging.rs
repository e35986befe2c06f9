//! Log lines to standard error, as text for people or JSON for collectors.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Subscriber, error};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text per event, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Look of a line.
    pub format: LogFormat,
    /// Levels by target, in the syntax of `RUST_LOG`: `info,takhin_storage=debug`.
    pub filter: String,
    /// Added to every line as `broker_id`.
    pub broker_id: Option<i32>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
            broker_id: None,
        }
    }
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("log filter {filter:?} is not of the form LEVEL or TARGET=LEVEL, separated by commas")]
    InvalidFilter {
        /// What was given.
        filter: String,
        /// What the parser said.
        source: ParseError,
    },
    /// Logging was set up before in this process.
    #[error("logging is already set up")]
    AlreadySet,
}

/// Changes the filter of a running process.
#[derive(Debug, Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Replaces the filter.
    ///
    /// # Errors
    /// [`LogError::InvalidFilter`]; the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        let filter = parse(filter)?;
        // Fails only when logging is gone, and then nobody reads the filter.
        let _ = self.0.reload(filter);
        Ok(())
    }
}

/// What else looks at spans and events; it brings a filter of its own.
pub type ExtraLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging to standard error, and logs every panic of this process with its place.
///
/// # Errors
/// For an invalid filter, or when it is called twice.
pub fn init(options: &LogOptions) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(parse(&options.filter)?);
    let lines = lines(options, std::io::stderr, std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|_| LogError::AlreadySet)?;
    log_panics();
    Ok(LogHandle(handle))
}

/// The same with a further layer, which sees what the filter of the log hides.
///
/// # Errors
/// As for [`init`].
pub fn init_with(options: &LogOptions, extra: Option<ExtraLayer>) -> Result<LogHandle, LogError> {
    let Some(extra) = extra else {
        return init(options);
    };
    let (filter, handle) = reload::Layer::new(parse(&options.filter)?);
    let lines = lines(options, std::io::stderr, std::io::stderr().is_terminal());
    let layers: Vec<ExtraLayer> = vec![lines.with_filter(filter).boxed(), extra];
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|_| LogError::AlreadySet)?;
    log_panics();
    Ok(LogHandle(handle))
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let invalid = |source| LogError::InvalidFilter {
        filter: filter.to_owned(),
        source,
    };
    EnvFilter::builder().parse(filter).map_err(invalid)
}

/// A layer that writes lines to `writer`.
fn lines<S, W>(options: &LogOptions, writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let broker_id = options.broker_id;
    match options.format {
        LogFormat::Text => layer
            .with_ansi(colours)
            .with_timer(TimeAndBroker { broker_id })
            .boxed(),
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::format()
                .json()
                .flatten_event(true)
                .with_current_span(false);
            layer
                .fmt_fields(JsonFields::new())
                .event_format(JsonWithBroker { json, broker_id })
                .boxed()
        }
    }
}

/// The time, followed by the broker: the one place of a text line where a constant field fits.
struct TimeAndBroker {
    broker_id: Option<i32>,
}

impl FormatTime for TimeAndBroker {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        SystemTime.format_time(w)?;
        self.broker_id.map_or(Ok(()), |id| write!(w, " broker_id={id}"))
    }
}

/// JSON lines with a constant field, which the library cannot add itself.
struct JsonWithBroker {
    json: Format<Json>,
    broker_id: Option<i32>,
}

impl<S, N> FormatEvent<S, N> for JsonWithBroker
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.json.format_event(ctx, Writer::new(&mut line), event)?;
        match (self.broker_id, line.strip_prefix('{')) {
            (Some(id), Some(rest)) => write!(w, "{{\"broker_id\":{id},{rest}"),
            _ => w.write_str(&line),
        }
    }
}

/// Sends panics through the log instead of straight to standard error, where they would break JSON lines.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        let place = panic.location().map(ToString::to_string);
        let message = panic_message(panic.payload());
        error!(message, place, backtrace, "panic");
    }));
}

/// The text of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::{info, info_span};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let options = LogOptions {
            format,
            broker_id: Some(7),
            ..LogOptions::default()
        };
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let (filter, _handle) = reload::Layer::new(parse(&options.filter).unwrap());
        let subscriber =
            tracing_subscriber::registry()
                .with(filter)
                .with(lines(&options, move || writer.clone(), false));
        tracing::subscriber::with_default(subscriber, || {
            let _span = info_span!("connection", peer = "p").entered();
            info!(partition = 3, "became \"leader\"");
            tracing::debug!("hidden");
        });
        let bytes = std::mem::take(&mut *buffer.0.lock());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_has_all_fields() {
        let text = logged(LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["broker_id"], 7);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "became \"leader\"");
        assert_eq!(line["partition"], 3);
        assert_eq!(line["spans"][0]["peer"], "p");
    }

    #[test]
    fn a_text_line_has_all_fields() {
        let text = logged(LogFormat::Text);
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [
            " broker_id=7 ",
            "INFO",
            "connection{peer=\"p\"}",
            "became \"leader\" partition=3",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn a_bad_filter_is_named() {
        let e = parse("info,x=loud").unwrap_err();
        assert!(e.to_string().contains("\"info,x=loud\""), "{e}");
    }
}
