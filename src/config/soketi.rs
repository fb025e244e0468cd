//! Floor 7. The variables of soketi 1.6: the settings that take their values, and the reasons why
//! the others have no effect.
//!
//! Its command line reads them as JSON where they are JSON, so that `true`, `1` and `"text"` mean
//! what they mean in JavaScript. A limit below zero is none.

use std::collections::BTreeMap;

use serde_json::Value;

use super::aliases::{Alias, Lookup};
use super::raw_value::RawValue;

/// All its variables begin with this.
pub(super) const PREFIX: &str = "SOKETI_";

/// The webhooks of its app, a list in JSON.
pub(super) const WEBHOOKS: &str = "SOKETI_DEFAULT_APP_WEBHOOKS";

/// The port that it listens on unless told otherwise.
pub(super) const PORT_DEFAULT: u16 = 6001;

/// A permission that it does not give unless told to, and that we give: taken over, so that a move
/// from there opens nothing.
pub(super) const CLIENT_EVENTS: (&str, &str) = ("app.accept_client_events_from", "none");

macro_rules! aliases {
    ($($name:literal => $key:literal $(by $read:expr)?,)+) => {
        /// Variables that settings take their values from.
        pub(super) static ALIASES: &[Alias] = &[
            $(Alias {
                name: concat!("SOKETI_", $name),
                key: $key,
                read: or_same!($($read)?),
            }),+
        ];
    };
}

macro_rules! or_same {
    () => {
        |raw, _| Some(raw.clone())
    };
    ($read:expr) => {
        $read
    };
}

aliases! {
    "HOST" => "server.host",
    "PORT" => "server.port",
    "PATH_PREFIX" => "server.path",
    "DEBUG" => "server.debug" by truth,
    "HTTP_MAX_REQUEST_SIZE" => "server.max_request_size" by mebibytes,
    "DEFAULT_APP_ID" => "app.app_id",
    "DEFAULT_APP_KEY" => "app.key",
    "DEFAULT_APP_SECRET" => "app.secret",
    "DEFAULT_APP_ENABLED" => "app.enabled" by truth,
    "DEFAULT_APP_MAX_CONNS" => "app.max_connections" by limit,
    "DEFAULT_APP_ENABLE_CLIENT_MESSAGES" => "app.accept_client_events_from" by client_events,
    "DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC" => "app.max_requests_per_second" by limit,
    "DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC" => "app.max_client_events_per_second" by limit,
    "DEFAULT_APP_USER_AUTHENTICATION" => "app.user_authentication_timeout" by sign_in_timeout,
    "CHANNEL_LIMITS_MAX_NAME_LENGTH" => "app.max_channel_name",
    "CHANNEL_CACHE_TTL" => "app.cache_ttl",
    "EVENT_MAX_NAME_LENGTH" => "app.max_event_name",
    "EVENT_MAX_CHANNELS_AT_ONCE" => "app.max_channels_per_event",
    "EVENT_MAX_BATCH_SIZE" => "app.max_batch",
    "EVENT_MAX_SIZE_IN_KB" => "app.max_event_data" by kibibytes,
    "PRESENCE_MAX_MEMBERS" => "app.max_presence_members",
    "PRESENCE_MAX_MEMBER_SIZE" => "app.max_presence_user_info" by kibibytes,
}

/// Variables that are read together with another one.
const ALONG: [&str; 4] =
    [SIGN_IN_TIMEOUT, WEBHOOKS, "SOKETI_WEBHOOKS_BATCHING", "SOKETI_WEBHOOKS_BATCHING_DURATION"];
const SIGN_IN_TIMEOUT: &str = "SOKETI_USER_AUTHENTICATION_TIMEOUT";

/// Its own default, in milliseconds.
const SIGN_IN_TIMEOUT_DEFAULT: f64 = 30_000.0;

/// Variables that no setting takes, by how they begin: with the values that change nothing here,
/// and why others have no effect.
const WITHOUT: [(&str, &[&str], &str); 19] = [
    ("ADAPTER_DRIVER", &["local"], NODES),
    ("ADAPTER_", &[], NODES),
    ("CLUSTER_", &[], NODES),
    ("APP_MANAGER_DRIVER", &["array"], APPS),
    ("APP_MANAGER_", &[], APPS),
    ("DB_REDIS_", &[], NODES),
    ("DB_", &[], APPS),
    ("CACHE_DRIVER", &["memory"], OWN_MEMORY),
    ("CACHE_", &[], OWN_MEMORY),
    ("QUEUE_DRIVER", &["sync"], OWN_MEMORY),
    ("QUEUE_", &[], OWN_MEMORY),
    ("RATE_LIMITER_DRIVER", &["local"], OWN_MEMORY),
    ("RATE_LIMITER_", &[], OWN_MEMORY),
    ("METRICS_ENABLED", &["false", "0"], "there is no page of metrics yet"),
    ("METRICS_", &[], "there is no page of metrics yet"),
    ("MODE", &["full"], "every process serves clients and sends webhooks"),
    ("SSL_", &[], "a proxy such as nginx ends TLS"),
    ("HTTP_ACCEPT_TRAFFIC_MEMORY_THRESHOLD", &[], "server.memory_limit takes its place"),
    ("SHUTDOWN_GRACE_PERIOD", &[], "server.shutdown_window takes its place"),
];

/// One that begins like a setting's.
const READ_REQUESTS: (&str, &str) = (
    "SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC",
    "app.max_requests_per_second counts all requests of the app, reading ones too",
);

const NODES: &str = "several nodes meet on a Redis by REVERB_SCALING_ENABLED=true and REDIS_URL";
const APPS: &str = "the apps are in the variables or in ringwave.toml, and `ringwave import` makes \
                    that file of a soketi configuration";
const OWN_MEMORY: &str = "the server keeps this in its own memory";

/// The effect of a variable of soketi.
pub(super) enum VariableEffect {
    /// A setting takes it, or it changes nothing.
    Understood,
    /// It has no effect, for this reason.
    NoEffect(&'static str),
    /// soketi has no such variable.
    Unknown,
}

/// Returns the effect of the variable of this name when it has this value.
pub(super) fn effect_of(name: &str, value: &RawValue) -> VariableEffect {
    if ALIASES.iter().any(|alias| alias.name == name) || ALONG.contains(&name) {
        return VariableEffect::Understood;
    }
    if name == READ_REQUESTS.0 {
        let is_none = limit(value, &|_| None) == Some(RawValue::Text(NONE.into()));
        return if is_none {
            VariableEffect::Understood
        } else {
            VariableEffect::NoEffect(READ_REQUESTS.1)
        };
    }
    let Some(rest) = name.strip_prefix(PREFIX) else { return VariableEffect::Unknown };
    let without = WITHOUT.iter().find(|(begins, ..)| rest.starts_with(begins));
    without.map_or(VariableEffect::Unknown, |(_, harmless, reason)| {
        let text = text_of(value);
        match harmless.contains(&text.as_str()) {
            true => VariableEffect::Understood,
            false => VariableEffect::NoEffect(reason),
        }
    })
}

/// The names of all variables that soketi reads and that are known one by one.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let along = ALONG.into_iter().chain([READ_REQUESTS.0]);
    ALIASES.iter().map(|alias| alias.name).chain(along)
}

const NONE: &str = "none";

fn text_of(raw: &RawValue) -> String {
    raw.as_text().trim().to_owned()
}

/// The number that JavaScript makes of the text.
fn number(raw: &RawValue) -> Option<f64> {
    text_of(raw).parse().ok().filter(|number: &f64| number.is_finite())
}

/// A limit, which is none below one.
fn limit(raw: &RawValue, _: Lookup<'_>) -> Option<RawValue> {
    let is_none = number(raw).is_some_and(|number| number < 1.0);
    Some(if is_none { RawValue::Text(NONE.into()) } else { raw.clone() })
}

/// As JavaScript tests for truth, behind JSON.
fn is_true(raw: &RawValue) -> bool {
    match raw {
        RawValue::Bool(truth) => *truth,
        other => !matches!(text_of(other).as_str(), "" | "\"\"") && number(other) != Some(0.0),
    }
}

fn truth(raw: &RawValue, _: Lookup<'_>) -> Option<RawValue> {
    Some(RawValue::Bool(is_true(raw)))
}

fn client_events(raw: &RawValue, _: Lookup<'_>) -> Option<RawValue> {
    let word = if is_true(raw) { "members" } else { CLIENT_EVENTS.1 };
    Some(RawValue::Text(word.into()))
}

fn kibibytes(raw: &RawValue, _: Lookup<'_>) -> Option<RawValue> {
    Some(scaled(raw, 1024.0))
}

fn mebibytes(raw: &RawValue, _: Lookup<'_>) -> Option<RawValue> {
    Some(scaled(raw, 1_048_576.0))
}

/// A number times `factor`. What is none goes on as it is, so that the setting names it.
fn scaled(raw: &RawValue, factor: f64) -> RawValue {
    let number = number(raw).filter(|&number| number >= 0.0);
    number.map_or_else(|| raw.clone(), |number| RawValue::Text(format!("{:.0}", number * factor)))
}

/// With the switch on, connections have to sign in within the time of another variable.
fn sign_in_timeout(raw: &RawValue, lookup: Lookup<'_>) -> Option<RawValue> {
    let milliseconds = lookup(SIGN_IN_TIMEOUT).as_ref().and_then(number);
    let seconds = (milliseconds.unwrap_or(SIGN_IN_TIMEOUT_DEFAULT) / 1000.0).ceil();
    is_true(raw).then(|| RawValue::Text(format!("{seconds:.0}")))
}

/// A webhook by the keys of our settings.
pub(super) type SoketiWebhook = BTreeMap<&'static str, RawValue>;

/// The webhooks that the variable lists.
#[derive(Default)]
pub(super) struct SoketiWebhooks {
    /// One for each that names a URL and an event.
    pub(super) entries: Vec<SoketiWebhook>,
    /// The parts that are not understood, in words.
    pub(super) notes: Vec<String>,
}

/// Reads the list. What soketi passes over is passed over, and told.
pub(super) fn webhooks(text: &str, lookup: Lookup<'_>) -> SoketiWebhooks {
    let mut read = SoketiWebhooks::default();
    let Ok(Value::Array(list)) = serde_json::from_str::<Value>(text) else {
        read.notes.push("it is not a list in JSON, so there are no webhooks".into());
        return read;
    };
    for (index, webhook) in list.iter().enumerate() {
        match entry(webhook, index, &mut read.notes) {
            Some(mut entry) => {
                batching(&mut entry, lookup);
                read.entries.push(entry);
            }
            None => read.notes.push(format!("its entry {index} is left out")),
        }
    }
    read
}

fn entry(webhook: &Value, index: usize, notes: &mut Vec<String>) -> Option<SoketiWebhook> {
    if webhook.get("lambda_function").is_some() {
        notes.push(format!("its entry {index} calls a Lambda function; webhooks go to URLs here"));
    }
    let mut entry = SoketiWebhook::new();
    entry.insert("app.webhooks.url", RawValue::Text(webhook.get("url")?.as_str()?.to_owned()));
    let events = webhook.get("event_types")?.as_array()?.iter().filter_map(Value::as_str);
    let (known, unknown): (Vec<_>, Vec<_>) = events
        .map(str::to_owned)
        .partition(|event| crate::apps::webhook::EventKind::named(event).is_some());
    if !unknown.is_empty() {
        notes.push(format!("there are no events {unknown:?} (entry {index})"));
    }
    if known.is_empty() {
        return None;
    }
    entry.insert("app.webhooks.events", RawValue::List(known));
    for (name, key) in [
        ("channel_name_starts_with", "app.webhooks.channel_prefix"),
        ("channel_name_ends_with", "app.webhooks.channel_suffix"),
    ] {
        let filter = webhook.get("filter").and_then(|filter| filter.get(name));
        if let Some(text) = filter.and_then(Value::as_str).filter(|text| !text.is_empty()) {
            entry.insert(key, RawValue::Text(text.to_owned()));
        }
    }
    if let Some(headers) = webhook.get("headers").and_then(Value::as_object) {
        let line = |(name, value): (&String, &Value)| Some(format!("{name}: {}", value.as_str()?));
        entry.insert(
            "app.webhooks.headers",
            RawValue::List(headers.iter().filter_map(line).collect()),
        );
    }
    Some(entry)
}

/// Without batching every event comes alone, and a receiver may look at the first one only.
fn batching(entry: &mut SoketiWebhook, lookup: Lookup<'_>) {
    if lookup("SOKETI_WEBHOOKS_BATCHING").as_ref().is_some_and(is_true) {
        if let Some(duration) = lookup("SOKETI_WEBHOOKS_BATCHING_DURATION") {
            entry.insert("app.webhooks.batch_window_ms", duration);
        }
    } else {
        entry.insert("app.webhooks.batch_window_ms", RawValue::Integer(0));
        entry.insert("app.webhooks.batch_max", RawValue::Integer(1));
    }
}
