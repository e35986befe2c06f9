//! What a scenario is, and what its points ask for; the table of them is `scenarios.rs`.

use crate::broker::Durability::{self, Flushed};
use crate::probe::Bears;

/// What a scenario does to a broker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    /// Closed loop of producers.
    Produce(Produce),
    /// Open loop of one producer on 4 partitions, 1 KiB.
    Open(Rate),
    /// One producer and one consumer on one partition, 1 KiB, records per second.
    EndToEnd(f64),
    /// Two consumers that read the same data over and over.
    ConsumeWarm,
    /// Two consumers behind a producer at full speed.
    ConsumeTail,
    /// Two consumers of data that is on the disk only.
    ConsumeCold,
    /// An open loop at half of side A's maximum, without and with a consumer of data that is on the disk only.
    Mixed,
    /// Memory of a new broker: idle, and after W-1 on 100 partitions.
    Memory,
    /// A new broker with so many empty partitions: memory and CPU.
    IdlePartitions(i32),
    /// A new broker with many idle connections: memory.
    IdleConnections,
    /// A topic of so many partitions, from the request to the last leader.
    Create(i32),
    /// Rounds of one group with so many members.
    Rebalance(usize),
    /// W-1 alone, and beside many groups that heartbeat and commit.
    Groups,
    /// From exec to the first acknowledged record.
    Start(Start),
    /// System calls and bytes per Produce request.
    CountProduce(Produce),
    /// System calls and bytes per Fetch request.
    CountConsume,
    /// Time of the codec alone, by its own example.
    Codec,
    /// W-1 on many partitions, and on four.
    ManyPartitions(Produce),
    /// Closed loop of producers, three brokers.
    Replicated(Produce),
    /// Open loop, three brokers.
    ReplicatedOpen(f64),
    /// Three brokers with so many empty partitions: CPU.
    IdleTrio(i32),
    /// The end of a leader among three brokers with so many other partitions.
    Gap(Strike, i32),
    /// A third replica of as many bytes as `ConsumeWarm` reads.
    Copy,
}

/// How a broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
}

/// A closed loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Produce {
    /// Bytes of a record's value.
    pub(crate) value_len: usize,
    /// Partitions of the topic.
    pub(crate) partitions: i32,
    /// Connections.
    pub(crate) connections: usize,
    /// Requests in flight per connection.
    pub(crate) in_flight: usize,
    /// Records per request; at most as many as fit 1 MiB.
    pub(crate) records: usize,
}

/// How many records per second fall due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    /// So many.
    Fixed(f64),
    /// Half of what side A reaches in W-1.
    HalfOfPeer,
}

/// What a broker starts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// An empty directory.
    Empty,
    /// A directory with 1000 partitions and `--start-gb` of data, stopped by SIGTERM.
    Stopped,
    /// The same after more data and SIGKILL.
    Killed,
}

/// A limit that a point is compared with besides the peer, with the goal for the quotient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    /// None.
    No,
    /// At least this part of the same load on the sink.
    Sink(f64),
    /// At least this part of L-SEND.
    Send(f64),
    /// At least this part of L-COLD.
    Cold(f64),
    /// At most so many times L-SYNC plus L-RPC.
    SyncRpc(f64),
    /// At most this value.
    AtMost(f64),
    /// At least this value.
    AtLeast(f64),
}

/// A judged figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// Identifier in `docs/performance.md`.
    pub(crate) id: &'static str,
    /// Name of the figure in a sample; its end is the unit.
    pub(crate) metric: &'static str,
    /// Whether more is better; then floor and goal are lower bounds of B ÷ A, otherwise upper ones.
    pub(crate) more: bool,
    /// Bound that a usable release keeps.
    pub(crate) floor: Option<f64>,
    /// Bound that the project is for.
    pub(crate) goal: Option<f64>,
    /// A limit other than the peer.
    pub(crate) limit: Limit,
}

/// One load in one pair of modes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Name, for `--only` and for files.
    pub(crate) name: &'static str,
    /// Durability of side A and of side B.
    pub(crate) modes: [Durability; 2],
    /// What happens.
    pub(crate) load: Load,
    /// What it decides.
    pub(crate) points: &'static [Point],
}

impl Scenario {
    /// Which probes must not drift.
    pub(crate) fn bears(&self) -> Bears {
        match self.load {
            Load::ConsumeCold | Load::Mixed => Bears::Cold,
            Load::ConsumeWarm | Load::ConsumeTail | Load::CountConsume => Bears::Read,
            _ if self.modes.contains(&Flushed) => Bears::Flushed,
            _ => Bears::Cached,
        }
    }

    /// Whether the same load is also run on the sink.
    pub(crate) fn wants_sink(&self) -> bool {
        matches!(self.load, Load::Produce(_))
    }

    /// Whether the machine's speed bears on it, so that probes that drift make it void.
    pub(crate) fn is_timed(&self) -> bool {
        !self.is_count()
            && !matches!(
                self.load,
                Load::Memory
                    | Load::IdlePartitions(_)
                    | Load::IdleConnections
                    | Load::IdleTrio(_)
                    | Load::Gap(..)
            )
    }

    /// Whether one run per side says it all, because it counts and does not time.
    pub(crate) fn is_count(&self) -> bool {
        matches!(
            self.load,
            Load::CountProduce(_) | Load::CountConsume | Load::Codec
        )
    }
}
