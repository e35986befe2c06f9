//! What is done to brokers, one kind per file.
//!
//! A fault begins, is held for a while that the seed says, and is taken back before its function returns. Where a
//! majority of every partition's replicas is left, every partition must go on meanwhile; of a broker whose disk is full those
//! that others lead, and where packets or connections are lost at random only afterwards.

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
mod upgrade;
mod wipe;

use anyhow::Result;
use takhin_e2e::rng::Rng;

use crate::stage::Stage;

/// A kind of fault.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Whether it needs a takhin of an earlier commit.
    pub(crate) needs_old: bool,
    /// Strikes, says to whom, and heals.
    pub(crate) strike: fn(&mut Stage, &mut Rng) -> Result<()>,
}

/// All kinds.
pub(crate) const ALL: &[Fault] = &[
    Fault {
        name: "kill",
        about: "kill -9 of a leader, or of the controller",
        needs_old: false,
        strike: kill::one,
    },
    Fault {
        name: "kill-most",
        about: "kill -9 of a majority, which comes back",
        needs_old: false,
        strike: kill::most,
    },
    Fault {
        name: "kill-all",
        about: "kill -9 of all at once",
        needs_old: false,
        strike: kill::all,
    },
    Fault {
        name: "pause",
        about: "SIGSTOP of a leader for longer than it takes to elect another, then SIGCONT",
        needs_old: false,
        strike: pause::one,
    },
    Fault {
        name: "pause-most",
        about: "SIGSTOP of a majority, then SIGCONT",
        needs_old: false,
        strike: pause::most,
    },
    Fault {
        name: "cut",
        about: "a leader or the controller is cut off from the other brokers, not from clients",
        needs_old: false,
        strike: cut::off,
    },
    Fault {
        name: "cut-oneway",
        about: "a broker hears no other one, or is heard by none",
        needs_old: false,
        strike: cut::one_way,
    },
    Fault {
        name: "cut-bridge",
        about: "two brokers do not reach each other, all others reach both",
        needs_old: false,
        strike: cut::bridge,
    },
    Fault {
        name: "cut-most",
        about: "every broker is alone: no majority anywhere",
        needs_old: false,
        strike: cut::all,
    },
    Fault {
        name: "loss",
        about: "5 to 30 % of the packets to one broker or to all are lost",
        needs_old: false,
        strike: loss::strike,
    },
    Fault {
        name: "delay",
        about: "what brokers say to one of them or to all arrives late",
        needs_old: false,
        strike: delay::strike,
    },
    Fault {
        name: "reset",
        about: "all connections of a broker are reset, again and again",
        needs_old: false,
        strike: reset::strike,
    },
    Fault {
        name: "full-disk",
        about: "the disk of a broker fills up",
        needs_old: false,
        strike: full::strike,
    },
    Fault {
        name: "slow-disk",
        about: "every sync of a broker takes long",
        needs_old: false,
        strike: slow::strike,
    },
    Fault {
        name: "frozen-disk",
        about: "the disk of a broker answers nothing",
        needs_old: false,
        strike: frozen::strike,
    },
    Fault {
        name: "wipe",
        about: "a broker comes back without its data: refused, then given a new id or its data",
        needs_old: false,
        strike: wipe::strike,
    },
    Fault {
        name: "clock",
        about: "the wall clock of a broker is minutes off",
        needs_old: false,
        strike: clock::strike,
    },
    Fault {
        name: "restart",
        about: "all brokers are stopped in order and started, one after the other",
        needs_old: false,
        strike: restart::strike,
    },
    Fault {
        name: "move",
        about: "replicas are moved, and a broker dies meanwhile",
        needs_old: false,
        strike: moves::strike,
    },
    Fault {
        name: "upgrade",
        about: "the broker with the older build is stopped in order and started with the new one, another the other way",
        needs_old: true,
        strike: upgrade::strike,
    },
];
