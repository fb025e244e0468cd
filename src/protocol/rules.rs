//! Floor 1. The rules of an app: the part of its settings by which the protocol decides.
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
    /// Further keys, which clients and publishers may use like the first one: the old keys while an
    /// app changes to a new one. The server itself signs with the first key.
    pub more_keys: Vec<KeyPair>,
    /// The seconds of silence after which clients ping, as the server tells them; at least 1.
    pub activity_timeout_s: u32,
    /// The clients that may send client events.
    pub client_events: ClientEvents,
    /// Whether client events are allowed on public channels too, as in Reverb and unlike Pusher.
    pub client_events_on_public: bool,
    /// The limit on messages per window and connection; `None`: any number.
    pub rate_limit: Option<RateLimit>,
    /// Whether channel names outside of Pusher's alphabet are refused, from subscribers and
    /// publishers alike.
    pub strict_names: bool,
    /// Whether a failed subscribe is also answered with `pusher:subscription_error`, as Pusher does
    /// and Reverb does not.
    pub subscription_errors: bool,
    /// The largest difference of `auth_timestamp` to the server's clock; zero: unchecked.
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
    pub(crate) fn secret_of(&self, key: &str) -> Option<&Secret> {
        if key == self.key {
            return Some(&self.secret);
        }
        self.more_keys.iter().find(|pair| pair.key == key).map(|pair| &pair.secret)
    }

    /// All keys of the app, the first one first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let more = self.more_keys.iter().map(|pair| pair.key.as_str());
        std::iter::once(self.key.as_str()).chain(more)
    }
}

/// The standing of an app in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The app is served.
    Enabled,
    /// The app is configured, but switched off: its connections close with 4003, its API answers
    /// 403.
    Disabled,
    /// The app is no longer configured: lookups do not find it, and its connections close with
    /// 4003.
    Removed,
}

/// One key of an app, and its secret.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The public key, as in `/app/{key}`.
    pub(crate) key: String,
    /// The signing secret. Never printed.
    pub(crate) secret: Secret,
}

/// The clients that may send client events ("whispers"; Reverb's `accept_client_events_from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvents {
    /// All clients that are connected to the app, subscribed to the channel or not.
    All,
    /// Subscribers of the channel only.
    Members,
    /// No clients: a client event is answered with 4301.
    None,
}

/// The limit on messages of any kind per connection and window (Reverb's
/// `REVERB_APP_RATE_LIMIT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Messages per window.
    pub max_attempts: u32,
    /// The length of the window.
    pub decay: Duration,
    /// Whether an excess closes the connection instead of being answered with 4301.
    pub terminate: bool,
}

/// The limits of an app. Bytes are bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest WebSocket message, in bytes; a longer one closes the connection with 1009.
    pub max_message_size: usize,
    /// The longest channel name, in bytes, prefix included.
    pub max_channel_name: usize,
    /// The longest event name, in bytes; `None`: only the size of the request or message counts.
    pub max_event_name: Option<usize>,
    /// The largest `data` of a published event, in bytes; `None`: only the request's size counts.
    pub max_event_data: Option<usize>,
    /// The most channels of one publish.
    pub max_channels_per_event: usize,
    /// The most events of one batch; `None`: only the request's size counts.
    pub max_batch: Option<usize>,
    /// The largest HTTP body, in bytes.
    pub max_request_size: usize,
    /// The most channels that one connection is subscribed to at a time.
    pub max_channels_per_connection: usize,
    /// The most members of a presence channel; `None`: any number.
    pub max_presence_members: Option<usize>,
    /// The largest `user_info` of a presence member, in bytes of JSON; `None`: only the message's
    /// size counts.
    pub max_presence_user_info: Option<usize>,
    /// The longest `user_id`, in bytes.
    pub max_user_id: usize,
    /// The most users that a signed-in user watches.
    pub max_watchlist: usize,
    /// The most client events per second and connection; `None`: any number.
    pub max_client_events_per_second: Option<u32>,
    /// The largest `data` of a client event, in bytes; `None`: only the message's size counts.
    pub max_client_event_data: Option<usize>,
    /// The most requests of the HTTP API per second, over all shards; `None`: any number. Further
    /// ones are answered 429.
    pub max_requests_per_second: Option<u32>,
}

impl Default for Limits {
    /// The limits of Reverb. If Reverb has none, so that a single client could take any amount of
    /// memory, the limit is Pusher's or that of its server libraries.
    fn default() -> Self {
        Self {
            max_message_size: 10_000,
            max_channel_name: 200,
            max_event_name: None,
            max_event_data: None,
            // Each channel gets a copy of the data, so without a bound one request of `n` bytes
            // could take memory by the square of `n`. Laravel sends 100 channels at a time.
            max_channels_per_event: 100,
            max_batch: None,
            // Reverb's 10,000 include the head and are known to be too few for a batch.
            max_request_size: 100_000,
            // Reverb has no such limit. This one is far beyond the needs of a page, and bounds the
            // memory that one connection can take to a few megabytes.
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
