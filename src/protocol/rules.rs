//! Floor 1. The rules of an app: everything of its settings that the protocol decides by.
//!
//! Contract: plain values. The caller hands the rules to each function as they are at that moment,
//! so a reload that changes them holds for the next message.

use std::time::Duration;

use super::secret::Secret;

/// The settings of an app by which the protocol judges clients, their messages, and requests.
#[derive(Clone, Debug)]
pub struct AppRules {
    /// Whether the app is served. The sessions of one that is not close with 4003.
    pub standing: Standing,
    /// The public key, as in `/app/{key}`.
    pub key: String,
    /// The signing secret. Never printed.
    pub secret: Secret,
    /// Further keys, good for everything that clients and publishers do with the first one: the
    /// old ones while an app changes to a new one. The server itself signs with the first key.
    pub more_keys: Vec<KeyPair>,
    /// The seconds for which clients wait before they ping, as the server tells them; at least 1.
    pub activity_timeout_s: u32,
    /// The clients that may send client events.
    pub client_events: ClientEvents,
    /// Client events on public channels too, as Reverb allows and Pusher does not.
    pub client_events_on_public: bool,
    /// Messages per window and connection; `None`: any number.
    pub rate_limit: Option<RateLimit>,
    /// Refuse channel names outside of Pusher's alphabet, of subscribers and publishers alike.
    pub strict_names: bool,
    /// Also send `pusher:subscription_error` when a subscribe fails, as Pusher does
    /// and Reverb does not.
    pub subscription_errors: bool,
    /// How far `auth_timestamp` may be from our clock; zero: unchecked.
    pub auth_timestamp_tolerance: Duration,
    /// The other limits.
    pub limits: Limits,
}

impl AppRules {
    /// Whether the app is switched on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.standing == Standing::Enabled
    }

    /// The secret that signs with this key, if the key is one of the app's.
    #[must_use]
    pub fn secret_of(&self, key: &str) -> Option<&Secret> {
        if key == self.key {
            return Some(&self.secret);
        }
        self.more_keys.iter().find(|pair| pair.key == key).map(|pair| &pair.secret)
    }

    /// All keys of the app, the first one first.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let more = self.more_keys.iter().map(|pair| pair.key.as_str());
        std::iter::once(self.key.as_str()).chain(more)
    }
}

/// The standing of an app in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is served.
    Enabled,
    /// It is configured, but switched off: its connections close with 4003, its API answers 403.
    Disabled,
    /// It is no longer configured: lookups do not find it, and its connections close with 4003.
    Removed,
}

/// One key of an app, and the secret that signs with it.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The public key, as in `/app/{key}`.
    pub key: String,
    /// The signing secret. Never printed.
    pub secret: Secret,
}

/// The clients that may send client events ("whispers"; Reverb's `accept_client_events_from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvents {
    /// All clients that are connected to the app, subscribed to the channel or not.
    All,
    /// Subscribers of the channel only.
    Members,
    /// No client: a client event is answered with 4301.
    None,
}

/// How many messages of any kind a connection may send per window
/// (Reverb's `REVERB_APP_RATE_LIMIT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Messages per window.
    pub max_attempts: u32,
    /// Length of the window.
    pub decay: Duration,
    /// Close the connection on excess instead of answering 4301.
    pub terminate: bool,
}

/// The limits of an app. Bytes are bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest WebSocket message taken, in bytes; past it the connection closes with 1009.
    pub max_message_size: usize,
    /// Longest channel name, in bytes, prefix included.
    pub max_channel_name: usize,
    /// Longest event name, in bytes; `None`: only the size of request or message counts.
    pub max_event_name: Option<usize>,
    /// Largest `data` of a published event in bytes; `None`: only the request's size counts.
    pub max_event_data: Option<usize>,
    /// Most channels of one publish.
    pub max_channels_per_event: usize,
    /// Most events of one batch; `None`: only the request's size counts.
    pub max_batch: Option<usize>,
    /// Largest HTTP body in bytes.
    pub max_request_size: usize,
    /// Most channels that one connection may be subscribed to at a time.
    pub max_channels_per_connection: usize,
    /// Most members of a presence channel; `None`: any number.
    pub max_presence_members: Option<usize>,
    /// Largest `user_info` of a presence member in bytes of JSON; `None`: only the message's size
    /// counts.
    pub max_presence_user_info: Option<usize>,
    /// Longest `user_id` in bytes.
    pub max_user_id: usize,
    /// Most users that a signed-in user watches.
    pub max_watchlist: usize,
    /// Client events per second and connection; `None`: any number.
    pub max_client_events_per_second: Option<u32>,
    /// Largest `data` of a client event in bytes; `None`: only the message's size counts.
    pub max_client_event_data: Option<usize>,
    /// Requests of the HTTP API per second, over all shards; `None`: any number. Past it: 429.
    pub max_requests_per_second: Option<u32>,
}

impl Default for Limits {
    /// The limits that Reverb's users are used to. Where Reverb has none and a single client could
    /// therefore take any amount of memory, the limit is Pusher's or that of its server libraries.
    fn default() -> Self {
        Self {
            max_message_size: 10_000,
            max_channel_name: 200,
            max_event_name: None,
            max_event_data: None,
            // Each channel gets a copy of the data: without a bound one request of `n` bytes could
            // take the square of that. Laravel sends 100 at a time.
            max_channels_per_event: 100,
            max_batch: None,
            // Reverb's 10 000 count the head too and are known to be too few for a batch.
            max_request_size: 100_000,
            // Reverb has none. Well past any page's needs, and bounds what one connection can
            // make a shard hold to a few megabytes.
            max_channels_per_connection: 10_000,
            max_presence_members: None,
            max_presence_user_info: None,
            max_user_id: 200,
            max_watchlist: 100,
            max_client_events_per_second: None,
            max_client_event_data: None,
            max_requests_per_second: None,
        }
    }
}

/// The rules of the app of the tests: Reverb's defaults.
#[cfg(test)]
pub(crate) fn test_rules() -> AppRules {
    AppRules {
        standing: Standing::Enabled,
        key: "app-key".into(),
        secret: Secret::new("app-secret"),
        more_keys: Vec::new(),
        activity_timeout_s: 30,
        client_events: ClientEvents::Members,
        client_events_on_public: false,
        rate_limit: None,
        strict_names: false,
        subscription_errors: false,
        auth_timestamp_tolerance: Duration::from_mins(10),
        limits: Limits::default(),
    }
}
