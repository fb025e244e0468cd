//! Floor 2. An app: its credentials and everything that the protocol decides by it.
//!
//! Contract: built from the configuration, then shared read-only by all shards (the connection
//! count aside). A configuration that is read anew makes new [`Apps`] that follow the old ones
//! ([`Apps::followed_by`]): an app is known by its [`AppIndex`] for as long as the process lives,
//! and what refers to it by that sees it as it is now.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::id::AppIndex;
use crate::time::Nanos;

use super::auth::Secret;
use super::origin::Origins;
use super::rate::{Bucket, Rate};
use super::webhook::Webhooks;

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
    pub(crate) key: String,
    /// The signing secret. Never printed.
    pub(crate) secret: Secret,
}

/// One app of the configuration. See [`Apps`].
#[derive(Clone, Debug)]
pub struct App {
    /// Position in [`Apps`].
    pub index: AppIndex,
    /// `app_id`, as in `/apps/{id}`. Compared as a string.
    pub id: String,
    /// The public key, as in `/app/{key}`.
    pub key: String,
    /// The signing secret. Never printed.
    pub secret: Secret,
    /// Further keys, good for everything that clients and publishers do with the first one: the
    /// old ones while an app changes to a new one. What the server itself signs, it signs with the
    /// first.
    pub more_keys: Vec<KeyPair>,
    /// Whether it is served.
    pub standing: Standing,
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
    /// Tell the subscribers of a channel without members how many they are, as Pusher does where it
    /// is switched on and Reverb does not.
    pub subscription_counts: bool,
    /// How far `auth_timestamp` may be from our clock; zero: unchecked.
    pub auth_timestamp_tolerance: Duration,
    /// How long the last event of a cache channel is kept.
    pub cache_ttl: Duration,
    /// How long a connection has to sign in or to show a signature for a channel; `None`: for
    /// ever.
    pub user_authentication_timeout: Option<Duration>,
    /// Where its events go.
    pub webhooks: Webhooks,
    /// The other limits.
    pub limits: Limits,
    /// Its open connections. Outlives the app's settings: they are the same ones after a reload.
    pub connections: Arc<Connections>,
    /// The requests that are left of [`Limits::max_requests_per_second`]. Outlives the app's
    /// settings as well.
    pub requests: Arc<Bucket>,
}

impl App {
    /// Counts a request of the HTTP API, or tells how long to wait with it.
    ///
    /// # Errors
    /// There were more than the app may have: exact over all shards, to within the requests of one
    /// second.
    pub(crate) fn take_request(&self, now: impl FnOnce() -> Nanos) -> Result<(), Duration> {
        let Some(per_second) = self.limits.max_requests_per_second else { return Ok(()) };
        self.requests.take(Rate::of(per_second, 1), now())
    }

    /// Whether it is switched on.
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

    /// The app that stands in the places of those that were removed: it has no id and no key, so
    /// that nobody finds it, and its connections close with 4003.
    fn nobody() -> Self {
        let index = AppIndex(u16::MAX);
        Self {
            index,
            id: String::new(),
            key: String::new(),
            secret: Secret::new(""),
            more_keys: Vec::new(),
            standing: Standing::Removed,
            ping_interval: Duration::from_secs(60),
            pong_timeout: Duration::from_secs(30),
            activity_timeout_s: 30,
            max_connections: Some(0),
            allowed_origins: Origins::default(),
            client_events: ClientEvents::None,
            client_events_on_public: false,
            rate_limit: None,
            strict_names: false,
            subscription_errors: false,
            subscription_counts: false,
            auth_timestamp_tolerance: Duration::ZERO,
            cache_ttl: Duration::ZERO,
            user_authentication_timeout: None,
            webhooks: Webhooks::default(),
            limits: Limits::default(),
            connections: Connections::of(index),
            requests: Arc::default(),
        }
    }

    /// All of its keys, the first one first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let more = self.more_keys.iter().map(|pair| pair.key.as_str());
        std::iter::once(self.key.as_str()).chain(more)
    }
}

/// All apps, found by id (API), by key (WebSocket) and by index (whatever belongs to one).
#[derive(Debug)]
pub struct Apps {
    /// By index. Those that were removed keep their place, but not their settings.
    list: Vec<Arc<App>>,
    /// Those that are configured, and of those that were removed the ones with open connections.
    by_id: HashMap<String, AppIndex>,
    /// By each of their keys; not those that were removed.
    by_key: HashMap<String, AppIndex>,
    max_message_size: usize,
}

impl Apps {
    /// Collects apps whose `index` is their position and whose ids and keys are distinct; the
    /// configuration has checked both.
    #[must_use]
    pub fn new(list: Vec<App>) -> Self {
        Self::of(list.into_iter().map(Arc::new).collect())
    }

    fn of(list: Vec<Arc<App>>) -> Self {
        let known = list.iter().filter(|app| !app.id.is_empty());
        let by_id = known.map(|app| (app.id.clone(), app.index)).collect();
        let configured = || list.iter().filter(|app| app.standing != Standing::Removed);
        let keys = configured().flat_map(|app| app.keys().map(|key| (key.to_owned(), app.index)));
        let by_key = keys.collect();
        let max_message_size = configured().map(|app| app.limits.max_message_size).max();
        Self { list, by_id, by_key, max_message_size: max_message_size.unwrap_or(0) }
    }

    /// These apps as `next`, a configuration that was read later, wants them: an app keeps its
    /// index and its connections by its id, and one that `next` does not have becomes
    /// [`Standing::Removed`]. If a later configuration has it again it is the same app for as long
    /// as it has connections from before; after that only its index is left of it, which no other
    /// app gets. `None` when there would be more apps than indices, all that were ever there
    /// counted.
    #[must_use]
    pub fn followed_by(&self, next: &Self) -> Option<Self> {
        let nobody = self.list.iter().find(|app| app.id.is_empty());
        let nobody = nobody.map_or_else(|| Arc::new(App::nobody()), Arc::clone);
        let mut list: Vec<_> = self.list.iter().map(|app| removed(app, &nobody)).collect();
        // Those that stay are put back into their places below.
        for app in next.iter() {
            let known = self.by_id.get(&app.id).and_then(|&index| self.get(index));
            let app = match known {
                Some(known) => App {
                    index: known.index,
                    connections: Arc::clone(&known.connections),
                    requests: Arc::clone(&known.requests),
                    ..App::clone(app)
                },
                None => {
                    let index = u16::try_from(list.len()).map(AppIndex).ok()?;
                    App { index, connections: Connections::of(index), ..App::clone(app) }
                }
            };
            let (index, app) = (app.index, Arc::new(app));
            match list.get_mut(usize::from(index.0)) {
                Some(place) => *place = app,
                None => list.push(app),
            }
        }
        Some(Self::of(list))
    }

    /// The app with this `app_id`.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        let app = self.by_id.get(id).and_then(|&index| self.get(index))?;
        (app.standing != Standing::Removed).then_some(app)
    }

    /// The app with this public key, the first or another one.
    #[must_use]
    pub(crate) fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.by_key.get(key).and_then(|&index| self.get(index))
    }

    /// The app at this position, also when it was removed.
    #[must_use]
    pub fn get(&self, index: AppIndex) -> Option<&Arc<App>> {
        self.list.get(usize::from(index.0))
    }

    /// All apps of the configuration, in the order in which they were first in it.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.list.iter().filter(|app| app.standing != Standing::Removed)
    }

    /// The longest WebSocket message that any app takes, in bytes.
    #[must_use]
    pub(crate) const fn max_message_size(&self) -> usize {
        self.max_message_size
    }
}

/// The record of an app that is configured no more. While the app has connections, its id and its
/// counters stay, so that a later configuration can have it again. Then `nobody` takes its place,
/// one record for all of them: adding and removing apps for years does not fill the memory.
fn removed(app: &Arc<App>, nobody: &Arc<App>) -> Arc<App> {
    if app.connections.count() == 0 {
        // A handshake that is under way with the settings from before still finds a place here that
        // closes it.
        return Arc::clone(nobody);
    }
    if app.standing == Standing::Removed {
        return Arc::clone(app);
    }
    Arc::new(App {
        index: app.index,
        id: app.id.clone(),
        connections: Arc::clone(&app.connections),
        requests: Arc::clone(&app.requests),
        ..App::nobody()
    })
}

/// The open connections of one app, over all shards and whatever becomes of its settings.
#[derive(Debug)]
pub struct Connections {
    app: AppIndex,
    /// Written through [`Admission`] only.
    open: AtomicU32,
}

impl Connections {
    /// None, of the app with this index.
    #[must_use]
    pub fn of(app: AppIndex) -> Arc<Self> {
        Arc::new(Self { app, open: AtomicU32::new(0) })
    }

    /// How many there are now.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }
}

/// A place among an app's connections, given back when dropped. Holding one is the proof that the
/// connection was counted against `max_connections`.
#[derive(Debug)]
pub struct Admission(Arc<Connections>);

impl Admission {
    /// Takes a place, or none when the app is at its quota: exact over all shards.
    #[must_use]
    pub fn take(app: &App) -> Option<Self> {
        let quota = app.max_connections.unwrap_or(u32::MAX);
        let open = &app.connections.open;
        let counted = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < quota).then_some(open + 1)
        });
        counted.ok().map(|_| Self(Arc::clone(&app.connections)))
    }

    /// The app that admitted the connection.
    #[must_use]
    pub(crate) fn app(&self) -> AppIndex {
        self.0.app
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
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
        more_keys: Vec::new(),
        standing: Standing::Enabled,
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
        subscription_counts: false,
        auth_timestamp_tolerance: Duration::from_mins(10),
        cache_ttl: Duration::from_mins(30),
        user_authentication_timeout: None,
        webhooks: Webhooks::default(),
        limits: Limits::default(),
        connections: Connections::of(AppIndex(0)),
        requests: Arc::default(),
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
        let app = App { max_connections: Some(2), ..test_app() };
        let first = Admission::take(&app);
        let second = Admission::take(&app);
        assert!(first.is_some() && second.is_some() && Admission::take(&app).is_none());
        drop(first);
        assert!(Admission::take(&app).is_some());
        drop(second);
        assert_eq!(app.connections.count(), 0);
    }

    fn apps(list: &[(&str, &str)]) -> Apps {
        let app = |(index, &(id, key)): (u16, &(&str, &str))| App {
            index: AppIndex(index),
            id: id.into(),
            key: key.into(),
            connections: Connections::of(AppIndex(index)),
            ..test_app()
        };
        Apps::new((0..=u16::MAX).zip(list).map(app).collect())
    }

    fn ids(apps: &Apps) -> Vec<(u16, &str)> {
        apps.iter().map(|app| (app.index.0, app.id.as_str())).collect()
    }

    #[test]
    fn an_app_keeps_its_index_and_its_connections_whatever_is_configured_around_it() {
        let first = apps(&[("a", "ka"), ("b", "kb"), ("c", "kc")]);
        let place = Admission::take(first.by_id("c").unwrap()).unwrap();
        let once = Rate::of(1, 1);
        assert!(first.by_id("c").unwrap().requests.take(once, Nanos(0)).is_ok());

        let second = first.followed_by(&apps(&[("new", "kn"), ("c", "kc2")])).unwrap();
        assert_eq!(ids(&second), [(2, "c"), (3, "new")]);
        let c = second.by_id("c").unwrap();
        assert_eq!((c.key.as_str(), c.connections.count()), ("kc2", 1));
        assert!(c.requests.take(once, Nanos(0)).is_err(), "the request from before is counted");
        assert!(second.by_key("kc").is_none() && second.by_key("kc2").is_some());
        let quota = App { max_connections: Some(1), ..App::clone(c) };
        assert!(Admission::take(&quota).is_none(), "the connection from before is counted");

        let third = second.followed_by(&apps(&[("b", "kb"), ("a", "ka")])).unwrap();
        assert_eq!(ids(&third), [(4, "b"), (5, "a")]);
        assert_eq!(third.get(place.app()).map(|app| app.id.as_str()), Some("c"));
        drop(place);
        assert_eq!(third.get(AppIndex(2)).unwrap().connections.count(), 0);
    }

    #[test]
    fn a_removed_app_is_not_found_and_its_place_knows_that() {
        let after = apps(&[("a", "ka"), ("b", "kb")]).followed_by(&apps(&[("b", "kb")])).unwrap();
        assert!(after.by_id("a").is_none() && after.by_key("ka").is_none());
        assert_eq!(after.get(AppIndex(0)).map(|app| app.standing), Some(Standing::Removed));
        assert!(after.by_id("b").is_some_and(|app| app.is_enabled()));
        // A key may move to another app.
        let moved = after.followed_by(&apps(&[("b", "ka")])).unwrap();
        assert_eq!(moved.by_key("ka").map(|app| app.id.as_str()), Some("b"));
    }

    #[test]
    fn of_a_removed_app_nothing_is_left_but_its_index_once_its_connections_are_gone() {
        let mut list = apps(&[("a", "ka")]);
        for number in 0..1000 {
            let name = format!("app-{number}");
            list = list.followed_by(&apps(&[("a", "ka"), (&name, &name)])).unwrap();
        }
        assert_eq!((list.list.len(), list.by_id.len(), list.by_key.len()), (1001, 2, 2));
        let nobody = list.get(AppIndex(1)).unwrap();
        assert!((1..1000).all(|index| Arc::ptr_eq(nobody, list.get(AppIndex(index)).unwrap())));
        assert!(list.by_id("").is_none() && list.by_key("").is_none());

        // While it has a connection it stays the same app.
        let place = Admission::take(list.by_id("app-999").unwrap()).unwrap();
        list = list.followed_by(&apps(&[("a", "ka")])).unwrap();
        let again = list.followed_by(&apps(&[("app-999", "k")])).unwrap();
        assert_eq!(again.by_id("app-999").unwrap().index, place.app());
        drop(place);
        list = list.followed_by(&apps(&[("a", "ka")])).unwrap();
        let again = list.followed_by(&apps(&[("app-999", "k")])).unwrap();
        assert_eq!(again.by_id("app-999").unwrap().index, AppIndex(1001));
    }

    #[test]
    fn indices_do_not_come_to_an_end_in_silence() {
        let names: Vec<_> = (0..=u16::MAX).map(|n| n.to_string()).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        let full = apps(&all);
        assert!(full.followed_by(&full).is_some());
        assert!(full.followed_by(&apps(&[("one more", "k")])).is_none());
    }

    #[test]
    fn every_key_of_an_app_leads_to_it_and_has_its_own_secret() {
        let second = KeyPair { key: "old".into(), secret: Secret::new("old-secret") };
        let apps = Apps::new(vec![App { more_keys: vec![second], ..test_app() }]);
        let app = apps.by_key("old").unwrap();
        assert!(Arc::ptr_eq(app, apps.by_key("app-key").unwrap()));
        let signed_by = |key| app.secret_of(key).map(|secret| secret.sign(&[b"text"]));
        assert_eq!(signed_by("old"), Some(Secret::new("old-secret").sign(&[b"text"])));
        assert_eq!(signed_by("app-key"), Some(Secret::new("app-secret").sign(&[b"text"])));
        assert_eq!(signed_by("other"), None);
    }
}
