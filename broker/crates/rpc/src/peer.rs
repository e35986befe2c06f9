//! Another node, and the link to it that is dialled again whenever it breaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use takhin_runtime::clock::Instant;
use takhin_runtime::telemetry::metrics::Histogram;
use takhin_runtime::{Published, Shutdown};
use tracing::{info, warn};
use uuid::Uuid;

use crate::envelope::{Body, Role};
use crate::error::{CallError, LinkError};
use crate::link::{Heard, Link, STREAMS};
use crate::metrics::METRICS;
use crate::node::Shared;
use crate::outbox::Ticket;

/// Pause before a link is dialled again, doubled from one failure to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest such pause. A link that stood for longer is dialled again at once, and then begins with the first pause: a process
/// that has ended refuses connections, which says more than silence does.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What a call is, so that nothing large stands in the way of something urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Votes, transfers and other small calls.
    Control,
    /// Entries of a group's log. Calls of one lane keep their order.
    Data {
        /// Whose they are: the group's id, or a hash of it.
        lane: u64,
    },
    /// Snapshots and segments.
    Bulk,
}

/// What is known of a peer.
#[derive(Debug, Clone)]
pub struct PeerState {
    /// Whether the link stands.
    pub connected: bool,
    /// The run of its process that the link leads to.
    pub incarnation: Option<Uuid>,
    /// When an answer of any kind last came from it, on this link or one before. At most
    /// [`Settings::ping_interval`](crate::Settings::ping_interval) and a round trip ago, unless something is wrong.
    pub last_heard: Option<Instant>,
    /// Why the link does not stand.
    pub error: Option<LinkError>,
}

/// Another node.
#[derive(Debug)]
pub struct Peer {
    node: u32,
    shared: Arc<Shared>,
    address: Published<String>,
    standing: Published<Standing>,
    heard: Arc<Heard>,
    removed: Shutdown,
    round_trip: Vec<Histogram>,
}

#[derive(Debug, Clone)]
enum Standing {
    Up(Arc<Link>),
    Down(LinkError),
}

/// What ends a wait of the task that keeps the link.
enum Interrupt {
    Removed,
    Moved,
}

impl Peer {
    /// A peer that [`Peer::keep`] dials.
    pub(crate) fn new(shared: &Arc<Shared>, node: u32, address: &str) -> Arc<Self> {
        Arc::new(Self {
            node,
            shared: Arc::clone(shared),
            address: Published::new(address.to_owned()),
            standing: Published::new(Standing::Down(LinkError::Connecting)),
            heard: Arc::new(Heard::never(shared.env.clock.instant())),
            removed: Shutdown::new(),
            round_trip: STREAMS.map(|stream| METRICS.round_trip(stream)).into(),
        })
    }

    /// Node id.
    pub fn node(&self) -> u32 {
        self.node
    }

    /// Asks something; `kind` says to the peer what `body` is. Calls of a class (and lane) arrive in the order in
    /// which they were first polled.
    ///
    /// # Errors
    /// See [`CallError`]. Only [`CallError::Busy`] and [`CallError::TooLarge`] say that the peer never saw it.
    ///
    /// # Cancel safety
    /// The answer is lost; the call may still be carried out.
    pub async fn call(
        &self,
        class: Class,
        kind: u16,
        body: impl Into<Body>,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let began = self.shared.env.clock.instant();
        let answer = self
            .wait(self.submit(class, Role::Request, kind, body.into()), timeout)
            .await;
        if answer.is_ok() {
            self.round_trip[class.stream()].observe(began.elapsed());
        }
        answer
    }

    /// Says something that needs no answer; returns once it waits for nothing but the connection. It may be lost.
    /// Keeps its order among the calls of its class (and lane).
    ///
    /// # Errors
    /// As [`Peer::call`], where [`CallError::Unreachable`] says that it was not sent.
    ///
    /// # Cancel safety
    /// It may or may not be sent.
    pub async fn tell(
        &self,
        class: Class,
        kind: u16,
        body: impl Into<Body>,
        timeout: Duration,
    ) -> Result<(), CallError> {
        self.wait(self.submit(class, Role::OneWay, kind, body.into()), timeout)
            .await?;
        Ok(())
    }

    /// Returns once it has shown that its process runs, after this was called: a link that stood a moment ago may lead
    /// nowhere any more.
    ///
    /// # Errors
    /// As [`Peer::call`]. [`CallError::Unreachable`] and [`CallError::Timeout`] say that it did not.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn echo(&self, timeout: Duration) -> Result<(), CallError> {
        let asked = match self.standing.get() {
            Standing::Up(link) => link.echo(),
            Standing::Down(why) => Err(CallError::Unreachable(why)),
        };
        self.wait(asked, timeout).await.map(drop)
    }

    /// What is known of it now.
    pub fn state(&self) -> PeerState {
        let (connected, incarnation, error) = match self.standing.get() {
            Standing::Up(link) => (true, Some(link.identity().incarnation), None),
            Standing::Down(why) => (false, None, Some(why)),
        };
        PeerState {
            connected,
            incarnation,
            last_heard: self.heard.last(),
            error,
        }
    }

    /// Returns once a link to the peer stands, with the peer's incarnation.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn connected(&self) -> Uuid {
        loop {
            if let Standing::Up(link) = self.standing.wait_for(|s| matches!(s, Standing::Up(_))).await {
                return link.identity().incarnation;
            }
        }
    }

    /// Returns once the link to this incarnation of the peer does not stand any more, at once if it does not now.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn disconnected(&self, incarnation: Uuid) {
        let gone = |standing: &Standing| match standing {
            Standing::Up(link) => link.identity().incarnation != incarnation,
            Standing::Down(_) => true,
        };
        self.standing.wait_for(gone).await;
    }

    fn submit(&self, class: Class, role: Role, kind: u16, body: Body) -> Result<Ticket, CallError> {
        let limit = self.shared.settings.max_body;
        if body.len() > limit {
            return Err(CallError::TooLarge {
                bytes: body.len(),
                limit,
            });
        }
        match self.standing.get() {
            Standing::Up(link) => link.outbox(class).submit(role, kind, body),
            Standing::Down(why) => Err(CallError::Unreachable(why)),
        }
    }

    async fn wait(&self, ticket: Result<Ticket, CallError>, timeout: Duration) -> Result<Bytes, CallError> {
        let answer = match ticket {
            Ok(mut ticket) => match self.shared.env.clock.timeout(timeout, &mut ticket).await {
                Ok(answer) => answer,
                Err(_) => Err(ticket.expire()),
            },
            Err(e) => Err(e),
        };
        if let Err(e) = &answer {
            METRICS.calls_failed.with([label(e)]).inc();
        }
        answer
    }

    /// Gives it another address; the link to the old one ends.
    pub(crate) fn move_to(&self, address: &str) {
        if self.address.get() != address {
            self.address.update(|old| address.clone_into(old));
        }
    }

    /// Ends the link for good.
    pub(crate) fn remove(&self) {
        self.removed.trigger();
    }

    /// Keeps a link to the peer until it is removed.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let address = self.address.get();
            let (why, interrupt) = self.one_link(&address, &mut pause).await;
            METRICS.link_failures.with([why.label()]).inc();
            self.down(why);
            let interrupt = match interrupt {
                Some(interrupt) => Some(interrupt),
                None => self.pause(&address, pause).await,
            };
            match interrupt {
                Some(Interrupt::Removed) => break,
                Some(Interrupt::Moved) => pause = FIRST_PAUSE,
                None => pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
            }
        }
        self.down(LinkError::Stopped);
        for stream in STREAMS {
            METRICS.forget(self.node, stream);
        }
    }

    /// Dials once and keeps the link as long as it stands.
    async fn one_link(&self, address: &str, pause: &mut Duration) -> (LinkError, Option<Interrupt>) {
        let dialled = tokio::select! {
            biased;
            interrupt = self.interrupted(address) => return (interrupt.reason(), Some(interrupt)),
            dialled = Box::pin(Link::dial(&self.shared, self.node, address, &self.heard)) => dialled,
        };
        let link = match dialled {
            Ok(link) => Arc::new(link),
            Err(why) => {
                self.report(&why);
                return (why, None);
            }
        };
        let since = self.shared.env.clock.instant();
        info!(peer = self.node, address, incarnation = %link.identity().incarnation, "link stands");
        METRICS.links.add(1);
        self.stand(Standing::Up(Arc::clone(&link)));
        let (why, interrupt) = tokio::select! {
            biased;
            interrupt = self.interrupted(address) => (interrupt.reason(), Some(interrupt)),
            why = link.watch(&self.shared, &self.heard) => (why, None),
        };
        METRICS.links.add(-1);
        warn!(peer = self.node, address, reason = %why, "link ended");
        // Nobody may find the link standing after its calls have failed.
        self.down(why.clone());
        link.end(&why);
        if since.elapsed() > LONGEST_PAUSE {
            *pause = Duration::ZERO;
        }
        (why, interrupt)
    }

    fn stand(&self, new: Standing) {
        self.standing.update(|standing| *standing = new);
        self.shared.changes.update(|changes| *changes += 1);
    }

    fn down(&self, why: LinkError) {
        self.stand(Standing::Down(why));
    }

    /// Says why there is no link, once for each kind of reason in a row.
    fn report(&self, why: &LinkError) {
        let known = matches!(self.standing.get(), Standing::Down(known) if known.label() == why.label());
        if !known || matches!(self.standing.get(), Standing::Down(LinkError::Connecting)) {
            let cause = std::error::Error::source(why).map(ToString::to_string);
            warn!(peer = self.node, reason = %why, cause, "no link");
        }
    }

    /// Waits for somewhere between half of `pause` and all of it.
    async fn pause(&self, address: &str, pause: Duration) -> Option<Interrupt> {
        let jittered = pause.mul_f64(0.5 + self.shared.env.rng.unit() / 2.0);
        tokio::select! {
            biased;
            interrupt = self.interrupted(address) => Some(interrupt),
            () = self.shared.env.clock.sleep(jittered) => None,
        }
    }

    async fn interrupted(&self, address: &str) -> Interrupt {
        tokio::select! {
            biased;
            () = self.removed.wait() => Interrupt::Removed,
            _ = self.address.wait_for(|now| now != address) => Interrupt::Moved,
        }
    }
}

impl Interrupt {
    fn reason(&self) -> LinkError {
        match self {
            Self::Removed => LinkError::Stopped,
            Self::Moved => LinkError::Moved,
        }
    }
}

fn label(e: &CallError) -> &'static str {
    match e {
        CallError::Unreachable(_) => "unreachable",
        CallError::Timeout => "timeout",
        CallError::Busy => "busy",
        CallError::TooLarge { .. } => "too_large",
        CallError::AnswerTooLarge => "answer_too_large",
        CallError::Dropped => "dropped",
    }
}
