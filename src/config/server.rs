//! Floor 7. The settings of the server as the rest of the program takes them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::front::AddressLimits;
use crate::front::address::TrustedProxies;

use super::error::ConfigError;
use super::log_filter::LogFilter;
use super::reader::SettingsReader;
use super::settings;
use super::value_types::Account;
use super::values::{ListenAddr, ListenerConfig, LogFormat, MemoryLimit, SocketAccess};

/// The settings of the server, as the operator gave them: zero is a time of zero, not "none".
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The addresses to listen on; never empty.
    pub(crate) listeners: Vec<ListenerConfig>,
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
    /// The levels of the log, before `debug` lowers them.
    pub(crate) log: LogFilter,
    /// Format of the log.
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
    /// Whether sockets may live in the tables of the rings.
    pub(crate) direct_descriptors: bool,
    /// Time for the head of a request.
    pub(crate) header_timeout: Duration,
    /// Proxies that are believed when they tell a client's address.
    pub(crate) trusted_proxies: TrustedProxies,
    /// The limits of each client address.
    pub(crate) address_limits: AddressLimits,
    /// The memory that the process may take.
    pub(crate) memory_limit: MemoryLimit,
    /// Bytes of events that may wait for one endpoint.
    pub(crate) webhook_queue: usize,
    /// The directory that keeps undelivered webhooks over a restart.
    pub(crate) webhook_spool: Option<PathBuf>,
}

impl ServerConfig {
    /// The settings in force after a server that has these ones reads `next`: the declaration of
    /// each setting says whether its new value is taken. `server.max_request_size` is missing here,
    /// because each app has it among its limits.
    #[must_use]
    pub(crate) fn followed_by(&self, next: &Self) -> Self {
        macro_rules! in_force {
            ($setting:ident, $($field:ident).+) => {
                settings::$setting.in_force(&self.$($field).+, &next.$($field).+)
            };
        }
        Self {
            // server.host and server.port decide it too, and are declared alike.
            listeners: in_force!(LISTEN, listeners),
            socket_access: SocketAccess {
                mode: in_force!(SOCKET_MODE, socket_access.mode),
                owner: in_force!(SOCKET_OWNER, socket_access.owner),
                group: in_force!(SOCKET_GROUP, socket_access.group),
            },
            path: in_force!(PATH, path),
            hostname: in_force!(HOSTNAME, hostname),
            shards: in_force!(SHARDS, shards),
            debug: in_force!(DEBUG, debug),
            log: in_force!(LOG, log),
            log_format: in_force!(LOG_FORMAT, log_format),
            backlog_per_connection: in_force!(BACKLOG_PER_CONNECTION, backlog_per_connection),
            backlog_per_shard: in_force!(BACKLOG_PER_SHARD, backlog_per_shard),
            send_buffer: in_force!(SEND_BUFFER, send_buffer),
            shutdown_window: in_force!(SHUTDOWN_WINDOW, shutdown_window),
            max_connections_per_shard: in_force!(
                MAX_CONNECTIONS_PER_SHARD,
                max_connections_per_shard
            ),
            max_http_connections: in_force!(MAX_HTTP_CONNECTIONS, max_http_connections),
            direct_descriptors: in_force!(DIRECT_DESCRIPTORS, direct_descriptors),
            header_timeout: in_force!(HEADER_TIMEOUT, header_timeout),
            trusted_proxies: in_force!(TRUSTED_PROXIES, trusted_proxies),
            address_limits: AddressLimits {
                connections: in_force!(MAX_CONNECTIONS_PER_ADDRESS, address_limits.connections),
                requests_per_second: in_force!(
                    MAX_REQUESTS_PER_ADDRESS,
                    address_limits.requests_per_second
                ),
            },
            memory_limit: in_force!(MEMORY_LIMIT, memory_limit),
            webhook_queue: in_force!(WEBHOOK_QUEUE, webhook_queue),
            webhook_spool: in_force!(WEBHOOK_SPOOL, webhook_spool),
        }
    }

    /// The filter that the log runs by.
    #[must_use]
    pub(crate) fn log_filter(&self) -> LogFilter {
        let filter = self.log.clone();
        if self.debug { filter.with_debug() } else { filter }
    }

    /// The line that Reverb prints at its start, and which scripts wait for:
    /// `Starting server on 0.0.0.0:8081/ws (localhost)`.
    #[must_use]
    pub(crate) fn starting_line(&self) -> String {
        let listeners: Vec<_> = self.listeners.iter().map(|it| self.shown(it)).collect();
        let mut line = format!("Starting server on {}", listeners.join(", "));
        let bare_host = |listener: &ListenerConfig| match &listener.address {
            ListenAddr::Tcp(address) => address.ip().to_string() == self.hostname,
            ListenAddr::Unix(_) => false,
        };
        if !self.hostname.is_empty() && !self.listeners.iter().any(bare_host) {
            line.push_str(&format!(" ({})", self.hostname));
        }
        line
    }

    fn shown(&self, listener: &ListenerConfig) -> String {
        match &listener.address {
            address @ ListenAddr::Tcp(_) => format!("{address}{}", self.path),
            address @ ListenAddr::Unix(_) => address.to_string(),
        }
    }
}

/// Takes the settings of the server. Without a host it listens on all addresses if `any_host`, else
/// on loopback.
pub(super) fn read(
    reader: &mut SettingsReader<'_>,
    any_host: bool,
) -> Result<ServerConfig, ConfigError> {
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
        log: reader.take(&settings::LOG)?,
        log_format: reader.take(&settings::LOG_FORMAT)?,
        backlog_per_connection: reader.take(&settings::BACKLOG_PER_CONNECTION)?,
        backlog_per_shard: reader.take(&settings::BACKLOG_PER_SHARD)?,
        send_buffer: reader.take(&settings::SEND_BUFFER)?,
        shutdown_window: reader.take(&settings::SHUTDOWN_WINDOW)?,
        max_connections_per_shard: reader.take(&settings::MAX_CONNECTIONS_PER_SHARD)?,
        max_http_connections: reader.take(&settings::MAX_HTTP_CONNECTIONS)?,
        direct_descriptors: reader.take(&settings::DIRECT_DESCRIPTORS)?,
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

fn socket_access(reader: &mut SettingsReader<'_>) -> Result<SocketAccess, ConfigError> {
    let id = |account: Option<Account>| account.map(|account| account.id);
    Ok(SocketAccess {
        mode: reader.take(&settings::SOCKET_MODE)?,
        owner: id(reader.take(&settings::SOCKET_OWNER)?),
        group: id(reader.take(&settings::SOCKET_GROUP)?),
    })
}

/// Refuses an address that is listed twice: with `SO_REUSEPORT` the second socket would not fail,
/// and take half of the connections.
fn reject_twice(listeners: &[ListenerConfig]) -> Result<(), ConfigError> {
    let addresses: Vec<_> = listeners.iter().map(|listener| &listener.address).collect();
    let twice = addresses.iter().enumerate().find(|&(i, address)| addresses[..i].contains(address));
    twice.map_or(Ok(()), |(_, &address)| Err(ConfigError::DuplicateListener(address.clone())))
}
