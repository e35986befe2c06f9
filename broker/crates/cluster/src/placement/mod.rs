//! Which brokers replicas go to: those of new partitions (`spread.rs`), and what is moved when brokers come and go
//! (`planner.rs`, whose goals read the `board.rs`).

mod board;
mod fitness;
mod planner;
mod spread;
#[cfg(test)]
mod tests;

pub(crate) use fitness::judge;
pub use fitness::{Fitness, Fitnesses};
pub(crate) use planner::{Plan, View, plan};
pub use spread::Spread;
