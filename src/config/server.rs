//! Floor 6. The settings of the server as the rest of the program takes them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::front::address::TrustedProxies;
use crate::front::{AddressLimits, Opening};

use super::ConfigError;
use super::access::{Account, SocketAccess};
use super::reader::Reader;
use super::settings;

/// An address to listen on, and the protocol that is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// The address.
    pub(crate) place: ListenAddr,
    /// The protocol that connections begin with.
    pub(crate) opening: Opening,
}

impl Listener {
    /// Whether only processes of this host can connect.
    #[must_use]
    pub(crate) fn is_local(&self) -> bool {
        self.place.is_local()
    }
}

impl From<ListenAddr> for Listener {
    /// One that speaks HTTP.
    fn from(place: ListenAddr) -> Self {
        Self { place, opening: Opening::Http }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        match self.opening {
            Opening::Http => Ok(()),
            Opening::ProxyHeader => f.write_str(" (PROXY protocol)"),
        }
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddr {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl ListenAddr {
    /// Whether only processes of this host can connect.
    #[must_use]
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How much memory the process may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryLimit {
    /// The limit of its control group, which counts all processes of the group. Without such a
    /// limit, the memory of the host.
    OfHost,
    /// This many bytes, of its own memory alone.
    Bytes(u64),
    /// No limit: the memory in use is not watched.
    None,
}

/// The settings of the server. Times that are zero and sizes are as the operator gave them.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; never empty.
    pub(crate) listeners: Vec<Listener>,
    /// The permissions and owners of the unix sockets among them.
    pub(crate) socket_access: SocketAccess,
    /// Prefix of all paths: empty, or `/` and segments without a `/` at the end.
    pub(crate) path: String,
    /// The name that clients use, for display; may be empty.
    pub(crate) hostname: String,
    /// Threads that serve connections; at least 1.
    pub(crate) shards: usize,
    /// Log connections, subscriptions and messages.
    pub(crate) debug: bool,
    /// Form of the log.
    pub(crate) log_format: LogFormat,
    /// Bytes that may wait for one connection.
    pub(crate) backlog_per_connection: usize,
    /// Bytes that may wait for all connections of a shard together.
    pub(crate) backlog_per_shard: usize,
    /// Bytes of the kernel's memory that may be queued for one connection. `None` leaves the size
    /// to the kernel (`net.ipv4.tcp_wmem`).
    pub(crate) send_buffer: Option<usize>,
    /// Time over which a stopping server spreads its closes; may be zero. `None`: as long as the
    /// number of connections asks for.
    pub shutdown_window: Option<Duration>,
    /// Slots of one shard; `None`: what the limit of open files allows.
    pub(crate) max_connections_per_shard: Option<u32>,
    /// HTTP connections of one shard at a time.
    pub(crate) max_http_connections: usize,
    /// Time for the head of a request.
    pub(crate) header_timeout: Duration,
    /// Proxies that are believed when they tell a client's address.
    pub(crate) trusted_proxies: TrustedProxies,
    /// The limits of each client address.
    pub(crate) address_limits: AddressLimits,
    /// How much memory the process may take.
    pub(crate) memory_limit: MemoryLimit,
    /// Bytes of events that may wait for one endpoint.
    pub(crate) webhook_queue: usize,
    /// The directory that keeps undelivered webhooks over a restart.
    pub(crate) webhook_spool: Option<PathBuf>,
}

impl ServerConfig {
    /// The settings in force after a server that has these ones reads `next`: it takes from `next`
    /// exactly those that are declared to change by a reload. `server.max_request_size` is missing
    /// here, because each app has it among its limits.
    #[must_use]
    pub(crate) fn followed_by(&self, next: &Self) -> Self {
        Self {
            path: next.path.clone(),
            hostname: next.hostname.clone(),
            debug: next.debug,
            backlog_per_connection: next.backlog_per_connection,
            backlog_per_shard: next.backlog_per_shard,
            shutdown_window: next.shutdown_window,
            header_timeout: next.header_timeout,
            trusted_proxies: next.trusted_proxies.clone(),
            address_limits: next.address_limits,
            memory_limit: next.memory_limit,
            webhook_queue: next.webhook_queue,
            ..self.clone()
        }
    }

    /// The line that Reverb prints at its start, and which scripts wait for:
    /// `Starting server on 0.0.0.0:8081/ws (localhost)`.
    #[must_use]
    pub(crate) fn starting_line(&self) -> String {
        let places: Vec<_> = self.listeners.iter().map(|place| self.shown(place)).collect();
        let mut line = format!("Starting server on {}", places.join(", "));
        let bare_host = |listener: &Listener| match &listener.place {
            ListenAddr::Tcp(address) => address.ip().to_string() == self.hostname,
            ListenAddr::Unix(_) => false,
        };
        if !self.hostname.is_empty() && !self.listeners.iter().any(bare_host) {
            line.push_str(&format!(" ({})", self.hostname));
        }
        line
    }

    fn shown(&self, listener: &Listener) -> String {
        match &listener.place {
            place @ ListenAddr::Tcp(_) => format!("{place}{}", self.path),
            place @ ListenAddr::Unix(_) => place.to_string(),
        }
    }
}

/// Takes the settings of the server. `any_host` says whether to listen on all addresses when no
/// host is given.
pub(super) fn read(reader: &mut Reader<'_>, any_host: bool) -> Result<ServerConfig, ConfigError> {
    let default_host = if any_host { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let host = reader.take_or(&settings::HOST, IpAddr::V4(default_host))?;
    let port = reader.take(&settings::PORT)?;
    let mut listeners = reader.take(&settings::LISTEN)?;
    if listeners.is_empty() {
        listeners.push(ListenAddr::Tcp(SocketAddr::new(host, port)).into());
    }
    reject_twice(&listeners)?;
    Ok(ServerConfig {
        listeners,
        socket_access: socket_access(reader)?,
        path: reader.take(&settings::PATH)?,
        hostname: reader.take(&settings::HOSTNAME)?,
        shards: reader.take_or(&settings::SHARDS, cores())?,
        debug: reader.take(&settings::DEBUG)?,
        log_format: reader.take(&settings::LOG_FORMAT)?,
        backlog_per_connection: reader.take(&settings::BACKLOG_PER_CONNECTION)?,
        backlog_per_shard: reader.take(&settings::BACKLOG_PER_SHARD)?,
        send_buffer: reader.take(&settings::SEND_BUFFER)?,
        shutdown_window: reader.take(&settings::SHUTDOWN_WINDOW)?,
        max_connections_per_shard: reader.take(&settings::MAX_CONNECTIONS_PER_SHARD)?,
        max_http_connections: reader.take(&settings::MAX_HTTP_CONNECTIONS)?,
        header_timeout: reader.take(&settings::HEADER_TIMEOUT)?,
        trusted_proxies: reader.take(&settings::TRUSTED_PROXIES)?,
        address_limits: AddressLimits {
            connections: reader.take(&settings::MAX_CONNECTIONS_PER_ADDRESS)?,
            requests_per_second: reader.take(&settings::MAX_REQUESTS_PER_ADDRESS)?,
        },
        memory_limit: match reader.take(&settings::MEMORY_LIMIT)? {
            None => MemoryLimit::OfHost,
            Some(None) => MemoryLimit::None,
            Some(Some(bytes)) => MemoryLimit::Bytes(bytes),
        },
        webhook_queue: reader.take(&settings::WEBHOOK_QUEUE)?,
        webhook_spool: reader.take(&settings::WEBHOOK_SPOOL)?,
    })
}

/// The cores that this process may use.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn socket_access(reader: &mut Reader<'_>) -> Result<SocketAccess, ConfigError> {
    let id = |account: Option<Account>| account.map(|account| account.id);
    Ok(SocketAccess {
        mode: reader.take(&settings::SOCKET_MODE)?,
        owner: id(reader.take(&settings::SOCKET_OWNER)?),
        group: id(reader.take(&settings::SOCKET_GROUP)?),
    })
}

/// With `SO_REUSEPORT` a second socket on the same address would not even fail.
fn reject_twice(listeners: &[Listener]) -> Result<(), ConfigError> {
    let places: Vec<_> = listeners.iter().map(|listener| &listener.place).collect();
    let twice = places.iter().enumerate().find(|&(i, place)| places[..i].contains(place));
    twice.map_or(Ok(()), |(_, place)| {
        Err(ConfigError(format!("server.listen names {place} twice: each place once will do")))
    })
}
