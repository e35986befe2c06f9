//! Connections that peers make, and the streams on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use parking_lot::Mutex;
use takhin_runtime::Listener;
use tonic::metadata::MetadataValue;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tracing::error;

use crate::dial::{HTTP2_FRAME, WINDOWS};
use crate::envelope::{Envelope, MAX_HEADER};
use crate::generated::links_server::{Links, LinksServer};
use crate::inbound::Inbound;
use crate::metrics::METRICS;
use crate::node::Shared;
use crate::reply::{Replies, Returning};
use crate::wire::{Arrival, Cut, Place, Wire};

/// Silence of a connection after which HTTP/2 asks whether anybody is there, and the time to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Streams on one connection; a link needs two.
const MAX_STREAMS: u32 = 4;

/// The connections that stand.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    cuts: BTreeMap<u64, Cut>,
    closed: bool,
}

impl Connections {
    /// Cuts all, and every one that comes.
    pub(crate) fn close(&self) {
        let cuts = {
            let mut open = self.0.lock();
            open.closed = true;
            std::mem::take(&mut open.cuts)
        };
        for cut in cuts.into_values() {
            cut.cut();
        }
    }

    /// Takes a connection in, unless there are too many; its number.
    fn enter(&self, cut: &Cut, most: usize) -> Option<u64> {
        let mut open = self.0.lock();
        if open.closed || open.cuts.len() >= most {
            return None;
        }
        open.last += 1;
        let number = open.last;
        open.cuts.insert(number, cut.clone());
        Some(number)
    }

    fn leave(&self, number: u64) {
        self.0.lock().cuts.remove(&number);
    }
}

/// Takes connections for as long as the listener works.
pub(crate) async fn serve(shared: Arc<Shared>, listener: Listener) {
    let settings = &shared.settings;
    let links = LinksServer::new(Handler(Arc::clone(&shared)))
        .max_decoding_message_size(settings.max_body + MAX_HEADER)
        .max_encoding_message_size(settings.max_body + MAX_HEADER);
    let server = Server::builder()
        .initial_stream_window_size(settings.window_bytes)
        .initial_connection_window_size(settings.window_bytes.saturating_mul(WINDOWS))
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(HTTP2_FRAME)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE));
    let incoming = unfold((Arc::clone(&shared), listener), |(shared, listener)| async move {
        let wire = next(&shared, &listener).await?;
        Some((Ok::<_, std::io::Error>(wire), (shared, listener)))
    });
    if let Err(e) = server.serve_with_incoming(links, incoming).await {
        error!(error = %e, "links from peers are no longer taken");
    }
}

/// The next connection; none when the listener is broken.
async fn next(shared: &Arc<Shared>, listener: &Listener) -> Option<Wire> {
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(e) => {
                error!(error = %e, "links from peers are no longer taken");
                return None;
            }
        };
        let cut = Cut::default();
        let Some(number) = shared.connections.enter(&cut, shared.settings.max_connections) else {
            METRICS.connections_refused.inc();
            continue;
        };
        METRICS.connections.add(1);
        let left = Arc::clone(shared);
        let place = Place(Box::new(move || {
            left.connections.leave(number);
            METRICS.connections.add(-1);
        }));
        // Twice: to connect, and to greet.
        let limit = shared.settings.connect_timeout * 2;
        return Some(Wire::accepted(stream, &shared.env.clock, limit, cut, place));
    }
}

/// Opens streams.
struct Handler(Arc<Shared>);

#[tonic::async_trait]
impl Links for Handler {
    type OpenStream = Returning;

    async fn open(&self, request: Request<Streaming<Envelope>>) -> Result<Response<Returning>, Status> {
        let arrival = request.extensions().get::<Arrival>().cloned();
        let arrival = arrival.ok_or_else(|| Status::internal("a connection without an address"))?;
        let replies = Replies::new(&self.0.settings, METRICS.unanswered.clone());
        let inbound = Inbound {
            shared: Arc::clone(&self.0),
            arrival,
            requests: request.into_inner(),
            replies: Arc::clone(&replies),
        };
        self.0.env.tasks.spawn("rpc requests", inbound.run());
        let mut response = Response::new(Returning(replies));
        // Otherwise hyper adds the wall time of the machine, and a simulation would not replay.
        response.metadata_mut().insert(
            "date",
            MetadataValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"),
        );
        Ok(response)
    }
}
