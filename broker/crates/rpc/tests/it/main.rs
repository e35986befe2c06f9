//! Links between simulated nodes, and once over real TCP.

mod bounds;
mod breaks;
mod calls;
mod greeting;
mod replay;
mod support;
mod tcp;
