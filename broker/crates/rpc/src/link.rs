//! One link: five streams on four connections, which stand and fall together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join3;
use takhin_runtime::clock::Instant;
use takhin_runtime::{JoinHandle, Late, Published};
use tonic::Streaming;

use crate::dial::{Connection, CutOnDrop, Opened, broken};
use crate::envelope::{Body, Envelope, Role};
use crate::error::{CallError, LinkError};
use crate::generated::StreamKind;
use crate::identity::Identity;
use crate::metrics::METRICS;
use crate::node::Shared;
use crate::outbox::{Outbox, Ticket};
use crate::peer::Class;

/// Streams for data: groups are spread over them.
const DATA_STREAMS: usize = 2;

/// What the metrics call the streams of a link, in their order.
pub(crate) const STREAMS: [&str; 3 + DATA_STREAMS] = ["ping", "control", "data-0", "data-1", "bulk"];

const PING: usize = 0;

impl Class {
    /// Place of its stream among [`STREAMS`].
    pub(crate) fn stream(self) -> usize {
        match self {
            Self::Control => 1,
            // Fibonacci hashing: the upper bits depend on all bits of the lane.
            Self::Data { lane } => 2 + usize::from(lane.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1),
            Self::Bulk => 2 + DATA_STREAMS,
        }
    }
}

/// When something was last heard of a peer.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Moment from which the others count.
    base: Instant,
    /// Nanoseconds after it, plus one; 0 is never.
    nanos: AtomicU64,
}

impl Heard {
    pub(crate) fn never(now: Instant) -> Self {
        Self {
            base: now,
            nanos: AtomicU64::new(0),
        }
    }

    fn now(&self, now: Instant) {
        let nanos = u64::try_from((now - self.base).as_nanos()).unwrap_or(u64::MAX - 1);
        self.nanos.store(nanos + 1, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Option<Instant> {
        let nanos = self.nanos.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.base + Duration::from_nanos(nanos))
    }
}

/// A link that stands, or did.
#[derive(Debug)]
pub(crate) struct Link {
    identity: Identity,
    outboxes: Vec<Arc<Outbox>>,
    ended: Published<Option<LinkError>>,
    readers: Vec<JoinHandle<()>>,
    connections: Vec<CutOnDrop>,
}

/// What a dial needs to know.
struct Dial<'a> {
    shared: &'a Shared,
    node: u32,
    address: &'a str,
    ended: Published<Option<LinkError>>,
}

/// A connection with its streams.
struct Joined {
    identity: Identity,
    streams: Vec<Opened>,
    cut: CutOnDrop,
}

impl Link {
    /// Makes all connections to `node` at `address`.
    ///
    /// # Cancel safety
    /// Safe; what was connected is closed.
    pub(crate) async fn dial(
        shared: &Arc<Shared>,
        node: u32,
        address: &str,
        heard: &Arc<Heard>,
    ) -> Result<Self, LinkError> {
        let dial = Dial {
            shared,
            node,
            address,
            ended: Published::default(),
        };
        // The first one alone: it says who is there.
        let first = dial
            .connect(&[(StreamKind::Ping, PING), (StreamKind::Control, 1)])
            .await?;
        let (data_0, data_1, bulk) = try_join3(
            dial.connect(&[(StreamKind::Data, 2)]),
            dial.connect(&[(StreamKind::Data, 3)]),
            dial.connect(&[(StreamKind::Bulk, 4)]),
        )
        .await?;
        let mut link = Self {
            identity: first.identity.clone(),
            outboxes: Vec::new(),
            ended: dial.ended,
            readers: Vec::new(),
            connections: Vec::new(),
        };
        heard.now(shared.env.clock.instant());
        for joined in [first, data_0, data_1, bulk] {
            if joined.identity != link.identity {
                return Err(LinkError::broken("the peer restarted while it was connected to"));
            }
            link.connections.push(joined.cut);
            for opened in joined.streams {
                let reader = Reader {
                    answers: opened.answers,
                    outbox: Arc::clone(&opened.outbox),
                    heard: Arc::clone(heard),
                    shared: Arc::clone(shared),
                };
                link.readers
                    .push(shared.env.tasks.spawn("rpc answers", reader.run()));
                link.outboxes.push(opened.outbox);
            }
        }
        Ok(link)
    }

    /// Who is at the other end.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn outbox(&self, class: Class) -> &Arc<Outbox> {
        &self.outboxes[class.stream()]
    }

    /// Asks for a sign of life that answers this request, not one before.
    pub(crate) fn echo(&self) -> Result<Ticket, CallError> {
        self.outboxes[PING].submit(Role::Request, 0, Body::default())
    }

    /// Asks for signs of life; returns when the link has ended, and why.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn watch(&self, shared: &Shared, heard: &Heard) -> LinkError {
        tokio::select! {
            biased;
            why = self.ended.wait_for(Option::is_some) => why.unwrap_or(LinkError::Stopped),
            why = self.silence(shared, heard) => why,
        }
    }

    async fn silence(&self, shared: &Shared, heard: &Heard) -> LinkError {
        let (clock, settings) = (&shared.env.clock, &shared.settings);
        // Answers may lie there unread for as long as nothing runs here at all.
        let mut late = Late::new(settings.silence_limit, 2 * settings.silence_limit);
        loop {
            let silent = heard.last().map_or(Duration::ZERO, |last| clock.instant() - last);
            let limit = settings.silence_limit + late.by();
            if silent >= limit {
                return LinkError::Silent(silent);
            }
            let pause = if silent >= settings.ping_interval {
                self.outboxes[PING].ping();
                settings.ping_interval.min(limit - silent)
            } else {
                settings.ping_interval - silent
            };
            let due = clock.instant() + pause;
            clock.sleep(pause).await;
            late.note(due, clock.instant());
        }
    }

    /// Ends it: every call on it fails with `why`, its connections are cut.
    pub(crate) fn end(&self, why: &LinkError) {
        for outbox in &self.outboxes {
            outbox.end(why.clone());
        }
        for cut in &self.connections {
            cut.cut();
        }
        for reader in &self.readers {
            reader.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end(&LinkError::Stopped);
    }
}

impl Dial<'_> {
    /// One connection and the streams on it, each with its place.
    async fn connect(&self, kinds: &[(StreamKind, usize)]) -> Result<Joined, LinkError> {
        let mut connection = Connection::open(self.shared, self.address).await?;
        let mut streams = Vec::new();
        let mut identity = None;
        for (kind, place) in kinds {
            let gauges = METRICS.outbox(self.node, STREAMS[*place]);
            let opened = connection.stream(*kind, gauges, self.ended.clone()).await?;
            if opened.identity.node != self.node {
                return Err(LinkError::OtherNode {
                    address: self.address.to_owned(),
                    wanted: self.node,
                    found: opened.identity.node,
                });
            }
            self.shared
                .service
                .admit(&opened.identity, connection.peer())
                .map_err(|reason| connection.not_acceptable(reason))?;
            identity = Some(opened.identity.clone());
            streams.push(opened);
        }
        Ok(Joined {
            identity: identity.ok_or_else(|| LinkError::broken("a connection without a stream"))?,
            streams,
            cut: connection.into_cut(),
        })
    }
}

/// Takes the answers of one stream.
struct Reader {
    answers: Streaming<Envelope>,
    outbox: Arc<Outbox>,
    heard: Arc<Heard>,
    shared: Arc<Shared>,
}

impl Reader {
    async fn run(mut self) {
        let why = loop {
            match self.answers.message().await {
                Ok(Some(envelope)) => {
                    self.heard.now(self.shared.env.clock.instant());
                    self.outbox.answer(envelope);
                }
                Ok(None) => break LinkError::broken("the peer closed a stream"),
                Err(status) => break broken(&status),
            }
        };
        self.outbox.end(why);
    }
}
