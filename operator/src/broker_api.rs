//! The brokers' admin API over HTTP, as far as the operator needs it: `docs/reference/admin-api.json`.
//!
//! Bounds: 5 s to connect and 25 s for an answer, which is a little more than a broker takes at most, and 4 MiB of it.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use takhin_runtime::Clock;
use tracing::field;
use tracing::{Instrument as _, debug_span};

use crate::fence::Fence;

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(25);
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Why a broker that is to leave is refused, where too few would be left to vote on the metadata.
pub const VOTER_NEEDED: &str = "voter_needed";

/// Why a broker gave no answer that helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// No broker could be asked, or none answered in time.
    #[error("{address} does not answer: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// The broker said no.
    #[error("{detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Which problem, the last part of its URN.
        problem: String,
        /// What the broker says of it.
        detail: String,
    },
    /// The answer is not what the reference promises.
    #[error("{address} gave an answer that cannot be read: {reason}")]
    Unreadable {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reason {
    /// What it is about, for programs.
    pub kind: String,
    /// The same for people.
    pub message: String,
}

/// Whether the cluster is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ClusterHealth {
    /// Whether nothing is wrong.
    pub healthy: bool,
    /// Id of the controller, if there is one.
    pub controller: Option<i32>,
    /// What is wrong, the gravest first.
    pub reasons: Vec<Reason>,
    /// How many reasons there are of each kind.
    pub counts: BTreeMap<String, u64>,
}

/// A registered broker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Broker {
    /// Broker id.
    pub id: i32,
    /// Its rack.
    pub rack: Option<String>,
    /// alive, silent, draining or decommissioning.
    pub state: String,
    /// Whether it is to lead nothing.
    pub draining: bool,
    /// Whether it is to lose all its replicas.
    pub decommissioning: bool,
    /// Whether it is the controller.
    pub controller: bool,
    /// Replicas that are placed on it.
    pub replicas: u64,
    /// Partitions that it leads.
    pub leaders: u64,
    /// Release that it runs, if it said so.
    pub version: Option<String>,
    /// Its disk, if it said so.
    pub disk: Option<Disk>,
}

/// The file system of a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Disk {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
}

/// All registered brokers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Brokers {
    /// By id.
    pub brokers: Vec<Broker>,
}

/// How far a broker is drained.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Drain {
    /// Whether it is to lead nothing and leads nothing.
    pub done: bool,
    /// Partitions that it still leads.
    pub leaders: u64,
}

/// How far a broker is decommissioned.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Decommission {
    /// Whether it may be stopped for good.
    pub done: bool,
    /// Replicas that it still has.
    pub replicas: u64,
    /// Why replicas cannot leave at the moment.
    pub reasons: Vec<Reason>,
}

/// Whether a broker may be stopped now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RestartSafety {
    /// Whether nobody would notice.
    pub safe: bool,
    /// Whether some of the reasons may pass.
    pub waiting_helps: bool,
    /// What is wrong, the gravest first.
    pub reasons: Vec<Reason>,
}

/// The broker that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// Broker id.
    pub id: i32,
    /// Cluster id.
    pub cluster_id: String,
}

#[derive(Deserialize)]
struct Problem {
    r#type: String,
    detail: String,
    #[serde(default)]
    remedy: String,
}

/// Asks the brokers of one cluster: the first that answers.
#[derive(Debug, Clone)]
pub struct BrokerApi {
    client: Client<HttpConnector, Empty<bytes::Bytes>>,
    clock: Clock,
    fence: Fence,
    /// `host:port` of each broker, by preference.
    addresses: Vec<String>,
    token: String,
}

/// The client, which all clusters share.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpConnector, Empty<bytes::Bytes>>,
    clock: Clock,
    fence: Fence,
}

impl Http {
    /// A client without connections; what changes anything is done within `fence`.
    pub fn new(clock: Clock, fence: Fence) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .build(connector);
        Self { client, clock, fence }
    }

    /// The brokers of a cluster at these addresses, with the token that they want.
    pub fn brokers(&self, addresses: Vec<String>, token: String) -> BrokerApi {
        BrokerApi {
            client: self.client.clone(),
            clock: self.clock.clone(),
            fence: self.fence.clone(),
            addresses,
            token,
        }
    }

    /// Whether a probe passes, and its text.
    ///
    /// # Errors
    /// Nobody answers, or not as a probe does.
    pub async fn probe(&self, address: &str, path: &str) -> Result<(bool, String), AdminError> {
        let one = self.brokers(vec![address.to_owned()], String::new());
        let (status, body) = one.exchange(address, "GET", path).await?;
        match status {
            200 | 503 => Ok((status == 200, String::from_utf8_lossy(&body).into_owned())),
            _ => Err(refusal(status, &body)),
        }
    }

    /// The text at a URL without a token, such as metrics.
    ///
    /// # Errors
    /// Nobody answers, or not with 200.
    pub async fn text(&self, address: &str, path: &str) -> Result<String, AdminError> {
        let one = self.brokers(vec![address.to_owned()], String::new());
        let body = one.ask_at(address, "GET", path).await?;
        String::from_utf8(body).map_err(|error| AdminError::Unreadable {
            address: address.to_owned(),
            reason: error.to_string(),
        })
    }
}

impl BrokerApi {
    /// Who answers.
    ///
    /// # Errors
    /// [`AdminError`], as for all others.
    pub async fn node(&self) -> Result<Node, AdminError> {
        self.ask("GET", "/v1/node").await
    }

    /// How the cluster is.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn health(&self) -> Result<ClusterHealth, AdminError> {
        self.ask("GET", "/v1/cluster/health").await
    }

    /// All registered brokers.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn brokers(&self) -> Result<Vec<Broker>, AdminError> {
        Ok(self.ask::<Brokers>("GET", "/v1/brokers").await?.brokers)
    }

    /// Has a broker lead nothing.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn drain(&self, broker: i32) -> Result<Drain, AdminError> {
        self.ask("POST", &format!("/v1/brokers/{broker}/drain")).await
    }

    /// Has a broker lead again.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn undrain(&self, broker: i32) -> Result<Drain, AdminError> {
        self.ask("POST", &format!("/v1/brokers/{broker}/undrain")).await
    }

    /// Whether a broker may be stopped now.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn restart_safety(&self, broker: i32) -> Result<RestartSafety, AdminError> {
        self.ask("GET", &format!("/v1/brokers/{broker}/restart-safety"))
            .await
    }

    /// Has a broker lose all it has, or says how far that is.
    ///
    /// # Errors
    /// [`AdminError`]; status 409 if it is needed.
    pub async fn decommission(&self, broker: i32) -> Result<Decommission, AdminError> {
        self.ask("POST", &format!("/v1/brokers/{broker}/decommission"))
            .await
    }

    /// Keeps a broker after all.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn recommission(&self, broker: i32) -> Result<Decommission, AdminError> {
        self.ask("POST", &format!("/v1/brokers/{broker}/recommission"))
            .await
    }

    async fn ask<T: DeserializeOwned>(&self, method: &'static str, path: &str) -> Result<T, AdminError> {
        let mut last = AdminError::Unreachable {
            address: "the cluster".to_owned(),
            reason: "no broker has an address".to_owned(),
        };
        for address in &self.addresses {
            match self.ask_at(address, method, path).await {
                Ok(body) => {
                    return serde_json::from_slice(&body).map_err(|error| AdminError::Unreadable {
                        address: address.clone(),
                        reason: error.to_string(),
                    });
                }
                // What one broker refuses another one refuses too, but for a broker that is too busy or starting.
                Err(
                    error @ AdminError::Refused {
                        status: 400..=499, ..
                    },
                ) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_at(&self, address: &str, method: &'static str, path: &str) -> Result<Vec<u8>, AdminError> {
        match self.exchange(address, method, path).await? {
            (200, body) => Ok(body),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    /// Status and body of an answer.
    async fn exchange(
        &self,
        address: &str,
        method: &'static str,
        path: &str,
    ) -> Result<(u16, Vec<u8>), AdminError> {
        let span = debug_span!(
            "broker",
            otel.kind = "client",
            otel.name = format!("{method} {path}"),
            address,
            status = field::Empty,
            otel.status_code = field::Empty,
        );
        let answer = self
            .exchange_now(address, method, path)
            .instrument(span.clone())
            .await;
        match &answer {
            Ok((status, _)) => drop(span.record("status", *status)),
            Err(_) => drop(span.record("otel.status_code", "ERROR")),
        }
        answer
    }

    async fn exchange_now(
        &self,
        address: &str,
        method: &'static str,
        path: &str,
    ) -> Result<(u16, Vec<u8>), AdminError> {
        let unreachable = |reason: String| AdminError::Unreachable {
            address: address.to_owned(),
            reason,
        };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"))
            .header("authorization", format!("Bearer {}", self.token))
            .body(Empty::new())
            .map_err(|error| unreachable(error.to_string()))?;
        let exchange = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| unreachable(chain(&error)))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
            Ok((status, body.to_vec()))
        };
        let exchange = self.clock.timeout(ANSWER, exchange);
        let answer = match method {
            "GET" => exchange.await,
            _ => {
                let within = self.fence.within(exchange).await;
                within.map_err(|lapsed| unreachable(lapsed.to_string()))?
            }
        };
        answer.map_err(|_| unreachable(format!("no answer within {} s", ANSWER.as_secs())))?
    }
}

fn refusal(status: u16, body: &[u8]) -> AdminError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => AdminError::Refused {
            status,
            problem: problem.r#type.rsplit(':').next().unwrap_or_default().to_owned(),
            detail: match problem.remedy.is_empty() {
                true => problem.detail,
                false => format!("{} ({})", problem.detail, problem.remedy),
            },
        },
        Err(_) => AdminError::Refused {
            status,
            problem: String::new(),
            detail: format!("the broker answered with status {status}"),
        },
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use takhin_runtime::Env;

    use super::*;

    /// A broker that hangs: a change is given up with the Lease, a question has its time.
    #[tokio::test]
    async fn a_change_is_dropped_with_the_lease() {
        let env = Env::real();
        let listener = env.net.listen("127.0.0.1:0", "test").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (renewal, fence) = Fence::new(env.clock.clone());
        renewal.until(env.clock.instant() + Duration::from_secs(3600));
        let admin = Http::new(env.clock.clone(), fence).brokers(vec![address], "token".to_owned());
        let asked = async {
            let connection = listener.accept().await;
            renewal.until(env.clock.instant());
            connection
        };
        let (said, _connection) = tokio::join!(admin.drain(1), asked);
        let said = said.unwrap_err().to_string();
        assert!(said.contains("has run out"), "{said}");
        let question = env.clock.timeout(Duration::from_millis(50), admin.health()).await;
        assert!(question.is_err(), "{question:?}");
    }
}
