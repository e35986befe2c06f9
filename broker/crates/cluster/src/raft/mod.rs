//! Replication by openraft: the only code that names it.
//!
//! One group per partition, and one for the cluster's metadata. [`group`] runs a group, [`outbox`] sends it proposals,
//! [`log_store`] puts its log on segment files, [`state_machine`] moves the partition's positions, [`hard_state`] keeps
//! the votes, [`network`] and [`inbound`] carry what replicas say to each other in the bytes of [`wire`], [`elections`]
//! says when a group wants another leader, [`host`] holds what the groups of a node share.

mod confirm;
mod copy;
mod doubt;
mod elections;
mod flush;
mod group;
mod hard_state;
mod hidden;
mod hold;
mod host;
mod in_flight;
mod in_sync;
mod inbound;
mod instance;
mod io_order;
mod log_store;
mod members;
mod network;
mod ordered;
mod outbox;
mod pace;
mod parking;
mod progress;
mod purge;
mod state_machine;
mod transfer;
mod types;
mod wire;

pub(crate) use doubt::watch as watch_doubts;
pub(crate) use elections::watch as watch_elections;
pub(crate) use flush::{FlushDriver, flush};
pub(crate) use group::{Group, GroupSpec};
pub(crate) use hard_state::keys as group_keys;
pub(crate) use host::{GroupHost, HostOptions, describe};
pub(crate) use in_sync::watch as watch_in_sync;
pub(crate) use inbound::Answer;
pub(crate) use members::Members;
pub(crate) use pace::give_room;
pub(crate) use parking::watch as watch_parking;
pub(crate) use progress::ReplicaProgress;
pub(crate) use state_machine::Observer;
pub(crate) use types::Voter;
pub(crate) use wire::{decode_pass, decode_purge, encode_pass, group as group_of};

#[cfg(test)]
mod tests;
