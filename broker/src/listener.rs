//! Takes connections, within limits in total and per address. Beyond them a connection is closed at once: an answer
//! would cost what the limit is there to save.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_config::node::Limits;
use takhin_runtime::Published;
use takhin_runtime::net::{Listener, Stream};
use tracing::{Instrument as _, debug, debug_span, warn};

use crate::budget::Budget;
use crate::connection::{Closed, Connection};
use crate::context::{Broker, Peer};
use crate::metrics::ListenerMetrics;

/// Counts the connections of all listeners.
#[derive(Debug)]
pub(crate) struct Gate {
    open: Mutex<BTreeMap<IpAddr, usize>>,
    total: Published<usize>,
}

/// One open connection; counts until dropped.
#[derive(Debug)]
struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            total: Published::new(0),
        })
    }

    /// Takes a place if the limits leave one. Connections that are open stay open when limits fall.
    fn enter(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> Option<Place> {
        let mut open = self.open.lock();
        let here = open.get(&address).copied().unwrap_or(0);
        if self.total.get() >= limits.max_connections as usize
            || here >= limits.max_connections_per_ip as usize
        {
            return None;
        }
        open.insert(address, here + 1);
        self.total.update(|total| *total += 1);
        Some(Place {
            gate: Arc::clone(self),
            address,
        })
    }

    /// Returns once no connection is open.
    pub(crate) async fn empty(&self) {
        self.total.wait_for(|total| *total == 0).await;
    }

    /// Connections open now.
    pub(crate) fn total(&self) -> usize {
        self.total.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.gate.open.lock();
        if let Some(here) = open.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                open.remove(&self.address);
            }
        }
        self.gate.total.update(|total| *total -= 1);
    }
}

/// One listener and what its connections share.
pub(crate) struct Acceptor {
    pub(crate) broker: Arc<Broker>,
    pub(crate) name: Arc<str>,
    pub(crate) listener: Listener,
    pub(crate) gate: Arc<Gate>,
    pub(crate) budget: Budget,
    pub(crate) metrics: ListenerMetrics,
}

impl Acceptor {
    /// Takes connections until the broker stops.
    ///
    /// # Errors
    /// When the listener is broken for good.
    pub(crate) async fn run(self) -> io::Result<()> {
        loop {
            let stream = tokio::select! {
                biased;
                () = self.broker.stopping.wait() => return Ok(()),
                stream = self.listener.accept() => stream?,
            };
            self.admit(stream);
        }
    }

    fn admit(&self, stream: Stream) {
        let metrics = &self.metrics;
        let address = stream.peer_addr();
        let Some(place) = self
            .gate
            .enter(address.ip(), &self.broker.settings().node.kafka.limits)
        else {
            metrics.refused.inc();
            debug!(%address, listener = &*self.name, "connection refused: too many are open");
            return;
        };
        metrics.accepted.inc();
        metrics.open.add(1);
        let peer = Arc::new(Peer {
            broker: Arc::clone(&self.broker),
            listener: Arc::clone(&self.name),
            address,
        });
        let open = OpenGauge(metrics.open.clone());
        let connection = Connection::new(peer, self.budget.clone(), stream);
        let broker = Arc::clone(&self.broker);
        let span = debug_span!("connection", peer = %address, listener = &*self.name);
        let serve = async move {
            let (_place, _open) = (place, open);
            let closed = connection.run().await;
            broker.metrics.closed(&closed);
            match closed {
                Closed::ByPeer => debug!("connection closed by the client"),
                Closed::Lost(error) => debug!(%error, "connection lost"),
                Closed::ByUs(reason) => debug!(reason = reason.name(), "connection closed"),
            }
        };
        self.broker.env.tasks.spawn("connection", serve.instrument(span));
    }
}

/// Takes one off the gauge when the connection ends, also by a panic.
struct OpenGauge(takhin_runtime::telemetry::metrics::Gauge);

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// Waits until every connection has ended, at most `limit`.
pub(crate) async fn drain(broker: &Broker, gate: &Gate, limit: Duration) {
    if broker.env.clock.timeout(limit, gate.empty()).await.is_err() {
        warn!(
            connections = gate.total(),
            "stopping although connections are still being served"
        );
    }
}
