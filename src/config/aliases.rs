//! Floor 7. Variables that give a setting its value beside the one that it declares: those that
//! Laravel projects use although Reverb itself reads none, those of the app's Redis, and those of
//! other servers.
//!
//! A table of names and keys; `sources` decides which of them are in force and in which order they
//! are asked.

use super::raw_value::RawValue;
use super::value_types::{address_of_parts, with_port};

/// Returns the value of another variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&'static str) -> Option<RawValue>;

/// A variable, and the setting that takes its value.
pub(super) struct Alias {
    /// The variable.
    pub(super) name: &'static str,
    /// The key of the setting.
    pub(super) key: &'static str,
    /// Makes the value of the setting. `None` if the variable then says nothing about it.
    pub(super) read: fn(&RawValue, Lookup<'_>) -> Option<RawValue>,
}

impl Alias {
    const fn same(name: &'static str, key: &'static str) -> Self {
        Self { name, key, read: |raw, _| Some(raw.clone()) }
    }
}

/// Variables under which many projects list their origins, for a line of their own in
/// `config/reverb.php`. A project that sets one wants a restriction, so
/// they count. The more specific name comes first.
pub(super) static OF_PROJECTS: [Alias; 2] = [
    Alias::same("REVERB_APP_ALLOWED_ORIGINS", "app.allowed_origins"),
    Alias::same("REVERB_ALLOWED_ORIGINS", "app.allowed_origins"),
];

/// The app of a project that publishes by Laravel's `pusher` connection.
pub(super) static OF_PUSHER: [Alias; 3] = [
    Alias::same("PUSHER_APP_ID", "app.app_id"),
    Alias::same("PUSHER_APP_KEY", "app.key"),
    Alias::same("PUSHER_APP_SECRET", "app.secret"),
];

/// The Redis of a Laravel app, as its `config/database.php` and `config/reverb.php` read it.
pub(super) static OF_REDIS: [Alias; 7] = [
    Alias { name: "REDIS_URL", key: "cluster.redis", read: redis_url },
    Alias { name: "REDIS_HOST", key: "cluster.redis", read: redis_address },
    Alias { name: "REDIS_PORT", key: "cluster.redis", read: redis_address },
    Alias { name: "REDIS_SCHEME", key: "cluster.redis", read: redis_address },
    Alias::same("REDIS_USERNAME", "cluster.username"),
    Alias::same("REDIS_PASSWORD", "cluster.password"),
    Alias::same("REDIS_DB", "cluster.database"),
];

/// A URL without a port takes that of the other variable, as in Laravel.
fn redis_url(raw: &RawValue, lookup: Lookup<'_>) -> Option<RawValue> {
    let port = lookup("REDIS_PORT").map(|port| port.as_text());
    Some(RawValue::Text(with_port(&raw.as_text(), port.as_deref())))
}

/// The address of three variables, whichever of them was asked.
fn redis_address(_: &RawValue, lookup: Lookup<'_>) -> Option<RawValue> {
    let text = |name| lookup(name).map(|raw| raw.as_text());
    let host = text("REDIS_HOST").unwrap_or_else(|| "127.0.0.1".to_owned());
    let [scheme, port] = ["REDIS_SCHEME", "REDIS_PORT"].map(text);
    Some(RawValue::Text(address_of_parts(scheme.as_deref(), &host, port.as_deref())))
}
