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
use std::time::Duration;

use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_uring::net::{TcpListener, TcpStream, UnixStream};

use crate::memory::Headroom;
use crate::refusals::{Refusal, RefusedClient, RefusedConnection};

use super::accepted::{Accepted, Opening};
use super::address::Peer;
use super::body::BodyBudget;
use super::connection;
use super::gateway::Gateway;
use super::permits::Permits;
use super::settings::{CONNECTION_BYTES, CurrentSettings};
use super::state::Front;
use super::stop::stopped;
use super::stream::Stream;

/// The listening sockets of one shard, bound by the server or by who started it.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Each of this shard alone (`SO_REUSEPORT`): shut down when the shard stops.
    pub tcp: Vec<Listening<net::TcpListener>>,
    /// Clones of sockets that all shards accept from, and that outlive the process.
    pub shared_tcp: Vec<Listening<net::TcpListener>>,
    /// Clones of sockets that all shards accept from.
    pub unix: Vec<Listening<unix::UnixListener>>,
    /// The sockets outlive the process: at a stop, whoever waits in their queues is left to the
    /// successor.
    pub inherited: bool,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listening<L> {
    /// The socket.
    pub(crate) socket: L,
    /// What its connections begin with.
    pub(crate) opening: Opening,
}

impl<L> From<L> for Listening<L> {
    fn from(socket: L) -> Self {
        Self { socket, opening: Opening::Http }
    }
}

/// Accepts and serves until `stop` holds true or has lost its sender. Is done once every connection
/// has ended: those in a request after its response, idle ones at once.
///
/// The kernel resets whoever is in the queue of a listener that closes. So at a stop the listeners
/// turn new connections away first, then take everything that is in their queues, and close behind
/// that. [Inherited](Listeners::inherited) ones are left as they are.
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
    let last_call = if listeners.inherited { Duration::ZERO } else { LAST_CALL };
    let sources = listeners.prepare()?;
    Ok(accept_from(sources, last_call, gateway, settings, stop))
}

async fn accept_from<G: Gateway>(
    sources: Vec<AcceptSource>,
    last_call: Duration,
    gateway: G,
    settings: CurrentSettings,
    stop: watch::Receiver<bool>,
) {
    let (connections_max, bodies_bytes_max) = {
        let settings = settings.get();
        (settings.connections_max, settings.bodies_bytes_max)
    };
    let bodies = BodyBudget::new(bodies_bytes_max);
    let permits = Permits::new(connections_max);
    let front = Rc::new(Front {
        gateway,
        settings,
        bodies,
        permits,
        low_memory_connections: Rc::default(),
    });

    let loops: Vec<_> = sources
        .into_iter()
        .map(|source| Accepting {
            source: Paced { source, in_a_row: 0 },
            front: Rc::clone(&front),
            stop: stop.clone(),
            last_call,
        })
        .map(|accepting| tokio_uring::spawn(accepting.run()))
        .collect();
    for accepting in loops {
        // Fails only by a panic, which the runtime has reported: the others still serve.
        let _ = accepting.await;
    }
    front.permits.all_returned().await;
}

impl Listeners {
    fn prepare(self) -> io::Result<Vec<AcceptSource>> {
        fn prepared<L>(
            sockets: Vec<Listening<L>>,
            prepare: fn(L) -> io::Result<Listener>,
        ) -> impl Iterator<Item = io::Result<AcceptSource>> {
            sockets.into_iter().map(move |Listening { socket, opening }| {
                Ok(AcceptSource { listener: prepare(socket)?, opening })
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
    stop: watch::Receiver<bool>,
    /// How long it still accepts after the stop.
    last_call: Duration,
}

impl<G: Gateway> Accepting<G> {
    async fn run(mut self) {
        let mut closing = pin!(closing(self.source.closer(), self.stop.clone(), self.last_call));
        loop {
            // Without a permit nothing is accepted: the kernel's queue holds the rest.
            let permit = tokio::select! {
                biased;
                () = &mut closing => break,
                permit = self.front.permits.acquire(|_| self.front.note_crowded()) => permit,
            };
            let Some(permit) = permit else { return };
            self.source.pause().await;
            let guest = tokio::select! {
                biased;
                () = &mut closing => break,
                guest = LowMemoryPermit::welcome(&self.front) => guest,
            };
            let accepted = {
                let mut accept = pin!(self.source.source.accept());
                tokio::select! {
                    biased;
                    () = &mut closing => {
                        self.take_waiting();
                        // An accept dropped in flight would lose its socket: it is made to end.
                        if self.source.closer().ends_accept() && let Ok(last) = accept.await {
                            self.serve(last, (permit, guest));
                        }
                        return;
                    }
                    accepted = &mut accept => accepted,
                }
            };
            match accepted {
                Ok(accepted) => self.serve(accepted, (permit, guest)),
                Err(error) if is_of_that_connection(&error) => {}
                Err(error) => {
                    let refused = Refusal::Connection(RefusedConnection::Accept(&error));
                    let nobody = RefusedClient::Unknown;
                    self.front.settings.get().refusals.note(None, nobody, &refused);
                    drop(permit);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        self.take_waiting();
    }

    /// Serves a connection, and drops `held` when it has ended.
    fn serve<H: 'static>(&self, accepted: Accepted, held: H) {
        let (front, stop) = (Rc::clone(&self.front), self.stop.clone());
        tokio_uring::spawn(async move {
            connection::serve(accepted, front, stop).await;
            drop(held);
        });
    }

    /// Serves whoever is in the queue of a listener that is about to close.
    fn take_waiting(&self) {
        if self.last_call.is_zero() {
            return;
        }
        while let Some(permit) = self.front.permits.try_acquire()
            && let Some(accepted) = self.source.source.accept_waiting()
        {
            self.serve(accepted, permit);
        }
    }
}

/// Resolves when the listener is to close.
async fn closing(closer: Closer, stop: watch::Receiver<bool>, last_call: Duration) {
    stopped(stop).await;
    if !last_call.is_zero() {
        closer.turn_away();
        tokio::time::sleep(last_call).await;
    }
}

/// A connection that came while memory was short. It will be told so, but until it is it takes
/// memory itself: there are never more than a few of them.
struct LowMemoryPermit(Rc<Cell<usize>>);

impl LowMemoryPermit {
    /// Waits until there may be one more. None when there is enough memory.
    async fn welcome<G: Gateway>(front: &Front<G>) -> Option<Self> {
        let gateway = &front.gateway;
        while gateway.headroom() != Headroom::Enough || !gateway.takes_on(CONNECTION_BYTES) {
            if front.low_memory_connections.get() < front.settings.get().connections_when_short {
                front.low_memory_connections.set(front.low_memory_connections.get() + 1);
                return Some(Self(Rc::clone(&front.low_memory_connections)));
            }
            tokio::time::sleep(LOW_MEMORY_PAUSE).await;
        }
        None
    }
}

impl Drop for LowMemoryPermit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Where connections come from, a few at a time: a storm of them must leave the shard its turns.
struct Paced {
    source: AcceptSource,
    /// Accepted since the shard had its turn.
    in_a_row: u32,
}

impl Paced {
    fn closer(&self) -> Closer {
        self.source.listener.closer()
    }

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
struct AcceptSource {
    listener: Listener,
    opening: Opening,
}

impl AcceptSource {
    async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.listener.accept().await?;
        Ok(Accepted { stream, peer, opening: self.opening })
    }

    /// A connection that waits in the queue, if one does. Afterwards the listener is of no use but
    /// to be asked again.
    fn accept_waiting(&self) -> Option<Accepted> {
        let (stream, peer) = self.listener.accept_waiting().ok()?;
        Some(Accepted { stream, peer, opening: self.opening })
    }
}

/// The socket, by how it is accepted from.
enum Listener {
    Tcp {
        listener: TcpListener,
        /// The same socket, to shut it down: a pending accept holds the listener.
        closer: Rc<net::TcpListener>,
    },
    /// Shared by all shards and hence not to be shut down by one: accepted from when readable, so
    /// that no operation is ever pending on it.
    Unix {
        listener: AsyncFd<unix::UnixListener>,
        /// The option to set on its connections. `None` when the kernel gives them no larger buffer
        /// anyway.
        send_buffer: Option<SendBuffer>,
    },
    /// The same for a port.
    SharedTcp(AsyncFd<net::TcpListener>),
}

impl Listener {
    fn tcp(listener: net::TcpListener) -> io::Result<Self> {
        // A non-blocking listener would answer the operation with EAGAIN instead of waiting.
        listener.set_nonblocking(false)?;
        // Accepted sockets inherit it (Linux), which saves a system call for each.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        let closer = Rc::new(listener.try_clone()?);
        Ok(Self::Tcp { listener: TcpListener::from_std(listener), closer })
    }

    fn unix(listener: unix::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let send_buffer = SendBuffer::below_default(&listener)?;
        Ok(Self::Unix { listener: readable(listener)?, send_buffer })
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
            Self::Unix { listener, send_buffer } => {
                let accept = |listener: &_| accept_unix(listener, *send_buffer);
                listener.async_io(Interest::READABLE, accept).await
            }
            Self::SharedTcp(listener) => listener.async_io(Interest::READABLE, accept_tcp).await,
        }
    }

    fn accept_waiting(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp { closer, .. } => {
                closer.set_nonblocking(true)?;
                accept_tcp(closer)
            }
            Self::Unix { listener, send_buffer } => accept_unix(listener.get_ref(), *send_buffer),
            Self::SharedTcp(listener) => accept_tcp(listener.get_ref()),
        }
    }

    /// Returns the handle that closes this listener.
    fn closer(&self) -> Closer {
        match self {
            Self::Tcp { closer, .. } => Closer(Some(Rc::clone(closer))),
            Self::Unix { .. } | Self::SharedTcp(_) => Closer(None),
        }
    }
}

/// A bound on the send buffers of connections, as setsockopt(2) takes it.
#[derive(Clone, Copy)]
struct SendBuffer(usize);

impl SendBuffer {
    /// The option of a listener of unix sockets. Their connections do not inherit it: they get the
    /// kernel's default (`net.core.wmem_default`). `None` when that is not larger.
    fn below_default(listener: &unix::UnixListener) -> io::Result<Option<Self>> {
        let bound = SockRef::from(listener).send_buffer_size()?;
        let default = Socket::new(Domain::UNIX, Type::STREAM, None)?.send_buffer_size()?;
        // The kernel doubles the value that it is given.
        Ok((bound < default).then_some(Self(bound / 2)))
    }
}

fn accept_unix(
    listener: &unix::UnixListener,
    send_buffer: Option<SendBuffer>,
) -> io::Result<(Stream, Peer)> {
    let (stream, _) = listener.accept()?;
    bound_buffer(&stream, send_buffer)?;
    Ok((Stream::Unix(UnixStream::from_std(stream)), Peer::Unix))
}

fn accept_tcp(listener: &net::TcpListener) -> io::Result<(Stream, Peer)> {
    let (stream, address) = listener.accept()?;
    Ok((Stream::Tcp(TcpStream::from_std(stream)), Peer::of(address.ip())))
}

fn bound_buffer(stream: &unix::UnixStream, bound: Option<SendBuffer>) -> io::Result<()> {
    bound.map_or(Ok(()), |SendBuffer(bytes)| SockRef::from(stream).set_send_buffer_size(bytes))
}

/// Closes a listener that belongs to its shard alone. Nothing is to be done for a shared one: no
/// operation is pending on it, and a unix socket turns new connections away once its file is gone.
struct Closer(Option<Rc<net::TcpListener>>);

impl Closer {
    /// From now on the kernel ignores whoever wants to connect. Clients try again a second later by
    /// themselves (RFC 6298), when the next process may listen; those that the kernel has answered
    /// already still come into the queue.
    fn turn_away(&self) {
        let Some(listener) = &self.0 else { return };
        if let Err(error) = SockRef::from(listener).attach_filter(&IGNORE_SYN) {
            tracing::debug!(%error, "a listener closes without turning connections away first");
        }
    }

    /// Closes the listener, so that an accept in flight ends: with EINVAL, or with a connection
    /// that came just before. Says whether there may be one.
    fn ends_accept(&self) -> bool {
        let shut = |listener| SockRef::from(listener).shutdown(Shutdown::Both).is_ok();
        self.0.as_deref().is_some_and(shut)
    }
}

/// A program for the packets of a TCP listener, which begin with their TCP header: drops those that
/// have SYN among their flags, and lets all others pass.
const IGNORE_SYN: [SockFilter; 4] = {
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 2;
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
};

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

/// How long listeners still accept when they turn new connections away already: what it takes for
/// the last packet of a handshake that the kernel has answered, on networks that are near. Those
/// that are farther than this are reset, as all were without it.
const LAST_CALL: Duration = Duration::from_millis(50);

/// Soon enough for whoever waits in the kernel's queue, seldom enough to cost nothing.
const LOW_MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// Without descriptors or memory, accept fails until something ends: asking ten times a second
/// costs nothing and is soon enough.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;

    use super::*;

    #[test]
    fn a_smaller_send_buffer_than_the_kernels_default_is_that_of_unix_connections() {
        let name = format!("ringwave-buffer-{}", std::process::id());
        let address = unix::SocketAddr::from_abstract_name(name).unwrap();
        let listener = unix::UnixListener::bind_addr(&address).unwrap();
        let default = SockRef::from(&listener).send_buffer_size().unwrap();
        for (bytes, expected) in [(10_000, 20_000), (default, default)] {
            SockRef::from(&listener).set_send_buffer_size(bytes).unwrap();
            let bound = SendBuffer::below_default(&listener).unwrap();
            let _client = unix::UnixStream::connect_addr(&address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            bound_buffer(&accepted, bound).unwrap();
            assert_eq!(SockRef::from(&accepted).send_buffer_size().unwrap(), expected);
        }
    }

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
            let source = AcceptSource { listener, opening: Opening::Http };
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
