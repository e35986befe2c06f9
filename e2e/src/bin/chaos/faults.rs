//! What is done to brokers, one kind per file.
//!
//! A fault begins, is held for a while that the seed says, and is taken back before its function returns. Where a
//! majority of every partition's replicas is left, every partition must go on meanwhile.

mod clock;
mod cut;
mod delay;
mod frozen;
mod full;
mod kill;
mod loss;
mod moves;
mod pause;
mod reset;
mod restart;
mod slow;
mod wipe;

use anyhow::Result;
use takhin_e2e::rng::Rng;

use crate::stage::Stage;

/// A kind of fault.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Strikes, says to whom, and heals.
    pub(crate) strike: fn(&mut Stage, &mut Rng) -> Result<()>,
}

/// All kinds.
pub(crate) const ALL: &[Fault] = &[
    Fault {
        name: "kill",
        about: "kill -9 of a leader, or of the controller",
        strike: kill::one,
    },
    Fault {
        name: "kill-most",
        about: "kill -9 of a majority, which comes back",
        strike: kill::most,
    },
    Fault {
        name: "kill-all",
        about: "kill -9 of all at once",
        strike: kill::all,
    },
    Fault {
        name: "pause",
        about: "SIGSTOP of a leader for longer than it takes to elect another, then SIGCONT",
        strike: pause::one,
    },
    Fault {
        name: "pause-most",
        about: "SIGSTOP of a majority, then SIGCONT",
        strike: pause::most,
    },
    Fault {
        name: "cut",
        about: "a leader or the controller is cut off from the other brokers, not from clients",
        strike: cut::off,
    },
    Fault {
        name: "cut-oneway",
        about: "a broker hears no other one, or is heard by none",
        strike: cut::one_way,
    },
    Fault {
        name: "cut-bridge",
        about: "two brokers do not reach each other, all others reach both",
        strike: cut::bridge,
    },
    Fault {
        name: "cut-most",
        about: "every broker is alone: no majority anywhere",
        strike: cut::all,
    },
    Fault {
        name: "loss",
        about: "5 to 30 % of the packets to one broker or to all are lost",
        strike: loss::strike,
    },
    Fault {
        name: "delay",
        about: "what brokers say to one of them or to all arrives late",
        strike: delay::strike,
    },
    Fault {
        name: "reset",
        about: "all connections of a broker are reset, again and again",
        strike: reset::strike,
    },
    Fault {
        name: "full-disk",
        about: "the disk of a broker fills up",
        strike: full::strike,
    },
    Fault {
        name: "slow-disk",
        about: "every sync of a broker takes long",
        strike: slow::strike,
    },
    Fault {
        name: "frozen-disk",
        about: "the disk of a broker answers nothing",
        strike: frozen::strike,
    },
    Fault {
        name: "wipe",
        about: "a broker comes back without its data: refused, then given a new id or its data",
        strike: wipe::strike,
    },
    Fault {
        name: "clock",
        about: "the wall clock of a broker is minutes off",
        strike: clock::strike,
    },
    Fault {
        name: "restart",
        about: "all brokers are stopped in order and started, one after the other",
        strike: restart::strike,
    },
    Fault {
        name: "move",
        about: "replicas are moved, and a broker dies meanwhile",
        strike: moves::strike,
    },
];
