//! The crate through its public face: batches built, sent, validated, damaged and read.

#![allow(
    clippy::unwrap_used,
    reason = "tests; the lint's own exception misses their helpers"
)]

mod bombs;
mod codec;
mod damage;
mod records;
mod rules;
