//! Floor 6. A `ringwave.toml` made of Laravel's `config('reverb')`, for what no variable can say:
//! several apps, allowed origins.
//!
//! What has no counterpart, or a value that cannot be served, becomes a comment in its place; an
//! app without its credentials is an error. What is returned has been read back as `ringwave check`
//! would.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::form::{Form, Given, Identifier, OriginPatterns, SecretText};
use super::settings::ALL;
use super::{ConfigError, check_file};

/// Makes the file.
///
/// # Errors
/// The text is not JSON, or not that of `config('reverb')`, or names no app that could be served.
pub fn import_reverb(json: &str) -> Result<String, ConfigError> {
    let root: Value =
        serde_json::from_str(json.trim_start_matches('\u{feff}')).map_err(|error| {
            // Not the parser's own text: it may quote a secret.
            let (line, column) = (error.line(), error.column());
            ConfigError(format!("the input is not JSON: line {line}, column {column}"))
        })?;
    let apps = root.pointer("/apps/apps").and_then(Value::as_array).ok_or_else(|| {
        ConfigError("the input is not Laravel's config('reverb'): it has no apps.apps".into())
    })?;
    if apps.is_empty() {
        return Err(ConfigError("there is no app in the input: apps.apps is empty".into()));
    }
    let mut out = Writer(HEAD.to_owned());
    server(&mut out, &root);
    if root.pointer("/apps/provider").is_some_and(|provider| provider != "config") {
        out.comment(
            "apps.provider is a class of the app, which only PHP can ask: the apps are here.",
        );
    }
    for (index, entry) in apps.iter().enumerate() {
        app(&mut out, index, entry)?;
    }
    check_file(&out.0)?;
    Ok(out.0)
}

const HEAD: &str = "\
# Made of Laravel's config('reverb') by `ringwave import-reverb`. It has the secrets of the apps:
# keep it as you keep .env. Where a variable of .env is set, it wins over this file.
";

/// The settings of a server or an app: those that are taken as they are, under their own names.
const SERVER: [&str; 4] = ["host", "port", "path", "hostname"];
const APP: [&str; 4] = ["ping_interval", "activity_timeout", "max_connections", "max_message_size"];
const RATE_LIMIT: [&str; 2] = ["max_attempts", "decay_seconds"];

/// Those that are looked at one by one.
const SERVER_OTHERS: [&str; 5] = [
    "options",
    "max_request_size",
    "scaling",
    "pulse_ingest_interval",
    "telescope_ingest_interval",
];
const APP_OTHERS: [&str; 7] = [
    "app_id",
    "key",
    "secret",
    "options",
    "allowed_origins",
    "accept_client_events_from",
    "rate_limiting",
];

/// Reverb's own limit counts the headers too, which is known to be too little.
const REVERB_MAX_REQUEST_SIZE: i64 = 10_000;

fn server(out: &mut Writer, root: &Value) {
    let name = root.get("default").and_then(Value::as_str).unwrap_or("reverb");
    out.table("[server]");
    if name != "reverb" {
        out.comment(&format!("From the server {name:?}; there is one server, which has no name."));
    }
    let settings = object(root.get("servers").and_then(|servers| servers.get(name)));
    SERVER.iter().for_each(|key| out.setting("server", key, settings.get(*key)));
    match settings.get("max_request_size").and_then(given) {
        Some(Given::Number(REVERB_MAX_REQUEST_SIZE)) => {
            out.comment(
                "max_request_size: Reverb's 10000 count the headers too; here it is the default.",
            );
        }
        _ => out.setting("server", "max_request_size", settings.get("max_request_size")),
    }
    if !object(settings.get("options").and_then(|options| options.get("tls"))).is_empty() {
        out.comment("options.tls: nginx ends TLS, with its own certificate.");
    }
    if settings.get("scaling").and_then(|scaling| scaling.get("enabled")).is_some_and(is_truthy) {
        out.comment("scaling: not available in this version; one server uses all cores.");
    }
    if settings.keys().any(|key| key.ends_with("_ingest_interval")) {
        out.comment("Intervals of Pulse and Telescope: these run in the app.");
    }
    out.unknown(settings, &[&SERVER[..], &SERVER_OTHERS[..]]);
}

fn app(out: &mut Writer, index: usize, entry: &Value) -> Result<(), ConfigError> {
    let settings = object(Some(entry));
    out.table("[[apps]]");
    for key in ["app_id", "key", "secret"] {
        out.text(key, &credential(settings, index, key)?);
    }
    origins(out, settings.get("allowed_origins"));
    APP.iter().for_each(|key| out.setting("app", key, settings.get(*key)));
    client_events(out, settings.get("accept_client_events_from"));
    rate_limit(out, object(settings.get("rate_limiting")));
    if settings.contains_key("options") {
        out.comment("options: where the app itself sends its requests.");
    }
    out.unknown(settings, &[&APP[..], &APP_OTHERS[..]]);
    Ok(())
}

fn credential(
    settings: &Map<String, Value>,
    index: usize,
    key: &str,
) -> Result<String, ConfigError> {
    let text = match settings.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let given = Given::Text(text);
    let secret = key == "secret";
    let accepted = if secret { SecretText.accept(&given) } else { Identifier.accept(&given) };
    accepted.map_err(|_| {
        let takes = if secret { SecretText.accepted() } else { Identifier.accepted() };
        ConfigError(format!(
            "apps.apps[{index}].{key} is missing in the input or cannot be served: it takes {takes}"
        ))
    })
}

/// A pattern that is left out must not open the app to all: the list is written even when empty.
fn origins(out: &mut Writer, list: Option<&Value>) {
    let Some(Given::List(patterns)) = list.and_then(given) else { return };
    let is_one =
        |pattern: &String| OriginPatterns.accept(&Given::List(vec![pattern.clone()])).is_ok();
    let (taken, left): (Vec<_>, Vec<_>) = patterns.into_iter().partition(is_one);
    out.value("allowed_origins", &Given::List(taken));
    if !left.is_empty() {
        out.comment(&format!("allowed_origins left out, as they are no origins: {left:?}"));
    }
}

fn client_events(out: &mut Writer, from: Option<&Value>) {
    let word = match from {
        Some(Value::String(word)) if ["all", "members"].contains(&word.as_str()) => word,
        // A file from before Reverb 1.8.
        None | Some(Value::Null) => {
            out.comment(
                "Not in the input: then Reverb takes them from anyone; `members` is safer.",
            );
            "all"
        }
        Some(_) => "none",
    };
    out.text("accept_client_events_from", word);
    if word != "none" {
        out.comment(
            "client_events_on_public = true    would take them on public channels, as Reverb does.",
        );
    }
}

fn rate_limit(out: &mut Writer, settings: &Map<String, Value>) {
    let enabled = settings.get("enabled");
    // Reverb compares with `=== true`.
    if enabled != Some(&Value::Bool(true)) {
        if enabled.is_some_and(is_truthy) {
            out.comment("rate_limiting.enabled is not the word true, so it is off, as in Reverb.");
        }
        return;
    }
    out.value("rate_limiting.enabled", &Given::Truth(true));
    for key in RATE_LIMIT {
        out.setting("app", &format!("rate_limiting.{key}"), settings.get(key));
    }
    let terminate = settings.get("terminate_on_limit").is_some_and(is_truthy);
    out.value("rate_limiting.terminate_on_limit", &Given::Truth(terminate));
}

/// What PHP writes as `[]` is an empty object too.
fn object(value: Option<&Value>) -> &Map<String, Value> {
    static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    value.and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// As PHP sees it.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.as_str(), "" | "0"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

/// A value as a source would give it; null and empty text are none. Numbers come as text when they
/// were variables.
fn given(value: &Value) -> Option<Given> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => Given::Truth(*truth),
        Value::Array(items) => Given::List(items.iter().map(text).collect()),
        Value::Number(_) | Value::String(_) | Value::Object(_) => {
            let text = text(value);
            match text.parse() {
                _ if text.is_empty() => return None,
                Ok(number) if text == format!("{number}") => Given::Number(number),
                _ => Given::Text(text),
            }
        }
    })
}

/// The file as far as it is written.
struct Writer(String);

impl Writer {
    fn table(&mut self, header: &str) {
        self.0.push_str(&format!("\n{header}\n"));
    }

    fn comment(&mut self, text: &str) {
        self.0.push_str(&format!("# {text}\n"));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.value(key, &Given::Text(text.to_owned()));
    }

    fn value(&mut self, key: &str, given: &Given) {
        self.0.push_str(&format!("{key} = {}\n", toml(given)));
    }

    /// A value that was given, if the setting takes it; otherwise why it is not there.
    fn setting(&mut self, table: &str, key: &str, value: Option<&Value>) {
        let Some(given) = value.and_then(given) else { return };
        let declared = format!("{table}.{key}");
        let setting = ALL.iter().find(|setting| setting.declaration().key == declared);
        match setting {
            Some(setting) if setting.accepts(&given) => self.value(key, &given),
            Some(setting) => {
                let takes = setting.accepted();
                self.comment(&format!("{key} cannot be {given}: it takes {takes}."));
            }
            None => self.comment(&format!("{key} has no counterpart.")),
        }
    }

    fn unknown(&mut self, settings: &Map<String, Value>, known: &[&[&str]]) {
        let is_known = |key: &str| known.iter().any(|keys| keys.contains(&key));
        for key in settings.keys().filter(|key| !is_known(key)) {
            self.comment(&format!("{key:?} has no counterpart."));
        }
    }
}

fn toml(given: &Given) -> toml::Value {
    match given {
        Given::Truth(truth) => (*truth).into(),
        Given::Number(number) => (*number).into(),
        Given::Text(text) => text.as_str().into(),
        Given::List(items) => items.clone().into(),
        Given::Tables(tables) => tables
            .iter()
            .map(|table| table.iter().map(|(key, value)| (key.clone(), toml(value))).collect())
            .collect::<Vec<toml::Table>>()
            .into(),
    }
}

#[cfg(test)]
mod tests;
