//! All handles to the outside world in one value.

use std::sync::Arc;

use crate::clock::Clock;
use crate::disk::{Disk, real::RealDisk};
use crate::net::Net;
use crate::rng::Rng;
use crate::task::Tasks;

/// All handles to the outside world; cheap to clone and to take apart.
#[derive(Debug, Clone)]
pub struct Env {
    /// Time.
    pub clock: Clock,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Connections.
    pub net: Net,
    /// Tasks and blocking work.
    pub tasks: Tasks,
    /// Randomness.
    pub rng: Rng,
}

impl Env {
    /// The machine that this process runs on.
    pub fn real() -> Self {
        Self {
            clock: Clock::real(),
            disk: Arc::new(RealDisk),
            net: Net::real(),
            tasks: Tasks::real(),
            rng: Rng::from_os(),
        }
    }
}
