//! Floor 2. The counters that a shard keeps for its operator.
//!
//! Contract: a shard owns its counters. They are plain integers that change when something happens,
//! so an event costs an addition, and a scrape copies them: what it costs does not depend on the
//! number of connections. Nothing here is shared, locked, or counted by a walk.
//!
//! Memory is bounded whatever the number of apps: the first [`APPS_MAX`] have counters of their
//! own, and all later ones share one set ([`PerApp`]).

mod close_cause;
mod histogram;
mod per_app;
mod requests;
#[cfg(feature = "testing")]
mod testing;

use crate::protocol::names::ChannelKind;

pub(crate) use close_cause::CloseCause;
pub(crate) use histogram::{DurationHistogram, LongDurations, ShortDurations};
pub(crate) use per_app::{APPS_MAX, PerApp};
pub(crate) use requests::{ApiRoute, HANDSHAKE_CODES, RequestCounters, STATUSES};
#[cfg(feature = "testing")]
pub use testing::FullCounters;

/// A count for each kind of channel.
pub(crate) type ByKind = [u64; KINDS.len()];

/// The kinds of channels in the order of their numbers, each with its name.
pub(crate) const KINDS: [(ChannelKind, &str); 9] = [
    (ChannelKind::Public, "public"),
    (ChannelKind::Cache, "cache"),
    (ChannelKind::Private, "private"),
    (ChannelKind::PrivateCache, "private-cache"),
    (ChannelKind::Encrypted, "private-encrypted"),
    (ChannelKind::EncryptedCache, "private-encrypted-cache"),
    (ChannelKind::Presence, "presence"),
    (ChannelKind::PresenceCache, "presence-cache"),
    (ChannelKind::ServerToUser, "server-to-user"),
];

/// The counters of one app's connections on a shard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectionCounters {
    /// Connections that were opened.
    pub(crate) opened: u64,
    /// Connections that have ended, by cause.
    pub(crate) closed: [u64; CloseCause::ALL.len()],
    /// Messages of clients.
    pub(crate) messages: u64,
    /// Bytes of their payloads.
    pub(crate) message_bytes: u64,
    /// Client events that were sent on to their channels.
    pub(crate) client_events: u64,
    /// Messages of channels that were owed to subscribers: one event for a thousand subscribers
    /// counts a thousand times.
    pub(crate) deliveries: u64,
    /// Bytes of these, with their WebSocket headers.
    pub(crate) delivered_bytes: u64,
}

/// The counters of one app's channels whose home is a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelCounters {
    /// Occupied channels.
    pub(crate) occupied: ByKind,
    /// Users who are present in presence channels.
    pub(crate) members: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_number() {
        assert!(KINDS.iter().enumerate().all(|(number, (kind, _))| *kind as usize == number));
    }
}
