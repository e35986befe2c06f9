//! Recorded traffic and data of real Pika servers. For tests only.
//!
//! - [`recording`]: what was sent over each connection of a captured session.
//! - [`fixture`]: the other files of a fixture: decoded binlogs, commands, expected contents, dumps.
//! - [`master`]: a master on loopback that answers as real ones do.
//!
//! The fixtures are in `cdc/tests/fixtures`; the README of each server says what is in its files.

pub mod fixture;
pub mod master;
mod pcap;
pub mod recording;
