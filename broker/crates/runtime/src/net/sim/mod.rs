//! A network in memory: hosts with names, delays from the seed in virtual time, and links that can be cut.
//!
//! A blocked link behaves like lost packets under TCP: nothing fails at once, what was sent arrives after the
//! link heals, and new connections time out after about two minutes. A host without power is as silent; once it
//! is up again its old connections are reset. A killed process resets its connections at once.

mod host;
mod pipe;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::disk::sim::CrashMode;
use crate::rng::Rng;
use crate::sim::Trace;
use host::Queue;
pub(crate) use host::{Host, SimListener};
use pipe::Pipe;
pub(crate) use pipe::{Reader, Writer};

/// How long a packet takes unless a link says otherwise.
const DEFAULT_DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(3);

type HostId = usize;

/// The network of a simulation, to disturb it. Clones are the same network.
#[derive(Debug, Clone)]
pub struct SimNet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rng: Rng,
    trace: Trace,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    hosts: Vec<HostState>,
    default_delay: RangeInclusive<Duration>,
    delays: BTreeMap<(HostId, HostId), RangeInclusive<Duration>>,
    blocked: BTreeSet<(HostId, HostId)>,
    connections: Vec<Connection>,
    next_port: u16,
}

#[derive(Debug)]
struct HostState {
    name: String,
    generation: u64,
    /// Without power nothing answers, not even to refuse.
    up: bool,
    listeners: BTreeMap<u16, Arc<Queue>>,
}

#[derive(Debug)]
struct Connection {
    hosts: [HostId; 2],
    pipes: [Weak<Pipe>; 2],
}

impl Connection {
    fn break_both(&self) {
        for pipe in self.pipes.iter().filter_map(Weak::upgrade) {
            pipe.break_with(io::ErrorKind::ConnectionReset);
        }
    }
}

/// One direction between two hosts.
#[derive(Debug, Clone)]
struct Link {
    net: SimNet,
    from: HostId,
    to: HostId,
}

impl Link {
    /// When a packet sent now arrives.
    fn arrival(&self) -> Instant {
        Instant::now() + self.net.delay(self.from, self.to)
    }

    fn is_blocked(&self) -> bool {
        self.net.0.state.lock().is_blocked(self.from, self.to)
    }

    fn trace(&self) -> &Trace {
        &self.net.0.trace
    }
}

/// A connection between two simulated hosts.
#[derive(Debug)]
pub(crate) struct SimStream {
    pub(super) read: Reader,
    pub(super) write: Writer,
    local: SocketAddr,
    peer: SocketAddr,
}

impl SimStream {
    pub(super) fn into_split(self) -> (Reader, Writer) {
        (self.read, self.write)
    }
    pub(super) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl SimNet {
    pub(crate) fn new(rng: Rng, trace: Trace) -> Self {
        let state = State {
            hosts: Vec::new(),
            default_delay: DEFAULT_DELAY,
            delays: BTreeMap::new(),
            blocked: BTreeSet::new(),
            connections: Vec::new(),
            next_port: host::FIRST_EPHEMERAL_PORT,
        };
        Self(Arc::new(Shared {
            rng,
            trace,
            state: Mutex::new(state),
        }))
    }

    /// Delay of every link without one of its own.
    pub fn set_default_delay(&self, range: RangeInclusive<Duration>) {
        self.0.state.lock().default_delay = range;
    }

    /// Delay of what `from` sends to `to`.
    pub fn set_delay(&self, from: &str, to: &str, range: RangeInclusive<Duration>) {
        let mut state = self.0.state.lock();
        let link = (state.id(from), state.id(to));
        state.delays.insert(link, range);
    }

    /// Holds back what `from` sends to `to`, in this direction only.
    pub fn block(&self, from: &str, to: &str) {
        let mut state = self.0.state.lock();
        let link = (state.id(from), state.id(to));
        state.blocked.insert(link);
        self.record("block", from, to);
    }

    /// Lets through again what `from` sends to `to`, starting with what was held back.
    pub fn unblock(&self, from: &str, to: &str) {
        let mut state = self.0.state.lock();
        let link = (state.id(from), state.id(to));
        state.blocked.remove(&link);
        self.record("unblock", from, to);
        state.wake_all();
    }

    /// Cuts two hosts off from each other, both ways.
    pub fn partition(&self, a: &str, b: &str) {
        self.block(a, b);
        self.block(b, a);
    }

    /// Reconnects two hosts, both ways.
    pub fn heal(&self, a: &str, b: &str) {
        self.unblock(a, b);
        self.unblock(b, a);
    }

    /// Cuts a host off from all others; it still reaches itself.
    pub fn isolate(&self, name: &str) {
        for other in self.other_hosts(name) {
            self.partition(name, &other);
        }
    }

    /// Ends every block.
    pub fn heal_all(&self) {
        let mut state = self.0.state.lock();
        state.blocked.clear();
        self.record("unblock", "*", "*");
        state.wake_all();
    }

    /// Resets every connection between two hosts.
    pub fn kill_connections(&self, a: &str, b: &str) {
        let mut state = self.0.state.lock();
        let (a_id, b_id) = (state.id(a), state.id(b));
        self.record("kill", a, b);
        state.break_connections(|hosts| hosts == [a_id, b_id] || hosts == [b_id, a_id]);
    }

    pub(crate) fn add_host(&self, name: &str) {
        let mut state = self.0.state.lock();
        assert!(
            state.hosts.iter().all(|host| host.name != name),
            "two machines are called {name}"
        );
        state.hosts.push(HostState {
            name: name.to_owned(),
            generation: 0,
            up: true,
            listeners: BTreeMap::new(),
        });
    }

    /// The network as the current run of a machine sees it; also switches the machine on.
    pub(crate) fn boot(&self, name: &str) -> Host {
        let mut state = self.0.state.lock();
        let id = state.id(name);
        if !state.hosts[id].up {
            state.hosts[id].up = true;
            state.break_connections(|hosts| hosts.contains(&id));
            state.wake_all();
        }
        Host::new(self.clone(), id, state.hosts[id].generation)
    }

    pub(crate) fn crash(&self, name: &str, mode: CrashMode) {
        let mut state = self.0.state.lock();
        let id = state.id(name);
        let host = &mut state.hosts[id];
        host.generation += 1;
        for queue in std::mem::take(&mut host.listeners).into_values() {
            queue.close();
        }
        match mode {
            CrashMode::Power => state.hosts[id].up = false,
            CrashMode::Process => state.break_connections(|hosts| hosts.contains(&id)),
        }
    }

    fn delay(&self, from: HostId, to: HostId) -> Duration {
        let state = self.0.state.lock();
        let range = state.delays.get(&(from, to)).unwrap_or(&state.default_delay);
        *range.start()
            + range
                .end()
                .saturating_sub(*range.start())
                .mul_f64(self.0.rng.unit())
    }

    fn other_hosts(&self, name: &str) -> Vec<String> {
        let state = self.0.state.lock();
        state
            .hosts
            .iter()
            .map(|host| host.name.clone())
            .filter(|other| other != name)
            .collect()
    }

    fn record(&self, kind: &'static str, a: &str, b: &str) {
        self.0.trace.event(kind, &format!("{a}>{b}"), &[]);
    }
}

impl State {
    /// # Panics
    /// When no machine has this name, which is a mistake of the test.
    fn id(&self, name: &str) -> HostId {
        self.hosts
            .iter()
            .position(|host| host.name == name)
            .unwrap_or_else(|| panic!("no machine is called {name}"))
    }

    fn is_blocked(&self, from: HostId, to: HostId) -> bool {
        self.blocked.contains(&(from, to)) || !self.hosts[from].up || !self.hosts[to].up
    }

    fn wake_all(&mut self) {
        for pipe in self
            .connections
            .iter()
            .flat_map(|connection| &connection.pipes)
            .filter_map(Weak::upgrade)
        {
            pipe.wake();
        }
    }

    fn break_connections(&mut self, which: impl Fn([HostId; 2]) -> bool) {
        self.connections.retain(|connection| {
            let hit = which(connection.hosts);
            if hit {
                connection.break_both();
            }
            !hit
        });
    }

    fn add_connection(&mut self, connection: Connection) {
        if self.connections.len() == self.connections.capacity() {
            self.connections
                .retain(|old| old.pipes.iter().any(|pipe| pipe.strong_count() > 0));
        }
        self.connections.push(connection);
    }
}
