//! What the APIs of groups have in common: ask the shard of a group, or say why it cannot be asked.

use takhin_coordinator::{Context, Outcome, Reply, Shard};
use takhin_protocol::ErrorCode;

use crate::context::RequestContext;
use crate::coordinators::Coordinators;

/// Has the coordinator of `group` do `job`; `pick` takes the response out of the reply.
///
/// # Errors
/// The code for the client, counted.
pub(super) async fn coordinate<R>(
    cx: &RequestContext,
    group: &str,
    job: impl FnOnce(&mut Shard, &Context<'_>) -> Vec<Outcome> + Send + 'static,
    pick: impl FnOnce(Reply) -> Option<R>,
) -> Result<R, ErrorCode> {
    let replied = Coordinators::call(cx, group, Box::new(job)).await;
    // A job answers with the response of its own API.
    let response = replied.and_then(|reply| pick(reply).ok_or(ErrorCode::UnknownServerError));
    if let Err(code) = &response {
        cx.code(*code);
    }
    response
}

/// Counts the error in a response that a coordinator made.
pub(super) fn count(cx: &RequestContext, code: i16) {
    if code != 0 {
        cx.code(ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError));
    }
}

/// The response of one variant of [`Reply`].
macro_rules! response_of {
    ($api:ident) => {
        |reply| match reply {
            takhin_coordinator::Reply::$api(response) => Some(response),
            _ => None,
        }
    };
}
pub(super) use response_of;
