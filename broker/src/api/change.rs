//! Changes of the cluster's metadata on behalf of a request: in a task of their own, so that a client that goes away
//! does not leave them half made, and awaited for as long as the request says.

use takhin_cluster::TopicError;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::StrBytes;

use crate::context::RequestContext;
use crate::error::ToErrorCode as _;
use crate::placement::Unplaceable;

/// Why a part of a request was not done, as the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// The message for the wire.
    pub(super) fn text(self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.message))
    }
}

impl From<Unplaceable> for Refused {
    fn from(error: Unplaceable) -> Self {
        Self::new(error.code, error.message)
    }
}

impl From<TopicError> for Refused {
    fn from(error: TopicError) -> Self {
        Self::new(error.to_error_code(), error.to_string())
    }
}

/// Makes a change and waits for it, at most for what is left of `timeout_ms`. `name` names the task.
///
/// # Errors
/// What the change says; REQUEST_TIMED_OUT if it is not done in time, in which case it may still be.
pub(super) async fn make<T: Send + 'static>(
    cx: &RequestContext,
    timeout_ms: i32,
    name: &'static str,
    change: impl Future<Output = Result<T, TopicError>> + Send + 'static,
) -> Result<T, Refused> {
    let env = &cx.broker().env;
    let changing = env.tasks.spawn(name, change);
    match env.clock.timeout(cx.time_left(timeout_ms), changing).await {
        Ok(Ok(done)) => Ok(done?),
        Ok(Err(failed)) => Err(Refused::new(ErrorCode::UnknownServerError, failed.to_string())),
        Err(_) => {
            let message = format!("{name} was not done in time; it may still be");
            Err(Refused::new(ErrorCode::RequestTimedOut, message))
        }
    }
}
