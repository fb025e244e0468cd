//! The sockets of the front, on tokio-uring.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};

use tokio_uring::net::{TcpStream, UnixStream};

/// An accepted connection.
pub enum Stream {
    /// From a TCP listener.
    Tcp(TcpStream),
    /// From a unix-socket listener.
    Unix(UnixStream),
}

impl Stream {
    /// Ends one or both directions; operations in flight on them complete at once.
    ///
    /// # Errors
    /// Those of shutdown(2), such as `NotConnected` when the peer has already reset the connection.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Tcp(_) => "Tcp",
            Self::Unix(_) => "Unix",
        };
        write!(f, "{kind}({})", self.as_raw_fd())
    }
}
