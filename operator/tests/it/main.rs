//! The operator as a whole, without an API server.

#![allow(clippy::unwrap_used, reason = "tests")]

mod golden;
mod node_file;
