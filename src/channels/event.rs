//! An event of a channel on its way from its publisher to the subscribers, and the state of a
//! channel as its home reports it.

use std::sync::Arc;
use std::time::Duration;

use crate::frame::Frame;
use crate::id::SocketId;

use super::ChannelKey;

/// An event on its way to the channel's home, and from there to the shards with subscribers.
#[derive(Clone, Debug)]
pub struct Event {
    /// The channel.
    pub key: ChannelKey,
    /// The event as subscribers get it, encoded once for all of them.
    pub frame: Frame,
    /// The connection that must not get it: the `socket_id` of a publish, or the sender of a client
    /// event.
    pub except: Option<SocketId>,
    /// The part that the home keeps as the channel's last event. `None` except for events of the
    /// API on cache channels, on the way to the home.
    pub retain: Option<Box<Retain>>,
}

/// The last event of a cache channel, as it is kept beside its frame.
#[derive(Clone, Debug)]
pub struct Retain {
    /// The event's `data`.
    pub data: Arc<str>,
    /// The time for which it is kept.
    pub ttl: Duration,
}

/// An event of a publisher's request.
#[derive(Debug)]
pub struct Publication {
    /// The event.
    pub event: Event,
    /// Whether the publisher wants the state of the channel after it (`info`).
    pub wants_state: bool,
}

/// The state of a channel as its home knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelState {
    /// Subscribed connections on all shards; the channel is occupied when there are any.
    pub subscription_count: u32,
    /// Distinct users on all shards; 0 for channels without presence.
    pub user_count: u32,
    /// The last event of a cache channel. `None` if none is kept.
    pub cached: Option<CachedEvent>,
}

impl ChannelState {
    /// Whether the channel has subscribers.
    #[must_use]
    pub(crate) const fn occupied(&self) -> bool {
        self.subscription_count > 0
    }
}

/// The last event of a cache channel, as the API reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedEvent {
    /// The event's `data`, as it was published.
    pub data: Arc<str>,
    /// The seconds for which it will still be kept.
    pub ttl_s: u64,
}
