//! Replication by openraft: the only code that names it.
//!
//! One group per partition, and one for the cluster's metadata. [`group`] runs a group, [`outbox`] sends it proposals,
//! [`log_store`] puts its log on segment files, [`state_machine`] moves the partition's positions, [`hard_state`] keeps
//! the votes, [`host`] holds what the groups of a node share.

mod flush;
mod group;
mod hard_state;
mod hidden;
mod host;
mod io_order;
mod log_store;
mod network;
mod outbox;
mod state_machine;
mod types;

pub(crate) use flush::{FlushDriver, flush};
pub(crate) use group::{Group, GroupSpec};
pub(crate) use host::{GroupHost, HostOptions};
pub(crate) use state_machine::Observer;

#[cfg(test)]
mod tests;
