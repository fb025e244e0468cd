//! Floor 2. An app: its credentials and everything that the protocol decides by it.
//!
//! Contract: built once from the configuration, then shared read-only by all shards (the
//! connection count aside).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::id::AppIndex;

use super::auth::Secret;
use super::origin::Origins;

/// Who may send client events ("whispers") (Reverb's `accept_client_events_from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvents {
    /// Anyone connected to the app, subscribed to the channel or not.
    All,
    /// Subscribers of the channel only.
    Members,
    /// Nobody: answered with 4301.
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
    /// Longest event name, in bytes.
    pub max_event_name: usize,
    /// Largest `data` of a published event in bytes; `None`: only the request's size counts.
    pub max_event_data: Option<usize>,
    /// Most channels of one publish.
    pub max_channels_per_event: usize,
    /// Most events of one batch.
    pub max_batch: usize,
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
    /// Client events per second and connection; `None`: any number.
    pub max_client_events_per_second: Option<u32>,
    /// Largest `data` of a client event in bytes; `None`: only the message's size counts.
    pub max_client_event_data: Option<usize>,
}

impl Default for Limits {
    /// What Reverb's users are used to. Where Reverb has no limit and the lack of one lets a
    /// single client take any amount of memory, Pusher's limit or that of its server libraries.
    fn default() -> Self {
        Self {
            max_message_size: 10_000,
            max_channel_name: 200,
            max_event_name: 200,
            max_event_data: None,
            max_channels_per_event: 100,
            max_batch: 10,
            // Reverb's 10 000 count the head too and are known to be too few for a batch.
            max_request_size: 100_000,
            // Reverb has none. Well past any page's needs, and bounds what one connection can
            // make a shard hold to a few megabytes.
            max_channels_per_connection: 10_000,
            max_presence_members: None,
            max_presence_user_info: None,
            max_user_id: 200,
            max_client_events_per_second: None,
            max_client_event_data: None,
        }
    }
}

/// One app of the configuration. See [`Apps`].
#[derive(Debug)]
pub struct App {
    /// Position in [`Apps`].
    pub index: AppIndex,
    /// `app_id`, as in `/apps/{id}`. Compared as a string.
    pub id: String,
    /// The public key, as in `/app/{key}`.
    pub key: String,
    /// The signing secret. Never printed.
    pub secret: Secret,
    /// Incoming silence after which the server pings.
    pub ping_interval: Duration,
    /// How long an answer to that ping may take; then 4201.
    pub pong_timeout: Duration,
    /// Told to clients: how long they wait before they ping, in seconds. At least 1.
    pub activity_timeout_s: u32,
    /// Most connections of the app at a time on this node; `None`: any number. Past it: 4004.
    pub max_connections: Option<u32>,
    /// Origins that browsers may connect from; anything else: 4009.
    pub allowed_origins: Origins,
    /// Who may send client events.
    pub client_events: ClientEvents,
    /// Client events on public channels too, as Reverb allows and Pusher does not.
    pub client_events_on_public: bool,
    /// Messages per window and connection; `None`: any number.
    pub rate_limit: Option<RateLimit>,
    /// Refuse channel names outside of Pusher's alphabet. Publishing is always held to
    /// it.
    pub strict_names: bool,
    /// Also send `pusher:subscription_error` when a subscribe fails, as Pusher does
    /// and Reverb does not.
    pub subscription_errors: bool,
    /// How far `auth_timestamp` may be from our clock; zero: unchecked.
    pub auth_timestamp_tolerance: Duration,
    /// How long the last event of a cache channel is kept.
    pub cache_ttl: Duration,
    /// The other limits.
    pub limits: Limits,
    /// Connections open now, over all shards. Written through [`Admission`] only.
    pub connections: AtomicU32,
}

/// All apps, found by id (API) and by key (WebSocket).
#[derive(Debug)]
pub struct Apps {
    list: Vec<Arc<App>>,
    by_id: HashMap<String, AppIndex>,
    by_key: HashMap<String, AppIndex>,
}

impl Apps {
    /// Collects apps whose `index` is their position and whose ids and keys are distinct; the
    /// configuration has checked both.
    #[must_use]
    pub fn new(list: Vec<App>) -> Self {
        let by_id = list.iter().map(|app| (app.id.clone(), app.index)).collect();
        let by_key = list.iter().map(|app| (app.key.clone(), app.index)).collect();
        Self { list: list.into_iter().map(Arc::new).collect(), by_id, by_key }
    }

    /// The app with this `app_id`.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.by_id.get(id).and_then(|&index| self.get(index))
    }

    /// The app with this public key.
    #[must_use]
    pub fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.by_key.get(key).and_then(|&index| self.get(index))
    }

    /// The app at this position.
    #[must_use]
    pub fn get(&self, index: AppIndex) -> Option<&Arc<App>> {
        self.list.get(usize::from(index.0))
    }

    /// All apps in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.list.iter()
    }
}

/// A place among an app's connections, given back when dropped. Holding one is the proof that the
/// connection was counted against `max_connections`.
#[derive(Debug)]
pub struct Admission(Arc<App>);

impl Admission {
    /// Takes a place, or none when the app is at its quota: exact over all shards.
    #[must_use]
    pub fn take(app: &Arc<App>) -> Option<Self> {
        let quota = app.max_connections.unwrap_or(u32::MAX);
        let counted = app.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < quota).then_some(open + 1)
        });
        counted.ok().map(|_| Self(Arc::clone(app)))
    }

    /// The app that admitted the connection.
    #[must_use]
    pub const fn app(&self) -> &Arc<App> {
        &self.0
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The app of the tests: Reverb's defaults, any origin.
#[cfg(test)]
pub(crate) fn test_app() -> App {
    App {
        index: AppIndex(0),
        id: "app-id".into(),
        key: "app-key".into(),
        secret: Secret::new("app-secret"),
        ping_interval: Duration::from_secs(60),
        pong_timeout: Duration::from_secs(30),
        activity_timeout_s: 30,
        max_connections: None,
        allowed_origins: Origins::parse(&["*".into()]).unwrap(),
        client_events: ClientEvents::Members,
        client_events_on_public: false,
        rate_limit: None,
        strict_names: false,
        subscription_errors: false,
        auth_timestamp_tolerance: Duration::from_mins(10),
        cache_ttl: Duration::from_mins(30),
        limits: Limits::default(),
        connections: AtomicU32::new(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_are_found_by_id_and_by_key() {
        let other =
            App { index: AppIndex(1), id: "2".into(), key: "other-key".into(), ..test_app() };
        let apps = Apps::new(vec![test_app(), other]);
        assert_eq!(apps.by_id("2").map(|app| app.key.as_str()), Some("other-key"));
        assert_eq!(apps.by_key("app-key").map(|app| app.id.as_str()), Some("app-id"));
        assert!(apps.by_id("app-key").is_none() && apps.by_key("2").is_none());
        assert_eq!(apps.get(AppIndex(1)).map(|app| app.id.as_str()), Some("2"));
        assert!(apps.get(AppIndex(2)).is_none());
        assert_eq!(apps.iter().count(), 2);
    }

    #[test]
    fn the_quota_is_exact_and_places_come_back() {
        let app = Arc::new(App { max_connections: Some(2), ..test_app() });
        let first = Admission::take(&app);
        let second = Admission::take(&app);
        assert!(first.is_some() && second.is_some() && Admission::take(&app).is_none());
        drop(first);
        assert!(Admission::take(&app).is_some());
        drop(second);
        assert_eq!(app.connections.load(Ordering::Relaxed), 0);
    }
}
