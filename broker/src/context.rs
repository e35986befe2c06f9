//! What a handler can reach: the broker's parts, the connection, the request's header.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::Cluster;
use takhin_config::NodeConfig;
use takhin_config::live::Settings;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{Encodable, EncodeError, HeaderVersion, StrBytes};
use takhin_runtime::{Env, Shutdown};

use crate::auto_create::AutoCreate;
use crate::coordinators::Coordinators;
use crate::fetch_session::FetchSessions;
use crate::metrics::Metrics;
use crate::reply::{CloseReason, Outcome, Reply};

/// The parts of a broker that serve requests. One per node.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) env: Env,
    /// As read at start; what can be set while the broker runs is in [`Broker::settings`].
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) auto_create: AutoCreate,
    pub(crate) coordinators: Coordinators,
    pub(crate) metrics: Arc<Metrics>,
    /// Triggered when the node stops: waiting fetches answer at once.
    pub(crate) stopping: Shutdown,
}

impl Broker {
    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.cluster.image().settings)
    }
}

/// One connection, as requests see it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) broker: Arc<Broker>,
    /// Name of the listener it came in on; answers name endpoints of this listener only.
    pub(crate) listener: Arc<str>,
    /// Where the client connects from.
    pub(crate) address: SocketAddr,
}

/// One request's surroundings.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(crate) peer: Arc<Peer>,
    /// Position in [`crate::api::TABLE`].
    pub(crate) api: usize,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Option<StrBytes>,
    /// When the frame was complete.
    pub(crate) received: tokio::time::Instant,
}

impl RequestContext {
    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.peer.broker
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.peer.broker.cluster
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.peer.broker.settings()
    }

    /// The span of this request's work, when requests are traced.
    pub(crate) fn span(&self) -> tracing::Span {
        let (api, client_id) = (crate::api::TABLE[self.api].name, self.client_id.as_deref());
        tracing::trace_span!("request", api, self.version, self.correlation_id, client_id)
    }

    /// The number for the wire; an error is counted under this API.
    pub(crate) fn code(&self, code: ErrorCode) -> i16 {
        if !code.is_ok() {
            self.peer.broker.metrics.request_error(self.api, code);
        }
        code.code()
    }

    /// What is left of `timeout_ms`, counted from when the request came in; nothing for negative ones.
    pub(crate) fn time_left(&self, timeout_ms: i32) -> Duration {
        let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        let elapsed = self
            .broker()
            .env
            .clock
            .instant()
            .saturating_duration_since(self.received);
        timeout.saturating_sub(elapsed)
    }

    /// Encodes a response as the request's outcome.
    pub(crate) fn encode<R: Encodable + HeaderVersion + 'static>(&self, response: &R) -> Outcome {
        match takhin_protocol::messages::encode_response(self.version, self.correlation_id, response) {
            Ok(frame) => Outcome::Reply(Reply::Bytes(frame)),
            Err(error) => self.cannot_encode(&error),
        }
    }

    /// A response that its own version cannot say is our fault; without it the connection is out of step.
    pub(crate) fn cannot_encode(&self, error: &EncodeError) -> Outcome {
        let api = crate::api::TABLE[self.api].name;
        tracing::error!(
            api,
            version = self.version,
            error = error as &dyn std::error::Error,
            "response cannot be encoded"
        );
        Outcome::Close(CloseReason::Fault)
    }
}
