//! Accept loops: sockets in, connection tasks out, never more of them than the setting.
//!
//! Accept is single-shot: one operation, one socket. Multishot accept has ended in invalid
//! descriptors and floods of errors on several kernels (liburing issue 1062), and a front that
//! takes no socket beyond its bound has to stop after each one anyway.

use std::io;
use std::net::{self, Shutdown};
use std::os::fd::AsRawFd;
use std::os::unix::net as unix;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, watch};
use tokio_uring::net::{TcpListener, TcpStream, UnixStream};

use super::body::Budget;
use super::gateway::Gateway;
use super::stream::Stream;
use super::{Front, Settings, connection};

/// The listening sockets of one shard, bound by the server or by who started it.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Each of this shard alone (`SO_REUSEPORT`): shut down when the shard stops.
    pub tcp: Vec<net::TcpListener>,
    /// Clones of sockets that all shards accept from, and that may outlive the process.
    pub shared_tcp: Vec<net::TcpListener>,
    /// Clones of sockets that all shards accept from.
    pub unix: Vec<unix::UnixListener>,
}

/// Accepts and serves until `stop` holds true or has lost its sender. Returns once every connection
/// has ended: those in a request after its response, idle ones at once.
///
/// Runs on the shard's tokio-uring runtime, and nowhere else.
///
/// # Errors
/// When a listener cannot be prepared, before anything is accepted.
pub async fn serve<G: Gateway>(
    listeners: Listeners,
    gateway: G,
    settings: Settings,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let connections_max = settings.connections_max.max(1);
    let slots = Arc::new(Semaphore::new(connections_max as usize));
    let bodies = Budget::new(settings.bodies_bytes_max);
    let front = Rc::new(Front { gateway, settings, bodies });

    let sources = listeners.prepare()?;
    let loops: Vec<_> = sources
        .into_iter()
        .map(|source| Accepting {
            source,
            front: Rc::clone(&front),
            slots: Arc::clone(&slots),
            stop: stop.clone(),
        })
        .map(|accepting| tokio_uring::spawn(accepting.run()))
        .collect();
    for accepting in loops {
        // Fails only by a panic, which the runtime has reported: the others still serve.
        let _ = accepting.await;
    }
    // Every connection holds one slot: all are back when all connections have ended.
    let _ = slots.acquire_many(connections_max).await;
    Ok(())
}

/// Resolves when the front is told to stop.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender is gone only when the shard is: that is a stop as well.
    let _ = stop.wait_for(|&stop| stop).await;
}

impl Listeners {
    fn prepare(self) -> io::Result<Vec<Source>> {
        let tcp = self.tcp.into_iter().map(Source::tcp);
        let shared = self.shared_tcp.into_iter().map(Source::shared_tcp);
        tcp.chain(shared).chain(self.unix.into_iter().map(Source::unix)).collect()
    }
}

/// One accept loop.
struct Accepting<G> {
    source: Source,
    front: Rc<Front<G>>,
    slots: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl<G: Gateway> Accepting<G> {
    async fn run(self) {
        let mut stopped = pin!(stopped(self.stop.clone()));
        let mut failing = false;
        loop {
            // Without a free slot nothing is accepted: the kernel's queue holds the rest.
            let slot = tokio::select! {
                biased;
                () = &mut stopped => return,
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
            };
            let Ok(slot) = slot else { return };
            let accepted = {
                let mut accept = pin!(self.source.accept());
                tokio::select! {
                    biased;
                    () = &mut stopped => {
                        // An accept dropped in flight would lose its socket: it is made to end.
                        if self.source.ends_accept() && accept.await.is_ok() {
                            tracing::debug!("a connection came as the listener closed");
                        }
                        return;
                    }
                    accepted = &mut accept => accepted,
                }
            };
            match accepted {
                Ok(stream) => {
                    failing = false;
                    let front = Rc::clone(&self.front);
                    let stop = self.stop.clone();
                    tokio_uring::spawn(async move {
                        connection::serve(stream, front, stop).await;
                        drop(slot);
                    });
                }
                Err(error) if is_of_that_connection(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "accept fails; trying again until it succeeds");
                    }
                    drop(slot);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Where connections come from.
enum Source {
    Tcp {
        listener: TcpListener,
        /// The same socket, to shut it down: a pending accept holds the listener.
        closer: net::TcpListener,
    },
    /// Shared by all shards and hence not to be shut down by one: accepted from when readable, so
    /// that no operation is ever pending on it.
    Unix(AsyncFd<unix::UnixListener>),
    /// The same for a port.
    SharedTcp(AsyncFd<net::TcpListener>),
}

impl Source {
    fn tcp(listener: net::TcpListener) -> io::Result<Self> {
        // A non-blocking listener would answer the operation with EAGAIN instead of waiting.
        listener.set_nonblocking(false)?;
        // Accepted sockets inherit it (Linux), which saves a system call for each.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        let closer = listener.try_clone()?;
        Ok(Self::Tcp { listener: TcpListener::from_std(listener), closer })
    }

    fn unix(listener: unix::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(readable(listener)?))
    }

    fn shared_tcp(listener: net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        Ok(Self::SharedTcp(readable(listener)?))
    }

    /// The next connection, in blocking mode: accept4 without `SOCK_NONBLOCK` does not inherit it.
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp { listener, .. } => Ok(Stream::Tcp(listener.accept().await?.0)),
            Self::Unix(listener) => {
                let accept = |listener: &unix::UnixListener| listener.accept();
                let (stream, _) = listener.async_io(Interest::READABLE, accept).await?;
                Ok(Stream::Unix(UnixStream::from_std(stream)))
            }
            Self::SharedTcp(listener) => {
                let accept = |listener: &net::TcpListener| listener.accept();
                let (stream, _) = listener.async_io(Interest::READABLE, accept).await?;
                Ok(Stream::Tcp(TcpStream::from_std(stream)))
            }
        }
    }

    /// Closes the listener, so that an accept in flight ends: with EINVAL, or with a connection
    /// that came just before. Says whether there may be one: a shared listener only waits to be
    /// readable.
    fn ends_accept(&self) -> bool {
        match self {
            Self::Tcp { closer, .. } => SockRef::from(closer).shutdown(Shutdown::Both).is_ok(),
            Self::Unix(_) | Self::SharedTcp(_) => false,
        }
    }
}

/// Watches a listener for connections.
fn readable<L: AsRawFd>(listener: L) -> io::Result<AsyncFd<L>> {
    #[expect(
        deprecated,
        reason = "unsound only for types whose descriptor changes or closes while registered; \
                  a std listener keeps its own, and the successor is an unsafe function"
    )]
    AsyncFd::with_interest(listener, Interest::READABLE)
}

/// Errors that the peer or the path to it caused, and that say nothing of the listener: accept(2)
/// passes pending network errors of the new socket on, and asks to try again after them.
fn is_of_that_connection(error: &io::Error) -> bool {
    const PASSED_ON: [i32; 12] = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EAGAIN,
        libc::EPERM,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
    ];
    error.raw_os_error().is_some_and(|code| PASSED_ON.contains(&code))
}

/// Without descriptors or memory, accept fails until something ends: asking ten times a second
/// costs nothing and is soon enough.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_pauses_and_an_aborted_connection_does_not() {
        let of_connection = |code| is_of_that_connection(&io::Error::from_raw_os_error(code));
        assert!(of_connection(libc::ECONNABORTED));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EINVAL] {
            assert!(!of_connection(code), "{code}");
        }
    }
}
