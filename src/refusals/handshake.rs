//! WebSockets that are refused at their handshake. The client is told the code and a short text;
//! the operator is told what came and what is configured.

use std::fmt;

use crate::protocol::app::{App, Apps};
use crate::protocol::origin::OriginRefused;
use crate::protocol::signing::query_pairs;
use crate::text::{Quoted, Shortened};

use super::{Cause, Served};

/// Why one is refused, and with which facts.
#[derive(Debug)]
pub(crate) enum Handshake<'a> {
    /// No app has the key of the URL.
    UnknownKey {
        /// As in the URL.
        key: &'a str,
        /// The apps that are served.
        apps: &'a Apps,
    },
    /// The app is switched off.
    Disabled,
    /// The version of the protocol is not spoken.
    Version {
        /// The query of the URL.
        query: &'a str,
    },
    /// The page may not connect.
    Origin {
        /// The values of `Origin`; one, unless it is missing or not as a browser sends it.
        origins: &'a [&'a str],
        /// The app whose list refused it.
        app: &'a App,
    },
    /// The app has as many connections as it may.
    Quota(&'a App),
    /// There is too little memory.
    Memory,
    /// The shard's table is full.
    NoSlot,
    /// The client's address has as many connections as it may.
    AddressConnections(Option<u32>),
    /// The client's address sends more handshakes and requests per second than it may.
    AddressRate(Option<u32>),
}

impl Handshake<'_> {
    pub(super) const fn cause(&self) -> Cause {
        match self {
            Self::UnknownKey { .. } => Cause::UnknownKey,
            Self::Disabled => Cause::Disabled,
            Self::Version { .. } => Cause::Version,
            Self::Origin { .. } => Cause::Origin,
            Self::Quota(_) => Cause::Quota,
            Self::Memory => Cause::Memory,
            Self::NoSlot => Cause::NoSlot,
            Self::AddressConnections(_) => Cause::AddressConnections,
            Self::AddressRate(_) => Cause::AddressRate,
        }
    }
}

impl fmt::Display for Handshake<'_> {
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
                     5, 6 and 7 are served: update the client's library",
                    Quoted(&asked)
                )
            }
            Self::Origin { origins, app } => origin_refused(f, origins, app),
            Self::Quota(app) => write!(
                f,
                "connection refused with 4004: the app has {} connections, as many as it may: raise \
                 app.max_connections (REVERB_APP_MAX_CONNECTIONS)",
                app.max_connections.unwrap_or_default()
            ),
            Self::Memory => f.write_str(
                "connection refused with 4100 for lack of memory, as told above with how much is used: \
                 raise server.memory_limit (RINGWAVE_MEMORY_LIMIT), or give the host more",
            ),
            Self::NoSlot => f.write_str(
                "connection refused with 4100: the shard holds as many connections as it can: raise \
                 the limit of open files (ulimit -n, LimitNOFILE=) and \
                 server.max_connections_per_shard",
            ),
            Self::AddressConnections(most) => write!(
                f,
                "connection refused with 4100: {}",
                TooManyConnections(most.unwrap_or_default())
            ),
            Self::AddressRate(most) => {
                write!(f, "connection refused with 4100: {}", TooFast(most.unwrap_or_default()))
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
        Served(apps)
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
            "the origin {} is not a scheme, a host and perhaps a port; the list has {list}: no \
             browser sends it, see which client does",
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
            "it names no origin, as no client does that is not a browser; the list has {list}: only \
             * in app.allowed_origins (RINGWAVE_ALLOWED_ORIGINS) lets it in"
        ),
    }
}

/// The address of a WebSocket or request has as many connections as it may.
pub(super) struct TooManyConnections(pub(super) u32);

impl fmt::Display for TooManyConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(most) = self;
        write!(
            f,
            "its address has {most} connections, as many as one may: raise \
             server.max_connections_per_address (RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS), or name it \
             in server.trusted_proxies if it is a proxy"
        )
    }
}

/// The address of a WebSocket or request sends more per second than it may.
pub(super) struct TooFast(pub(super) u32);

impl fmt::Display for TooFast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(most) = self;
        write!(
            f,
            "its address sends more than {most} handshakes and requests per second: raise \
             server.max_requests_per_address (RINGWAVE_MAX_REQUESTS_PER_ADDRESS), or name it in \
             server.trusted_proxies if it is a proxy"
        )
    }
}
