//! Support that the targets share: an app whose secret they know, a shard that answers them, and
//! temporary files.

mod front;
mod json;
mod places;

use std::time::Duration;

use ringwave::testing::apps::webhook::Webhooks;
use ringwave::testing::apps::{App, AppCounters};
use ringwave::testing::id::{AppIndex, SocketId};
use ringwave::testing::protocol::origin::Origins;
use ringwave::testing::protocol::rules::{AppRules, ClientEvents, Limits, Standing};
use ringwave::testing::protocol::secret::Secret;

pub use front::{FrontEnd, Heard};
pub use json::{Json, NAMES, TEXTS};
pub use places::Place;

/// The key of [`app`].
pub const KEY: &str = "app-key";
/// The secret of [`app`].
pub const SECRET: &str = "app-secret";
/// A secret that no message for an operator may repeat.
pub const MARKER: &str = "tops3cretvalue";
/// The socket id of a connection.
pub const SOCKET: SocketId = SocketId { high: 1234, low: 5678 };

/// An app with limits that short inputs reach.
pub fn app() -> App {
    App {
        index: AppIndex(0),
        id: "app-id".into(),
        rules: AppRules {
            standing: Standing::Enabled,
            key: KEY.into(),
            secret: Secret::new(SECRET),
            more_keys: Vec::new(),
            activity_timeout_s: 30,
            client_events: ClientEvents::Members,
            client_events_on_public: false,
            rate_limit: None,
            strict_names: false,
            subscription_errors: true,
            auth_timestamp_tolerance: Duration::ZERO,
            limits: short_limits(),
        },
        ping_interval: Duration::from_secs(60),
        pong_timeout: Duration::from_secs(30),
        max_connections: None,
        allowed_origins: Origins::parse(&["*".into()]).expect("a pattern"),
        subscription_counts: false,
        cache_ttl: Duration::from_secs(1800),
        user_authentication_timeout: None,
        webhooks: Webhooks::default(),
        counters: AppCounters::of(AppIndex(0)),
    }
}

fn short_limits() -> Limits {
    Limits {
        max_channel_name: 40,
        max_event_name: Some(40),
        max_event_data: Some(400),
        max_channels_per_event: 4,
        max_batch: Some(4),
        max_request_size: 2_000,
        max_presence_user_info: Some(60),
        max_user_id: 20,
        max_watchlist: 3,
        max_client_event_data: Some(60),
        max_client_events_per_second: Some(3),
        ..Limits::default()
    }
}

/// `key:signature` of these parts by the app.
pub fn auth(parts: &[&[u8]]) -> String {
    format!("{KEY}:{}", Secret::new(SECRET).sign(parts))
}
