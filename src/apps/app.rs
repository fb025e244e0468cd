//! One app: its settings, and a reference to its live counters.

use std::sync::Arc;
use std::time::Duration;

use crate::id::AppIndex;
use crate::protocol::origin::Origins;
use crate::protocol::{AppRules, Standing};
use crate::rate::Rate;
use crate::time::Nanos;

use super::counters::AppCounters;
use super::webhook::Webhooks;

/// One app of the configuration. See [`Apps`](super::Apps).
#[derive(Clone, Debug)]
pub struct App {
    /// The position in [`Apps`](super::Apps).
    pub index: AppIndex,
    /// The `app_id`, as in `/apps/{id}`. Compared as a string.
    pub id: String,
    /// The settings by which the protocol decides.
    pub rules: AppRules,
    /// The silence of a client after which the server pings.
    pub ping_interval: Duration,
    /// The time that the answer to a ping may take; after it the connection closes with 4201.
    pub pong_timeout: Duration,
    /// The most connections of the app at a time on this node; `None`: any number. Further ones are
    /// refused with 4004.
    pub max_connections: Option<u32>,
    /// The origins that browsers may connect from. Others are refused with 4009.
    pub allowed_origins: Origins,
    /// Whether the subscribers of a channel without members are told how many they are, as Pusher
    /// can and Reverb cannot.
    pub subscription_counts: bool,
    /// The time for which the last event of a cache channel is kept.
    pub cache_ttl: Duration,
    /// The time in which a connection has to sign in or to show a signature for a channel; `None`:
    /// any time.
    pub user_authentication_timeout: Option<Duration>,
    /// The endpoints that its events are sent to.
    pub webhooks: Webhooks,
    /// The counters of the app, which outlive its settings: they are the same ones after a reload.
    pub counters: Arc<AppCounters>,
}

impl App {
    /// Counts a request of the HTTP API.
    ///
    /// # Errors
    /// The app has sent more than it may; the error is the time to wait. The rate is exact over all
    /// shards, to within the requests of one second.
    pub(crate) fn take_request(&self, now: impl FnOnce() -> Nanos) -> Result<(), Duration> {
        let Some(per_second) = self.rules.limits.max_requests_per_second else { return Ok(()) };
        self.counters.take_request(Rate::of(per_second, 1), now())
    }

    /// Whether the app is configured, switched on or off.
    #[must_use]
    pub(crate) fn is_configured(&self) -> bool {
        self.rules.standing != Standing::Removed
    }
}

/// The app of the tests: Reverb's defaults, any origin.
#[cfg(test)]
pub(crate) fn test_app() -> App {
    App {
        index: AppIndex(0),
        id: "app-id".into(),
        rules: crate::protocol::rules::test_rules(),
        ping_interval: Duration::from_secs(60),
        pong_timeout: Duration::from_secs(30),
        max_connections: None,
        allowed_origins: Origins::parse(&["*".into()]).unwrap(),
        subscription_counts: false,
        cache_ttl: Duration::from_mins(30),
        user_authentication_timeout: None,
        webhooks: Webhooks::default(),
        counters: AppCounters::of(AppIndex(0)),
    }
}

/// The app of the tests by another index, id and key.
#[cfg(test)]
pub(crate) fn test_app_named(index: u16, id: &str, key: &str) -> App {
    let app = test_app();
    App {
        index: AppIndex(index),
        id: id.into(),
        rules: AppRules { key: key.into(), ..app.rules },
        counters: AppCounters::of(AppIndex(index)),
        ..app
    }
}
