//! The settings of a cluster, as the configuration hands them over.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of a node that shares one truth with others over Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterSettings {
    /// The name of the cluster. Nodes with the same name and Redis are one server; the keys of the
    /// cluster begin with `ringwave:` and this name.
    pub(crate) name: String,
    /// The place of Redis.
    pub(crate) place: RedisPlace,
    /// The user and the password of Redis.
    pub(crate) login: RedisLogin,
    /// The number of the database (`SELECT`); 0 on Redis Cluster, which has no other.
    pub(crate) database: u32,
    /// The files for TLS, used where an address asks for TLS.
    pub(crate) tls: TlsFiles,
    /// The number of partitions that the channels are divided into: at least 1, and the same on all
    /// nodes.
    pub(crate) partitions: u16,
    /// The silence of a node after which its members leave.
    pub(crate) lease: Duration,
    /// The time for which the inbox of a silent node is kept behind its lease.
    pub(crate) retention: Duration,
    /// The time for which requests wait for a Redis that is away.
    pub(crate) patience: Duration,
    /// The conduct of the node when Redis is away for longer than the patience.
    pub(crate) when_away: WhenAway,
    /// The bytes of commands that wait for Redis at most.
    pub(crate) backlog: usize,
    /// The bytes of unread records of a node that Redis keeps at most.
    pub(crate) inbox: u64,
}

/// The place of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedisPlace {
    /// One server.
    Standalone(RedisAddress),
    /// The master that these sentinels name.
    Sentinel {
        /// The addresses of the sentinels, at least one.
        sentinels: Vec<RedisAddress>,
        /// The name of the master.
        master: String,
        /// The user and the password of the sentinels.
        login: RedisLogin,
    },
    /// A Redis Cluster, known by at least one of its servers.
    Cluster(Vec<RedisAddress>),
}

impl RedisPlace {
    /// The addresses that are known from the start.
    pub(crate) fn addresses(&self) -> &[RedisAddress] {
        match self {
            Self::Standalone(address) => std::slice::from_ref(address),
            Self::Sentinel { sentinels, .. } => sentinels,
            Self::Cluster(servers) => servers,
        }
    }
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedisAddress {
    /// A host name or an address, without the brackets of IPv6.
    Tcp {
        /// The name or the address.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl RedisAddress {
    /// Whether TLS is spoken there.
    pub(crate) const fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }
}

impl fmt::Display for RedisPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |addresses: &[RedisAddress]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<String>>().join(",")
        };
        match self {
            Self::Standalone(address) => write!(f, "{address}"),
            Self::Sentinel { sentinels, master, .. } => {
                write!(f, "{master} of the sentinels {}", listed(sentinels))
            }
            Self::Cluster(addresses) => f.write_str(&listed(addresses)),
        }
    }
}

impl fmt::Display for RedisAddress {
    /// As an operator may write it: `rediss://redis.example:6379`, `unix:///run/redis.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "rediss" } else { "redis" };
                let [open, close] = if host.contains(':') { ["[", "]"] } else { ["", ""] };
                write!(f, "{scheme}://{open}{host}{close}:{port}")
            }
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A user and a password; none of both where the server asks for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RedisLogin {
    /// The user of the access control list; `None` is the default user.
    pub(crate) username: Option<String>,
    /// The password.
    pub(crate) password: Option<Password>,
}

/// PEM files for TLS; the roots of the system are trusted where no authority is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The certificates of the authorities that may have signed the server's.
    pub(crate) authorities: Option<PathBuf>,
    /// The certificate that this node shows, with its chain.
    pub(crate) certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub(crate) key: Option<PathBuf>,
}

/// The conduct of a node when Redis is away for longer than the patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenAway {
    /// Publishes are answered 503, and first subscriptions wait.
    Hold,
    /// The node serves its own clients alone until Redis is back.
    Local,
}

/// A password, which nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[withheld]")
    }
}
