//! An address that is taken, where nobody listens yet.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpSocket;

use super::acceptor::Acceptor;
use super::sockets::{BACKLOG, Sockets};
use super::{ListenError, Listener, ListenerKind};

/// An address that is this process's own, see [`Net::bind`](super::Net::bind).
#[derive(Debug)]
pub struct Bound {
    pub(super) socket: BoundKind,
    pub(super) address: String,
    /// The setting that holds the address.
    pub(super) setting: String,
}

#[derive(Debug)]
pub(super) enum BoundKind {
    /// With whether the system chose the port.
    Tcp(TcpSocket, bool, Arc<Sockets>),
    #[cfg(feature = "test-util")]
    Simulated(super::sim::SimListener),
}

impl Bound {
    /// Lets connections come.
    ///
    /// # Errors
    /// [`ListenError`], for instance when another process that had taken the address as well listens there by now.
    pub fn listen(self) -> Result<Listener, ListenError> {
        let listener = match self.socket {
            BoundKind::Tcp(socket, is_port_chosen, sockets) => {
                let listener = socket.listen(BACKLOG);
                let acceptor =
                    listener.and_then(|listener| Acceptor::new(listener, is_port_chosen, &sockets));
                let failed = |e| ListenError::new(&self.address, &self.setting, e);
                ListenerKind::Tcp(acceptor.map_err(failed)?)
            }
            #[cfg(feature = "test-util")]
            BoundKind::Simulated(listener) => ListenerKind::Simulated(listener),
        };
        Ok(Listener(listener))
    }

    /// The address, with the port that the system chose.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            BoundKind::Tcp(socket, ..) => socket.local_addr(),
            #[cfg(feature = "test-util")]
            BoundKind::Simulated(listener) => Ok(listener.local_addr()),
        }
    }
}

/// A socket at the first of these addresses that can be had.
pub(super) fn to_one_of(addresses: &[SocketAddr]) -> io::Result<TcpSocket> {
    let mut failed = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Or a broker could not start again while connections of its last run linger.
        socket.set_reuseaddr(true)?;
        match socket.bind(*address) {
            Ok(()) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
