//! The crate through its public face.
#![allow(clippy::unwrap_used, reason = "a test may fall over")]

mod compaction;
mod faults;
mod flush;
mod golden;
mod lookup;
mod model;
mod support;
