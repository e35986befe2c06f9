//! A node whose service echoes, holds back or refuses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use takhin_rpc::{Class, Identity, PeerInfo, Refusal, Reply, Rpc, Service, Settings};
use takhin_runtime::{Env, Published};
use uuid::Uuid;

/// Kind that is echoed even while others are held back.
pub(crate) const URGENT: u16 = 9;

/// Kind that is dropped without an answer.
pub(crate) const DROPPED: u16 = 10;

/// Kind that is answered with as many bytes as the body's first four say.
pub(crate) const SIZED: u16 = 11;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Echoes, and remembers what it saw.
#[derive(Default)]
pub(crate) struct Echo {
    /// Kinds and bodies, in the order of their coming.
    pub(crate) seen: Mutex<Vec<(u16, Bytes)>>,
    pub(crate) holds: AtomicBool,
    pub(crate) held: Mutex<Vec<(Bytes, Reply)>>,
    pub(crate) refusal: Mutex<Option<Refusal>>,
}

impl Echo {
    pub(crate) fn release(&self) {
        self.holds.store(false, Ordering::Relaxed);
        for (body, reply) in self.held.lock().drain(..) {
            reply.send(body);
        }
    }
}

impl Service for Echo {
    fn call(&self, _from: &PeerInfo, kind: u16, body: Bytes, reply: Reply) {
        self.seen.lock().push((kind, body.clone()));
        match kind {
            DROPPED => drop(reply),
            SIZED => {
                let len = u32::from_le_bytes(body[..4].try_into().unwrap());
                reply.send(vec![7; len as usize]);
            }
            URGENT => reply.send(body),
            _ if self.holds.load(Ordering::Relaxed) => self.held.lock().push((body, reply)),
            _ => reply.send(body),
        }
    }

    fn admit(&self, _hello: &Identity, _address: SocketAddr) -> Result<(), Refusal> {
        self.refusal.lock().clone().map_or(Ok(()), Err)
    }
}

/// A node and its service.
pub(crate) struct Node {
    pub(crate) rpc: Rpc,
    pub(crate) echo: Arc<Echo>,
    pub(crate) identity: Identity,
}

pub(crate) async fn start(env: &Env, node: u32, settings: Settings) -> Node {
    start_on(env, "0.0.0.0:33145", node, settings).await
}

pub(crate) async fn start_on(env: &Env, bind: &str, node: u32, settings: Settings) -> Node {
    let echo = Arc::new(Echo::default());
    let identity = Identity {
        cluster_id: "test".to_owned(),
        node,
        directory: Uuid::from_u128(node.into()),
        incarnation: Uuid::from_bytes(env.rng.uuid()),
    };
    let published = Published::new(identity.clone());
    let service = Arc::clone(&echo) as Arc<dyn Service>;
    let rpc = Rpc::start(env, bind, "rpc.bind", settings, published, service)
        .await
        .unwrap();
    Node { rpc, echo, identity }
}

/// A body whose first bytes are a number.
pub(crate) fn numbered(n: u32, len: usize) -> Vec<u8> {
    let mut body = n.to_le_bytes().to_vec();
    body.resize(len.max(4), 0x5a);
    body
}

pub(crate) fn number(body: &[u8]) -> u32 {
    u32::from_le_bytes(body[..4].try_into().unwrap())
}

pub(crate) const LANE: Class = Class::Data { lane: 1 };
