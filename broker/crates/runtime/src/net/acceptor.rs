//! A listener whose connections can be severed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::Mutex;

use super::sockets::Sockets;
use super::stream::Stream;

/// Takes connections, except while they are severed.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: Arc<TcpListener>,
    sockets: Arc<Sockets>,
    /// The same socket as the runtime knows it, and since when. What the runtime has seen shut stays shut for it, so it gets
    /// to know the socket anew after each time.
    known: Mutex<(u64, tokio::net::TcpListener)>,
}

impl Acceptor {
    pub(super) fn new(
        listener: tokio::net::TcpListener,
        is_port_chosen: bool,
        sockets: &Arc<Sockets>,
    ) -> io::Result<Self> {
        let listener = Arc::new(listener.into_std()?);
        let mended = sockets.listen(&listener, is_port_chosen);
        let known = Mutex::new((mended, tokio::net::TcpListener::from_std(listener.try_clone()?)?));
        Ok(Self {
            listener,
            sockets: Arc::clone(sockets),
            known,
        })
    }

    /// Waits for the next connection.
    ///
    /// # Cancel safety
    /// Safe; no connection is lost.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        let mut known = self.known.lock().await;
        let mended = self.sockets.mended().await;
        if known.0 != mended {
            *known = (
                mended,
                tokio::net::TcpListener::from_std(self.listener.try_clone()?)?,
            );
        }
        let (stream, _) = known.1.accept().await?;
        Stream::tcp(stream, &self.sockets)
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
