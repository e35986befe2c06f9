//! What may differ between clients.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a [`Client`](crate::Client).
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Brokers to begin with, `HOST:PORT`; one that answers is enough.
    pub bootstrap: Vec<String>,
    /// The client's name for itself, in brokers' logs and quotas.
    pub client_id: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for an answer, from sending on; the connection is then closed, because later answers could no
    /// longer be told apart from missing ones.
    pub request_timeout: Duration,
    /// Requests without an answer per connection; more wait.
    pub max_in_flight: usize,
    /// Longest answer in bytes.
    pub max_response_bytes: usize,
    /// How long a call is repeated while its failures are retriable.
    pub retry_for: Duration,
    /// Pause before the first repetition; each further one is twice as long, up to `max_backoff`, give or take a
    /// fifth.
    pub backoff: Duration,
    /// Longest pause.
    pub max_backoff: Duration,
}

impl ClientConfig {
    /// Defaults, with these brokers to begin with.
    pub fn new<S: Into<String>>(bootstrap: impl IntoIterator<Item = S>) -> Self {
        Self {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            client_id: "takhin-client".into(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            max_in_flight: 64,
            max_response_bytes: 128 << 20,
            retry_for: Duration::from_secs(60),
            backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
        }
    }
}

type Tell = dyn Fn(&str) + Send + Sync;

/// Told of each batch that has to be sent again, with its topic; by default nobody is.
#[derive(Clone, Default)]
pub struct OnRetry(Option<Arc<Tell>>);

impl OnRetry {
    /// Has `tell` called, from the tasks that send.
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(crate) fn tell(&self, topic: &str) {
        if let Some(tell) = &self.0 {
            tell(topic);
        }
    }
}

impl fmt::Debug for OnRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnRetry({})", self.0.is_some())
    }
}

/// When a batch counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// When the leader has appended it.
    Leader,
    /// When it is committed: `acks=all`.
    #[default]
    All,
}

impl Acks {
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}
