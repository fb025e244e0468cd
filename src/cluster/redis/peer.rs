//! A server that a node connects to, as the operator knows it.

use std::fmt;

use crate::cluster::{RedisAddress, RedisLogin};

/// A server, and the one that named it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(super) address: RedisAddress,
    pub(super) named_by: NamedBy,
}

/// The origin of an address.
#[derive(Clone, Debug)]
pub(super) enum NamedBy {
    /// The settings name it as a Redis.
    Settings,
    /// The settings name it as a sentinel.
    SentinelSettings,
    /// A sentinel names it as the master.
    Sentinel(Box<str>),
    /// A server of the Redis Cluster names it as the one that has the partition.
    Cluster(Box<str>),
}

impl Peer {
    pub(super) fn of_settings(address: &RedisAddress) -> Self {
        Self { address: address.clone(), named_by: NamedBy::Settings }
    }

    pub(super) fn sentinel(address: &RedisAddress) -> Self {
        Self { address: address.clone(), named_by: NamedBy::SentinelSettings }
    }

    /// The master that this sentinel names. It speaks TLS if the sentinel does.
    pub(super) fn master(&self, host: &str, port: u16) -> Self {
        let address = RedisAddress::Tcp { host: host.into(), port, tls: self.address.is_tls() };
        Self { address, named_by: NamedBy::Sentinel(Bare(&self.address).to_string().into()) }
    }

    /// The server that this one of a Redis Cluster names, as `HOST:PORT`. A server that does not
    /// know its own host leaves it out; then it is the host that it was reached by.
    pub(super) fn moved_to(&self, target: &str) -> Option<Self> {
        let (host, port) = target.rsplit_once(':')?;
        let RedisAddress::Tcp { host: own_host, tls, .. } = &self.address else { return None };
        let host = if matches!(host, "" | "?") { own_host } else { host };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let address = RedisAddress::Tcp { host, port: port.parse().ok()?, tls: *tls };
        Some(Self { address, named_by: NamedBy::Cluster(Bare(&self.address).to_string().into()) })
    }

    /// The remedy for an address at which no server answers.
    pub(super) fn address_remedy(&self) -> String {
        match &self.named_by {
            NamedBy::Settings => {
                "start Redis there, or correct cluster.redis (REDIS_URL, or REDIS_HOST and \
                 REDIS_PORT)"
                    .to_owned()
            }
            NamedBy::SentinelSettings => {
                "start the sentinel there, or correct cluster.sentinels".to_owned()
            }
            NamedBy::Sentinel(by) => format!(
                "the sentinel at {by} names this master; if it runs, let it announce an address \
                 that this host can reach (replica-announce-ip)"
            ),
            NamedBy::Cluster(by) => format!(
                "the server at {by} names this one; if it runs, let it announce an address that \
                 this host can reach (cluster-announce-ip)"
            ),
        }
    }

    /// The settings of the user and the password.
    pub(super) const fn login_settings(&self) -> &'static str {
        match self.named_by {
            NamedBy::SentinelSettings => "cluster.sentinel_username and cluster.sentinel_password",
            _ => "REDIS_USERNAME and REDIS_PASSWORD (or those in REDIS_URL or cluster.redis)",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.named_by {
            NamedBy::SentinelSettings => "the sentinel",
            _ => "Redis",
        };
        write!(f, "{kind} at {}", Bare(&self.address))
    }
}

/// An address without a scheme: `HOST:PORT`, `[HOST]:PORT` or a path.
pub(super) struct Bare<'a>(pub(super) &'a RedisAddress);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RedisAddress::Tcp { host, port, .. } if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            RedisAddress::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            RedisAddress::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl RedisLogin {
    /// The arguments of `AUTH`; none if the server is to be used as the default user without a
    /// password.
    pub(super) fn auth_arguments(&self) -> Vec<&str> {
        let password = self.password.as_ref().map(|password| password.0.as_str());
        match (&self.username, password) {
            // As Laravel does, a name without a password is no login.
            (_, None) => Vec::new(),
            (None, Some(password)) => vec![password],
            (Some(username), Some(password)) => vec![username, password],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> RedisAddress {
        RedisAddress::Tcp { host: host.into(), port, tls: false }
    }

    #[test]
    fn addresses_read_as_an_operator_writes_them() {
        let unix = RedisAddress::Unix("/run/redis.sock".into());
        assert_eq!(Bare(&tcp("redis.local", 6379)).to_string(), "redis.local:6379");
        assert_eq!(Bare(&tcp("::1", 6379)).to_string(), "[::1]:6379");
        assert_eq!(Bare(&unix).to_string(), "/run/redis.sock");
    }

    #[test]
    fn a_server_of_a_cluster_is_named_in_every_form_that_redis_writes() {
        let own = Peer::of_settings(&tcp("10.0.0.1", 7000));
        for (target, address) in [
            ("10.0.0.2:7001", "10.0.0.2:7001"),
            ("node-2.local:7001", "node-2.local:7001"),
            ("fd00::2:7001", "[fd00::2]:7001"),
            ("[fd00::2]:7001", "[fd00::2]:7001"),
            (":7001", "10.0.0.1:7001"),
            ("?:7001", "10.0.0.1:7001"),
        ] {
            let peer = own.moved_to(target).unwrap();
            assert_eq!(Bare(&peer.address).to_string(), address, "{target}");
        }
        for target in ["", "host", "host:", "host:port", "host:70000"] {
            assert!(own.moved_to(target).is_none(), "{target}");
        }
    }
}
