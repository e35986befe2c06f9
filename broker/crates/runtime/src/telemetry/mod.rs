//! What the process tells about itself: logs, metrics, health.

pub mod health;
mod histogram;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod process;
