//! How long, how often, how much.

use std::time::Duration;

/// Times and bounds of all links of a node. The bounds hold for each stream, of which a link has five.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Silence after which the peer is asked for a sign of life; as often while it stays silent.
    pub ping_interval: Duration,
    /// Silence after which a link is given up. More than `ping_interval`. A process that is itself late waits longer, up to
    /// three times as long.
    pub silence_limit: Duration,
    /// Time to connect and to be admitted, for each connection.
    pub connect_timeout: Duration,
    /// Largest body of a call or an answer, in bytes. A larger call is [`CallError::TooLarge`](crate::CallError), a
    /// larger answer [`CallError::AnswerTooLarge`](crate::CallError); a peer that sends more loses its link.
    pub max_body: usize,
    /// Bytes that may wait to be sent. Calls beyond stand in line in the memory of their callers, and are
    /// [`CallError::Busy`](crate::CallError) if their time passes there. A call that is larger goes alone.
    pub queued_bytes: usize,
    /// Calls that may wait for their answer; those beyond stand in the same line.
    pub outstanding_calls: usize,
    /// Bytes of requests that the service has not answered, and of answers not yet sent. At the bound nothing more is
    /// read, so that the peer's queue fills and its callers wait; one request more than the bound may be held.
    pub unanswered_bytes: usize,
    /// Bytes under way that the receiver has not looked at, for each stream: the window of HTTP/2.
    pub window_bytes: u32,
    /// Connections taken from others at a time; those beyond are closed at once.
    pub max_connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_millis(100),
            silence_limit: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            max_body: 16 << 20,
            queued_bytes: 16 << 20,
            outstanding_calls: 16 << 10,
            unanswered_bytes: 32 << 20,
            window_bytes: 2 << 20,
            max_connections: 1024,
        }
    }
}
