//! The operator as a whole, without an API server.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cdc_file;
mod golden;
mod node_file;
