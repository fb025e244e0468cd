//! Binds the listeners, before any shard starts: each TCP address once per shard (`SO_REUSEPORT`),
//! each unix socket once for all shards. Or takes over those that a service manager opened: all
//! shards accept from each of them, and they outlive the process, so that connections wait in their
//! queues while the service restarts.

use std::fs;
use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};

use super::listener_options;
use super::unix_socket::{self, SocketFileError, admits_everyone};
use crate::config::{Config, ListenAddr, ListenerConfig, ServerConfig, SocketAccess};
use crate::front::address::Trusted;
use crate::front::{Listeners, Listening, Opening};

/// The connections that the kernel may queue for a listener; it caps this at `net.core.somaxconn`.
const ACCEPT_QUEUE: i32 = 65_535;

/// The path that is shown for a socket that has none (unix(7)).
const ABSTRACT: &str = "(abstract)";

/// The time for which an address that is in use is tried again: the listener of a killed process
/// was seen for 10 ms after its end. An operator who waits for the error message can bear a second.
const LEFT_OVER_TIME: Duration = Duration::from_secs(1);
/// The pause between two tries.
const LEFT_OVER_PAUSE: Duration = Duration::from_millis(5);

/// The bound sockets of all shards. Removes the files of unix sockets when dropped.
#[derive(Debug)]
pub(super) struct BoundListeners {
    /// The listeners of each shard.
    pub(super) listeners: Vec<Listeners>,
    /// The files of unix sockets.
    pub(super) files: SocketFiles,
    /// The sockets outlive the process, and with them the connections that wait in their queues.
    pub(super) inherited: bool,
}

/// Files of unix sockets, removed when dropped.
#[derive(Debug, Default)]
pub(super) struct SocketFiles(Vec<PathBuf>);

impl BoundListeners {
    /// Binds every address of the configuration for every shard.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub(super) fn bind(server: &ServerConfig) -> Result<Self, ListenError> {
        Self::bind_places(
            &server.listeners,
            server.socket_access,
            server.send_buffer,
            server.shards,
        )
    }

    /// Binds every address for every shard. `access` says who may connect to unix sockets.
    fn bind_places(
        places: &[ListenerConfig],
        access: SocketAccess,
        send_buffer: Option<usize>,
        shards: usize,
    ) -> Result<Self, ListenError> {
        let mut bound = Self {
            listeners: (0..shards).map(|_| Listeners::default()).collect(),
            files: SocketFiles::default(),
            inherited: false,
        };
        for ListenerConfig { address: place, opening } in places {
            let bind = |bound: &mut Self| match place {
                ListenAddr::Tcp(address) => bound
                    .bind_tcp(*address, *opening)
                    .map_err(|source| ListenError::Tcp { address: *address, source }),
                ListenAddr::Unix(path) => bound
                    .bind_unix(path, access, *opening)
                    .map_err(|source| ListenError::Unix { address: place.clone(), source }),
            };
            when_free(|| bind(&mut bound))?;
            let bounded = bound.listeners.iter().try_for_each(|of| bound_queues(of, send_buffer));
            bounded.map_err(|source| ListenError::Options { address: place.clone(), source })?;
        }
        Ok(bound)
    }

    fn bind_tcp(&mut self, address: SocketAddr, opening: Opening) -> io::Result<()> {
        // Sockets with SO_REUSEPORT would also share the port with another gateway of the same
        // user. One without it finds out whether the port is free.
        drop(tcp(address, false)?);
        for listeners in &mut self.listeners {
            listeners.tcp.push(Listening { socket: tcp(address, true)?, opening });
        }
        Ok(())
    }

    fn bind_unix(
        &mut self,
        path: &Path,
        access: SocketAccess,
        opening: Opening,
    ) -> Result<(), SocketFileError> {
        let listener = unix_socket::listen(path, access, ACCEPT_QUEUE)?;
        self.files.0.push(path.to_owned());
        for listeners in &mut self.listeners {
            listeners.unix.push(Listening { socket: listener.try_clone()?, opening });
        }
        Ok(())
    }
}

/// The sockets that a service manager passed (`LISTEN_FDS`, sd_listen_fds(3)); often none. If there
/// are any, the process listens on them and on nothing else.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    tcp: Vec<Listening<net::TcpListener>>,
    unix: Vec<Listening<unix::UnixListener>>,
    addresses: Vec<ListenerConfig>,
}

impl Inherited {
    /// Takes them over. To be called once, before any thread starts, because it changes the
    /// environment. A socket whose address `configured` has with the PROXY protocol expects that
    /// protocol.
    ///
    /// # Errors
    /// One of them is no listening socket.
    pub(super) fn take(configured: &[ListenerConfig]) -> Result<Self, InheritedError> {
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..sockets.len() {
            inherited.take_one(&mut sockets, index, configured)?;
        }
        Ok(inherited)
    }

    fn take_one(
        &mut self,
        sockets: &mut ListenFd,
        index: usize,
        configured: &[ListenerConfig],
    ) -> Result<(), InheritedError> {
        if let Ok(Some(socket)) = sockets.take_unix_listener(index) {
            let address = socket.local_addr()?;
            let path = address.as_pathname().unwrap_or_else(|| Path::new(ABSTRACT));
            let opening = self.note(ListenAddr::Unix(path.to_owned()), configured);
            must_listen(&socket)?;
            self.unix.push(Listening { socket, opening });
        } else if let Some(socket) = sockets.take_tcp_listener(index)? {
            let opening = self.note(ListenAddr::Tcp(socket.local_addr()?), configured);
            must_listen(&socket)?;
            self.tcp.push(Listening { socket, opening });
        }
        Ok(())
    }

    fn note(&mut self, place: ListenAddr, configured: &[ListenerConfig]) -> Opening {
        let same = configured.iter().find(|listener| listener.address == place);
        let opening = same.map_or(Opening::Http, |listener| listener.opening);
        self.addresses.push(ListenerConfig { address: place, opening });
        opening
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Puts the addresses of these sockets into the configuration, if there are any.
    ///
    /// # Errors
    /// The development app would be served to the network.
    pub(super) fn replace_listeners(&self, config: &mut Config) -> Result<(), InheritedError> {
        if self.is_empty() {
            return Ok(());
        }
        let public = self.addresses.iter().find(|place| !place.is_local());
        if let (true, Some(public)) = (config.development, public) {
            return Err(InheritedError::DevelopmentInPublic(public.address.clone()));
        }
        config.server.listeners.clone_from(&self.addresses);
        Ok(())
    }

    /// Clones every socket for every shard. Their files belong to the service manager.
    ///
    /// # Errors
    /// The process has no descriptors left, or the options of a socket cannot be set.
    pub(super) fn share(
        &self,
        send_buffer: Option<usize>,
        shards: usize,
    ) -> Result<BoundListeners, InheritedError> {
        let clones = || -> io::Result<Listeners> {
            let listeners = Listeners {
                tcp: Vec::new(),
                shared_tcp: cloned(&self.tcp, net::TcpListener::try_clone)?,
                unix: cloned(&self.unix, unix::UnixListener::try_clone)?,
                inherited: true,
            };
            bound_queues(&listeners, send_buffer)?;
            Ok(listeners)
        };
        let listeners = (0..shards).map(|_| clones()).collect::<Result<_, _>>()?;
        Ok(BoundListeners { listeners, files: SocketFiles::default(), inherited: true })
    }
}

/// Bounds what the kernel queues for the connections of these listeners.
fn bound_queues(listeners: &Listeners, send_buffer: Option<usize>) -> io::Result<()> {
    for Listening { socket, .. } in listeners.tcp.iter().chain(&listeners.shared_tcp) {
        listener_options::bound_tcp(socket, send_buffer)?;
    }
    for Listening { socket, .. } in &listeners.unix {
        listener_options::bound_buffer(socket, send_buffer)?;
    }
    Ok(())
}

fn cloned<L>(
    sockets: &[Listening<L>],
    clone: fn(&L) -> io::Result<L>,
) -> io::Result<Vec<Listening<L>>> {
    let cloned = |listening: &Listening<L>| {
        Ok(Listening { socket: clone(&listening.socket)?, opening: listening.opening })
    };
    sockets.iter().map(cloned).collect()
}

/// Refuses a socket of `Accept=yes`, or one that is merely bound: no connection can be accepted
/// from it.
fn must_listen(socket: &impl AsFd) -> Result<(), InheritedError> {
    match rustix::net::sockopt::socket_acceptconn(socket).map_err(io::Error::from)? {
        true => Ok(()),
        false => Err(InheritedError::NotListening),
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // Another process may have removed it.
            let _gone = fs::remove_file(path);
        }
    }
}

/// Tries again for a while if the address is in use. The kernel ends the rings of a killed process,
/// and with them its accepts and listeners, only after the process is gone, so that one that is
/// started at once still finds them.
fn when_free(mut bind: impl FnMut() -> Result<(), ListenError>) -> Result<(), ListenError> {
    let started = Instant::now();
    loop {
        match bind() {
            Err(error) if error.is_in_use() => {
                if started.elapsed() > LEFT_OVER_TIME {
                    return Err(error);
                }
                thread::sleep(LEFT_OVER_PAUSE);
            }
            bound => return bound,
        }
    }
}

fn tcp(address: SocketAddr, shared: bool) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // `::` accepts IPv4 connections too, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit it: a frame must not wait for the acknowledgement of another.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(ACCEPT_QUEUE)?;
    } else {
        // Only listening conflicts with a listener that has SO_REUSEPORT.
        socket.listen(1)?;
    }
    Ok(socket.into())
}

/// A note for the operator if every user of this host may forge the addresses of clients, because
/// every user may connect to a unix socket whose peers are trusted proxies.
pub(super) fn forgeable_addresses(server: &ServerConfig) -> Option<String> {
    let believed = server.trusted_proxies.iter().any(|trusted| *trusted == Trusted::Unix);
    let of_http = server.listeners.iter().filter(|listener| listener.opening == Opening::Http);
    let open = of_http.map(|listener| &listener.address).find(|place| match place {
        // A socket without a file has no permissions (unix(7)).
        ListenAddr::Unix(path) => path == Path::new(ABSTRACT) || admits_everyone(path),
        ListenAddr::Tcp(_) => false,
    })?;
    believed.then(|| {
        format!(
            "Every user of this host may connect to {open}, and is believed about the address of \
             its client (X-Forwarded-For). Let only the proxy connect (server.socket_mode=0660 and \
             server.socket_group, or SocketMode= and SocketGroup= of the socket unit), or trust no \
             proxy (server.trusted_proxies=none)."
        )
    })
}

/// An address that the server cannot listen on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error("cannot bind {address}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("cannot bind {address}")]
    Unix { address: ListenAddr, source: SocketFileError },
    #[error("cannot set the options of the socket {address}")]
    Options { address: ListenAddr, source: io::Error },
}

impl ListenError {
    fn is_in_use(&self) -> bool {
        match self {
            Self::Tcp { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            Self::Unix { source, .. } => source.is_in_use(),
            Self::Options { .. } => false,
        }
    }

    /// The advice to the operator.
    pub(super) fn advice(&self) -> String {
        let text = match self {
            Self::Tcp { address, source } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    return format!(
                        "Another process listens there (find it with: ss -ltnp 'sport = :{}'). \
                         Stop it, or choose another port with --port.",
                        address.port()
                    );
                }
                io::ErrorKind::PermissionDenied => {
                    "Ports below 1024 need CAP_NET_BIND_SERVICE. Use a higher port behind nginx."
                }
                io::ErrorKind::AddrNotAvailable => {
                    "No interface of this host has that address. Use 0.0.0.0 for all of them."
                }
                _ => "Check the address in --host, --port or --listen.",
            },
            Self::Unix { source, .. } => source.advice(),
            Self::Options { .. } => "Check server.send_buffer.",
        };
        text.to_owned()
    }
}

/// The reason for which a socket of the service manager cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum InheritedError {
    #[error("cannot use a socket that the service manager passed (LISTEN_FDS): it does not listen")]
    NotListening,
    #[error("cannot use a socket that the service manager passed (LISTEN_FDS)")]
    System(#[from] io::Error),
    #[error(
        "the development app, whose secret is public, is not served on {0}, which the service \
         manager opened"
    )]
    DevelopmentInPublic(ListenAddr),
}

impl InheritedError {
    /// The advice to the operator.
    pub(super) const fn advice(&self) -> &'static str {
        match self {
            Self::NotListening | Self::System(_) => {
                "A socket unit needs ListenStream= with a port or a path, and Accept=no."
            }
            Self::DevelopmentInPublic(_) => {
                "Set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    const ACCESS: SocketAccess = SocketAccess { mode: 0o660, owner: None, group: None };

    fn free_port() -> SocketAddr {
        net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn every_shard_listens_on_the_same_port_and_no_other_process_can() {
        let address = free_port();
        let places = [ListenAddr::Tcp(address).into()];
        let bound = BoundListeners::bind_places(&places, ACCESS, None, 3).unwrap();
        assert_eq!(bound.listeners.iter().map(|of| of.tcp.len()).sum::<usize>(), 3);
        let error = BoundListeners::bind_places(&places, ACCESS, None, 1).unwrap_err();
        assert!(error.is_in_use(), "a second gateway took the port: {error}");
    }

    #[test]
    fn every_listener_bounds_the_queues_of_its_connections_handed_over_ones_too() {
        let path = std::env::temp_dir().join(format!("ringwave-bounds-{}", std::process::id()));
        let places = [ListenAddr::Tcp(free_port()).into(), ListenAddr::Unix(path.clone()).into()];
        let bound = BoundListeners::bind_places(&places, ACCESS, Some(100_000), 2).unwrap();
        for listeners in &bound.listeners {
            let tcp = SockRef::from(&listeners.tcp[0].socket).send_buffer_size().unwrap();
            let unix = SockRef::from(&listeners.unix[0].socket).send_buffer_size().unwrap();
            assert_eq!((tcp, unix), (100_000, 100_000));
        }
        let (socket, opening) = (net::TcpListener::bind("127.0.0.1:0").unwrap(), Opening::Http);
        let tcp = vec![Listening { socket, opening }];
        let inherited = Inherited { tcp, ..Inherited::default() };
        let shared = inherited.share(Some(100_000), 2).unwrap();
        for listeners in &shared.listeners {
            let tcp = SockRef::from(&listeners.shared_tcp[0].socket);
            assert_eq!(tcp.send_buffer_size().unwrap(), 100_000);
        }
    }

    #[test]
    fn a_left_over_socket_file_is_replaced_a_live_one_is_not_and_ours_is_removed() {
        let directory = std::env::temp_dir().join(format!("ringwave-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("gateway.sock");
        drop(unix::UnixListener::bind(&path).unwrap());
        let addresses = [ListenAddr::Unix(path.clone()).into()];
        let bound = BoundListeners::bind_places(&addresses, ACCESS, None, 2).unwrap();
        assert!(BoundListeners::bind_places(&addresses, ACCESS, None, 2).is_err(), "it is in use");
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert!(BoundListeners::bind_places(&addresses, ACCESS, None, 2).is_err(), "not ours");
        assert!(path.exists());
        fs::remove_dir_all(&directory).unwrap();
    }
}
