//! This node's links to the other brokers, and its ear for theirs.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use takhin_rpc::{
    CallError, Identity, LinkError as NoLink, PeerInfo, Refusal, Reply, Rpc, Service, Settings,
};
use takhin_runtime::{Env, ListenError, Published};
use uuid::Uuid;

use super::exchange::Exchange;
use crate::links::{Class, Kind, LinkError, Links};
use crate::raft::{Answer, describe};

const DONE: u8 = 0;
const REFUSED: u8 = 1;

/// Longer than any silence that is waited for: a broker that is known to be gone.
const GONE: Duration = Duration::from_secs(86_400);

/// A node's links to other brokers.
pub struct Interconnect {
    env: Env,
    rpc: Arc<Rpc>,
    identity: Published<Identity>,
    entrance: Arc<Entrance>,
    /// The run of each peer's process that was seen last.
    incarnations: Mutex<BTreeMap<u32, Uuid>>,
}

impl std::fmt::Debug for Interconnect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interconnect")
            .field("rpc", &self.rpc)
            .finish_non_exhaustive()
    }
}

/// What other brokers reach.
struct Entrance {
    identity: Published<Identity>,
    /// Set once the data directory is open.
    exchange: OnceLock<Arc<Exchange>>,
}

impl Interconnect {
    /// Listens on `bind`, which the setting called `setting` holds, as node `node`. Requests are refused until the node's
    /// cluster layer has started.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(env: &Env, bind: &str, setting: &str, node: i32) -> Result<Arc<Self>, ListenError> {
        let identity = Published::new(Identity {
            cluster_id: String::new(),
            node: node.unsigned_abs(),
            directory: Uuid::nil(),
            incarnation: Uuid::from_bytes(env.rng.uuid()),
        });
        let entrance = Arc::new(Entrance {
            identity: identity.clone(),
            exchange: OnceLock::new(),
        });
        let service = Arc::clone(&entrance) as Arc<dyn Service>;
        let rpc = Rpc::start(env, bind, setting, Settings::default(), identity.clone(), service).await?;
        Ok(Arc::new(Self {
            env: env.clone(),
            rpc: Arc::new(rpc),
            identity,
            entrance,
            incarnations: Mutex::default(),
        }))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.rpc.local_addr()
    }

    /// What this process drew at random when it began.
    pub(crate) fn own_incarnation(&self) -> Uuid {
        self.identity.get().incarnation
    }

    /// Ends all links.
    pub async fn stop(&self) {
        self.rpc.stop().await;
    }

    pub(crate) fn identify(&self, directory: Uuid, cluster_id: &str) {
        self.identity.update(|identity| {
            identity.directory = directory;
            cluster_id.clone_into(&mut identity.cluster_id);
        });
    }

    pub(crate) fn serve(&self, exchange: &Arc<Exchange>) {
        // Set once, when the node starts.
        let _ = self.entrance.exchange.set(Arc::clone(exchange));
    }
}

impl Links for Interconnect {
    fn call(
        &self,
        node: u32,
        class: Class,
        lane: u64,
        kind: Kind,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, LinkError>> {
        let Some(peer) = self.rpc.peer(node) else {
            let reason = "its address is not known".to_owned();
            return std::future::ready(Err(LinkError::Unreachable { node, reason })).boxed();
        };
        let class = match class {
            Class::Control => takhin_rpc::Class::Control,
            Class::Data => takhin_rpc::Class::Data { lane },
            Class::Bulk => takhin_rpc::Class::Bulk,
        };
        async move {
            let answer = peer.call(class, kind as u16, body, timeout).await;
            let mut answer = answer.map_err(|error| to_link_error(node, timeout, &error))?;
            match answer.try_get_u8() {
                Ok(DONE) => Ok(answer),
                _ => Err(LinkError::Refused {
                    node,
                    reason: String::from_utf8_lossy(&answer).into_owned(),
                }),
            }
        }
        .boxed()
    }

    fn forget_peer(&self, node: u32) {
        self.rpc.disconnect(node);
    }

    fn add_peers(&self, peers: BTreeMap<u32, String>) {
        let own = self.identity.get().node;
        for (node, address) in peers.iter().filter(|(node, _)| **node != own) {
            self.rpc.connect(*node, address);
        }
    }

    fn peers(&self) -> Vec<u32> {
        self.rpc.peers()
    }

    fn hello(&self, address: &str, timeout: Duration) -> BoxFuture<'static, Result<(u32, Uuid), LinkError>> {
        let (rpc, clock, address) = (Arc::clone(&self.rpc), self.env.clock.clone(), address.to_owned());
        async move {
            match clock.timeout(timeout, rpc.hello(&address)).await {
                Ok(Ok(identity)) => Ok((identity.node, identity.directory)),
                Ok(Err(error)) => Err(to_link_error(0, timeout, &error)),
                Err(_) => Err(LinkError::Timeout {
                    node: 0,
                    after: timeout,
                }),
            }
        }
        .boxed()
    }

    fn changes(&self) -> Published<u64> {
        self.rpc.changes()
    }

    fn is_linked(&self, node: u32) -> bool {
        self.rpc.peer(node).is_some_and(|peer| peer.state().connected)
    }

    fn is_mute(&self, node: u32, timeout: Duration) -> BoxFuture<'static, bool> {
        let peer = self.rpc.peer(node);
        async move {
            match peer {
                Some(peer) => !matches!(peer.echo(timeout).await, Ok(()) | Err(CallError::Busy)),
                None => true,
            }
        }
        .boxed()
    }

    fn silence(&self, node: u32) -> Option<Duration> {
        let state = self.rpc.peer(node)?.state();
        if matches!(state.error, Some(NoLink::Connect { .. })) {
            // Nobody listens there: the process is gone, which no silence needs to show.
            return Some(GONE);
        }
        state
            .last_heard
            .map(|heard| self.env.clock.instant().duration_since(heard))
    }

    fn is_gone(&self, node: u32) -> bool {
        let error = self.rpc.peer(node).and_then(|peer| peer.state().error);
        matches!(error, Some(NoLink::Connect { source, .. }) if source.kind() == ErrorKind::ConnectionRefused)
    }

    fn last_heard(&self, node: u32) -> Option<Duration> {
        let heard = self.rpc.peer(node)?.state().last_heard?;
        Some(self.env.clock.instant().duration_since(heard))
    }

    fn incarnation(&self, node: u32) -> Option<Uuid> {
        let seen = self.rpc.peer(node).and_then(|peer| peer.state().incarnation);
        let mut incarnations = self.incarnations.lock();
        match seen {
            Some(seen) => {
                incarnations.insert(node, seen);
                Some(seen)
            }
            None => incarnations.get(&node).copied(),
        }
    }
}

fn to_link_error(node: u32, after: Duration, error: &CallError) -> LinkError {
    match error {
        CallError::Timeout => LinkError::Timeout { node, after },
        CallError::Unreachable(why) => match lasting(why) {
            Some(reason) => LinkError::NotWanted { node, reason },
            None => LinkError::Unreachable {
                node,
                reason: describe(why),
            },
        },
        CallError::Busy | CallError::TooLarge { .. } | CallError::AnswerTooLarge | CallError::Dropped => {
            LinkError::Refused {
                node,
                reason: error.to_string(),
            }
        }
    }
}

/// What keeps two brokers apart until a person acts, and how to act.
fn lasting(why: &NoLink) -> Option<String> {
    match why {
        NoLink::Refused {
            reason: Refusal::UnknownDirectory { node, directory },
            ..
        } => Some(format!(
            "node id {node} belongs to a broker with another data directory than this one, {directory}: start this \
             broker with that directory, or give it an id and an empty directory of its own"
        )),
        NoLink::Refused {
            reason: Refusal::ForeignCluster { theirs, ours },
            ..
        }
        | NoLink::NotAcceptable {
            reason:
                Refusal::ForeignCluster {
                    theirs: ours,
                    ours: theirs,
                },
            ..
        } => Some(format!(
            "it belongs to the cluster with id {ours}, the data directory of this one to {theirs}: correct \
             cluster.seeds or node.data_dir"
        )),
        _ => None,
    }
}

impl Service for Entrance {
    fn call(&self, from: &PeerInfo, kind: u16, body: Bytes, reply: Reply) {
        let answer: Answer = Box::new(move |result| match result {
            Ok(body) => reply.send(vec![Bytes::from_static(&[DONE]), body]),
            Err(reason) => reply.send(vec![Bytes::from_static(&[REFUSED]), Bytes::from(reason)]),
        });
        let Some(exchange) = self.exchange.get() else {
            return answer(Err("the broker is starting".to_owned()));
        };
        match Kind::of(kind) {
            Some(kind) => exchange.ask(from.identity.node, kind, body, answer),
            None => answer(Err(format!("requests of kind {kind} are of a newer release"))),
        }
    }

    fn admit(&self, hello: &Identity, _address: SocketAddr) -> Result<(), Refusal> {
        let own = self.identity.get();
        let foreign = own.cluster_id != hello.cluster_id;
        if foreign && !own.cluster_id.is_empty() && !hello.cluster_id.is_empty() {
            return Err(Refusal::ForeignCluster {
                theirs: hello.cluster_id.clone(),
                ours: own.cluster_id,
            });
        }
        if hello.node == own.node {
            return Err(Refusal::SameNode { node: own.node });
        }
        let known = self
            .exchange
            .get()
            .and_then(|exchange| exchange.directory_of(hello.node));
        if known.is_some_and(|directory| directory != hello.directory && !directory.is_nil()) {
            return Err(Refusal::UnknownDirectory {
                node: hello.node,
                directory: hello.directory,
            });
        }
        Ok(())
    }
}
