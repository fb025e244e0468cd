//! sockudo: its `config.json` or `config.toml`. Limits of an app are in `policy.limits`, or beside
//! its key in files from before version 4.

use serde_json::Value;

use crate::config::raw_value::RawValue;
use crate::config::sources::Environment;

use super::cluster::{self, RedisFields, SentinelFields};
use super::error::{ImportError, InputError};
use super::input::INPUT_BYTES_MAX;
use super::limits::{
    self, EVENT_DATA, ImportedLimit, ImportedUnit, REQUEST_SIZE, kibibytes, limit, message_size,
    request_rate,
};
use super::loose::{Field, Object, whole};
use super::origins::{self, LeftOut, OriginDialect};
use super::webhooks;
use super::writer::TomlWriter;

/// Entries are compared with the whole origin, port included.
const ORIGINS: OriginDialect =
    OriginDialect { server: "sockudo", empty_is_all: true, translate: patterns };

const DEFAULT_PORT: i64 = 6001;
const DEFAULT_ACTIVITY_TIMEOUT_S: i64 = 120;
const DEFAULT_AUTHENTICATION_TIMEOUT_S: f64 = 3600.0;
const DEFAULT_PAYLOAD_KIB: f64 = 64.0;
const DEFAULT_REQUEST_MIB: f64 = 10.0;
const DEFAULT_CACHE_TTL_S: f64 = 3600.0;
const DEFAULT_BATCH_WINDOW_MS: f64 = 50.0;

/// The limits of all apps, by section.
const FOR_ALL: [(&str, ImportedLimit); 7] = [
    ("presence", limit(&["max_members_per_channel"], &["app.max_presence_members"])),
    ("presence", kibibytes(&["max_member_size_in_kb"], &["app.max_presence_user_info"])),
    ("channel_limits", limit(&["max_name_length"], &["app.max_channel_name"])),
    ("event_limits", limit(&["max_channels_at_once"], &["app.max_channels_per_event"])),
    ("event_limits", limit(&["max_name_length"], &["app.max_event_name"])),
    ("event_limits", limit(&["max_batch_size"], &["app.max_batch"])),
    ("event_limits", kibibytes(&["max_payload_in_kb"], &EVENT_DATA)),
];

/// The limits of one app.
const OF_APP: [ImportedLimit; 7] = [
    limit(&["max_presence_members_per_channel"], &["app.max_presence_members"]),
    kibibytes(&["max_presence_member_size_in_kb"], &["app.max_presence_user_info"]),
    limit(&["max_channel_name_length"], &["app.max_channel_name"]),
    limit(&["max_event_channels_at_once"], &["app.max_channels_per_event"]),
    limit(&["max_event_name_length"], &["app.max_event_name"]),
    limit(&["max_event_batch_size"], &["app.max_batch"]),
    kibibytes(&["max_event_payload_in_kb"], &EVENT_DATA),
];

/// The text with `${NAME}` and `${NAME:-default}` filled from the environment, as sockudo does
/// before it parses its file.
pub(super) fn filled(text: &str, environment: &Environment) -> Result<String, InputError> {
    let mut filled = String::with_capacity(text.len());
    let mut missing = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        let Some((variable, behind)) = variable(after) else {
            filled.push_str("${");
            rest = after;
            continue;
        };
        let (name, default) = match variable.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (variable, None),
        };
        let set = environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
        match set.or(default) {
            Some(value) => filled.push_str(value),
            None => missing.push(name.to_owned()),
        }
        rest = behind;
        if filled.len() > INPUT_BYTES_MAX {
            return Err(InputError::TooLongFilled);
        }
    }
    filled.push_str(rest);
    if missing.is_empty() {
        return Ok(filled);
    }
    Err(InputError::Variables(missing))
}

/// The text up to the brace that closes a variable, if this is one, and what is behind it.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (inside, behind) = text.split_once('}')?;
    let name = inside.split_once(":-").map_or(inside, |(name, _)| name);
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((inside, behind))
}

/// Writes the `ringwave.toml`.
pub(super) fn write(root: &Value) -> Result<TomlWriter, ImportError> {
    let mut root = Field::root(root).object()?;
    let mut out = TomlWriter::new("the configuration of sockudo");
    let mut manager = root.take("app_manager").object()?;
    let apps = manager.take("array").object()?.take("apps");
    let apps = apps.apps("a configuration of sockudo with its apps")?;
    server(&mut out, &mut root)?;
    if manager.take("driver").value().is_some_and(|driver| driver != "memory") {
        out.comment(
            "app_manager.driver: the apps of a database are not read; these are the file's.",
        );
    }
    for_all(&mut out, &mut root)?;
    let mut batching = root.take("webhooks").object()?.take("batching").object()?;
    let enabled = batching.take("enabled").truth()?.unwrap_or(true);
    let window_ms = batching.take("duration").number()?.unwrap_or(DEFAULT_BATCH_WINDOW_MS);
    let shared = Shared {
        max_connections: root.take("max_connections"),
        authentication_timeout: root.take("user_authentication_timeout"),
        webhooks: webhooks::WebhookDialect {
            prefix: "channel_prefix",
            suffix: "channel_suffix",
            window_ms: enabled.then_some(window_ms),
        },
    };
    out.unknown(&root)?;
    for entry in apps {
        app(&mut out, &entry, &shared)?;
    }
    Ok(out)
}

/// Settings of the server that are settings of each app here.
struct Shared<'a> {
    max_connections: Field<'a>,
    authentication_timeout: Field<'a>,
    webhooks: webhooks::WebhookDialect,
}

fn server(out: &mut TomlWriter, root: &mut Object<'_>) -> Result<(), ImportError> {
    out.table("[server]");
    out.host(&root.take("host"));
    let port = root.take("port");
    match port.is_absent() {
        true => out.number("server.port", DEFAULT_PORT),
        false => out.setting("server.port", &port),
    }
    unix_socket(out, &root.take("unix_socket"))?;
    out.setting("server.path", &root.take("path_prefix"));
    if root.take("debug").is_on() {
        out.truth("server.debug", true);
    }
    let mut http_api = root.take("http_api").object()?;
    REQUEST_SIZE.carry_or(out, &http_api.take("request_limit_in_mb"), DEFAULT_REQUEST_MIB)?;
    rate_of_addresses(out, &root.take("rate_limiter"))?;
    if root.take("ssl").object()?.take("enabled").is_on() {
        out.comment("ssl: nginx ends TLS, with its own certificate.");
    }
    if !root.take("cors").is_absent() {
        out.comment("cors: of the HTTP API alone; allowed_origins of an app is for WebSockets.");
    }
    cluster(out, &root.take("adapter"), &root.take("database"))
}

/// Writes the cluster of nodes that meet on a Redis. sockudo's own messages are not understood.
fn cluster(
    out: &mut TomlWriter,
    adapter: &Field<'_>,
    database: &Field<'_>,
) -> Result<(), ImportError> {
    let mut adapter = adapter.object()?;
    let is_cluster = match adapter.take("driver").value().and_then(Value::as_str) {
        None | Some("local") => return Ok(()),
        Some("redis") => false,
        Some("redis-cluster") => true,
        Some(_) => {
            out.comment("adapter: nodes meet on a Redis here, which [cluster] names.");
            return Ok(());
        }
    };
    let mut options = adapter.take(if is_cluster { "cluster" } else { "redis" }).object()?;
    let mut redis = database.object()?.take("redis").object()?;
    let mut of_cluster = redis.take("cluster").object()?;
    cluster::begin(out);
    cluster::name(out, &options.take("prefix"));
    let mut tls = redis.take("master_tls").object()?;
    let is_tls = tls.take("enabled").is_on() || (is_cluster && of_cluster.take("use_tls").is_on());
    let scheme = is_tls.then(|| "rediss".to_owned());
    let url = options.take("redis_pub_options").object()?.take("url");
    let [host, port] = ["host", "port"].map(|name| redis.take(name));
    let [username, password, database] =
        ["username", "password", "db"].map(|name| redis.take(name));
    let fields = RedisFields { scheme, url, host, port, username, password, database };
    let sentinels = SentinelFields {
        list: redis.take("sentinels"),
        master: redis.take("name"),
        username: redis.take("sentinel_username"),
        password: redis.take("sentinel_password"),
    };
    if is_cluster {
        let nodes = [options.take("nodes"), of_cluster.take("nodes"), redis.take("cluster_nodes")];
        let nodes = nodes.iter().find(|nodes| nodes.list().is_ok_and(|list| !list.is_empty()));
        match nodes {
            Some(nodes) => cluster::write_nodes(out, nodes, is_tls)?,
            None => out.text("cluster.mode", "cluster"),
        }
        fields.write_login(out);
    } else if fields.url.is_absent() && sentinels.write(out, is_tls)? {
        fields.write_login(out);
    } else {
        fields.write(out)?;
    }
    if is_tls {
        tls_files(out, &mut tls);
    }
    Ok(())
}

fn tls_files(out: &mut TomlWriter, tls: &mut Object<'_>) {
    for (name, setting) in [
        ("ca_path", "cluster.tls_ca"),
        ("client_cert_path", "cluster.tls_certificate"),
        ("client_key_path", "cluster.tls_key"),
    ] {
        out.setting(setting, &tls.take(name));
    }
    if tls.take("accept_invalid_certs").is_on() {
        out.comment("accept_invalid_certs: the certificate of Redis is always checked.");
    }
}

/// sockudo then listens there alone.
fn unix_socket(out: &mut TomlWriter, field: &Field<'_>) -> Result<(), ImportError> {
    let mut settings = field.object()?;
    if settings.take("enabled").truth()? != Some(true) {
        return Ok(());
    }
    let path = settings.take("path");
    let address = format!("unix://{}", path.value().and_then(Value::as_str).unwrap_or_default());
    let raw = RawValue::List(vec![address]);
    out.limit_to("server.listen", &raw, &path)?;
    let mode = settings.take("permission_mode");
    if !mode.is_absent() {
        out.comment(&format!("unix_socket.permission_mode is not taken over: {}.", mode.shown()));
    }
    Ok(())
}

/// sockudo counts requests and handshakes of an address per window. The nearest here is one rate
/// per second for both: the smaller one, and never below the least that there is.
fn rate_of_addresses(out: &mut TomlWriter, field: &Field<'_>) -> Result<(), ImportError> {
    let mut settings = field.object()?;
    if settings.take("enabled").truth()? != Some(true) {
        return Ok(());
    }
    let mut least: Option<f64> = None;
    for (name, requests, window) in
        [("api_rate_limit", 100.0, 60.0), ("websocket_rate_limit", 20.0, 60.0)]
    {
        let mut limit = settings.take(name).object()?;
        let requests = limit.take("max_requests").number()?.unwrap_or(requests);
        let window = limit.take("window_seconds").number()?.unwrap_or(window).max(1.0);
        let rate = requests / window;
        least = Some(least.map_or(rate, |least| least.min(rate)));
    }
    let rate = least.unwrap_or(1.0).floor().max(1.0);
    out.limit_to("server.max_requests_per_address", &whole(rate), field)?;
    out.comment(
        "rate_limiter: sockudo counts per window, and API and handshakes apart. Here it is one",
    );
    out.comment("rate per second for both, with five seconds' worth at once; the least is 1.");
    Ok(())
}

/// Writes the settings of every app that does not say otherwise.
fn for_all(out: &mut TomlWriter, root: &mut Object<'_>) -> Result<(), ImportError> {
    out.table("[app]");
    let timeout = root.take("activity_timeout");
    for setting in ["app.activity_timeout", "app.ping_interval"] {
        match timeout.is_absent() {
            true => out.number(setting, DEFAULT_ACTIVITY_TIMEOUT_S),
            false => out.setting(setting, &timeout),
        }
    }
    let mut sections = ["presence", "channel_limits", "event_limits"]
        .map(|name| (name, root.take(name).object()))
        .into_iter()
        .map(|(name, object)| object.map(|object| (name, object)))
        .collect::<Result<Vec<_>, _>>()?;
    for (section, object) in &mut sections {
        for (_, limit) in FOR_ALL.iter().filter(|(of, _)| of == section) {
            limit.carry(out, object)?;
        }
        if *section == "channel_limits" {
            let ttl = limit(&[], &["app.cache_ttl"]);
            ttl.carry_or(out, &object.take("cache_ttl"), DEFAULT_CACHE_TTL_S)?;
        }
        out.unknown(object)?;
    }
    let kibibytes = root.take("websocket_max_payload_kb").number()?.unwrap_or(DEFAULT_PAYLOAD_KIB);
    let bytes = root.take("websocket").object()?.take("max_bytes").number()?;
    message_size(out, bytes.unwrap_or_else(|| ImportedUnit::Kibibytes.convert(kibibytes)));
    Ok(())
}

fn app(out: &mut TomlWriter, entry: &Field<'_>, shared: &Shared<'_>) -> Result<(), ImportError> {
    let mut flat = entry.object()?;
    let mut policy = flat.take("policy").object()?;
    let mut limits = policy.take("limits").object()?;
    let mut features = policy.take("features").object()?;
    let mut channels = policy.take("channels").object()?;
    out.table("[[apps]]");
    let [id, key, secret] = ["id", "key", "secret"].map(|name| flat.take(name));
    out.credentials(&id, &key, &secret)?;
    origins::write(out, &either("allowed_origins", &mut channels, &mut flat), &ORIGINS)?;
    if flat.take("enabled").truth()? != Some(true) {
        out.truth("app.enabled", false);
        out.comment("enabled: sockudo serves an app only if it is true.");
    }
    connections(out, &either("max_connections", &mut limits, &mut flat), shared)?;
    client_events(out, &mut [&mut features, &mut limits, &mut flat])?;
    let publishes = either("max_backend_events_per_second", &mut limits, &mut flat);
    let reads = either("max_read_requests_per_second", &mut limits, &mut flat);
    request_rate(out, &publishes, &reads)?;
    for limit in &OF_APP {
        let field = limit.names.first().map(|name| either(name, &mut limits, &mut flat));
        field.map_or(Ok(()), |field| limit.carry_field(out, &field))?;
    }
    message_rate(out, &either("message_rate_limit", &mut limits, &mut flat))?;
    if either("enable_user_authentication", &mut features, &mut flat).truth()? == Some(true) {
        limit(&[], &["app.user_authentication_timeout"]).carry_or(
            out,
            &shared.authentication_timeout,
            DEFAULT_AUTHENTICATION_TIMEOUT_S,
        )?;
    }
    if !either("channel_namespaces", &mut channels, &mut flat).is_absent() {
        out.comment("channel_namespaces: without a counterpart; they restrict nothing here.");
    }
    // Watchlists are there for everybody who signs in.
    either("enable_watchlist_events", &mut features, &mut flat);
    let list = either("webhooks", &mut policy, &mut flat);
    for object in [&flat, &policy, &limits, &features, &channels] {
        out.unknown(object)?;
    }
    webhooks::write(out, &list, &shared.webhooks)
}

/// A field of the policy, or of the app in files from before version 4.
fn either<'a>(name: &str, policy: &mut Object<'a>, flat: &mut Object<'a>) -> Field<'a> {
    let (grouped, flat) = (policy.take(name), flat.take(name));
    if grouped.is_absent() && !flat.is_absent() { flat } else { grouped }
}

/// The smaller limit of the app's and the server's, which counts all apps together. 0 is none.
fn connections(
    out: &mut TomlWriter,
    of_app: &Field<'_>,
    shared: &Shared<'_>,
) -> Result<(), ImportError> {
    let limited = |field: &Field<'_>| -> Result<Option<f64>, ImportError> {
        Ok(field.number()?.filter(|number| *number > 0.0))
    };
    let (own, of_all) = (limited(of_app)?, limited(&shared.max_connections)?);
    let (number, field) = match (own, of_all) {
        (None, None) => return Ok(()),
        (Some(own), Some(of_all)) if of_all < own => (of_all, &shared.max_connections),
        (Some(own), _) => (own, of_app),
        (None, Some(of_all)) => (of_all, &shared.max_connections),
    };
    out.limit_to("app.max_connections", &whole(number), field)
}

fn client_events(
    out: &mut TomlWriter,
    objects: &mut [&mut Object<'_>; 3],
) -> Result<(), ImportError> {
    let [features, limits, flat] = objects;
    let enabled = either("enable_client_messages", features, flat).truth()? == Some(true);
    let from = if enabled { "members" } else { "none" };
    out.text("app.accept_client_events_from", from);
    let rate = either("max_client_events_per_second", limits, flat);
    let window = either("decay_seconds", limits, flat).number()?.unwrap_or(1.0).max(1.0);
    if either("terminate_on_limit", limits, flat).is_on() {
        out.comment("terminate_on_limit: of client events; here they are refused.");
    }
    match rate.number()?.filter(|number| *number > 0.0) {
        Some(number) => out.limit_to(
            "app.max_client_events_per_second",
            &whole((number / window).floor()),
            &rate,
        ),
        None => Ok(()),
    }
}

/// The limit of all messages of a connection, which is Reverb's.
fn message_rate(out: &mut TomlWriter, field: &Field<'_>) -> Result<(), ImportError> {
    let mut settings = field.object()?;
    if settings.take("enabled").truth()? != Some(true) {
        return Ok(());
    }
    limits::message_rate(out, settings)
}

/// The patterns that mean what an entry means in sockudo.
fn patterns(entry: &str) -> Result<Vec<String>, LeftOut> {
    if entry == origins::ALL || entry.eq_ignore_ascii_case("any") {
        return Ok(vec![origins::ALL.to_owned()]);
    }
    if entry.matches('*').count() > 1 {
        return Err(LeftOut("sockudo takes one * in an entry"));
    }
    if entry.contains("://") {
        return Ok(vec![entry.to_owned()]);
    }
    let (host, has_port) = origins::without_port(entry);
    if host.contains('*') && !host.starts_with('*') {
        return Err(LeftOut("sockudo compares it with the scheme too, so it let nobody in"));
    }
    // `*.example.com` is also the domain itself there.
    let domain = entry.strip_prefix("*.");
    let entries = domain.into_iter().chain([entry]);
    // Without a port only origins on the port of their scheme fit.
    Ok(match has_port {
        true => entries.map(str::to_owned).collect(),
        false => entries
            .flat_map(|entry| ["http", "https"].map(|scheme| format!("{scheme}://{entry}")))
            .collect(),
    })
}

#[cfg(test)]
mod tests;
