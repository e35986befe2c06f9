//! Links between simulated nodes, and once over real TCP.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bounds;
mod breaks;
mod calls;
mod greeting;
mod replay;
mod support;
mod tcp;
