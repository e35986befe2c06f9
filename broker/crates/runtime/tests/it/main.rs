//! The crate through its public face.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod crash_model;
mod disk;
mod http;
mod meta;
mod net;
mod sim_net;
