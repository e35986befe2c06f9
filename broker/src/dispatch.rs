//! From a frame to a handler: header, version gate, guard, decode; and the forms a handler can have.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use takhin_protocol::messages::{self, ApiKey, DecodeError, Request};
use takhin_protocol::request::{HeadError, RequestHead};
use tracing::{Instrument as _, Span};

use crate::api;
use crate::context::{Peer, RequestContext};
use crate::reply::Outcome;

/// A request whose work has begun. Polled only when its turn has come, so effects keep the order of requests.
pub(crate) enum Pending {
    /// Decided already.
    Ready(Outcome),
    /// To be awaited.
    Later(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

impl Pending {
    /// Work to be awaited, in the span of its request.
    pub(crate) fn later(span: Span, work: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self::Later(Box::pin(work.instrument(span)))
    }
}

/// An API whose requests are handled one at a time on a connection, as Kafka does.
pub(crate) trait Api: 'static {
    /// The request; it names the key and the response.
    type Request: Request + Send + 'static;
    /// Advertised versions; every one of them is implemented.
    const VERSIONS: RangeInclusive<i16>;

    /// Answers one request.
    fn handle(
        cx: &RequestContext,
        request: Self::Request,
    ) -> impl Future<Output = <Self::Request as Request>::Response> + Send;
}

/// An API that begins its work as soon as the request has arrived, before earlier requests have been answered.
pub(crate) trait Staged: 'static {
    /// The request; it names the key and the response.
    type Request: Request + Send + 'static;
    /// Advertised versions; every one of them is implemented.
    const VERSIONS: RangeInclusive<i16>;

    /// First stage: called in the order of requests, does not wait.
    fn start(cx: RequestContext, request: Self::Request) -> Pending;
}

/// One line of the table of APIs.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: i16,
    pub(crate) name: &'static str,
    pub(crate) min_version: i16,
    pub(crate) max_version: i16,
    start: fn(RequestContext, Bytes) -> Result<Pending, DecodeError>,
}

impl Entry {
    /// The line of an [`Api`].
    pub(crate) const fn plain<A: Api>(name: &'static str) -> Self {
        Self {
            key: <A::Request as Request>::KEY,
            name,
            min_version: *A::VERSIONS.start(),
            max_version: *A::VERSIONS.end(),
            start: start_plain::<A>,
        }
    }

    /// The line of a [`Staged`] API.
    pub(crate) const fn staged<A: Staged>(name: &'static str) -> Self {
        Self {
            key: <A::Request as Request>::KEY,
            name,
            min_version: *A::VERSIONS.start(),
            max_version: *A::VERSIONS.end(),
            start: start_staged::<A>,
        }
    }
}

fn start_plain<A: Api>(cx: RequestContext, mut body: Bytes) -> Result<Pending, DecodeError> {
    let request = messages::decode::<A::Request>(cx.version, &mut body)?;
    Ok(Pending::later(cx.span(), async move {
        let response = A::handle(&cx, request).await;
        cx.encode(&response)
    }))
}

fn start_staged<A: Staged>(cx: RequestContext, mut body: Bytes) -> Result<Pending, DecodeError> {
    let request = messages::decode::<A::Request>(cx.version, &mut body)?;
    Ok(A::start(cx, request))
}

/// Why a frame is not a request that we serve. The connection is closed: there is no answer one could encode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// No readable header.
    #[error("request header is unreadable")]
    Head(#[from] HeadError),
    /// An API or version that is not advertised.
    #[error("{api:?} version {version} is not served")]
    Unserved {
        /// The API.
        api: ApiKey,
        /// The version.
        version: i16,
    },
    /// The body is not what its version says.
    #[error("request body is malformed")]
    Body(#[from] DecodeError),
}

/// Begins the work on the request in `frame` (without its length prefix). Returns its place in the table, too.
///
/// # Errors
/// [`Refused`]: the connection is to be closed.
pub(crate) fn start(
    peer: &Arc<Peer>,
    mut frame: Bytes,
    received: tokio::time::Instant,
) -> Result<(usize, Pending), Refused> {
    let head = RequestHead::parse(&mut frame)?;
    let key = head.api_key as i16;
    let unserved = Refused::Unserved {
        api: head.api_key,
        version: head.api_version,
    };
    let Ok(index) = api::TABLE.binary_search_by_key(&key, |entry| entry.key) else {
        return Err(unserved);
    };
    let entry = &api::TABLE[index];
    let cx = RequestContext {
        peer: Arc::clone(peer),
        api: index,
        version: head.api_version,
        correlation_id: head.correlation_id,
        client_id: head.client_id,
        received,
    };
    if !(entry.min_version..=entry.max_version).contains(&head.api_version) {
        if head.api_key == ApiKey::ApiVersions {
            return Ok((index, Pending::Ready(api::api_versions::downgrade(&cx))));
        }
        return Err(unserved);
    }
    let pending = (entry.start)(cx, frame)?;
    Ok((index, pending))
}
