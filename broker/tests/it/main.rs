//! The broker through its sockets: requests as stock clients and strangers send them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod alter_configs;
mod command_line;
mod connections;
mod coordinators;
mod create_partitions;
mod delete_records;
mod describe;
mod fetch;
mod framing;
mod fuzz;
mod groups;
mod offline;
mod produce;
mod replaced;
mod simulation;
mod support;
