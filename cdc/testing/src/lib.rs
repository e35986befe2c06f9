//! Recorded traffic and data of real Pika servers. For tests only.
//!
//! - [`recording`]: what was sent over each connection of a captured session.
//! - [`fixture`]: the other files of a fixture: decoded binlogs, commands, expected contents, dumps.
//! - [`master`]: a master on loopback that answers as real ones do.
//! - [`numbers`]: a writer whose changes tell by themselves whether all of them arrived.
//! - [`replayed`]: a master that has what a real one had.
//! - [`topics`], [`state`]: what is read back from topics, and the key-value state that it makes.
//!
//! The fixtures are in `cdc/tests/fixtures`; the README of each server says what is in its files.

pub mod fixture;
pub mod master;
pub mod numbers;
mod pcap;
pub mod recording;
#[allow(
    clippy::unwrap_used,
    reason = "it is a check: what makes no sense fails the test"
)]
pub mod replayed;
#[allow(
    clippy::unwrap_used,
    reason = "it is a check: what makes no sense fails the test"
)]
pub mod state;
#[allow(
    clippy::unwrap_used,
    reason = "it is a check: what makes no sense fails the test"
)]
pub mod topics;
#[allow(
    clippy::unwrap_used,
    reason = "it is a check: what makes no sense fails the test"
)]
pub mod words;
