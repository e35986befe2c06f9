//! Why a request was not carried out, as problem details (RFC 9457): each says what is wrong and what to do.

use std::collections::BTreeSet;
use std::time::Duration;

use takhin_cluster::TopicError;
use takhin_runtime::telemetry::http::{Answer, BODY_TIMEOUT, MAX_BODY};

use super::shape::{Shape as _, shape};

shape! {
    /// Why a request was not carried out (RFC 9457).
    Details {
        /// Which problem it is, for programs: `urn:takhin:problem:` and a name.
        r#type: String,
        /// The same for people.
        title: &'static str,
        /// HTTP status.
        status: u16,
        /// What is wrong with this request.
        detail: String,
        /// What to do about it.
        remedy: String,
        /// The parameter or header that is wrong.
        field: Option<&'static str>,
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    details: Box<Details>,
    headers: Vec<(&'static str, String)>,
}

impl Problem {
    fn new(
        status: u16,
        name: &str,
        title: &'static str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            details: Box::new(Details {
                r#type: format!("urn:takhin:problem:{name}"),
                title,
                status,
                detail: detail.into(),
                remedy: remedy.into(),
                field: None,
            }),
            headers: Vec::new(),
        }
    }

    fn field(mut self, field: &'static str) -> Self {
        self.details.field = Some(field);
        self
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A problem that goes away by itself.
    fn passing(self) -> Self {
        self.header("retry-after", "1")
    }

    pub(super) fn into_answer(self) -> Answer {
        Answer {
            status: self.details.status,
            content_type: "application/problem+json",
            body: self.details.text(),
            headers: self.headers,
        }
    }

    /// HTTP status.
    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.details.status
    }
}

pub(super) fn no_such_path(path: &str) -> Problem {
    let shown: String = path.chars().take(100).collect();
    let remedy = "take one of the paths in docs/reference/admin-api.json, such as /v1/cluster/health";
    Problem::new(
        404,
        "no_such_path",
        "No such path",
        format!("there is no {shown}"),
        remedy,
    )
    .field("path")
}

pub(super) fn method(method: &str, allowed: &BTreeSet<&str>) -> Problem {
    let allowed = allowed.iter().copied().collect::<Vec<_>>().join(", ");
    let shown: String = method.chars().take(20).collect();
    let detail = format!("{shown} is not what this path is for");
    Problem::new(
        405,
        "method_not_allowed",
        "Method not allowed",
        detail,
        format!("use {allowed}"),
    )
    .field("method")
    .header("allow", allowed)
}

pub(super) fn broker_id(given: &str) -> Problem {
    let shown: String = given.chars().take(20).collect();
    let detail = format!("{shown:?} is no broker id");
    let remedy = "name a broker by its number, as GET /v1/brokers lists them";
    Problem::new(400, "invalid_parameter", "Invalid parameter", detail, remedy).field("id")
}

pub(super) fn unknown_broker(id: i32) -> Problem {
    let detail = format!("no broker {id} is registered");
    let remedy = "name a broker by its number, as GET /v1/brokers lists them";
    Problem::new(404, "unknown_broker", "Unknown broker", detail, remedy).field("id")
}

fn body(status: u16, name: &str, title: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(status, name, title, detail, "send the request without a body").field("body")
}

pub(super) fn needless_body() -> Problem {
    body(400, "needless_body", "Needless body", "no endpoint takes a body")
}

pub(super) fn large_body() -> Problem {
    let detail = format!("the body is larger than {MAX_BODY} bytes");
    body(413, "body_too_large", "Body too large", detail)
}

pub(super) fn slow_body() -> Problem {
    let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
    body(408, "body_too_slow", "Body too slow", detail).header("connection", "close")
}

pub(super) fn broken_body() -> Problem {
    body(
        400,
        "broken_body",
        "Broken body",
        "the body was cut off or is framed wrongly",
    )
}

pub(super) fn starting() -> Problem {
    let detail = "the broker is starting or stopping";
    let remedy = "ask again when /readyz answers 200, or ask another broker";
    Problem::new(503, "starting", "Not up", detail, remedy).passing()
}

pub(super) fn busy(limit: usize) -> Problem {
    let detail = format!("{limit} requests are being answered, which is the limit");
    Problem::new(503, "busy", "Busy", detail, "ask again in a second").passing()
}

pub(super) fn slow(limit: Duration) -> Problem {
    let detail = format!(
        "there was no answer within {} s; a change may yet be made",
        limit.as_secs()
    );
    let remedy = "ask again: every request may be repeated; GET /v1/cluster/health may say why";
    Problem::new(504, "timeout", "No answer in time", detail, remedy).passing()
}

pub(super) fn unauthorized(detail: &'static str) -> Problem {
    let remedy = "send `Authorization: Bearer TOKEN`, with the token in the file that admin.token_file of this broker names";
    Problem::new(401, "unauthorized", "Who are you?", detail, remedy)
        .field("Authorization")
        .header("www-authenticate", "Bearer realm=\"takhin\"")
}

pub(super) fn no_token() -> Problem {
    let detail = "other machines reach this address, and no token is configured";
    let remedy = "set admin.token_file on this broker to a file with a token, restart it, and send `Authorization: Bearer TOKEN`";
    Problem::new(403, "no_token_configured", "Closed", detail, remedy).field("Authorization")
}

pub(super) fn from_a_page(field: &'static str) -> Problem {
    let detail = "the request seems to come from a web page, and no token is configured";
    let remedy =
        "use a program such as curl with the address 127.0.0.1, or set admin.token_file on this broker";
    Problem::new(403, "from_a_page", "Closed to web pages", detail, remedy).field(field)
}

pub(super) fn token_unreadable() -> Problem {
    let detail = "this broker's token cannot be read; its log says why";
    let remedy = "mend the file that admin.token_file of this broker names; it is read for every request";
    Problem::new(503, "token_unreadable", "Token unreadable", detail, remedy).passing()
}

/// Why the metadata was not changed.
pub(super) fn not_changed(error: &TopicError) -> Problem {
    match error {
        TopicError::UnknownBroker { id } => unknown_broker(*id),
        TopicError::BrokerNeeded {
            reason,
            to_vote: true,
            ..
        } => {
            let remedy = "add brokers first, or start those that are away";
            Problem::new(409, "voter_needed", "Voter needed", reason.clone(), remedy).field("id")
        }
        TopicError::BrokerNeeded { reason, .. } => {
            let remedy = "add brokers first, or give the topics that are named fewer replicas (kafka-reassign-partitions.sh)";
            Problem::new(409, "broker_needed", "Broker needed", reason.clone(), remedy).field("id")
        }
        TopicError::NotController => {
            let remedy = "ask again; GET /v1/cluster/health says why there is no controller";
            Problem::new(503, "no_controller", "No controller", error.to_string(), remedy).passing()
        }
        _ => {
            let remedy = "ask again: every request may be repeated";
            Problem::new(504, "timeout", "No answer in time", error.to_string(), remedy).passing()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs tell these apart: `docs/reference/admin-api.json` promises both names.
    #[test]
    fn a_broker_that_is_needed_to_vote_is_told_apart() {
        let promised = include_str!("../../../docs/reference/admin-api.json");
        for (to_vote, name) in [
            (false, "urn:takhin:problem:broker_needed"),
            (true, "urn:takhin:problem:voter_needed"),
        ] {
            let error = TopicError::BrokerNeeded {
                id: 1,
                reason: "too few would be left".to_owned(),
                to_vote,
            };
            let problem = not_changed(&error);
            assert_eq!(problem.details.status, 409);
            assert_eq!(problem.details.r#type, name);
            assert!(promised.contains(name), "{name}");
        }
    }
}
