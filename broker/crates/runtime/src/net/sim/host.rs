//! A host on the simulated network: its addresses, listeners and connects.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::pipe::{Pipe, Reader, Writer};
use super::{Connection, HostId, Link, SimNet, SimStream, State};

/// Connections that a listener holds before it refuses more.
const BACKLOG: usize = 128;

/// Waits between attempts to reach a silent host; the last one gives up (Linux, `tcp_syn_retries` = 6).
const SYN_WAITS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Ports from here on are given out by the system.
pub(super) const FIRST_EPHEMERAL_PORT: u16 = 32_768;

/// The network as one run of a machine sees it.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    net: SimNet,
    id: HostId,
    generation: u64,
}

/// Where a connect goes.
#[derive(Debug, Clone, Copy)]
struct Target {
    host: HostId,
    address: SocketAddr,
}

impl Host {
    pub(super) fn new(net: SimNet, id: HostId, generation: u64) -> Self {
        Self { net, id, generation }
    }

    pub(crate) fn listen(&self, address: &str) -> io::Result<SimListener> {
        let (name, port) = split(address)?;
        let mut state = self.net.0.state.lock();
        self.check_alive(&state)?;
        let target = match name {
            "0.0.0.0" | "[::]" => self.id,
            _ => self.resolve(&state, name)?,
        };
        if target != self.id {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let port = if port == 0 {
            state.ephemeral_port(self.id)
        } else {
            port
        };
        let ip = if is_loopback(name) {
            Ipv4Addr::LOCALHOST.into()
        } else {
            ip_of(self.id)
        };
        let queue = Arc::new(Queue {
            loopback: is_loopback(name),
            state: Mutex::default(),
            arrived: Notify::new(),
        });
        match state.hosts[self.id].listeners.entry(port) {
            std::collections::btree_map::Entry::Occupied(_) => return Err(io::ErrorKind::AddrInUse.into()),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Arc::clone(&queue)),
        };
        Ok(SimListener {
            host: self.clone(),
            queue,
            address: SocketAddr::new(ip, port),
        })
    }

    pub(crate) async fn connect(&self, address: &str) -> io::Result<SimStream> {
        let (name, port) = split(address)?;
        let target = {
            let state = self.net.0.state.lock();
            let host = self.resolve(&state, name)?;
            let ip = if is_loopback(name) {
                Ipv4Addr::LOCALHOST.into()
            } else {
                ip_of(host)
            };
            Target {
                host,
                address: SocketAddr::new(ip, port),
            }
        };
        for wait in SYN_WAITS {
            let there = self.net.delay(self.id, target.host);
            let back = self.net.delay(target.host, self.id);
            tokio::time::sleep(there + back).await;
            if let Some(stream) = self.attempt(target)? {
                return Ok(stream);
            }
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Makes the connection; `None` when the other host does not answer.
    fn attempt(&self, target: Target) -> io::Result<Option<SimStream>> {
        let mut state = self.net.0.state.lock();
        self.check_alive(&state)?;
        if state.is_blocked(self.id, target.host) || state.is_blocked(target.host, self.id) {
            return Ok(None);
        }
        let queue = match state.hosts[target.host].listeners.get(&target.address.port()) {
            Some(queue) if queue.takes(target.host != self.id) => Arc::clone(queue),
            _ => return Err(io::ErrorKind::ConnectionRefused.into()),
        };
        let ip = if target.address.ip().is_loopback() {
            target.address.ip()
        } else {
            ip_of(self.id)
        };
        let local = SocketAddr::new(ip, state.ephemeral_port(self.id));
        let there = self.pipe(self.id, target.host, &format!("{local}>{}", target.address));
        let back = self.pipe(target.host, self.id, &format!("{}>{local}", target.address));
        state.add_connection(Connection {
            hosts: [self.id, target.host],
            pipes: [Arc::downgrade(&there), Arc::downgrade(&back)],
        });
        drop(state);
        self.net
            .0
            .trace
            .event("connect", &format!("{local}>{}", target.address), &[]);
        queue.push(SimStream {
            read: Reader::new(Arc::clone(&there)),
            write: Writer {
                pipe: Arc::clone(&back),
            },
            local: target.address,
            peer: local,
        });
        Ok(Some(SimStream {
            read: Reader::new(back),
            write: Writer { pipe: there },
            local,
            peer: target.address,
        }))
    }

    fn pipe(&self, from: HostId, to: HostId, name: &str) -> Arc<Pipe> {
        Pipe::new(
            name.to_owned(),
            Link {
                net: self.net.clone(),
                from,
                to,
            },
        )
    }

    fn resolve(&self, state: &State, name: &str) -> io::Result<HostId> {
        if is_loopback(name) {
            return Ok(self.id);
        }
        let known = |(id, host): (HostId, &super::HostState)| {
            (host.name == name || ip_of(id).to_string() == name).then_some(id)
        };
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no machine is called {name}"));
        state.hosts.iter().enumerate().find_map(known).ok_or_else(unknown)
    }

    fn check_alive(&self, state: &State) -> io::Result<()> {
        if state.hosts[self.id].generation == self.generation {
            Ok(())
        } else {
            Err(io::Error::other(
                "the simulated machine has crashed since this network was opened",
            ))
        }
    }
}

/// Connections that nobody has accepted yet.
#[derive(Debug)]
pub(super) struct Queue {
    /// Takes connections from its own host only.
    loopback: bool,
    state: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    streams: VecDeque<SimStream>,
}

impl Queue {
    fn takes(&self, from_elsewhere: bool) -> bool {
        let state = self.state.lock();
        !state.closed && state.streams.len() < BACKLOG && !(from_elsewhere && self.loopback)
    }

    fn push(&self, stream: SimStream) {
        self.state.lock().streams.push_back(stream);
        self.arrived.notify_one();
    }

    /// Gives up what waits. The caller may hold the network's lock, which a dropped stream needs: its streams
    /// stay until the listener goes.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_one();
    }
}

/// Listens on a simulated host.
#[derive(Debug)]
pub(crate) struct SimListener {
    host: Host,
    queue: Arc<Queue>,
    address: SocketAddr,
}

impl SimListener {
    pub(crate) async fn accept(&self) -> io::Result<SimStream> {
        loop {
            {
                let mut waiting = self.queue.state.lock();
                if waiting.closed {
                    return Err(io::Error::other(
                        "the simulated machine has crashed since this listener was opened",
                    ));
                }
                if let Some(stream) = waiting.streams.pop_front() {
                    return Ok(stream);
                }
            }
            self.queue.arrived.notified().await;
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let unaccepted = {
            let mut state = self.host.net.0.state.lock();
            let host = &mut state.hosts[self.host.id];
            if host.generation == self.host.generation {
                host.listeners.remove(&self.address.port());
            }
            let mut waiting = self.queue.state.lock();
            waiting.closed = true;
            std::mem::take(&mut waiting.streams)
        };
        for stream in unaccepted {
            stream.read.pipe.break_with(io::ErrorKind::ConnectionReset);
            stream.write.pipe.break_with(io::ErrorKind::ConnectionReset);
        }
    }
}

impl State {
    /// The next free port from the range that the system gives out.
    fn ephemeral_port(&mut self, host: HostId) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
            if !self.hosts[host].listeners.contains_key(&port) {
                return port;
            }
        }
    }
}

fn split(address: &str) -> io::Result<(&str, u16)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not HOST:PORT"));
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    Ok((host, port.parse().map_err(|_| invalid())?))
}

fn is_loopback(name: &str) -> bool {
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

fn ip_of(host: HostId) -> IpAddr {
    let [.., high, low] = (host + 1).to_be_bytes();
    Ipv4Addr::new(10, 0, high, low).into()
}
