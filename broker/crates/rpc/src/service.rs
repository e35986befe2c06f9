//! What a node answers to others.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::identity::{Identity, PeerInfo, Refusal};
use crate::reply::Reply;

/// What this node answers to others, and whom it admits.
pub trait Service: Send + Sync + 'static {
    /// Takes a request. Must not block and should be short: the other requests of the stream wait for it. The answer
    /// goes through `reply`, now or later, from any task.
    ///
    /// `from` has shaken hands on this link. Requests of one class and lane come in the order in which they were sent.
    fn call(&self, from: &PeerInfo, kind: u16, body: Bytes, reply: Reply);

    /// Whether a link from or to this node is wanted. Asked for each stream of a link, on both sides.
    ///
    /// # Errors
    /// The reason, which the other side gets to see when it has dialled.
    fn admit(&self, hello: &Identity, address: SocketAddr) -> Result<(), Refusal>;
}
