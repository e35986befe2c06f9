//! Kubernetes controllers for clusters of Takhin brokers, topics and Pika sources.
//!
//! - [`api`]: the kinds, as users write them; [`crds`]: their definitions.
//! - [`build`]: from a wish to the objects that Kubernetes is to have.
//! - [`decide`]: from what was observed to the next step.
//! - [`control`]: the controllers, which observe, have decided, and do; leader election.
//! - `api_calls`: requests to the API server, counted and traced.
//! - `fence`: changes wait where the Lease is old; `kafka_api`: the brokers by the Kafka protocol, within it.
//! - [`render`](mod@render): what would be made of a manifest.
//! - [`rbac`]: what the operator may do, and its plain manifests.
//! - [`broker_api`]: the brokers' admin API.
//!
//! ```text
//! watch → observe (I/O) → build, decide (pure) → server-side apply, one step → status
//! ```
//!
//! Invariants: what is decided is decided by value, from what was observed in this pass; nothing is kept between passes
//! but caches. Every child is written by server-side apply under one field manager, and only when it differs. At most one
//! broker is restarted at a time, and none without its own word that it may be.

#![forbid(unsafe_code)]

pub mod api;
mod api_calls;
pub mod broker_api;
pub mod build;
pub mod cli;
pub mod control;
pub mod crds;
pub mod decide;
mod fence;
mod kafka_api;
pub mod rbac;
pub mod render;
