//! Laravel Reverb: `config('reverb')`, as PHP sees it.

use serde_json::Value;

use crate::config::raw_value::RawValue;

use super::cluster::{self, RedisFields};
use super::error::{FieldFault, ImportError};
use super::limits;
use super::loose::Field;
use super::origins::{self, LeftOut, OriginDialect};
use super::writer::TomlWriter;

/// Reverb's own limit counts the headers too, which is known to be too little.
const REVERB_MAX_REQUEST_SIZE: i64 = 10_000;

/// `Str::is` compares each entry with the host of an origin alone.
const ORIGINS: OriginDialect = OriginDialect {
    server: "Reverb",
    empty_is_all: false,
    translate: |entry| match entry {
        origins::ALL => Ok(vec![entry.to_owned()]),
        // Such an entry fits no host, so it let nobody in.
        _ if (entry.contains("://") || origins::without_port(entry).1)
            && origins::is_any_host(entry) =>
        {
            Err(LeftOut("Reverb compares hosts alone, so it let nobody in"))
        }
        _ => Ok(vec![entry.to_owned()]),
    },
};

/// Writes the `ringwave.toml`.
pub(super) fn write(root: &Value) -> Result<TomlWriter, ImportError> {
    let mut root = Field::root(root).object()?;
    let mut out = TomlWriter::new("Laravel's config('reverb')");
    let mut apps = root.take("apps").object()?;
    let list = apps.take("apps").apps("Laravel's config('reverb')")?;
    server(&mut out, &root.take("default"), &root.take("servers"))?;
    if apps.take("provider").value().is_some_and(|provider| provider != "config") {
        out.comment(
            "apps.provider is a class of the app, which only PHP can ask: the apps are here.",
        );
    }
    out.unknown(&apps)?;
    out.unknown(&root)?;
    for entry in list {
        app(&mut out, &entry)?;
    }
    Ok(out)
}

fn server(out: &mut TomlWriter, name: &Field<'_>, servers: &Field<'_>) -> Result<(), ImportError> {
    let name = name.value().and_then(Value::as_str).unwrap_or("reverb");
    out.table("[server]");
    if name != "reverb" {
        out.comment(&format!("From the server {name:?}; there is one server, which has no name."));
    }
    let mut servers = servers.object()?;
    let chosen = servers.take(name);
    if chosen.is_absent() && servers.names().next().is_some() {
        return Err(chosen.refused(FieldFault::NoDefaultServer));
    }
    let mut settings = chosen.object()?;
    out.host(&settings.take("host"));
    for key in ["port", "path", "hostname"] {
        out.setting(&format!("server.{key}"), &settings.take(key));
    }
    let max_request_size = settings.take("max_request_size");
    match max_request_size.raw() {
        Some(RawValue::Integer(REVERB_MAX_REQUEST_SIZE)) => {
            out.comment(
                "max_request_size: Reverb's 10000 count the headers too; here it is the default.",
            );
        }
        _ => out.limit("server.max_request_size", &max_request_size)?,
    }
    let options = settings.take("options");
    if options.object()?.take("tls").object()?.names().next().is_some() {
        out.comment("options.tls: nginx ends TLS, with its own certificate.");
    }
    let scaling = settings.take("scaling");
    let intervals = ["pulse_ingest_interval", "telescope_ingest_interval"];
    if !settings.take_any(&intervals).is_absent() {
        out.comment("Intervals of Pulse and Telescope: these run in the app.");
    }
    out.unknown(&settings)?;
    cluster(out, &scaling)
}

/// Writes the cluster, if there is one. Reverb's own messages are not understood.
fn cluster(out: &mut TomlWriter, scaling: &Field<'_>) -> Result<(), ImportError> {
    let mut scaling = scaling.object()?;
    if !scaling.take("enabled").is_on() {
        return Ok(());
    }
    cluster::begin(out);
    cluster::name(out, &scaling.take("channel"));
    let mut server = scaling.take("server").object()?;
    if server.names().next().is_none() {
        out.comment(
            "scaling.server is empty: Redis is that of the app, by the REDIS_* of its .env.",
        );
        return out.unknown(&scaling);
    }
    let [url, host, port] = ["url", "host", "port"].map(|name| server.take(name));
    let scheme = server.take("scheme");
    let [username, password, database] =
        ["username", "password", "database"].map(|name| server.take(name));
    let scheme = scheme.value().and_then(Value::as_str).map(str::to_owned);
    RedisFields { scheme, url, host, port, username, password, database }.write(out)?;
    if !server.take("timeout").is_absent() {
        out.comment("scaling.server.timeout has no effect: a node never gives Redis up.");
    }
    out.unknown(&server)?;
    out.unknown(&scaling)
}

fn app(out: &mut TomlWriter, entry: &Field<'_>) -> Result<(), ImportError> {
    let mut settings = entry.object()?;
    out.table("[[apps]]");
    let [id, key, secret] = ["app_id", "key", "secret"].map(|name| settings.take(name));
    out.credentials(&id, &key, &secret)?;
    origins::write(out, &settings.take("allowed_origins"), &ORIGINS)?;
    for name in ["ping_interval", "activity_timeout"] {
        out.setting(&format!("app.{name}"), &settings.take(name));
    }
    for name in ["max_connections", "max_message_size"] {
        out.limit(&format!("app.{name}"), &settings.take(name))?;
    }
    client_events(out, &settings.take("accept_client_events_from"));
    rate_limit(out, &settings.take("rate_limiting"))?;
    if !settings.take("options").is_absent() {
        out.comment("options: where the app itself sends its requests.");
    }
    out.unknown(&settings)
}

fn client_events(out: &mut TomlWriter, from: &Field<'_>) {
    let word = match from.value() {
        Some(Value::String(word)) if ["all", "members"].contains(&word.as_str()) => word,
        // A file from before Reverb 1.8.
        None => {
            out.comment(
                "Not in the input: then Reverb takes them from anyone; `members` is safer.",
            );
            "all"
        }
        Some(_) => "none",
    };
    out.text("app.accept_client_events_from", word);
    if word != "none" {
        out.comment(
            "client_events_on_public = true    would take them on public channels, as Reverb does.",
        );
    }
}

fn rate_limit(out: &mut TomlWriter, field: &Field<'_>) -> Result<(), ImportError> {
    let mut settings = field.object()?;
    let enabled = settings.take("enabled");
    // Reverb compares with `=== true`.
    if enabled.value() != Some(&Value::Bool(true)) {
        if enabled.is_on() {
            out.comment("rate_limiting.enabled is not the word true, so it is off, as in Reverb.");
        }
        return Ok(());
    }
    limits::message_rate(out, settings)
}

#[cfg(test)]
mod tests;
