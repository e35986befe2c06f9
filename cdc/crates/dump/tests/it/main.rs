//! The dumps of real servers, key by key.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "it looks at the files of fixtures"
)]

mod dumps;
mod written;
