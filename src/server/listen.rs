//! Binding the listeners, before any shard starts: each TCP address once per shard
//! (`SO_REUSEPORT`), each unix socket once for all. Or taking over those that a service manager
//! opened: all shards accept from each of them, and no process closes them, so that connections
//! wait in their queues while the service restarts.

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

use super::unix_socket::{self, Fault, admits_everyone};
use super::{StartError, listener_options};
use crate::config::{Config, ListenAddr, Listener, ServerConfig, SocketAccess};
use crate::front::address::Trusted;
use crate::front::{Listeners, Listening, Opening};

/// The connections that the kernel may queue for a listener; it caps this at `net.core.somaxconn`.
const ACCEPT_QUEUE: i32 = 65_535;

/// Stands for the path of a socket that has none.
const ABSTRACT: &str = "(abstract)";

/// A predecessor's listener was seen for 10 ms after its end. Short enough for an operator who
/// waits to read that another process has the port.
const LEFT_OVER_TIME: Duration = Duration::from_secs(1);
const LEFT_OVER_PAUSE: Duration = Duration::from_millis(5);

/// Bound sockets of all shards. Removes the files of unix sockets when dropped.
#[derive(Debug)]
pub(super) struct Bound {
    /// By shard.
    pub(crate) listeners: Vec<Listeners>,
    /// Unlinks the sockets' files.
    pub(crate) files: SocketFiles,
    /// The sockets outlive the process, and with them the connections that wait in their queues.
    pub(crate) inherited: bool,
}

/// Files of unix sockets, removed when dropped.
#[derive(Debug, Default)]
pub(super) struct SocketFiles(Vec<PathBuf>);

impl Bound {
    /// Binds every address of the configuration for every shard.
    pub(super) fn bind(server: &ServerConfig) -> Result<Self, StartError> {
        Self::bind_places(
            &server.listeners,
            server.socket_access,
            server.send_buffer,
            server.shards,
        )
    }

    /// Binds every place for every shard. `access` says who may connect to unix sockets.
    fn bind_places(
        places: &[Listener],
        access: SocketAccess,
        send_buffer: Option<usize>,
        shards: usize,
    ) -> Result<Self, StartError> {
        let mut bound = Self {
            listeners: (0..shards).map(|_| Listeners::default()).collect(),
            files: SocketFiles::default(),
            inherited: false,
        };
        for Listener { place, opening } in places {
            let refused = |error| StartError::Listen { address: place.clone(), error };
            let bind = |bound: &mut Self| match place {
                ListenAddr::Tcp(socket) => bound.bind_tcp(*socket, *opening),
                ListenAddr::Unix(path) => bound.bind_unix(path, access, *opening),
            };
            let bound_queues = |bound: &Self| {
                bound.listeners.iter().try_for_each(|of| bound_queues(of, send_buffer))
            };
            when_free(|| bind(&mut bound)).and_then(|()| bound_queues(&bound)).map_err(refused)?;
        }
        Ok(bound)
    }

    fn bind_tcp(&mut self, address: SocketAddr, opening: Opening) -> io::Result<()> {
        // Sockets that share a port would also share it with another gateway of the same user.
        // One that doesn't share finds out whether the port is free.
        drop(tcp(address, false)?);
        for listeners in &mut self.listeners {
            listeners.tcp.push(Listening { socket: tcp(address, true)?, opening });
        }
        Ok(())
    }

    fn bind_unix(&mut self, path: &Path, access: SocketAccess, opening: Opening) -> io::Result<()> {
        let listener = unix_socket::listen(path, access, ACCEPT_QUEUE)?;
        self.files.0.push(path.to_owned());
        for listeners in &mut self.listeners {
            listeners.unix.push(Listening { socket: listener.try_clone()?, opening });
        }
        Ok(())
    }
}

/// Sockets that the process was started with (`LISTEN_FDS`, sd_listen_fds(3)); often none. If there
/// are any, the process listens on them and on nothing else.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    tcp: Vec<Listening<net::TcpListener>>,
    unix: Vec<Listening<unix::UnixListener>>,
    addresses: Vec<Listener>,
}

impl Inherited {
    /// Takes them over. To be called once, before any thread starts: it changes the environment.
    /// One that `configured` names with the PROXY protocol speaks it: nothing else could say so.
    pub(super) fn take(configured: &[Listener]) -> Result<Self, StartError> {
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..sockets.len() {
            inherited.take_one(&mut sockets, index, configured).map_err(StartError::Inherited)?;
        }
        Ok(inherited)
    }

    fn take_one(
        &mut self,
        sockets: &mut ListenFd,
        index: usize,
        configured: &[Listener],
    ) -> io::Result<()> {
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

    fn note(&mut self, place: ListenAddr, configured: &[Listener]) -> Opening {
        let same = configured.iter().find(|listener| listener.place == place);
        let opening = same.map_or(Opening::Http, |listener| listener.opening);
        self.addresses.push(Listener { place, opening });
        opening
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Makes the configuration say where the process really listens, and refuses what it would have
    /// refused there.
    pub(super) fn replace_listeners(&self, config: &mut Config) -> Result<(), StartError> {
        if self.is_empty() {
            return Ok(());
        }
        let public = self.addresses.iter().find(|place| !place.is_local());
        if let (true, Some(public)) = (config.development, public) {
            return Err(StartError::DevelopmentInPublic(public.place.clone()));
        }
        config.server.listeners.clone_from(&self.addresses);
        Ok(())
    }

    /// Clones every socket for every shard. Their files are not ours to remove.
    pub(super) fn share(
        &self,
        send_buffer: Option<usize>,
        shards: usize,
    ) -> Result<Bound, StartError> {
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
        let listeners = (0..shards).map(|_| clones()).collect::<Result<_, _>>();
        Ok(Bound {
            listeners: listeners.map_err(StartError::Inherited)?,
            files: SocketFiles::default(),
            inherited: true,
        })
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

/// A socket of `Accept=yes`, or one that is merely bound, is none to accept from.
fn must_listen(socket: &impl AsFd) -> io::Result<()> {
    match rustix::net::sockopt::socket_acceptconn(socket)? {
        true => Ok(()),
        false => Err(io::Error::other("it does not listen")),
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

/// Tries again for a while where the address is in use: the kernel ends the rings of a killed
/// process, and with them its accepts and listeners, only after the process is gone, so that the
/// next one, started at once, still meets them.
fn when_free(mut bind: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let started = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
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
        // `::` takes IPv4 connections too, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit it: a frame must not wait for the acknowledgement of another.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(ACCEPT_QUEUE)?;
    } else {
        // Only listening conflicts with a listener that shares its port.
        socket.listen(1)?;
    }
    Ok(socket.into())
}

/// A sentence for the operator if every user of this host is believed about addresses of clients,
/// because all of them may connect to a unix socket and those who do are trusted proxies.
pub(super) fn believed_strangers(server: &ServerConfig) -> Option<String> {
    let believed = server.trusted_proxies.iter().any(|trusted| *trusted == Trusted::Unix);
    let of_http = server.listeners.iter().filter(|listener| listener.opening == Opening::Http);
    let open = of_http.map(|listener| &listener.place).find(|place| match place {
        // A socket without a file has no permissions (unix(7)).
        ListenAddr::Unix(path) => path == Path::new(ABSTRACT) || admits_everyone(path),
        ListenAddr::Tcp(_) => false,
    })?;
    believed.then(|| {
        format!(
            "Every user of this host may connect to {open}, and is believed about the address of \
             its client (X-Forwarded-For). Let only the proxy connect (server.socket_mode=0660 and \
             server.socket_group, or SocketMode= and SocketGroup= of the socket unit), or believe \
             nobody (server.trusted_proxies=none)."
        )
    })
}

/// The advice to the operator after a refusal to listen.
pub(super) fn advice(address: &ListenAddr, error: &io::Error) -> String {
    if let Some(fault) = Fault::within(error) {
        return fault.remedy.to_owned();
    }
    match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, ListenAddr::Tcp(socket)) => format!(
            "Another process listens there (find it with: ss -ltnp 'sport = :{}'). \
             Stop it, or choose another port with --port.",
            socket.port()
        ),
        (io::ErrorKind::AddrInUse, ListenAddr::Unix(_)) => {
            "Another process listens there. Stop it, or choose another path.".to_owned()
        }
        (io::ErrorKind::PermissionDenied, ListenAddr::Tcp(_)) => {
            "Ports below 1024 need CAP_NET_BIND_SERVICE. Use a higher port behind nginx.".to_owned()
        }
        (io::ErrorKind::PermissionDenied, ListenAddr::Unix(_)) => {
            "The directory must be writable for the user that runs ringwave.".to_owned()
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            "No interface of this host has that address. Use 0.0.0.0 for all of them.".to_owned()
        }
        (io::ErrorKind::AlreadyExists, _) => {
            "Something that is not a socket is there. Remove it, or choose another path.".to_owned()
        }
        _ => "Check the address in --host, --port or --listen.".to_owned(),
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
    fn every_shard_listens_on_the_same_port_and_nobody_else_can() {
        let address = free_port();
        let places = [ListenAddr::Tcp(address).into()];
        let bound = Bound::bind_places(&places, ACCESS, None, 3).unwrap();
        assert_eq!(bound.listeners.iter().map(|of| of.tcp.len()).sum::<usize>(), 3);
        let Err(StartError::Listen { error, .. }) = Bound::bind_places(&places, ACCESS, None, 1)
        else {
            panic!("a second gateway took the port");
        };
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn every_listener_bounds_the_queues_of_its_connections_handed_over_ones_too() {
        let path = std::env::temp_dir().join(format!("ringwave-bounds-{}", std::process::id()));
        let places = [ListenAddr::Tcp(free_port()).into(), ListenAddr::Unix(path.clone()).into()];
        let bound = Bound::bind_places(&places, ACCESS, Some(100_000), 2).unwrap();
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
        let bound = Bound::bind_places(&addresses, ACCESS, None, 2).unwrap();
        assert!(Bound::bind_places(&addresses, ACCESS, None, 2).is_err(), "it is in use");
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert!(Bound::bind_places(&addresses, ACCESS, None, 2).is_err(), "not ours");
        assert!(path.exists());
        fs::remove_dir_all(&directory).unwrap();
    }
}
