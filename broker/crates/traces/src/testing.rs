//! A collector for tests: takes spans over HTTP as a real one does, and keeps them.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a server of its own, outside of the program that is tested"
)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;

/// Largest body that is read.
const MAX_BODY: usize = 16 << 20;

/// A span, as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// `service.name` of the program.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Which trace it is part of.
    pub trace: Vec<u8>,
    /// Which span it is.
    pub id: Vec<u8>,
    /// The span that it is in; empty if it is in none.
    pub parent: Vec<u8>,
    /// Whether it ended with an error.
    pub is_error: bool,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
}

/// A collector on a free port of loopback, until the process ends.
#[derive(Debug, Clone)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<parking_lot::Mutex<Vec<Received>>>,
    refuses: Arc<AtomicBool>,
}

impl Collector {
    /// Starts one.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let collector = Self {
            address: listener.local_addr()?,
            spans: Arc::default(),
            refuses: Arc::default(),
        };
        let serving = collector.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = serving.clone();
                // What a peer does wrong is the end of its connection.
                thread::spawn(move || one.serve(stream));
            }
        });
        Ok(collector)
    }

    /// What a program is to be told.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether it answers that it is not available from now on.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// What it has received.
    pub fn spans(&self) -> Vec<Received> {
        self.spans.lock().clone()
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let body = request(&mut reader)?;
            let status = if self.refuses.load(Ordering::Relaxed) {
                "503 Service Unavailable"
            } else {
                let request = ExportTraceServiceRequest::decode(&*body).map_err(io::Error::other)?;
                self.spans.lock().extend(received(request));
                "200 OK"
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes())?;
        }
    }
}

/// The body of the next request, which has to be one for traces.
fn request(reader: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.starts_with("POST /v1/traces ") {
        return Err(io::Error::other(format!("not a request for traces: {line}")));
    }
    let mut len = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            len = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    if len > MAX_BODY {
        return Err(io::Error::other("too large"));
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(body)
}

fn received(request: ExportTraceServiceRequest) -> Vec<Received> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = attributes(of_resource.resource.unwrap_or_default().attributes);
        let service = resource.get("service.name").cloned().unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(Received {
                service: service.clone(),
                name: span.name,
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                is_error: span
                    .status
                    .is_some_and(|status| status.code() == StatusCode::Error),
                attributes: attributes(span.attributes),
            });
        }
    }
    all
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|pair| (pair.key, text(pair.value)))
        .collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        other => format!("{other:?}"),
    }
}
