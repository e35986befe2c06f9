//! `/livez`, `/readyz`, `/startupz` and `/metrics` over HTTP/1.1, and what the program serves under `/v1`.

mod endpoints;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tracing::debug;

pub use endpoints::{Answer, BODY_TIMEOUT, BodyError, Call, Endpoints, MAX_BODY};

use super::health::{Health, Report};
use super::metrics;
use crate::env::Env;
use crate::net::{Listener, Stream};
use crate::shutdown::Shutdown;

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: u32 = 64;

/// Largest request head in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Time for a request head to arrive, on a new connection as on an idle one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time after which a connection is asked to close, so that nobody holds one for ever.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Time for the last response of a connection that is to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

type Reply = Response<Full<Bytes>>;

/// Serves health, metrics and `endpoints`, if there are any, until `shutdown`, then finishes the responses under way.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    env: &Env,
    listener: Listener,
    health: Health,
    endpoints: Option<Arc<dyn Endpoints>>,
    shutdown: Shutdown,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            Ok::<_, io::Error>((permit, listener.accept().await?))
        };
        let (permit, stream) = tokio::select! {
            biased;
            () = shutdown.wait() => break,
            accepted = accepted => accepted?,
        };
        let (health, endpoints) = (health.clone(), endpoints.clone());
        let connection = connection(env.clone(), stream, health, endpoints, shutdown.clone());
        env.tasks.spawn("admin connection", async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    // All permits back: all connections have ended, which CLOSE_TIMEOUT bounds.
    permits
        .acquire_many(MAX_CONNECTIONS)
        .await
        .map(drop)
        .map_err(io::Error::other)
}

async fn connection(
    env: Env,
    stream: Stream,
    health: Health,
    endpoints: Option<Arc<dyn Endpoints>>,
    shutdown: Shutdown,
) {
    let peer = stream.peer_addr();
    let service = service_fn(|request: Request<Incoming>| async {
        let reply = match &endpoints {
            Some(endpoints) if is_endpoint(request.uri().path()) => {
                let call = endpoints::call(&env.clock, request).await;
                endpoints::response(endpoints.answer(call).await)
            }
            Some(_) | None => answer(&request, &health),
        };
        Ok::<_, Infallible>(reply)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .auto_date_header(false) // would read a clock of its own
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Ok(ended),
        () = shutdown.wait() => Err(()),
        () = env.clock.sleep(MAX_AGE) => Err(()),
    };
    let ended = match ended {
        Ok(ended) => Some(ended),
        Err(()) => {
            connection.as_mut().graceful_shutdown();
            env.clock.timeout(CLOSE_TIMEOUT, connection).await.ok()
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(%peer, %error, "admin connection failed"),
        None => debug!(%peer, "admin connection closed, its peer does not read"),
    }
}

fn is_endpoint(path: &str) -> bool {
    path.strip_prefix("/v1")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn answer(request: &Request<Incoming>, health: &Health) -> Reply {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let reply = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        return with_header(reply, ALLOW, "GET, HEAD");
    }
    let verbose = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|part| part == "verbose"));
    match request.uri().path() {
        "/livez" => probe(&health.live(), verbose),
        "/startupz" => probe(&health.started(), verbose),
        "/readyz" => probe(&health.ready(), verbose),
        "/metrics" => with_header(
            text(StatusCode::OK, metrics::encode()),
            CONTENT_TYPE,
            metrics::CONTENT_TYPE,
        ),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /livez, /readyz, /startupz and /metrics\n".to_owned(),
        ),
    }
}

fn probe(report: &Report, verbose: bool) -> Reply {
    let status = if report.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if verbose {
        // Strings, booleans and maps with string keys always serialize.
        let json = serde_json::to_string(report).unwrap_or_default();
        return with_header(text(status, json + "\n"), CONTENT_TYPE, "application/json");
    }
    let mut lines = String::new();
    for (name, check) in &report.checks {
        if let Some(reason) = &check.reason {
            lines += &format!("{name}: {reason}\n");
        }
    }
    text(
        status,
        if lines.is_empty() {
            "ok\n".to_owned()
        } else {
            lines
        },
    )
}

fn text(status: StatusCode, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    with_header(reply, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with_header(mut reply: Reply, name: HeaderName, value: &'static str) -> Reply {
    reply.headers_mut().insert(name, HeaderValue::from_static(value));
    reply
}
