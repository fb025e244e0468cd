//! Floor 7. Variables that give a setting its value beside the one that it declares: those that
//! Laravel projects use although Reverb itself reads none, and those of other servers.
//!
//! A table of names and keys; `sources` decides which of them are in force and in which order they
//! are asked.

use super::raw_value::RawValue;

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
