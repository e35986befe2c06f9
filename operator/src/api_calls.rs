//! Requests to the API server, counted, and as spans of the passes that send them.

use std::sync::LazyLock;

use http::{Method, Request, Uri};
use kube::Client;
use kube::client::Body;
use takhin_runtime::telemetry::metrics::{Counter, Family, counters};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug_span};

static REQUESTS: LazyLock<Family<Counter, 3>> = LazyLock::new(|| {
    counters(
        "takhin_operator_api_requests_total",
        "Requests to the API server, by verb, resource and status; the status of one that was not answered is 0",
        ["verb", "resource", "code"],
    )
});

/// What a request is for, as roles name it.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    verb: &'static str,
    /// With its subresource, such as `topics/status`.
    resource: String,
}

/// A request that is counted with its end, also where nobody waits for the answer any more, as after a timeout.
struct Sent {
    call: Call,
    span: Span,
    /// Status of the answer; 0 without one.
    code: u16,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.span.record("status", self.code);
        if !(200..400).contains(&self.code) {
            self.span.record("otel.status_code", "ERROR");
        }
        REQUESTS
            .with([self.call.verb, &self.call.resource, &self.code.to_string()])
            .inc();
    }
}

/// The same client, whose requests are counted.
pub(crate) fn counted(client: Client, namespace: String) -> Client {
    let send = move |request: Request<Body>| {
        let client = client.clone();
        async move {
            let call = Call::of(request.method(), request.uri());
            let span = call.span();
            let mut sent = Sent { call, span, code: 0 };
            let answer = client.send(request).instrument(sent.span.clone()).await;
            sent.code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            answer
        }
    };
    Client::new(tower::service_fn(send), namespace)
}

/// What a request is, for messages: its verb, and what it is about.
pub(crate) fn name(method: &Method, uri: &Uri) -> String {
    let verb = Call::of(method, uri).verb;
    format!("{verb} {}", uri.path())
}

impl Call {
    fn of(method: &Method, uri: &Uri) -> Self {
        // /api/VERSION or /apis/GROUP/VERSION, then namespaces/NAMESPACE where there is one, RESOURCE, NAME, SUBRESOURCE.
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty()).peekable();
        let before = if parts.next() == Some("apis") { 2 } else { 1 };
        let mut rest: Vec<&str> = parts.skip(before).collect();
        if rest.len() > 2 && rest[0] == "namespaces" {
            rest.drain(..2);
        }
        let resource = match rest[..] {
            [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
            [resource, ..] => resource.to_owned(),
            [] => String::new(),
        };
        let has_name = rest.len() > 1;
        let watches = uri.query().is_some_and(|query| {
            query
                .split('&')
                .any(|part| part == "watch=true" || part == "watch=1")
        });
        let verb = match *method {
            Method::GET if watches => "watch",
            Method::GET if has_name => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "other",
        };
        Self { verb, resource }
    }

    /// A span in that of a pass. Watches and the Lease are in none, and get none.
    fn span(&self) -> Span {
        if Span::current().is_none() {
            return Span::none();
        }
        debug_span!(
            "kubernetes",
            otel.kind = "client",
            otel.name = format!("{} {}", self.verb, self.resource),
            status = Empty,
            otel.status_code = Empty,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http::Response;
    use takhin_runtime::sim::Sim;

    use super::*;

    #[test]
    fn a_request_that_nobody_waits_for_any_more_was_not_answered() {
        Sim::new(1).run(|env| async move {
            let server = tower::service_fn(|_: Request<Body>| {
                std::future::pending::<Result<Response<Body>, Infallible>>()
            });
            let client = counted(Client::new(server, "default"), "default".to_owned());
            let request = Request::get("/api/v1/timeouts").body(Vec::new()).unwrap();
            let count = || REQUESTS.with(["list", "timeouts", "0"]).get();
            assert_eq!(count(), 0);
            let answer = client.request_text(request);
            assert!(env.clock.timeout(Duration::from_secs(1), answer).await.is_err());
            // The client has a task of its own, which ends a moment later.
            env.clock.sleep(Duration::from_secs(1)).await;
            assert_eq!(count(), 1);
        });
    }

    #[test]
    fn requests_are_named_as_roles_name_them() {
        for (method, uri, verb, resource) in [
            (
                Method::GET,
                "/api/v1/namespaces/ns/pods?labelSelector=a",
                "list",
                "pods",
            ),
            (Method::GET, "/api/v1/namespaces/ns/pods/prod-0", "get", "pods"),
            (Method::GET, "/api/v1/namespaces/ns", "get", "namespaces"),
            (
                Method::GET,
                "/apis/takhin.io/v1alpha1/topics?&watch=true&x=y",
                "watch",
                "topics",
            ),
            (
                Method::PATCH,
                "/apis/takhin.io/v1alpha1/namespaces/ns/topics/orders/status?&force=true",
                "patch",
                "topics/status",
            ),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/ns/leases/x",
                "update",
                "leases",
            ),
            (
                Method::POST,
                "/apis/events.k8s.io/v1/namespaces/ns/events",
                "create",
                "events",
            ),
            (Method::DELETE, "/api/v1/namespaces/ns/pods/p", "delete", "pods"),
            (Method::GET, "/", "list", ""),
        ] {
            let call = Call::of(&method, &uri.parse().unwrap());
            assert_eq!(
                (call.verb, call.resource.as_str()),
                (verb, resource),
                "{method} {uri}"
            );
        }
    }
}
