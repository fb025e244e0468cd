//! Floor 2. The apps that are served: their settings, their live counters, and the way to find one.
//!
//! Contract: built from the configuration, then shared by all shards. The settings are read-only;
//! the counters are atomic. A configuration that is read anew makes new [`Apps`] that follow the
//! old ones ([`Apps::followed_by`]): an app is known by its [`AppIndex`] for as long as the process
//! lives, and a holder of the index finds the app as it is configured now.
//!
//! - [`App`]: one app, with the [rules](crate::protocol::AppRules) that the protocol is handed
//! - [`AppCounters`], [`Admission`]: its open connections and its requests
//! - [`webhook`]: the endpoints that its events are sent to

mod admission;
mod app;
mod counters;
pub(crate) mod webhook;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::id::AppIndex;
use crate::protocol::origin::Origins;
use crate::protocol::secret::Secret;
use crate::protocol::{AppRules, ClientEvents, Limits, Standing};

pub use admission::Admission;
pub use app::App;
#[cfg(test)]
pub(crate) use app::{test_app, test_app_named};
pub use counters::AppCounters;
use webhook::Webhooks;

/// All apps, which are found by id (API), by key (WebSocket) and by index (state of an app).
#[derive(Debug)]
pub struct Apps {
    /// By index. Removed apps keep their place, but not their settings.
    list: Vec<Arc<App>>,
    /// The apps that are configured, and the removed ones that have open connections.
    by_id: HashMap<String, AppIndex>,
    /// The apps that are configured, by each of their keys.
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
        let configured = || list.iter().filter(|app| app.is_configured());
        let keys =
            configured().flat_map(|app| app.rules.keys().map(|key| (key.to_owned(), app.index)));
        let by_key = keys.collect();
        let max_message_size = configured().map(|app| app.rules.limits.max_message_size).max();
        Self { list, by_id, by_key, max_message_size: max_message_size.unwrap_or(0) }
    }

    /// Returns the apps of `next`, a configuration that was read later, as successors of these: an
    /// app with the same id keeps its index and its counters, and an app that `next` does not have
    /// becomes [`Standing::Removed`]. If a later configuration has it again, it is the same app as
    /// long as it has connections from before; afterwards only its index is left, which no other
    /// app gets. `None` if there were more apps than indices, counting all that ever existed.
    #[must_use]
    pub fn followed_by(&self, next: &Self) -> Option<Self> {
        let tombstone = self.list.iter().find(|app| app.id.is_empty());
        let tombstone = tombstone.map_or_else(|| Arc::new(tombstone_app()), Arc::clone);
        let mut list: Vec<_> = self.list.iter().map(|app| removed(app, &tombstone)).collect();
        // The apps that stay are put back into their places below.
        for app in next.iter() {
            let known = self.by_id.get(&app.id).and_then(|&index| self.get(index));
            let app = match known {
                Some(known) => App {
                    index: known.index,
                    counters: Arc::clone(&known.counters),
                    ..App::clone(app)
                },
                None => {
                    let index = u16::try_from(list.len()).map(AppIndex).ok()?;
                    App { index, counters: AppCounters::of(index), ..App::clone(app) }
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
        app.is_configured().then_some(app)
    }

    /// The app with this public key, the first or another one.
    #[must_use]
    pub(crate) fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.by_key.get(key).and_then(|&index| self.get(index))
    }

    /// The app at this position, even if it was removed.
    #[must_use]
    pub fn get(&self, index: AppIndex) -> Option<&Arc<App>> {
        self.list.get(usize::from(index.0))
    }

    /// All apps of the configuration, in the order in which they were first in it.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.list.iter().filter(|app| app.is_configured())
    }

    /// The longest WebSocket message that any app takes, in bytes.
    #[must_use]
    pub(crate) const fn max_message_size(&self) -> usize {
        self.max_message_size
    }
}

/// The record of an app that is configured no more. While the app has connections, its id and its
/// counters stay, so that a later configuration can have it again. Afterwards `tombstone` takes its
/// place, one record for all removed apps, so that adding and removing apps for years does not fill
/// the memory.
fn removed(app: &Arc<App>, tombstone: &Arc<App>) -> Arc<App> {
    if app.counters.connections() == 0 {
        // A handshake that began with the earlier settings finds the tombstone here, and closes.
        return Arc::clone(tombstone);
    }
    if !app.is_configured() {
        return Arc::clone(app);
    }
    Arc::new(App {
        index: app.index,
        id: app.id.clone(),
        counters: Arc::clone(&app.counters),
        ..tombstone_app()
    })
}

/// The app that stands in the places of those that were removed: it has no id and no key, so that
/// no lookup finds it, and its connections close with 4003.
fn tombstone_app() -> App {
    let index = AppIndex(u16::MAX);
    App {
        index,
        id: String::new(),
        rules: AppRules {
            standing: Standing::Removed,
            key: String::new(),
            secret: Secret::new(""),
            more_keys: Vec::new(),
            activity_timeout_s: 30,
            client_events: ClientEvents::None,
            client_events_on_public: false,
            rate_limit: None,
            strict_names: false,
            subscription_errors: false,
            auth_timestamp_tolerance: Duration::ZERO,
            limits: Limits::default(),
        },
        ping_interval: Duration::from_secs(60),
        pong_timeout: Duration::from_secs(30),
        max_connections: Some(0),
        allowed_origins: Origins::default(),
        subscription_counts: false,
        cache_ttl: Duration::ZERO,
        user_authentication_timeout: None,
        webhooks: Webhooks::default(),
        counters: AppCounters::of(index),
    }
}

#[cfg(test)]
mod tests;
