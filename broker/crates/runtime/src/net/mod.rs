//! Listening, connecting, and streams that gather-write and send file ranges.

mod acceptor;
mod bound;
mod half;
mod send_file;
#[cfg(feature = "test-util")]
pub mod sim;
mod sockets;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tracing::warn;

use acceptor::Acceptor;
pub use bound::Bound;
use bound::BoundKind;
use sockets::Sockets;

pub use half::{ReadHalf, WriteHalf};
pub use stream::Stream;

/// Pause before accepting again after the process ran out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Why an address cannot be listened on.
///
/// `setting` names the setting that holds the address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "address {address} is already in use: stop the other process or choose another port with {setting}"
    )]
    InUse {
        /// The address.
        address: String,
        /// Setting that holds it.
        setting: String,
    },
    /// The port needs a privilege that this process lacks.
    #[error(
        "no permission to listen on {address}: choose a port from 1024 up with {setting}, or grant the process \
         CAP_NET_BIND_SERVICE"
    )]
    NotPermitted {
        /// The address.
        address: String,
        /// Setting that holds it.
        setting: String,
    },
    /// The address belongs to no interface of this machine.
    #[error(
        "address {address} is not one of this machine's: set {setting} to a local address, or to 0.0.0.0:PORT for \
         all of them"
    )]
    NotLocal {
        /// The address.
        address: String,
        /// Setting that holds it.
        setting: String,
    },
    /// Not of the form `host:port`, or a host name without an address.
    #[error("{address} is not an address to listen on: {setting} takes HOST:PORT, such as 127.0.0.1:9092")]
    Invalid {
        /// The address.
        address: String,
        /// Setting that holds it.
        setting: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {address} ({setting})")]
    Failed {
        /// The address.
        address: String,
        /// Setting that holds it.
        setting: String,
        /// What the system said.
        source: io::Error,
    },
}

impl ListenError {
    fn new(address: &str, setting: &str, source: io::Error) -> Self {
        let (address, setting) = (address.to_owned(), setting.to_owned());
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, setting },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address, setting },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address, setting },
            _ => Self::Failed {
                address,
                setting,
                source,
            },
        }
    }
}

/// The network; cheap to clone.
#[derive(Debug, Clone)]
pub struct Net(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Real(Arc<Sockets>),
    #[cfg(feature = "test-util")]
    Simulated(sim::Host),
}

impl Net {
    /// The machine's TCP.
    pub fn real() -> Self {
        Self(Kind::Real(Arc::default()))
    }

    /// The same network for connections that [`Net::sever`] leaves alone.
    #[must_use]
    pub fn apart(&self) -> Self {
        match &self.0 {
            Kind::Real(_) => Self::real(),
            #[cfg(feature = "test-util")]
            Kind::Simulated(_) => self.clone(),
        }
    }

    /// Breaks every connection, as if this process had ended, and refuses and makes no other one until [`Net::mend`].
    /// Returns how many there were. Those whose own address `is_last` are broken when all others are: who notices that one is
    /// can count on that. May be called on any thread, and waits for nothing. Does nothing in the simulation,
    /// which has other means.
    pub fn sever(&self, is_last: impl Fn(SocketAddr) -> bool) -> usize {
        match &self.0 {
            Kind::Real(sockets) => sockets.sever(is_last),
            #[cfg(feature = "test-util")]
            Kind::Simulated(_) => 0,
        }
    }

    /// Lets connections be taken and made again.
    ///
    /// # Errors
    /// The system does not let listen again where it was listened; nothing has changed then.
    pub fn mend(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Real(sockets) => sockets.mend(),
            #[cfg(feature = "test-util")]
            Kind::Simulated(_) => Ok(()),
        }
    }

    #[cfg(feature = "test-util")]
    pub(crate) fn simulated(host: sim::Host) -> Self {
        Self(Kind::Simulated(host))
    }

    /// Listens on `address` (`HOST:PORT`; port 0 lets the system choose). `setting` is the name of the setting
    /// that holds it, for the error text.
    ///
    /// # Errors
    /// A [`ListenError`] that names the address and what to do.
    pub async fn listen(&self, address: &str, setting: &str) -> Result<Listener, ListenError> {
        self.bind(address, setting).await?.listen()
    }

    /// Takes the address for [`Bound::listen`], and nothing else: until then connections are refused. (In the simulation
    /// they wait.)
    ///
    /// # Errors
    /// As [`Net::listen`].
    pub async fn bind(&self, address: &str, setting: &str) -> Result<Bound, ListenError> {
        let socket = match &self.0 {
            Kind::Real(sockets) => {
                let invalid = |source| ListenError::Invalid {
                    address: address.to_owned(),
                    setting: setting.to_owned(),
                    source,
                };
                let resolved: Vec<SocketAddr> =
                    tokio::net::lookup_host(address).await.map_err(invalid)?.collect();
                let is_port_chosen = resolved.iter().any(|address| address.port() == 0);
                let socket =
                    bound::to_one_of(&resolved).map_err(|e| ListenError::new(address, setting, e))?;
                BoundKind::Tcp(socket, is_port_chosen, Arc::clone(sockets))
            }
            #[cfg(feature = "test-util")]
            Kind::Simulated(host) => {
                let listener = host.listen(address);
                BoundKind::Simulated(listener.map_err(|e| ListenError::new(address, setting, e))?)
            }
        };
        Ok(Bound {
            socket,
            address: address.to_owned(),
            setting: setting.to_owned(),
        })
    }

    /// Connects to `address` (`HOST:PORT`), trying every address of the host in turn. There is no limit of time
    /// but the system's own, which is minutes: wrap it in [`Clock::timeout`](crate::Clock::timeout).
    ///
    /// # Cancel safety
    /// Safe; the attempt is given up.
    pub async fn connect(&self, address: &str) -> io::Result<Stream> {
        match &self.0 {
            Kind::Real(sockets) => Stream::tcp(TcpStream::connect(address).await?, sockets),
            #[cfg(feature = "test-util")]
            Kind::Simulated(host) => Ok(Stream::simulated(host.connect(address).await?)),
        }
    }
}

/// Takes connections.
#[derive(Debug)]
pub struct Listener(ListenerKind);

#[derive(Debug)]
enum ListenerKind {
    Tcp(Acceptor),
    #[cfg(feature = "test-util")]
    Simulated(sim::SimListener),
}

impl Listener {
    /// Waits for the next connection. Failures that pass by themselves (a peer that gave up, no descriptor left)
    /// are waited out.
    ///
    /// # Errors
    /// When the listener itself is broken; further calls would fail alike.
    ///
    /// # Cancel safety
    /// Safe; no connection is lost.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            ListenerKind::Tcp(acceptor) => loop {
                match acceptor.accept().await {
                    Ok(stream) => return Ok(stream),
                    Err(e) if is_exhausted(&e) => {
                        warn!(error = %e, "cannot take connections for now");
                        tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    }
                    Err(e) if is_peer_gone(&e) => {}
                    Err(e) => return Err(e),
                }
            },
            #[cfg(feature = "test-util")]
            ListenerKind::Simulated(listener) => Ok(Stream::simulated(listener.accept().await?)),
        }
    }

    /// The address, with the port that the system chose.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            ListenerKind::Tcp(acceptor) => acceptor.local_addr(),
            #[cfg(feature = "test-util")]
            ListenerKind::Simulated(listener) => Ok(listener.local_addr()),
        }
    }
}

/// The process or the system has no descriptor or buffer left; it may have again soon.
fn is_exhausted(e: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(e),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// The error belongs to the connection that was about to be accepted: accept(2), "Error handling".
fn is_peer_gone(e: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(e),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::NOTCONN
                | Errno::INVAL
                | Errno::INTR
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::PERM
        )
    )
}
