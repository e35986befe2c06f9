//! Connections to a peer, and the greeting with which each of their streams begins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{Ready, ready};
use hyper_util::rt::TokioIo;
use prost::Message;
use takhin_runtime::Published;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::envelope::{Envelope, MAX_HEADER, Role};
use crate::error::LinkError;
use crate::generated::links_client::LinksClient;
use crate::generated::{Hello, StreamKind, Welcome, welcome::Outcome};
use crate::identity::{Identity, Refusal};
use crate::metrics::OutboxGauges;
use crate::node::Shared;
use crate::outbox::{Outbox, Outgoing};
use crate::wire::{Cut, Wire};

/// Version of the protocol between brokers.
pub(crate) const VERSION: u32 = 1;

/// Largest frame of HTTP/2, in bytes. The default of 16 KiB would cut a common batch into two.
pub(crate) const HTTP2_FRAME: u32 = 256 * 1024;

/// Windows of a connection per window of a stream: a stream that nobody reads leaves room for the others.
pub(crate) const WINDOWS: u32 = 4;

/// A stream that was admitted.
pub(crate) struct Opened {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) answers: Streaming<Envelope>,
    pub(crate) identity: Identity,
}

/// Cuts a connection when it is dropped.
#[derive(Debug)]
pub(crate) struct CutOnDrop(Cut);

impl CutOnDrop {
    /// Cuts it now.
    pub(crate) fn cut(&self) {
        self.0.cut();
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.cut();
    }
}

/// A connection to an address.
pub(crate) struct Connection<'a> {
    shared: &'a Shared,
    address: &'a str,
    peer: SocketAddr,
    client: LinksClient<Channel>,
    cut: CutOnDrop,
}

impl<'a> Connection<'a> {
    /// Connects, without a greeting yet.
    pub(crate) async fn open(shared: &'a Shared, address: &'a str) -> Result<Self, LinkError> {
        let (settings, env) = (&shared.settings, &shared.env);
        let stream = env
            .clock
            .timeout(settings.connect_timeout, env.net.connect(address))
            .await
            .map_err(|_| no_answer(address))?
            .map_err(|source| LinkError::Connect {
                address: address.to_owned(),
                source: Arc::new(source),
            })?;
        let peer = stream.peer_addr();
        let (wire, cut) = Wire::dialled(stream);
        // The address was dialled already; HTTP only wants a name.
        let channel = Endpoint::from_static("http://takhin")
            .initial_stream_window_size(settings.window_bytes)
            .initial_connection_window_size(settings.window_bytes.saturating_mul(WINDOWS))
            .max_frame_size(HTTP2_FRAME)
            .connect_with_connector(Once(Some(wire)))
            .await
            .map_err(|e| LinkError::broken(e.to_string()))?;
        let client = LinksClient::new(channel)
            .max_decoding_message_size(settings.max_body + MAX_HEADER)
            .max_encoding_message_size(settings.max_body + MAX_HEADER);
        Ok(Self {
            shared,
            address,
            peer,
            client,
            cut: CutOnDrop(cut),
        })
    }

    /// Opens a stream on it, and learns who answers.
    pub(crate) async fn stream(
        &mut self,
        kind: StreamKind,
        gauges: OutboxGauges,
        ended: Published<Option<LinkError>>,
    ) -> Result<Opened, LinkError> {
        let shared = self.shared;
        let hello = Hello {
            version: VERSION,
            identity: Some((&shared.identity.get()).into()),
            stream: kind.into(),
        };
        let outbox = Outbox::new(Envelope::greeting(&hello), &shared.settings, ended, gauges);
        let outgoing = Outgoing(Arc::clone(&outbox));
        let client = &mut self.client;
        let greeting = async move {
            let mut answers = client.open(outgoing).await?.into_inner();
            let welcome = answers.message().await?;
            Ok::<_, Status>((answers, welcome))
        };
        let (answers, welcome) = shared
            .env
            .clock
            .timeout(shared.settings.connect_timeout, greeting)
            .await
            .map_err(|_| no_answer(self.address))?
            .map_err(|status| broken(&status))?;
        let welcome = welcome.ok_or_else(|| LinkError::broken("closed instead of a greeting"))?;
        Ok(Opened {
            outbox,
            answers,
            identity: self.read(welcome)?,
        })
    }

    /// Where the connection leads.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Keeps the connection for as long as the result lives.
    pub(crate) fn into_cut(self) -> CutOnDrop {
        self.cut
    }

    fn read(&self, welcome: Envelope) -> Result<Identity, LinkError> {
        if welcome.role != Role::Greeting {
            return Err(LinkError::broken("no greeting"));
        }
        let refused = |reason| LinkError::Refused {
            address: self.address.to_owned(),
            reason,
        };
        let welcome = Welcome::decode(welcome.body.into_bytes())
            .map_err(|_| LinkError::broken("a greeting that cannot be read"))?;
        match welcome.outcome {
            Some(Outcome::Identity(identity)) => {
                identity.try_into().map_err(|reason| self.not_acceptable(reason))
            }
            Some(Outcome::Refusal(refusal)) => Err(refused(refusal.into())),
            None => Err(refused(Refusal::Malformed)),
        }
    }

    /// This node does not want whom it found.
    pub(crate) fn not_acceptable(&self, reason: Refusal) -> LinkError {
        LinkError::NotAcceptable {
            address: self.address.to_owned(),
            reason,
        }
    }
}

/// What a stream or connection ended with.
pub(crate) fn broken(status: &Status) -> LinkError {
    LinkError::broken(status.message())
}

fn no_answer(address: &str) -> LinkError {
    LinkError::NoAnswer {
        address: address.to_owned(),
    }
}

/// Hands tonic the one connection that was made for it. A second one, which it would make when the first breaks, is
/// not to be had: a link is dialled anew as a whole.
struct Once(Option<Wire>);

impl Service<Uri> for Once {
    type Response = TokioIo<Wire>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        ready(
            self.0
                .take()
                .map(TokioIo::new)
                .ok_or_else(|| std::io::ErrorKind::NotConnected.into()),
        )
    }
}
