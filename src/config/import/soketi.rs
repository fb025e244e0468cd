//! soketi: its `config.json`, in which a name may be a path: `"appManager.array.apps.0.id"`.

use serde_json::{Map, Value};

use super::cluster::{self, RedisFields, SentinelFields};
use super::error::{ImportError, InputError};
use super::limits::{
    EVENT_DATA, ImportedLimit, ImportedUnit, REQUEST_SIZE, Unlimited, kibibytes, limit,
    message_size, request_rate,
};
use super::loose::{Field, Object, whole};
use super::webhooks;
use super::writer::TomlWriter;

/// soketi's limits of all apps, with what soketi has for each that is not in the file.
const FOR_ALL: [(&str, ImportedLimit, f64); 8] = [
    ("presence", limit(&["maxMembersPerChannel"], &["app.max_presence_members"]), 100.0),
    ("presence", kibibytes(&["maxMemberSizeInKb"], &["app.max_presence_user_info"]), 2.0),
    ("channelLimits", limit(&["maxNameLength"], &["app.max_channel_name"]), 200.0),
    ("channelLimits", limit(&["cacheTtl"], &["app.cache_ttl"]), 3600.0),
    ("eventLimits", limit(&["maxChannelsAtOnce"], &["app.max_channels_per_event"]), 100.0),
    ("eventLimits", limit(&["maxNameLength"], &["app.max_event_name"]), 200.0),
    ("eventLimits", limit(&["maxBatchSize"], &["app.max_batch"]), 10.0),
    ("eventLimits", kibibytes(&["maxPayloadInKb"], &EVENT_DATA), 100.0),
];

/// The limits of one app.
const OF_APP: [ImportedLimit; 6] = [
    limit(
        &[
            "maxPresenceMembersPerChannel",
            "MaxPresenceMembersPerChannel",
            "max_presence_members_per_channel",
        ],
        &["app.max_presence_members"],
    ),
    kibibytes(
        &[
            "maxPresenceMemberSizeInKb",
            "MaxPresenceMemberSizeInKb",
            "max_presence_member_size_in_kb",
        ],
        &["app.max_presence_user_info"],
    ),
    limit(
        &["maxChannelNameLength", "MaxChannelNameLength", "max_channel_name_length"],
        &["app.max_channel_name"],
    ),
    limit(
        &["maxEventChannelsAtOnce", "MaxEventChannelsAtOnce", "max_event_channels_at_once"],
        &["app.max_channels_per_event"],
    ),
    limit(
        &["maxEventNameLength", "MaxEventNameLength", "max_event_name_length"],
        &["app.max_event_name"],
    ),
    limit(&["maxEventBatchSize", "MaxEventBatchSize", "max_event_batch_size"], &["app.max_batch"]),
];

const MAX_CONNECTIONS: ImportedLimit = ImportedLimit {
    names: &["maxConnections", "MaxConnections", "max_connections"],
    settings: &["app.max_connections"],
    unit: ImportedUnit::One,
    unlimited: Unlimited::ZeroOrLess,
};

const CLIENT_EVENTS: ImportedLimit = ImportedLimit {
    names: &["maxClientEventsPerSecond", "MaxClientEventsPerSecond", "max_client_events_per_sec"],
    settings: &["app.max_client_events_per_second"],
    unit: ImportedUnit::One,
    unlimited: Unlimited::Negative,
};

/// Most parts of a name that is a path. The longest of soketi's own has six.
const DEPTH_MAX: usize = 16;

const DEFAULT_PORT: i64 = 6001;
const DEFAULT_BATCH_WINDOW_MS: f64 = 50.0;
const DEFAULT_AUTHENTICATION_TIMEOUT_MS: f64 = 30_000.0;

/// Sections of drivers and of other programs, which say nothing about what clients may do.
const ELSEWHERE: [&str; 8] = [
    "cache",
    "cluster",
    "databasePooling",
    "instance",
    "mode",
    "queue",
    "rateLimiter",
    "shutdownGracePeriod",
];

/// The configuration with names that are paths taken apart, as soketi does.
pub(super) fn nested(root: Value) -> Result<Value, InputError> {
    let Value::Object(fields) = root else { return Ok(root) };
    let (paths, plain): (Map<_, _>, Map<_, _>) =
        fields.into_iter().partition(|(name, _)| name.contains('.'));
    let mut root = Value::Object(plain);
    for (path, value) in paths {
        let parts: Vec<&str> = path.split('.').collect();
        let place = if parts.len() > DEPTH_MAX { None } else { place(&mut root, &parts) };
        *place.ok_or_else(|| {
            let shown: String = path.chars().take(80).collect();
            InputError::Path(shown)
        })? = value;
    }
    Ok(root)
}

/// The value at a path, made if it is not there.
fn place<'a>(root: &'a mut Value, parts: &[&str]) -> Option<&'a mut Value> {
    let mut at = root;
    for part in parts {
        if let Value::Array(items) = at {
            let items = std::mem::take(items).into_iter().enumerate();
            *at = items.map(|(index, item)| (index.to_string(), item)).collect();
        }
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        at = at.as_object_mut()?.entry(*part).or_insert(Value::Null);
    }
    Some(at)
}

/// Writes the `ringwave.toml`.
pub(super) fn write(root: &Value) -> Result<TomlWriter, ImportError> {
    let mut root = Field::root(root).object()?;
    let mut out = TomlWriter::new("the configuration of soketi");
    let mut manager = root.take("appManager").object()?;
    let apps = manager.take("array").object()?.take("apps");
    let apps = apps.apps("a configuration of soketi with its apps")?;
    let event_limits = root.take("eventLimits");
    server(&mut out, &mut root, &event_limits)?;
    if manager.take("driver").value().is_some_and(|driver| driver != "array") {
        out.comment(
            "appManager.driver: the apps of a database are not read; these are the file's.",
        );
    }
    for_all(&mut out, &mut root, &event_limits)?;
    let timeout = root.take("userAuthenticationTimeout");
    let mut batching = root.take("webhooks").object()?.take("batching").object()?;
    let window_ms = match batching.take("enabled").is_on() {
        true => Some(batching.take("duration").number()?.unwrap_or(DEFAULT_BATCH_WINDOW_MS)),
        false => None,
    };
    let webhooks = webhooks::WebhookDialect {
        prefix: "channel_name_starts_with",
        suffix: "channel_name_ends_with",
        window_ms,
    };
    out.unknown(&root)?;
    for entry in apps {
        app(&mut out, &entry, &timeout, &webhooks)?;
    }
    Ok(out)
}

fn server(
    out: &mut TomlWriter,
    root: &mut Object<'_>,
    event_limits: &Field<'_>,
) -> Result<(), ImportError> {
    out.table("[server]");
    out.host(&root.take("host"));
    let port = root.take("port");
    match port.is_absent() {
        true => out.number("server.port", DEFAULT_PORT),
        false => out.setting("server.port", &port),
    }
    out.setting("server.path", &root.take("pathPrefix"));
    if root.take("debug").is_on() {
        out.truth("server.debug", true);
    }
    request_size(out, &root.take("httpApi").object()?.take("requestLimitInMb"), event_limits)?;
    if root.take("ssl").object()?.take("certPath").is_on() {
        out.comment("ssl: nginx ends TLS, with its own certificate.");
    }
    if root.take("metrics").object()?.take("enabled").is_on() {
        out.comment("metrics: without a counterpart.");
    }
    if !root.take("cors").is_absent() {
        out.comment(
            "cors: soketi checks no origins of WebSockets. allowed_origins of an app would.",
        );
    }
    let [adapter, database] = ["adapter", "database"].map(|name| root.take(name));
    let driver = adapter.object()?.take("driver");
    let is_redis = driver.value().is_some_and(|driver| driver == "redis");
    let there = |name: &&str| !root.take(name).is_absent();
    let mut elsewhere: Vec<_> = ELSEWHERE.into_iter().filter(there).collect();
    if !is_redis && !database.is_absent() {
        elsewhere.push("database");
    }
    out.without_counterpart(&elsewhere);
    match driver.value() {
        None => Ok(()),
        Some(driver) if driver == "local" => Ok(()),
        Some(driver) if driver == "redis" => cluster(out, &adapter, &database),
        Some(_) => {
            out.comment("adapter: nodes meet on a Redis here, which [cluster] names.");
            Ok(())
        }
    }
}

/// Writes the cluster of nodes that meet on a Redis. soketi's own messages are not understood.
fn cluster(
    out: &mut TomlWriter,
    adapter: &Field<'_>,
    database: &Field<'_>,
) -> Result<(), ImportError> {
    let mut adapter = adapter.object()?.take("redis").object()?;
    let mut redis = database.object()?.take("redis").object()?;
    cluster::begin(out);
    // Without a prefix soketi has one set of nodes for each Redis.
    cluster::name(out, &adapter.take("prefix"));
    let [publish, subscribe] =
        ["redisPubOptions", "redisSubOptions"].map(|name| adapter.take(name));
    let mut tls = !redis.take("tls").is_absent();
    for mut options in [publish.object()?, subscribe.object()?] {
        tls |= !options.take("tls").is_absent();
        out.unknown(&options)?;
    }
    let [nodes, absent] = ["clusterNodes", "url"].map(|name| redis.take(name));
    let sentinels = SentinelFields {
        list: redis.take("sentinels"),
        master: redis.take("name"),
        username: redis.take("sentinelUsername"),
        password: redis.take("sentinelPassword"),
    };
    let [host, port] = ["host", "port"].map(|name| redis.take(name));
    let [username, password, database] =
        ["username", "password", "db"].map(|name| redis.take(name));
    let scheme = tls.then(|| "rediss".to_owned());
    let fields = RedisFields { scheme, url: absent, host, port, username, password, database };
    if adapter.take("clusterMode").is_on() {
        cluster::write_nodes(out, &nodes, tls)?;
        fields.write_login(out);
    } else if sentinels.write(out, tls)? {
        fields.write_login(out);
    } else {
        fields.write(out)?;
    }
    out.unknown(&redis)?;
    out.unknown(&adapter)
}

/// The limit of the file, or else what a full batch takes, which is less than soketi's own 100 MiB.
fn request_size(
    out: &mut TomlWriter,
    limit: &Field<'_>,
    event_limits: &Field<'_>,
) -> Result<(), ImportError> {
    if !limit.is_absent() {
        return REQUEST_SIZE.carry_field(out, limit);
    }
    let mut limits = event_limits.object()?;
    let events = limits.take("maxBatchSize").number()?.unwrap_or(10.0).max(1.0);
    let kilobytes = limits.take("maxPayloadInKb").number()?.unwrap_or(100.0).max(1.0);
    let bytes = events * (ImportedUnit::Kibibytes.convert(kilobytes) + REQUEST_BYTES_PER_EVENT);
    out.value("server.max_request_size", &whole(bytes.floor().min(DEFAULT_REQUEST_BYTES)));
    Ok(())
}

/// Bytes of a request beside the data of each event: names of up to 100 channels, escapes.
const REQUEST_BYTES_PER_EVENT: f64 = 30_000.0;

/// soketi's own limit of a request.
const DEFAULT_REQUEST_BYTES: f64 = 104_857_600.0;

/// Writes the settings of every app that does not say otherwise.
fn for_all(
    out: &mut TomlWriter,
    root: &mut Object<'_>,
    event_limits: &Field<'_>,
) -> Result<(), ImportError> {
    out.table("[app]");
    let mut presence = root.take("presence").object()?;
    let mut channels = root.take("channelLimits").object()?;
    let mut events = event_limits.object()?;
    for (section, limit, default) in &FOR_ALL {
        let object = match *section {
            "presence" => &mut presence,
            "channelLimits" => &mut channels,
            _ => &mut events,
        };
        let field = object.take_any(limit.names);
        limit.carry_or(out, &field, *default)?;
        if limit.settings == EVENT_DATA {
            message_size(out, ImportedUnit::Kibibytes.convert(field.number()?.unwrap_or(*default)));
        }
    }
    [presence, channels, events].iter().try_for_each(|object| out.unknown(object))
}

fn app(
    out: &mut TomlWriter,
    entry: &Field<'_>,
    timeout: &Field<'_>,
    webhooks: &webhooks::WebhookDialect,
) -> Result<(), ImportError> {
    let mut settings = entry.object()?;
    out.table("[[apps]]");
    let id = settings.take_any(&["id", "AppId"]);
    let key = settings.take_any(&["key", "AppKey"]);
    let secret = settings.take_any(&["secret", "AppSecret"]);
    out.credentials(&id, &key, &secret)?;
    out.comment("allowed_origins = [\"example.com\"]    would restrict browsers; soketi cannot.");
    if settings.take_any(&["enabled", "Enabled"]).truth()? == Some(false) {
        out.truth("app.enabled", false);
    }
    MAX_CONNECTIONS.carry(out, &mut settings)?;
    let names = ["enableClientMessages", "EnableClientMessages", "enable_client_messages"];
    if settings.take_any(&names).truth()? == Some(true) {
        out.text("app.accept_client_events_from", "members");
        out.truth("app.client_events_on_public", true);
    } else {
        out.text("app.accept_client_events_from", "none");
    }
    CLIENT_EVENTS.carry(out, &mut settings)?;
    let publishes = settings.take_any(&[
        "maxBackendEventsPerSecond",
        "MaxBackendEventsPerSecond",
        "max_backend_events_per_sec",
    ]);
    let reads = settings.take_any(&[
        "maxReadRequestsPerSecond",
        "MaxReadRequestsPerSecond",
        "max_read_req_per_sec",
    ]);
    request_rate(out, &publishes, &reads)?;
    for limit in &OF_APP {
        limit.carry(out, &mut settings)?;
    }
    payload_of_app(out, &mut settings)?;
    authentication(out, &mut settings, timeout)?;
    let list = settings.take_any(&["webhooks", "Webhooks"]);
    // They are known from the webhooks.
    let derived = |name: &str| name.starts_with("has") && name.ends_with("Webhooks");
    let names: Vec<_> = settings.names().filter(|name| derived(name)).collect();
    names.into_iter().for_each(|name| drop(settings.take(name)));
    out.unknown(&settings)?;
    webhooks::write(out, &list, webhooks)
}

fn payload_of_app(out: &mut TomlWriter, settings: &mut Object<'_>) -> Result<(), ImportError> {
    let names = ["maxEventPayloadInKb", "MaxEventPayloadInKb", "max_event_payload_in_kb"];
    let field = settings.take_any(&names);
    kibibytes(&[], &EVENT_DATA).carry_field(out, &field)?;
    if let Some(kilobytes) = field.number()? {
        message_size(out, ImportedUnit::Kibibytes.convert(kilobytes));
    }
    Ok(())
}

/// A connection has to sign in within the timeout of the server, if its app asks for that.
fn authentication(
    out: &mut TomlWriter,
    settings: &mut Object<'_>,
    timeout: &Field<'_>,
) -> Result<(), ImportError> {
    let names =
        ["enableUserAuthentication", "EnableUserAuthentication", "enable_user_authentication"];
    if settings.take_any(&names).truth()? != Some(true) {
        return Ok(());
    }
    let limit = ImportedLimit {
        names: &[],
        settings: &["app.user_authentication_timeout"],
        unit: ImportedUnit::Milliseconds,
        unlimited: Unlimited::Never,
    };
    limit.carry_or(out, timeout, DEFAULT_AUTHENTICATION_TIMEOUT_MS)
}

#[cfg(test)]
mod tests;
