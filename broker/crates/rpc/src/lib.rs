//! Links between brokers: calls and their answers, for all groups, over a few gRPC streams per pair of nodes.
//!
//! - [`Rpc`] is a node's side of all links: it listens, and it keeps one link to every other node dialled.
//! - [`Peer`] is another node: [`Peer::call`] asks it something, [`Peer::state`] says whether it is heard of.
//! - [`Service`] is what this node answers to others, and whom it admits.
//!
//! A link goes one way: calls travel on the link that the caller dialled, answers come back on it. It has four
//! connections: pings and [`Class::Control`] share one, [`Class::Data`] has two, [`Class::Bulk`] has one, so that a
//! snapshot under way stands in nobody's way. The streams of a link stand and fall together.
//!
//! What is promised: calls of one class (and lane) reach the peer's [`Service`] in the order in which they were first
//! polled; nothing is delivered twice, because nothing is ever sent again; when a link breaks, every call on it ends
//! with [`CallError::Unreachable`] at once. What is not: whether a call that failed so was carried out.
//!
//! Everything that waits is bounded, see [`Settings`]. What a call means is unknown here: kinds and bodies belong to
//! the layers above. Start reading at `peer.rs`, then `link.rs` and `inbound.rs`.

mod dial;
mod envelope;
mod error;
#[allow(
    clippy::all,
    clippy::or_fun_call,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    reason = "made from proto/link.proto"
)]
#[rustfmt::skip]
mod generated;
mod identity;
mod inbound;
mod link;
mod listener;
mod metrics;
mod outbox;
mod peer;
mod reply;
mod service;
mod settings;
mod wire;

mod node;

pub use envelope::Body;
pub use error::{CallError, LinkError};
pub use identity::{Identity, PeerInfo, Refusal};
pub use node::Rpc;
pub use peer::{Class, Peer, PeerState};
pub use reply::Reply;
pub use service::Service;
pub use settings::Settings;
