//! beyondcode/laravel-websockets: `config('websockets')` of its versions 1 and 2.

use serde_json::Value;

use super::cluster;
use super::error::ImportError;
use super::limits::{ImportedLimit, ImportedUnit, Unlimited, message_size};
use super::loose::{Field, Object};
use super::origins::{self, LeftOut, OriginDialect};
use super::writer::TomlWriter;

/// Each entry is compared with the host of an origin letter by letter.
const ORIGINS: OriginDialect = OriginDialect {
    server: "laravel-websockets",
    empty_is_all: true,
    translate: |entry| match entry.contains('*') {
        true => Err(LeftOut("laravel-websockets knows no patterns, so it let nobody in")),
        false => Ok(vec![entry.to_owned()]),
    },
};

const REQUEST_SIZE: ImportedLimit = ImportedLimit {
    names: &["max_request_size_in_kb"],
    settings: &["server.max_request_size"],
    unit: ImportedUnit::Kibibytes,
    unlimited: Unlimited::Never,
};

/// The port of `php artisan websockets:serve` without `--port`.
const DEFAULT_PORT: i64 = 6001;

/// Writes the `ringwave.toml`.
pub(super) fn write(root: &Value) -> Result<TomlWriter, ImportError> {
    let mut root = Field::root(root).object()?;
    let mut out = TomlWriter::new("Laravel's config('websockets')");
    let apps = root.take("apps").apps("Laravel's config('websockets')")?;
    let origins = root.take("allowed_origins");
    let request_size = root.take("max_request_size_in_kb");
    out.table("[server]");
    port(&mut out, &root.take("dashboard"))?;
    REQUEST_SIZE.carry_field(&mut out, &request_size)?;
    if root.take("ssl").object()?.take("local_cert").is_on() {
        out.comment("ssl: nginx ends TLS, with its own certificate.");
    }
    drivers(&mut out, &mut root)?;
    let replication = root.take("replication");
    out.unknown(&root)?;
    cluster(&mut out, &replication)?;
    for entry in apps {
        app(&mut out, &entry, &origins, &request_size)?;
    }
    Ok(out)
}

fn port(out: &mut TomlWriter, dashboard: &Field<'_>) -> Result<(), ImportError> {
    let port = dashboard.object()?.take("port");
    match port.raw() {
        Some(_) => out.setting("server.port", &port),
        None => out.number("server.port", DEFAULT_PORT),
    }
    out.comment("The port is that of the dashboard; `websockets:serve --port` may have another.");
    Ok(())
}

/// Notes the drivers with which version 2 keeps apps elsewhere.
fn drivers(out: &mut TomlWriter, root: &mut Object<'_>) -> Result<(), ImportError> {
    let manager = root.take("managers").object()?.take("app");
    let provider = root.take("app_provider");
    let of_config = |class: &Field<'_>| {
        let class = class.value().and_then(Value::as_str).unwrap_or("ConfigAppManager");
        class.ends_with("ConfigAppManager") || class.ends_with("ConfigAppProvider")
    };
    if !of_config(&manager) || !of_config(&provider) {
        out.comment("The apps are kept elsewhere than in the configuration: add them here.");
    }
    Ok(())
}

/// Writes the cluster of version 2, whose nodes meet on a Redis of `config/database.php`.
fn cluster(out: &mut TomlWriter, replication: &Field<'_>) -> Result<(), ImportError> {
    let mode = replication.object()?.take("mode");
    if mode.value().is_some_and(|mode| mode != "local") {
        cluster::begin(out);
        out.comment("replication: Redis is that of the app, by the REDIS_* of its .env.");
    }
    Ok(())
}

fn app(
    out: &mut TomlWriter,
    entry: &Field<'_>,
    of_all: &Field<'_>,
    request_size: &Field<'_>,
) -> Result<(), ImportError> {
    let mut settings = entry.object()?;
    out.table("[[apps]]");
    let [id, key, secret] = ["id", "key", "secret"].map(|name| settings.take(name));
    out.credentials(&id, &key, &secret)?;
    // Version 1 has one list for all apps.
    let own = settings.take("allowed_origins");
    let empty = |list: &Field<'_>| match list.value() {
        None => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(items)) => items.is_empty(),
        Some(_) => false,
    };
    origins::write(out, if empty(&own) { of_all } else { &own }, &ORIGINS)?;
    out.limit("app.max_connections", &settings.take("capacity"))?;
    if let Some(kilobytes) = request_size.number()? {
        message_size(out, ImportedUnit::Kibibytes.convert(kilobytes));
    }
    if settings.take("enable_client_messages").is_on() {
        out.text("app.accept_client_events_from", "members");
        out.truth("app.client_events_on_public", true);
        out.comment("laravel-websockets takes client events from anyone, not from members alone.");
    } else {
        out.text("app.accept_client_events_from", "none");
    }
    let of_dashboard = ["name", "host", "path", "enable_statistics"];
    if !settings.take_any(&of_dashboard).is_absent() {
        out.comment("name, host, path and enable_statistics were for the dashboard.");
    }
    out.unknown(&settings)
}

#[cfg(test)]
mod tests;
