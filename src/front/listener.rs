//! Accept loops: sockets in, connection tasks out, never more of them than the setting.
//!
//! Accept is single-shot: one operation, one socket. Multishot accept has ended in invalid
//! descriptors and floods of errors on several kernels (liburing issue 1062), and a front that
//! takes no socket beyond its bound has to stop after each one anyway.

use std::cell::Cell;
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

use crate::refusals::{Bytes, Refusal, Sender};

use super::address::Peer;
use super::body::Budget;
use super::gateway::{Gateway, Headroom};
use super::stream::Stream;
use super::{CurrentSettings, Front, connection};

/// The listening sockets of one shard, bound by the server or by who started it.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Each of this shard alone (`SO_REUSEPORT`): shut down when the shard stops.
    pub tcp: Vec<Listening<net::TcpListener>>,
    /// Clones of sockets that all shards accept from, and that may outlive the process.
    pub shared_tcp: Vec<Listening<net::TcpListener>>,
    /// Clones of sockets that all shards accept from.
    pub unix: Vec<Listening<unix::UnixListener>>,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listening<L> {
    /// The socket.
    pub socket: L,
    /// What its connections begin with.
    pub opening: Opening,
}

impl<L> From<L> for Listening<L> {
    fn from(socket: L) -> Self {
        Self { socket, opening: Opening::Http }
    }
}

/// What a connection begins with. Known beforehand, never guessed: who may choose tells any address
/// as its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opening {
    /// HTTP.
    #[default]
    Http,
    /// A header of the PROXY protocol, and HTTP behind it.
    ProxyHeader,
}

/// A new connection.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: Stream,
    /// Who accepted it last, as far as the kernel knows.
    pub(super) peer: Peer,
    pub(super) opening: Opening,
}

/// Accepts and serves until `stop` holds true or has lost its sender. Is done once every connection
/// has ended: those in a request after its response, idle ones at once.
///
/// Called and run on the shard's tokio-uring runtime, and nowhere else.
///
/// # Errors
/// When a listener cannot be prepared; before anything is accepted, and before there is a future:
/// whoever has one can say that the shard serves.
pub fn serve<G: Gateway>(
    listeners: Listeners,
    gateway: G,
    settings: CurrentSettings,
    stop: watch::Receiver<bool>,
) -> io::Result<impl Future<Output = ()> + use<G>> {
    let sources = listeners.prepare()?;
    Ok(accept_from(sources, gateway, settings, stop))
}

async fn accept_from<G: Gateway>(
    sources: Vec<Source>,
    gateway: G,
    settings: CurrentSettings,
    stop: watch::Receiver<bool>,
) {
    let (connections_max, bodies_bytes_max) = {
        let settings = settings.get();
        (settings.connections_max.max(1), settings.bodies_bytes_max)
    };
    let slots = Arc::new(Semaphore::new(connections_max as usize));
    let bodies = Budget::new(bodies_bytes_max);
    let front = Rc::new(Front { gateway, settings, bodies, guests: Rc::default() });

    let loops: Vec<_> = sources
        .into_iter()
        .map(|source| Accepting {
            source: Paced { source, in_a_row: 0 },
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
}

/// Resolves when the front is told to stop.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender is gone only when the shard is: that is a stop as well.
    let _ = stop.wait_for(|&stop| stop).await;
}

impl Listeners {
    fn prepare(self) -> io::Result<Vec<Source>> {
        fn prepared<L>(
            sockets: Vec<Listening<L>>,
            prepare: fn(L) -> io::Result<Listener>,
        ) -> impl Iterator<Item = io::Result<Source>> {
            sockets.into_iter().map(move |Listening { socket, opening }| {
                Ok(Source { listener: prepare(socket)?, opening })
            })
        }
        let tcp = prepared(self.tcp, Listener::tcp);
        let shared = prepared(self.shared_tcp, Listener::shared_tcp);
        tcp.chain(shared).chain(prepared(self.unix, Listener::unix)).collect()
    }
}

/// One accept loop.
struct Accepting<G> {
    source: Paced,
    front: Rc<Front<G>>,
    slots: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl<G: Gateway> Accepting<G> {
    async fn run(mut self) {
        let mut stopped = pin!(stopped(self.stop.clone()));
        loop {
            // Without a free slot nothing is accepted: the kernel's queue holds the rest.
            let slot = tokio::select! {
                biased;
                () = &mut stopped => return,
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
            };
            let Ok(slot) = slot else { return };
            self.source.pause().await;
            let guest = tokio::select! {
                biased;
                () = &mut stopped => return,
                guest = Guest::welcome(&self.front) => guest,
            };
            let source = &self.source.source;
            let accepted = {
                let mut accept = pin!(source.accept());
                tokio::select! {
                    biased;
                    () = &mut stopped => {
                        // An accept dropped in flight would lose its socket: it is made to end.
                        if source.listener.ends_accept() && accept.await.is_ok() {
                            tracing::debug!("a connection came as the listener closed");
                        }
                        return;
                    }
                    accepted = &mut accept => accepted,
                }
            };
            match accepted {
                Ok(accepted) => {
                    let front = Rc::clone(&self.front);
                    let stop = self.stop.clone();
                    tokio_uring::spawn(async move {
                        connection::serve(accepted, front, stop).await;
                        drop((slot, guest));
                    });
                }
                Err(error) if is_of_that_connection(&error) => {}
                Err(error) => {
                    let refused = Refusal::Bytes(Bytes::Accept(&error));
                    let nobody = Sender::Unknown;
                    self.front.settings.get().refusals.note(None, nobody, &refused);
                    drop(slot);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A connection that came while memory was short. It will be told so, but until it is it takes
/// memory itself: there are never more than a few of them.
struct Guest(Rc<Cell<usize>>);

impl Guest {
    /// Waits until there may be one more. None when there is enough memory.
    async fn welcome<G: Gateway>(front: &Front<G>) -> Option<Self> {
        while front.gateway.headroom() != Headroom::Enough {
            if front.guests.get() < GUESTS_MAX {
                front.guests.set(front.guests.get() + 1);
                return Some(Self(Rc::clone(&front.guests)));
            }
            tokio::time::sleep(GUESTS_PAUSE).await;
        }
        None
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Where connections come from, a few at a time: a storm of them must leave the shard its turns.
struct Paced {
    source: Source,
    /// Accepted since the shard had its turn.
    in_a_row: u32,
}

impl Paced {
    /// To be awaited before each accept. On an idle shard it is ready at once.
    async fn pause(&mut self) {
        self.in_a_row += 1;
        if self.in_a_row > ACCEPTS_IN_A_ROW {
            self.in_a_row = 1;
            // Goes on when the runtime has been to the kernel and the shard has had its turn.
            tokio::task::yield_now().await;
        }
    }
}

/// One listening socket, and what comes over it.
struct Source {
    listener: Listener,
    opening: Opening,
}

impl Source {
    async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.listener.accept().await?;
        Ok(Accepted { stream, peer, opening: self.opening })
    }
}

/// The socket, by how it is accepted from.
enum Listener {
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

impl Listener {
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
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp { listener, .. } => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Peer::of(address.ip())))
            }
            Self::Unix(listener) => {
                let accept = |listener: &unix::UnixListener| listener.accept();
                let (stream, _) = listener.async_io(Interest::READABLE, accept).await?;
                Ok((Stream::Unix(UnixStream::from_std(stream)), Peer::Unix))
            }
            Self::SharedTcp(listener) => {
                let accept = |listener: &net::TcpListener| listener.accept();
                let (stream, address) = listener.async_io(Interest::READABLE, accept).await?;
                Ok((Stream::Tcp(TcpStream::from_std(stream)), Peer::of(address.ip())))
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

/// Sockets that one loop accepts before the shard has its turn, where they wait in a queue: some 50
/// us of work, and as much again for each answer. A loop on a ring takes one per turn anyway.
const ACCEPTS_IN_A_ROW: u32 = 16;

/// Connections that came while memory was short, per shard: some 16 KiB each.
const GUESTS_MAX: usize = 64;

/// Soon enough for whoever waits in the kernel's queue, seldom enough to cost nothing.
const GUESTS_PAUSE: Duration = Duration::from_millis(10);

/// Without descriptors or memory, accept fails until something ends: asking ten times a second
/// costs nothing and is soon enough.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;

    use super::*;

    #[test]
    fn a_storm_of_connections_leaves_the_shard_its_turns() {
        const CLIENTS: u32 = 100;
        let name = format!("ringwave-storm-{}", std::process::id());
        let address = unix::SocketAddr::from_abstract_name(name).unwrap();
        let listener = unix::UnixListener::bind_addr(&address).unwrap();
        let connect = |_| unix::UnixStream::connect_addr(&address).unwrap();
        let waiting: Vec<_> = (0..CLIENTS).map(connect).collect();

        let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(64)).unwrap();
        let most = runtime.block_on(async {
            let listener = Listener::unix(listener).unwrap();
            let source = Source { listener, opening: Opening::Http };
            let mut paced = Paced { source, in_a_row: 0 };
            let accepted = Rc::new(Cell::new(0));
            let counted = Rc::clone(&accepted);
            let accepting = tokio_uring::spawn(async move {
                while counted.get() < CLIENTS {
                    paced.pause().await;
                    paced.source.accept().await.unwrap();
                    counted.set(counted.get() + 1);
                }
            });
            // As a shard that has something to do in each turn.
            let mut most = 0;
            while !accepting.is_finished() {
                let before = accepted.get();
                tokio::task::yield_now().await;
                most = most.max(accepted.get() - before);
            }
            most
        });
        assert!(most <= ACCEPTS_IN_A_ROW, "{most} between two turns");
        drop(waiting);
    }

    #[test]
    fn running_out_of_descriptors_pauses_and_an_aborted_connection_does_not() {
        let of_connection = |code| is_of_that_connection(&io::Error::from_raw_os_error(code));
        assert!(of_connection(libc::ECONNABORTED));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EINVAL] {
            assert!(!of_connection(code), "{code}");
        }
    }
}
