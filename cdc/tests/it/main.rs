//! The real program between a scripted master and a real broker.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "it starts processes, and looks at their files"
)]

mod broker;
mod cdc;
mod dry;
mod errors;
mod events;
mod faults;
mod legacy;
mod logs;
mod metrics;
mod purged;
mod pushed;
mod replay;
mod settings;
mod snapshot;
mod topics;
mod traces;
