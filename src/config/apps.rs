//! Floor 7. The apps of the configuration, and their settings.
//!
//! The variables `REVERB_APP_ID`, `REVERB_APP_KEY` and `REVERB_APP_SECRET`, or else those of soketi
//! or of a project that publishes to Pusher, make one app, which the other `REVERB_APP_*` and
//! `RINGWAVE_APP_*` variables describe. Each entry of `[[apps]]` makes
//! another, described by the file alone; the entry with the id of the app from the variables is the
//! same app, and supplies what the variables leave open. Without any app there is the development
//! app, which the variables then describe.

use std::collections::HashMap;

use crate::apps::{App, AppCounters, Apps};
use crate::id::AppIndex;
use crate::protocol::rules::{AppRules, Limits, RateLimit, Standing};
use crate::protocol::secret::Secret;

use super::aliases::{self, Alias};
use super::error::{AppsError, ConfigError};
use super::raw_value::RawValue;
use super::reader::{AppSources, Section, SettingsReader};
use super::setting::Setting;
use super::sources::Sources;
use super::value_source::ValueSource;
use super::value_type::ValueType;
use super::value_types::Identifier;
use super::{settings, soketi, webhooks};

/// The app that is served when none is configured. Its id is digits, because the publisher's
/// library for Python takes no other.
pub(crate) const DEVELOPMENT: Credentials<&str> =
    Credentials { id: "100001", key: "app-key", secret: "app-secret" };

/// The id of an app and the pair of keys that it signs with.
#[derive(Clone, Copy)]
pub(crate) struct Credentials<T> {
    /// As in `/apps/{id}`.
    pub(crate) id: T,
    /// As in `/app/{key}`.
    pub(crate) key: T,
    /// The secret of signatures.
    pub(crate) secret: T,
}

/// The apps of the configuration, before their settings are read.
pub(super) struct AppPlan {
    apps: Vec<Planned>,
}

struct Planned {
    variables: bool,
    entry: Option<usize>,
    development: bool,
}

impl AppPlan {
    /// Finds out which apps there are. `development` asks for the development app besides others.
    pub(super) fn of(sources: &Sources<'_>, development: bool) -> Result<Self, ConfigError> {
        let from_variables = app_of_variables(sources)?;
        let entries = sources.toml_apps_len();
        let same = from_variables.as_ref().and_then(|id| {
            (0..entries).find(|&entry| id_of_entry(sources, entry).as_ref() == Some(id))
        });
        let mut apps = Vec::new();
        if from_variables.is_some() {
            apps.push(Planned { variables: true, entry: same, development: false });
        }
        let others = (0..entries).filter(|&entry| same != Some(entry));
        apps.extend(others.map(|entry| Planned {
            variables: false,
            entry: Some(entry),
            development: false,
        }));
        if apps.is_empty() || (development && !is_taken(sources, from_variables.is_some())) {
            let variables = apps.is_empty();
            apps.push(Planned { variables, entry: None, development: true });
        }
        Ok(Self { apps })
    }

    /// Whether the development app is one of them.
    pub(super) fn has_development(&self) -> bool {
        self.apps.iter().any(|app| app.development)
    }

    /// Whether the variables of an app describe one of them.
    pub(super) fn uses_variables(&self) -> bool {
        self.apps.iter().any(|app| app.variables)
    }

    /// Takes the settings of all apps.
    pub(super) fn read(
        &self,
        reader: &mut SettingsReader<'_>,
        max_request_size: usize,
    ) -> Result<Apps, ConfigError> {
        let mut apps = Vec::with_capacity(self.apps.len());
        for (position, planned) in self.apps.iter().enumerate() {
            let &Planned { variables, entry, .. } = planned;
            reader.enter(Section::App(AppSources { position, variables, entry }));
            let index = u16::try_from(position)
                .map(AppIndex)
                .map_err(|_| AppsError::TooMany(self.apps.len()))?;
            apps.push(read_app(reader, index, planned.development, max_request_size)?);
        }
        reject_twice(&apps, "app_id", |app| vec![&app.id])?;
        reject_twice(&apps, "key", |app| app.rules.keys().collect())?;
        Ok(Apps::new(apps))
    }
}

/// The id of the app that the variables make, if they make one. Some of its three variables
/// without the others are a mistake.
fn app_of_variables(sources: &Sources<'_>) -> Result<Option<RawValue>, ConfigError> {
    let found = settings::CREDENTIALS.map(|declaration| sources.declared(declaration));
    let Some((_, source)) = found.iter().flatten().next() else { return Ok(None) };
    let names = credential_names(source);
    let absent = names.iter().zip(&found).filter(|(_, value)| value.is_none());
    let missing: Vec<_> = absent.map(|(&name, _)| name).collect();
    if missing.is_empty() {
        return Ok(found.into_iter().flatten().next().map(|(id, _)| id));
    }
    Err(AppsError::Incomplete { variables: names, set: source.clone(), missing }.into())
}

/// The three variables of the family that one of them is of.
fn credential_names(one: &ValueSource) -> [&'static str; 3] {
    let of = |aliases: &'static [Alias]| {
        settings::CREDENTIALS.map(|declaration| {
            let alias = aliases.iter().find(|alias| alias.key == declaration.key);
            alias.map(|alias| alias.name).or(declaration.env).unwrap_or(declaration.key)
        })
    };
    let families = [of(soketi::ALIASES), of(&aliases::OF_PUSHER)];
    let family =
        families.into_iter().find(|names| one.variable().is_some_and(|n| names.contains(&n)));
    family.unwrap_or_else(|| of(&[]))
}

/// Whether a configured app has the id or the key of the development app, and so takes its place.
fn is_taken(sources: &Sources<'_>, variables: bool) -> bool {
    // In TOML digits may be a number.
    let is = |raw: Option<(RawValue, ValueSource)>, text: &str| {
        raw.and_then(|(raw, _)| Identifier.parse(&raw).ok()).is_some_and(|is| is == text)
    };
    let [id, key] = [&settings::APP_ID.declaration, &settings::APP_KEY.declaration];
    let by_variables = variables
        && (is(sources.declared(id), DEVELOPMENT.id) || is(sources.declared(key), DEVELOPMENT.key));
    by_variables
        || (0..sources.toml_apps_len()).any(|entry| {
            is(sources.toml_app(entry, id.key), DEVELOPMENT.id)
                || is(sources.toml_app(entry, key.key), DEVELOPMENT.key)
        })
}

fn id_of_entry(sources: &Sources<'_>, entry: usize) -> Option<RawValue> {
    let (raw, _) = sources.toml_app(entry, settings::APP_ID.declaration.key)?;
    // In TOML an id of digits may be a number.
    settings::APP_ID.value_type.parse(&raw).ok().map(RawValue::Text)
}

fn read_app(
    reader: &mut SettingsReader<'_>,
    index: AppIndex,
    development: bool,
    max_request_size: usize,
) -> Result<App, ConfigError> {
    let Credentials { id, key, secret } = read_credentials(reader, development)?;
    Ok(App {
        index,
        id,
        rules: AppRules {
            key,
            secret: Secret::new(&secret),
            more_keys: reader.take(&settings::APP_KEYS)?,
            standing: read_standing(reader)?,
            activity_timeout_s: reader.take(&settings::ACTIVITY_TIMEOUT)?,
            client_events: reader.take(&settings::ACCEPT_CLIENT_EVENTS_FROM)?,
            client_events_on_public: reader.take(&settings::CLIENT_EVENTS_ON_PUBLIC)?,
            rate_limit: read_rate_limit(reader)?,
            strict_names: reader.take(&settings::STRICT_NAMES)?,
            subscription_errors: reader.take(&settings::SUBSCRIPTION_ERRORS)?,
            auth_timestamp_tolerance: reader.take(&settings::AUTH_TIMESTAMP_TOLERANCE)?,
            limits: read_limits(reader, max_request_size)?,
        },
        ping_interval: reader.take(&settings::PING_INTERVAL)?,
        pong_timeout: reader.take(&settings::PONG_TIMEOUT)?,
        max_connections: reader.take(&settings::MAX_CONNECTIONS)?,
        allowed_origins: reader.take(&settings::ALLOWED_ORIGINS)?.origins,
        subscription_counts: reader.take(&settings::SUBSCRIPTION_COUNTS)?,
        cache_ttl: reader.take(&settings::CACHE_TTL)?,
        user_authentication_timeout: reader.take(&settings::USER_AUTHENTICATION_TIMEOUT)?,
        webhooks: webhooks::read(reader)?,
        counters: AppCounters::of(index),
    })
}

fn read_credentials(
    reader: &mut SettingsReader<'_>,
    development: bool,
) -> Result<Credentials<String>, ConfigError> {
    let mut take = |setting: &'static Setting<_>, default: &str| match development {
        true => reader.take_or(setting, default.to_owned()),
        false => reader.take_required(setting),
    };
    let id = take(&settings::APP_ID, DEVELOPMENT.id)?;
    let key = take(&settings::APP_KEY, DEVELOPMENT.key)?;
    let secret = match development {
        true => reader.take_or(&settings::APP_SECRET, DEVELOPMENT.secret.to_owned())?,
        false => reader.take_required(&settings::APP_SECRET)?,
    };
    Ok(Credentials { id, key, secret })
}

fn read_standing(reader: &mut SettingsReader<'_>) -> Result<Standing, ConfigError> {
    let enabled = reader.take(&settings::ENABLED)?;
    Ok(if enabled { Standing::Enabled } else { Standing::Disabled })
}

fn read_rate_limit(reader: &mut SettingsReader<'_>) -> Result<Option<RateLimit>, ConfigError> {
    let enabled = reader.take(&settings::RATE_LIMITING_ENABLED)?;
    let limit = RateLimit {
        max_attempts: reader.take(&settings::RATE_LIMIT_MAX_ATTEMPTS)?,
        decay: reader.take(&settings::RATE_LIMIT_DECAY)?,
        terminate: reader.take(&settings::RATE_LIMIT_TERMINATE)?,
    };
    Ok(enabled.then_some(limit))
}

fn read_limits(
    reader: &mut SettingsReader<'_>,
    max_request_size: usize,
) -> Result<Limits, ConfigError> {
    Ok(Limits {
        max_message_size: reader.take(&settings::MAX_MESSAGE_SIZE)?,
        max_channel_name: reader.take(&settings::MAX_CHANNEL_NAME)?,
        max_event_name: reader.take(&settings::MAX_EVENT_NAME)?,
        max_event_data: reader.take(&settings::MAX_EVENT_DATA)?,
        max_channels_per_event: reader.take(&settings::MAX_CHANNELS_PER_EVENT)?,
        max_batch: reader.take(&settings::MAX_BATCH)?,
        max_request_size,
        max_channels_per_connection: reader.take(&settings::MAX_CHANNELS_PER_CONNECTION)?,
        max_presence_members: reader.take(&settings::MAX_PRESENCE_MEMBERS)?,
        max_presence_user_info: reader.take(&settings::MAX_PRESENCE_USER_INFO)?,
        max_user_id: reader.take(&settings::MAX_USER_ID)?,
        max_watchlist: reader.take(&settings::MAX_WATCHLIST)?,
        max_client_events_per_second: reader.take(&settings::MAX_CLIENT_EVENTS_PER_SECOND)?,
        max_client_event_data: reader.take(&settings::MAX_CLIENT_EVENT_DATA)?,
        max_requests_per_second: reader.take(&settings::MAX_REQUESTS_PER_SECOND)?,
    })
}

/// Requests find their app by id, connections by key: either has to name one app.
fn reject_twice(
    apps: &[App],
    setting: &'static str,
    names_of: fn(&App) -> Vec<&str>,
) -> Result<(), ConfigError> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (app, name) in apps
        .iter()
        .enumerate()
        .flat_map(|(app, it)| names_of(it).into_iter().map(move |n| (app, n)))
    {
        let Some(first) = seen.insert(name, app) else { continue };
        let name = name.to_owned();
        let error = match first == app {
            true => AppsError::Twice { app, setting, name },
            false => AppsError::Shared { apps: [first, app], setting, name },
        };
        return Err(error.into());
    }
    Ok(())
}
