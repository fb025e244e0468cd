//! Floor 7. The values of settings that no lower floor has a type for: addresses to listen on,
//! access to unix sockets, the format of the log, the limit of memory, the kind of Redis.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::front::Opening;

/// An address to listen on, and the protocol that is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The address.
    pub(crate) address: ListenAddr,
    /// The protocol that connections begin with.
    pub(crate) opening: Opening,
}

impl ListenerConfig {
    /// Whether only processes of this host can connect.
    #[must_use]
    pub(crate) fn is_local(&self) -> bool {
        self.address.is_local()
    }
}

impl From<ListenAddr> for ListenerConfig {
    /// One that speaks HTTP.
    fn from(address: ListenAddr) -> Self {
        Self { address, opening: Opening::Http }
    }
}

impl fmt::Display for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        match self.opening {
            Opening::Http => Ok(()),
            Opening::ProxyHeader => f.write_str(" (PROXY protocol)"),
        }
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
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

/// The permissions, owner and group of the file of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketAccess {
    /// Permission bits; connecting takes the right to write.
    pub(crate) mode: u32,
    /// The user id; `None`: the user that runs the server.
    pub(crate) owner: Option<u32>,
    /// The group id; `None`: the group that the server runs with.
    pub(crate) group: Option<u32>,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The memory that the process may take.
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

/// The kind of Redis that the nodes of a cluster share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedisMode {
    /// One server.
    Standalone,
    /// The master that sentinels name.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}
