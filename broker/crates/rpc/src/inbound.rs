//! One stream that a peer has opened: its greeting, then its requests.

use std::sync::Arc;

use prost::Message;
use tonic::Streaming;
use tracing::{debug, warn};

use crate::dial::VERSION;
use crate::envelope::{Body, Envelope, Role};
use crate::generated::{Hello, StreamKind, Welcome, welcome::Outcome};
use crate::identity::{Identity, PeerInfo, Refusal};
use crate::node::Shared;
use crate::reply::Replies;
use crate::wire::Arrival;

/// One stream from a peer. Dropping it ends the stream.
pub(crate) struct Inbound {
    pub(crate) shared: Arc<Shared>,
    pub(crate) arrival: Arrival,
    pub(crate) requests: Streaming<Envelope>,
    pub(crate) replies: Arc<Replies>,
}

impl Inbound {
    /// Greets, and serves until either side ends the stream.
    pub(crate) async fn run(mut self) {
        let greeting = self.requests.message();
        let limit = self.shared.settings.connect_timeout;
        let Ok(Ok(Some(hello))) = self.shared.env.clock.timeout(limit, greeting).await else {
            debug!(address = %self.arrival.address, "no greeting");
            return;
        };
        let (kind, outcome) = match self.admit(hello) {
            Ok((kind, info)) => (
                Some((kind, info)),
                Outcome::Identity((&self.shared.identity.get()).into()),
            ),
            Err(refusal) => {
                warn!(address = %self.arrival.address, reason = %refusal, "link refused");
                (None, Outcome::Refusal(refusal.into()))
            }
        };
        let welcome = Welcome {
            outcome: Some(outcome),
        };
        self.replies.push(Envelope::greeting(&welcome));
        match kind {
            None | Some((StreamKind::Probe, _)) => {}
            Some((kind, info)) => {
                self.arrival.cut.admit();
                self.serve(kind, &info).await;
            }
        }
    }

    /// Who greets, and for what. A probe is answered to everybody who speaks the protocol.
    fn admit(&self, hello: Envelope) -> Result<(StreamKind, PeerInfo), Refusal> {
        let malformed = |_| Refusal::Malformed;
        if hello.role != Role::Greeting {
            return Err(Refusal::Malformed);
        }
        let hello = Hello::decode(hello.body.into_bytes()).map_err(|_| Refusal::Malformed)?;
        if hello.version != VERSION {
            return Err(Refusal::OtherVersion {
                theirs: hello.version,
                ours: VERSION,
            });
        }
        let kind = StreamKind::try_from(hello.stream).map_err(malformed)?;
        let identity: Identity = hello.identity.ok_or(Refusal::Malformed)?.try_into()?;
        if kind != StreamKind::Probe {
            self.shared.service.admit(&identity, self.arrival.address)?;
        }
        let address = self.arrival.address;
        Ok((kind, PeerInfo { identity, address }))
    }

    async fn serve(&mut self, kind: StreamKind, from: &PeerInfo) {
        while self.replies.room().await {
            let Ok(Some(request)) = self.requests.message().await else {
                return;
            };
            if self.shared.stop.is_triggered() || !matches!(request.role, Role::Request | Role::OneWay) {
                return;
            }
            let reply = self.replies.take(&request);
            if kind == StreamKind::Ping {
                reply.send(Body::default());
            } else {
                self.shared
                    .service
                    .call(from, request.kind, request.body.into_bytes(), reply);
            }
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.replies.finish();
    }
}
