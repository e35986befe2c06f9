//! What a program serves under `/v1`, beside health and metrics: calls and answers without a name of hyper's.
//!
//! Bounds, beside those of the listener: a body has [`MAX_BODY`] bytes at most and [`BODY_TIMEOUT`] to arrive.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};

use crate::clock::Clock;

/// Largest body of a request in bytes.
pub const MAX_BODY: usize = 16 * 1024;

/// Time for a body to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a program serves under `/v1`.
pub trait Endpoints: Send + Sync + 'static {
    /// Answers a call. Dropped when the connection ends.
    fn answer(&self, call: Call) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
}

/// What is asked.
pub struct Call {
    /// `GET` and the like; what a client may make up is kept as it is.
    pub method: String,
    /// Path of the target, not decoded.
    pub path: String,
    /// The body, or why there is none.
    pub body: Result<Bytes, BodyError>,
    headers: HeaderMap,
}

impl Call {
    /// A call without a body.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            body: Ok(Bytes::new()),
            headers: HeaderMap::new(),
        }
    }

    /// The same with a header; one that is no header is left out.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// The value of a header, bytes as they came; of several with this name the first.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }
}

impl fmt::Debug for Call {
    /// Without the headers, which hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({} {})", self.method, self.path)
    }
}

/// Why the body of a call is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is larger than [`MAX_BODY`].
    TooLarge,
    /// It took longer than [`BODY_TIMEOUT`].
    TooSlow,
    /// It was cut off or is framed wrongly.
    Broken,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Type of the body.
    pub content_type: &'static str,
    /// Other headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// Reads a request as a whole, within the bounds.
pub(super) async fn call(clock: &Clock, request: Request<Incoming>) -> Call {
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() {
        Ok(Bytes::new())
    } else {
        match clock
            .timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect())
            .await
        {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
            Ok(Err(_)) => Err(BodyError::Broken),
            Err(_) => Err(BodyError::TooSlow),
        }
    };
    Call {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        body,
        headers: head.headers,
    }
}

/// The response for an answer.
pub(super) fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}
