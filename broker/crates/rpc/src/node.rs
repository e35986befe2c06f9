//! A node's side of all links.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use takhin_runtime::{Env, JoinHandle, ListenError, Published, Shutdown};

use crate::dial::Connection;
use crate::error::{CallError, LinkError};
use crate::generated::StreamKind;
use crate::identity::Identity;
use crate::listener::{self, Connections};
use crate::metrics::OutboxGauges;
use crate::peer::Peer;
use crate::service::Service;
use crate::settings::Settings;

/// What all links of a node share.
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) settings: Settings,
    pub(crate) identity: Published<Identity>,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) connections: Connections,
    /// Grows whenever a link stands, ends, or cannot be made.
    pub(crate) changes: Published<u64>,
    pub(crate) stop: Shutdown,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Listens for peers and keeps links to them. One per process. Dropping it ends all links.
#[derive(Debug)]
pub struct Rpc {
    shared: Arc<Shared>,
    address: SocketAddr,
    peers: Mutex<BTreeMap<u32, Kept>>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

/// A peer and the task that keeps its link.
#[derive(Debug)]
struct Kept {
    peer: Arc<Peer>,
    task: JoinHandle<()>,
}

impl Rpc {
    /// Listens on `bind`, which the setting called `setting` holds. `identity` may change later: the next greeting
    /// tells the new one, links that stand stay.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(
        env: &Env,
        bind: &str,
        setting: &str,
        settings: Settings,
        identity: Published<Identity>,
        service: Arc<dyn Service>,
    ) -> Result<Self, ListenError> {
        let listener = env.net.listen(bind, setting).await?;
        let address = listener.local_addr().map_err(|source| ListenError::Failed {
            address: bind.to_owned(),
            setting: setting.to_owned(),
            source,
        })?;
        let shared = Arc::new(Shared {
            env: env.clone(),
            settings,
            identity,
            service,
            connections: Connections::default(),
            changes: Published::default(),
            stop: Shutdown::new(),
        });
        let serving = listener::serve(Arc::clone(&shared), listener);
        let listener = env.tasks.spawn("rpc listener", Box::pin(serving));
        Ok(Self {
            shared,
            address,
            peers: Mutex::default(),
            listener: Mutex::new(Some(listener)),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Keeps a link to `node` at `address` (`HOST:PORT`) from now on. Again is fine; another address ends the link to
    /// the old one.
    pub fn connect(&self, node: u32, address: &str) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        if let Some(kept) = peers.get(&node) {
            kept.peer.move_to(address);
            return Arc::clone(&kept.peer);
        }
        let peer = Peer::new(&self.shared, node, address);
        if self.shared.stop.is_triggered() {
            peer.remove();
        }
        let task = self
            .shared
            .env
            .tasks
            .spawn("rpc link", Box::pin(Arc::clone(&peer).keep()));
        peers.insert(
            node,
            Kept {
                peer: Arc::clone(&peer),
                task,
            },
        );
        peer
    }

    /// Ends the link to `node`, and keeps none.
    pub fn disconnect(&self, node: u32) {
        if let Some(kept) = self.peers.lock().remove(&node) {
            kept.peer.remove();
        }
    }

    /// A node that a link is kept to.
    pub fn peer(&self, node: u32) -> Option<Arc<Peer>> {
        self.peers.lock().get(&node).map(|kept| Arc::clone(&kept.peer))
    }

    /// A number that grows whenever a link stands, ends, or cannot be made.
    pub fn changes(&self) -> Published<u64> {
        self.shared.changes.clone()
    }

    /// The nodes that links are kept to.
    pub fn peers(&self) -> Vec<u32> {
        self.peers.lock().keys().copied().collect()
    }

    /// Asks an address who it is, before that is known. The answer comes from everybody who speaks the protocol, of
    /// this cluster or not; it may be this node.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] with the reason.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn hello(&self, address: &str) -> Result<Identity, CallError> {
        self.probe(address).await.map_err(CallError::Unreachable)
    }

    async fn probe(&self, address: &str) -> Result<Identity, LinkError> {
        let mut connection = Connection::open(&self.shared, address).await?;
        let probe = connection.stream(StreamKind::Probe, OutboxGauges::default(), Published::default());
        Ok(probe.await?.identity)
    }

    /// Ends all links, and takes none any more. Calls under way fail; a request that is being handed to the service
    /// at this moment still reaches it.
    pub async fn stop(&self) {
        self.end();
        let listener = self.listener.lock().take();
        let kept = std::mem::take(&mut *self.peers.lock());
        for kept in kept.into_values() {
            // A task that panicked was reported, and its link is gone as well.
            let _ = kept.task.await;
        }
        if let Some(listener) = listener {
            let _ = listener.await;
        }
    }

    fn end(&self) {
        self.shared.stop.trigger();
        for kept in self.peers.lock().values() {
            kept.peer.remove();
        }
        if let Some(listener) = &*self.listener.lock() {
            listener.abort();
        }
        self.shared.connections.close();
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        self.end();
    }
}
