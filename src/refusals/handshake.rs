//! WebSocket handshakes that are refused. The client gets a close code and a short text; the log
//! says what came and what is configured.

use std::fmt;

use crate::apps::{App, Apps};
use crate::protocol::origin::OriginRefused;
use crate::protocol::signing::query_pairs;
use crate::text::{Quoted, Shortened};

use super::cause::Cause;
use super::phrases::{Reached, ServedApps};

/// The reason for which a handshake is refused, with the facts that its sentence needs.
#[derive(Debug)]
pub(crate) enum RefusedHandshake<'a> {
    /// No app has the key of the URL.
    UnknownKey {
        /// The key, as in the URL.
        key: &'a str,
        /// The apps that are served.
        apps: &'a Apps,
    },
    /// The app is switched off.
    Disabled,
    /// The version of the Pusher protocol is not supported.
    Version {
        /// The query of the URL.
        query: &'a str,
    },
    /// The origin of the page is not allowed.
    Origin {
        /// The values of `Origin` headers. A browser sends exactly one.
        origins: &'a [&'a str],
        /// The app whose list of origins refused it.
        app: &'a App,
    },
    /// The app has as many connections as it may.
    Quota(&'a App),
    /// Redis does not say whether the app may have one more connection.
    QuotaUnknown,
    /// There is too little memory.
    Memory,
    /// The shard's table of sockets is full.
    NoSlot,
    /// The client's address has as many connections as it may.
    AddressConnections(Option<u32>),
    /// The client's address sends more handshakes and requests per second than it may.
    AddressRate(Option<u32>),
}

impl RefusedHandshake<'_> {
    pub(super) const fn cause(&self) -> Cause {
        match self {
            Self::UnknownKey { .. } => Cause::UnknownKey,
            Self::Disabled => Cause::Disabled,
            Self::Version { .. } => Cause::Version,
            Self::Origin { .. } => Cause::Origin,
            Self::Quota(_) => Cause::Quota,
            Self::QuotaUnknown => Cause::QuotaUnknown,
            Self::Memory => Cause::Memory,
            Self::NoSlot => Cause::NoSlot,
            Self::AddressConnections(_) => Cause::AddressConnections,
            Self::AddressRate(_) => Cause::AddressRate,
        }
    }
}

impl fmt::Display for RefusedHandshake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key, apps } => unknown_key(f, key, apps),
            Self::Disabled => f.write_str(
                "connection refused with 4003: the app is switched off: set enabled = true for it \
                 in ringwave.toml and run `ringwave reload`",
            ),
            Self::Version { query } => {
                let asked = query_pairs(query).find(|(name, _)| name == "protocol");
                let asked = asked.map(|(_, version)| version).unwrap_or_default();
                write!(
                    f,
                    "connection refused with 4007: it asks for version {} of the Pusher protocol; \
                     5, 6 and 7 are served: update the client library",
                    Quoted(&asked)
                )
            }
            Self::Origin { origins, app } => origin_refused(f, origins, app),
            Self::Quota(app) => write!(
                f,
                "connection refused with 4004: the app has {} connections, its maximum: raise \
                 app.max_connections (REVERB_APP_MAX_CONNECTIONS)",
                Reached(app.max_connections)
            ),
            Self::QuotaUnknown => f.write_str(
                "connection refused with 4100: Redis does not say whether the app may have one \
                 more connection (app.max_connections), because it is away or too slow (the line \
                 about Redis above says why): the client tries again after a second",
            ),
            Self::Memory => f.write_str(
                "connection refused with 4100 for lack of memory (the line about memory above says how \
                 much is used): raise server.memory_limit (RINGWAVE_MEMORY_LIMIT), or give the \
                 host more memory",
            ),
            Self::NoSlot => f.write_str(
                "connection refused with 4100: the shard's table of connections is full: raise the \
                 limit of open files (ulimit -n, LimitNOFILE=) and \
                 server.max_connections_per_shard",
            ),
            Self::AddressConnections(most) => write!(
                f,
                "connection refused with 4100: {}",
                TooManyConnections(*most)
            ),
            Self::AddressRate(most) => {
                write!(f, "connection refused with 4100: {}", TooFast(*most))
            }
        }
    }
}

fn unknown_key(f: &mut fmt::Formatter<'_>, key: &str, apps: &Apps) -> fmt::Result {
    write!(f, "connection refused with 4001: unknown key {}", Shortened(key))?;
    if apps.by_id(key).is_some() {
        f.write_str(", which is the id of an app and not its key")?;
    }
    write!(
        f,
        "; {}: VITE_REVERB_APP_KEY, which was built into the page, has to be REVERB_APP_KEY of this \
         server",
        ServedApps(apps)
    )
}

fn origin_refused(f: &mut fmt::Formatter<'_>, origins: &[&str], app: &App) -> fmt::Result {
    let list = &app.allowed_origins;
    let joined = origins.join(", ");
    let origin = (!origins.is_empty()).then_some(joined.as_str());
    f.write_str("connection refused with 4009: ")?;
    match (origin, list.check(origin)) {
        (Some(origin), Err(OriginRefused::Malformed)) => write!(
            f,
            "the origin {} is not a scheme, a host and optionally a port; the list has {list}: \
             no browser sends such an origin, so find out which client does",
            Quoted(origin)
        ),
        (Some(origin), _) => write!(
            f,
            "the origin {} is not in the list, which has {list}: add its host to \
             app.allowed_origins (RINGWAVE_ALLOWED_ORIGINS)",
            Quoted(origin)
        ),
        (None, _) => write!(
            f,
            "it names no origin, because it is not a browser; the list has {list}: only * in \
             app.allowed_origins (RINGWAVE_ALLOWED_ORIGINS) admits such clients"
        ),
    }
}

/// The reason that the client's address has its maximum of connections.
pub(super) struct TooManyConnections(pub(super) Option<u32>);

impl fmt::Display for TooManyConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = Reached(self.0);
        write!(
            f,
            "its address has {most} connections, the maximum of an address: raise \
             server.max_connections_per_address (RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS), or add it \
             to server.trusted_proxies if it is a proxy"
        )
    }
}

/// The reason that the client's address sends more per second than it may.
pub(super) struct TooFast(pub(super) Option<u32>);

impl fmt::Display for TooFast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = Reached(self.0);
        write!(
            f,
            "its address sends more than {most} handshakes and requests per second: raise \
             server.max_requests_per_address (RINGWAVE_MAX_REQUESTS_PER_ADDRESS), or add it to \
             server.trusted_proxies if it is a proxy"
        )
    }
}
