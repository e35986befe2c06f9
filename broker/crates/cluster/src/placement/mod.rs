//! Which brokers replicas go to.

mod spread;

pub use spread::Spread;
