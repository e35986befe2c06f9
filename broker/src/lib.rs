//! A broker of Takhin: Kafka's protocol over the partitions of `takhin-cluster`.
//!
//! - [`Node`] builds every part from the configuration, starts and stops them in order. It touches the outside world
//!   through [`takhin_runtime::Env`] only, so it runs in the simulation as it runs in production.
//! - `listener` takes connections, `connection` serves one, `dispatch` turns a frame into a call of a handler; `api`
//!   holds the table of APIs and one file for each.
//! - [`cli`] is the command line of the `takhin` program.
//!
//! Handlers see partitions, never the replication behind them, and hold no rules of their own about logs: they find
//! the partition, ask it, and translate. Errors become Kafka's codes in `error` only.
//!
//! Invariants: replies leave a connection in the order of its requests; what a connection can make the broker hold is
//! bounded (`connection`, `budget`); record bytes are not copied on their way in or out.
//!
//! Start reading at `api/mod.rs`, then `connection.rs`.

#![forbid(unsafe_code)]

mod admin;
mod api;
mod auto_create;
mod budget;
pub mod cli;
mod connection;
mod context;
mod coordinators;
mod dispatch;
mod docs;
mod error;
mod fetch_session;
mod listener;
mod metrics;
mod node;
mod placement;
mod replicas;
mod reply;
mod withdraw;

pub use admin::TokenError;
pub use docs::kafka_apis;
pub use node::{Node, StartError};
