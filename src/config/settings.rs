//! Floor 7. Every setting, declared once: its key in `ringwave.toml`, its variable, its flag, its
//! default, the values that it takes, whether a reload changes it, and its meaning. The sources,
//! the command line with its `--help`, the output of `ringwave check`, reloads and the table of the
//! manual all derive from this file.
//!
//! The names and defaults that Reverb has are Reverb's (its `config/reverb.php`), except where its
//! users ask for more; such a line says so.

use crate::cluster::WhenAway;
use crate::protocol::rules::ClientEvents;

use super::setting::{Declaration, Declared, Setting, TakesEffect};
use super::value_types::{
    AdminAddress, AnyText, Choice, ClusterName, EventNames, FileMode, GroupName, HeaderLines,
    HostAddress, Identifier, KeyPairs, ListenAddresses, LogFilters, OptionalSecret, Or,
    OriginPatterns, PathOf, Proxies, RedisServers, Seconds, SecretText, Switch, UrlPath, UserName,
    WebhookUrl, Whole,
};
use super::values::{LogFormat, RedisMode};

/// Id, key and secret: they make an app of variables.
pub(super) static CREDENTIALS: [&Declaration; 3] =
    [&APP_ID.declaration, &APP_KEY.declaration, &APP_SECRET.declaration];

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const DAY: u64 = 86_400;

/// A value, or `none`.
const fn or_none<T>(value_type: T) -> Or<T> {
    Or { word: "none", value_type }
}

/// A value, or `auto`.
const fn or_auto<T>(value_type: T) -> Or<T> {
    Or { word: "auto", value_type }
}

macro_rules! settings {
    ($(
        #[doc = $doc:literal]
        $name:ident: $type:ty = $value_type:expr, $key:literal, default $default:literal
            $(, env $env:literal)? $(, or $file:ident)? $(, flag $flag:literal)?
            $(, takes_effect $when:ident)?;
    )+) => {
        $(
            #[doc = $doc]
            pub(super) static $name: Setting<$type> = Setting {
                declaration: Declaration {
                    key: $key,
                    env: first(&[$($env)?]),
                    file_env: file_env(&[$(stringify!($file))?], concat!("" $(, $env)?, "_FILE")),
                    flag: first(&[$($flag)?]),
                    default: $default,
                    takes_effect: takes_effect($key, &[$(TakesEffect::$when)?]),
                    doc: $doc.trim_ascii(),
                },
                value_type: $value_type,
            };
        )+

        /// All settings in the order of the manual.
        pub(super) static ALL: &[&dyn Declared] = &[$(&$name),+];
    };
}

const fn first(names: &[&'static str]) -> Option<&'static str> {
    if names.is_empty() { None } else { Some(names[0]) }
}

/// The variable that names a file, if the setting is declared with `or file`.
const fn file_env(declared: &[&str], name: &'static str) -> Option<&'static str> {
    if declared.is_empty() { None } else { Some(name) }
}

/// The step that is declared. Without one a setting of the server takes effect on a restart, and a
/// setting of an app on a reload, because a reload replaces apps as a whole.
const fn takes_effect(key: &str, declared: &[TakesEffect]) -> TakesEffect {
    if !declared.is_empty() {
        return declared[0];
    }
    match key.as_bytes() {
        [b'a', b'p', b'p', b'.', ..] => TakesEffect::OnReload,
        _ => TakesEffect::OnRestart,
    }
}

settings! {
    /// Address to listen on.
    HOST: HostAddress = HostAddress, "server.host",
        default "(0.0.0.0; 127.0.0.1 with the development app)",
        env "REVERB_SERVER_HOST", flag "--host";
    /// Port to listen on; `REVERB_PORT` is where the app publishes and is not read for this.
    PORT: Whole<u16> = Whole::count(1, 65_535), "server.port",
        default "8080", env "REVERB_SERVER_PORT", flag "--port";
    /// Prefix of all paths: `/ws` serves `/ws/app/KEY`, `/ws/apps/ID/...` and `/ws/up`.
    PATH: UrlPath = UrlPath, "server.path",
        default "", env "REVERB_SERVER_PATH", flag "--path", takes_effect OnReload;
    /// Name that clients use for this server; it is only shown at the start.
    HOSTNAME: AnyText = AnyText, "server.hostname",
        default "", env "REVERB_HOST", flag "--hostname", takes_effect OnReload;
    /// Addresses to listen on instead of host and port; as a flag it may be repeated.
    LISTEN: ListenAddresses = ListenAddresses, "server.listen",
        default "", env "RINGWAVE_LISTEN", flag "--listen";
    /// Permissions of unix sockets; a process that may connect is believed about client addresses.
    SOCKET_MODE: FileMode = FileMode, "server.socket_mode",
        default "0660", env "RINGWAVE_SOCKET_MODE";
    /// User that unix sockets belong to; `none` is the one that runs the server.
    SOCKET_OWNER: Or<UserName> = or_none(UserName), "server.socket_owner",
        default "none", env "RINGWAVE_SOCKET_OWNER";
    /// Group that unix sockets belong to, such as nginx's `www-data`; `none` is the server's own.
    SOCKET_GROUP: Or<GroupName> = or_none(GroupName), "server.socket_group",
        default "none", env "RINGWAVE_SOCKET_GROUP";
    /// Threads that serve connections, each with its own share of them.
    SHARDS: Whole<usize> = Whole::count(1, 1024), "server.shards",
        default "(one per core)", env "RINGWAVE_SHARDS", flag "--shards";
    /// Log connections, subscriptions and messages: `debug` for all that `server.log` leaves open.
    DEBUG: Switch = Switch::Plain, "server.debug",
        default "false", env "RINGWAVE_DEBUG", flag "--debug", takes_effect OnReload;
    /// Least important level that is logged, for everything and for parts: `info,front=debug`.
    LOG: LogFilters = LogFilters, "server.log",
        default "info", env "RINGWAVE_LOG", flag "--log", takes_effect OnReload;
    /// Format of the log.
    LOG_FORMAT: Choice<LogFormat> =
        Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), "server.log_format",
        default "text", env "RINGWAVE_LOG_FORMAT", flag "--log-format";
    /// Largest body of an HTTP request; unlike Reverb's 10000, which counts the headers too.
    MAX_REQUEST_SIZE: Whole<usize> = Whole::bytes(1, GIB), "server.max_request_size",
        default "100000", env "REVERB_MAX_REQUEST_SIZE", takes_effect OnReload;
    /// Bytes that may wait for one slow reader; past that its connection closes.
    BACKLOG_PER_CONNECTION: Whole<usize> =
        Whole::bytes(4 * KIB, GIB), "server.backlog_per_connection",
        default "1048576", env "RINGWAVE_BACKLOG_PER_CONNECTION", takes_effect OnReload;
    /// Bytes that may wait for all slow readers of one shard together.
    BACKLOG_PER_SHARD: Whole<usize> = Whole::bytes(4 * KIB, 64 * GIB), "server.backlog_per_shard",
        default "67108864", env "RINGWAVE_BACKLOG_PER_SHARD", takes_effect OnReload;
    /// Kernel memory of one connection's send queue; at most twice `net.core.wmem_max`.
    SEND_BUFFER: Or<Whole<usize>> = or_none(Whole::bytes(16 * KIB, GIB)), "server.send_buffer",
        default "262144", env "RINGWAVE_SEND_BUFFER";
    /// Time over which a stop spreads its closes; `auto`: 1 per 20,000 connections, at most 5.
    SHUTDOWN_WINDOW: Or<Seconds> =
        or_auto(Seconds::range(0, 300)), "server.shutdown_window",
        default "auto", env "RINGWAVE_SHUTDOWN_WINDOW", takes_effect OnReload;
    /// WebSocket connections that one shard holds; `auto` is what the limit of open files allows.
    MAX_CONNECTIONS_PER_SHARD: Or<Whole<u32>> =
        or_auto(Whole::count(1, 16_777_215)), "server.max_connections_per_shard",
        default "auto", env "RINGWAVE_MAX_CONNECTIONS_PER_SHARD";
    /// HTTP connections that one shard serves at a time; beyond it idle ones are closed first.
    MAX_HTTP_CONNECTIONS: Whole<usize> = Whole::count(1, 16_384), "server.max_http_connections",
        default "16384", env "RINGWAVE_MAX_HTTP_CONNECTIONS";
    /// Keep sockets in the tables of the rings, where they are no open files (Linux 6.13 or newer).
    DIRECT_DESCRIPTORS: Switch = Switch::Plain, "server.direct_descriptors",
        default "true", env "RINGWAVE_DIRECT_DESCRIPTORS";
    /// Time that a client has for the head of a request.
    HEADER_TIMEOUT: Seconds = Seconds::range(1, 300), "server.header_timeout",
        default "10", env "RINGWAVE_HEADER_TIMEOUT", takes_effect OnReload;
    /// Proxies whose `X-Forwarded-For` or `Forwarded` header is believed.
    TRUSTED_PROXIES: Proxies = Proxies, "server.trusted_proxies",
        default "unix", env "RINGWAVE_TRUSTED_PROXIES", takes_effect OnReload;
    /// Connections of one client address or IPv6 /64; further ones are refused: 4100, requests 429.
    MAX_CONNECTIONS_PER_ADDRESS: Or<Whole<u32>> =
        or_none(Whole::count(1, 16_777_215)), "server.max_connections_per_address",
        default "none", env "RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS", takes_effect OnReload;
    /// Handshakes and API requests per second of one address, in bursts of five times as many.
    MAX_REQUESTS_PER_ADDRESS: Or<Whole<u32>> =
        or_none(Whole::count(1, 1_000_000)), "server.max_requests_per_address",
        default "none", env "RINGWAVE_MAX_REQUESTS_PER_ADDRESS", takes_effect OnReload;
    /// Memory past 95 % of which nothing new is let in (4100); `auto` is the memory of the host.
    MEMORY_LIMIT: Or<Or<Whole<u64>>> =
        or_auto(or_none(Whole::bytes(MIB, 1 << 50))), "server.memory_limit",
        default "auto", env "RINGWAVE_MEMORY_LIMIT", takes_effect OnReload;
    /// Bytes of webhook events that may wait for one endpoint; further ones are lost, and logged.
    WEBHOOK_QUEUE: Whole<usize> = Whole::bytes(64 * KIB, 4 * GIB), "server.webhook_queue",
        default "16777216", env "RINGWAVE_WEBHOOK_QUEUE", takes_effect OnReload;
    /// Directory that keeps undelivered webhooks over a restart; without one they are in memory.
    WEBHOOK_SPOOL: Or<PathOf> = or_none(PathOf("directory")), "server.webhook_spool",
        default "none", env "RINGWAVE_WEBHOOK_SPOOL";

    /// Address of the operator's listener, which serves `/metrics`, `/ready` and `/up`.
    ADMIN_LISTEN: Or<AdminAddress> = or_none(AdminAddress), "admin.listen",
        default "none", env "RINGWAVE_ADMIN_LISTEN", flag "--admin";
    /// Token that its requests have to show, never shown; any address but loopback needs one.
    ADMIN_TOKEN: OptionalSecret = OptionalSecret, "admin.token",
        default "", env "RINGWAVE_ADMIN_TOKEN", or file;

    /// Be a node of several that act as one server over Redis; any text but 0 and false is on.
    CLUSTER_ENABLED: Switch = Switch::PhpTruthy, "cluster.enabled",
        default "false", env "REVERB_SCALING_ENABLED";
    /// Name of the cluster: nodes with the same name and the same Redis are one server.
    CLUSTER_NAME: ClusterName = ClusterName, "cluster.name",
        default "reverb", env "REVERB_SCALING_CHANNEL";
    /// Kind of Redis: one server, the master of sentinels, or a Redis Cluster.
    CLUSTER_MODE: Choice<RedisMode> = Choice(&[
        ("standalone", RedisMode::Standalone),
        ("sentinel", RedisMode::Sentinel),
        ("cluster", RedisMode::Cluster),
    ]), "cluster.mode",
        default "standalone", env "RINGWAVE_CLUSTER_MODE";
    /// Redis to use instead of the app's, which `REDIS_URL` or `REDIS_HOST` and `REDIS_PORT` name.
    CLUSTER_REDIS: RedisServers = RedisServers { port: 6379, at_least: 1 }, "cluster.redis",
        default "127.0.0.1:6379", env "RINGWAVE_CLUSTER_REDIS", or file;
    /// User of Redis; `REDIS_USERNAME` is the app's. Without one it is Redis' default user.
    CLUSTER_USERNAME: AnyText = AnyText, "cluster.username",
        default "", env "RINGWAVE_CLUSTER_USERNAME";
    /// Password of Redis, never shown; `REDIS_PASSWORD` is the app's.
    CLUSTER_PASSWORD: OptionalSecret = OptionalSecret, "cluster.password",
        default "", env "RINGWAVE_CLUSTER_PASSWORD", or file;
    /// Number of the database; `REDIS_DB` is the app's.
    CLUSTER_DATABASE: Whole<u32> = Whole::count(0, 2_147_483_647), "cluster.database",
        default "0", env "RINGWAVE_CLUSTER_DATABASE";
    /// Sentinels to ask for the master, with `cluster.mode` sentinel.
    CLUSTER_SENTINELS: RedisServers = RedisServers { port: 26_379, at_least: 0 },
        "cluster.sentinels", default "", env "RINGWAVE_CLUSTER_SENTINELS";
    /// Name of the master that they watch.
    CLUSTER_SENTINEL_MASTER: AnyText = AnyText, "cluster.sentinel_master",
        default "", env "RINGWAVE_CLUSTER_SENTINEL_MASTER";
    /// User of the sentinels.
    CLUSTER_SENTINEL_USERNAME: AnyText = AnyText, "cluster.sentinel_username",
        default "", env "RINGWAVE_CLUSTER_SENTINEL_USERNAME";
    /// Password of the sentinels, never shown.
    CLUSTER_SENTINEL_PASSWORD: OptionalSecret = OptionalSecret, "cluster.sentinel_password",
        default "", env "RINGWAVE_CLUSTER_SENTINEL_PASSWORD", or file;
    /// PEM file of the authorities that sign Redis' certificate; `none` is those of the system.
    CLUSTER_TLS_CA: Or<PathOf> = or_none(PathOf("file")), "cluster.tls_ca",
        default "none", env "RINGWAVE_CLUSTER_TLS_CA";
    /// PEM file of the certificate that this node shows Redis.
    CLUSTER_TLS_CERTIFICATE: Or<PathOf> = or_none(PathOf("file")), "cluster.tls_certificate",
        default "none", env "RINGWAVE_CLUSTER_TLS_CERTIFICATE";
    /// PEM file of the key of that certificate.
    CLUSTER_TLS_KEY: Or<PathOf> = or_none(PathOf("file")), "cluster.tls_key",
        default "none", env "RINGWAVE_CLUSTER_TLS_KEY";
    /// Parts of the channels, each with connections of its own; the same number on all nodes.
    CLUSTER_PARTITIONS: Whole<u16> = Whole::count(1, 1024), "cluster.partitions",
        default "(1; 16 on a Redis Cluster)", env "RINGWAVE_CLUSTER_PARTITIONS";
    /// Silence of a node after which its members leave; the same on all nodes.
    CLUSTER_LEASE: Seconds = Seconds::range(2, 300), "cluster.lease",
        default "5", env "RINGWAVE_CLUSTER_LEASE";
    /// Time beyond the lease for which Redis keeps what a silent node has not read.
    CLUSTER_RETENTION: Seconds = Seconds::range(1, 3600), "cluster.retention",
        default "60", env "RINGWAVE_CLUSTER_RETENTION";
    /// Time that publishes and first subscriptions wait for a Redis that is away.
    CLUSTER_PATIENCE: Seconds = Seconds::range(0, 60), "cluster.patience",
        default "8", env "RINGWAVE_CLUSTER_PATIENCE";
    /// Then: `hold` answers publishes with 503, `local` serves the clients of this node alone.
    CLUSTER_WHEN_AWAY: Choice<WhenAway> =
        Choice(&[("hold", WhenAway::Hold), ("local", WhenAway::Local)]), "cluster.when_away",
        default "hold", env "RINGWAVE_CLUSTER_WHEN_AWAY";
    /// Bytes that wait for Redis at most; beyond them publishes are answered with 503.
    CLUSTER_BACKLOG: Whole<usize> = Whole::bytes(64 * KIB, 64 * GIB), "cluster.backlog",
        default "67108864", env "RINGWAVE_CLUSTER_BACKLOG";
    /// Bytes that Redis keeps for a node that does not read; beyond them the node starts anew.
    CLUSTER_INBOX: Whole<u64> = Whole::bytes(64 * KIB, 64 * GIB), "cluster.inbox",
        default "67108864", env "RINGWAVE_CLUSTER_INBOX";

    /// Id of the app, as in `/apps/ID`.
    APP_ID: Identifier = Identifier, "app.app_id", default "", env "REVERB_APP_ID";
    /// Public key of the app, as in `/app/KEY`, where `%`, `?` and `#` in it are percent-encoded.
    APP_KEY: Identifier = Identifier, "app.key", default "", env "REVERB_APP_KEY";
    /// Secret of the app; signs subscriptions and requests, is never shown.
    APP_SECRET: SecretText = SecretText, "app.secret",
        default "", env "REVERB_APP_SECRET", or file;
    /// Further keys of the app, each good for everything that `key` is: to change keys.
    APP_KEYS: KeyPairs = KeyPairs, "app.keys", default "";
    /// Serve the app; if not, its connections close with 4003 and its API answers 403.
    ENABLED: Switch = Switch::Plain, "app.enabled",
        default "true", env "RINGWAVE_APP_ENABLED";
    /// Silence of a client after which the server pings it.
    PING_INTERVAL: Seconds = Seconds::range(1, DAY), "app.ping_interval",
        default "60", env "REVERB_APP_PING_INTERVAL";
    /// Time that a client has to answer that ping.
    PONG_TIMEOUT: Seconds = Seconds::range(1, DAY), "app.pong_timeout",
        default "30", env "RINGWAVE_APP_PONG_TIMEOUT";
    /// Silence of the server after which clients ping it; told to them at the connect.
    ACTIVITY_TIMEOUT: Whole<u32> = Whole::seconds(1, DAY), "app.activity_timeout",
        default "30", env "REVERB_APP_ACTIVITY_TIMEOUT";
    /// Connections of the app at a time; further ones are refused with 4004.
    MAX_CONNECTIONS: Or<Whole<u32>> =
        or_none(Whole::count(1, 4_294_967_295)), "app.max_connections",
        default "none", env "REVERB_APP_MAX_CONNECTIONS";
    /// Longest WebSocket message taken; a longer one closes its connection with 1009.
    MAX_MESSAGE_SIZE: Whole<usize> = Whole::bytes(1, 64 * MIB), "app.max_message_size",
        default "10000", env "REVERB_APP_MAX_MESSAGE_SIZE";
    /// Clients that may send client events: all, subscribers of the channel, or none.
    ACCEPT_CLIENT_EVENTS_FROM: Choice<ClientEvents> = Choice(&[
        ("all", ClientEvents::All),
        ("members", ClientEvents::Members),
        ("none", ClientEvents::None),
    ]), "app.accept_client_events_from",
        default "members", env "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM";
    /// Limit the messages of each connection; as in Reverb only the word `true` turns it on.
    RATE_LIMITING_ENABLED: Switch = Switch::PhpIdentical, "app.rate_limiting.enabled",
        default "false", env "REVERB_APP_RATE_LIMITING_ENABLED";
    /// Messages of a connection per window.
    RATE_LIMIT_MAX_ATTEMPTS: Whole<u32> =
        Whole::count(1, 4_294_967_295), "app.rate_limiting.max_attempts",
        default "60", env "REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS";
    /// Length of that window.
    RATE_LIMIT_DECAY: Seconds = Seconds::range(1, DAY), "app.rate_limiting.decay_seconds",
        default "60", env "REVERB_APP_RATE_LIMIT_DECAY_SECONDS";
    /// Close a connection that exceeds the limit instead of telling it.
    RATE_LIMIT_TERMINATE: Switch = Switch::PhpTruthy, "app.rate_limiting.terminate_on_limit",
        default "false", env "REVERB_APP_RATE_LIMIT_TERMINATE";
    /// Origins that browsers may connect from; `REVERB_ALLOWED_ORIGINS` is another name.
    ALLOWED_ORIGINS: OriginPatterns = OriginPatterns, "app.allowed_origins",
        default "*", env "RINGWAVE_ALLOWED_ORIGINS";
    /// Take client events on public channels too, as Reverb does.
    CLIENT_EVENTS_ON_PUBLIC: Switch = Switch::Plain, "app.client_events_on_public",
        default "false", env "RINGWAVE_APP_CLIENT_EVENTS_ON_PUBLIC";
    /// Refuse channels whose names are outside of Pusher's alphabet, to subscribe or to publish.
    STRICT_NAMES: Switch = Switch::Plain, "app.strict_names",
        default "false", env "RINGWAVE_APP_STRICT_NAMES";
    /// Also send `pusher:subscription_error` when a subscription fails, for Echo's `.error()`.
    SUBSCRIPTION_ERRORS: Switch = Switch::Plain, "app.subscription_errors",
        default "false", env "RINGWAVE_APP_SUBSCRIPTION_ERRORS";
    /// Tell subscribers of channels without presence how many they are, at each change.
    SUBSCRIPTION_COUNTS: Switch = Switch::Plain, "app.subscription_counts",
        default "false", env "RINGWAVE_APP_SUBSCRIPTION_COUNTS";
    /// Time that a cache channel keeps its last event.
    CACHE_TTL: Seconds = Seconds::range(1, 365 * DAY), "app.cache_ttl",
        default "1800", env "RINGWAVE_APP_CACHE_TTL";
    /// Time in which a connection has to sign in or to subscribe with a signature; then 4009.
    USER_AUTHENTICATION_TIMEOUT: Or<Seconds> =
        or_none(Seconds::range(1, DAY)), "app.user_authentication_timeout",
        default "none", env "RINGWAVE_APP_USER_AUTHENTICATION_TIMEOUT";
    /// Largest difference between a signed request's time and the server's; 0 is any, as in Reverb.
    AUTH_TIMESTAMP_TOLERANCE: Seconds =
        Seconds::range(0, 365 * DAY), "app.auth_timestamp_tolerance",
        default "600", env "RINGWAVE_APP_AUTH_TIMESTAMP_TOLERANCE";
    /// Longest name of a channel, prefix included.
    MAX_CHANNEL_NAME: Whole<usize> = Whole::bytes(1, 4 * KIB), "app.max_channel_name",
        default "200", env "RINGWAVE_APP_MAX_CHANNEL_NAME";
    /// Longest name of an event; Pusher's is 200.
    MAX_EVENT_NAME: Or<Whole<usize>> = or_none(Whole::bytes(1, 64 * MIB)), "app.max_event_name",
        default "none", env "RINGWAVE_APP_MAX_EVENT_NAME";
    /// Largest `data` of a published event; Pusher's is 10240.
    MAX_EVENT_DATA: Or<Whole<usize>> = or_none(Whole::bytes(1, GIB)), "app.max_event_data",
        default "none", env "RINGWAVE_APP_MAX_EVENT_DATA";
    /// Channels of one publish.
    MAX_CHANNELS_PER_EVENT: Whole<usize> = Whole::count(1, 10_000), "app.max_channels_per_event",
        default "100", env "RINGWAVE_APP_MAX_CHANNELS_PER_EVENT";
    /// Events of one batch; Pusher's is 10. Without a limit `max_request_size` bounds them.
    MAX_BATCH: Or<Whole<usize>> = or_none(Whole::count(1, 1_000_000)), "app.max_batch",
        default "none", env "RINGWAVE_APP_MAX_BATCH";
    /// Channels that one connection may be subscribed to at a time.
    MAX_CHANNELS_PER_CONNECTION: Whole<usize> =
        Whole::count(1, 1_000_000), "app.max_channels_per_connection",
        default "10000", env "RINGWAVE_APP_MAX_CHANNELS_PER_CONNECTION";
    /// Members of one presence channel; Pusher's is 100.
    MAX_PRESENCE_MEMBERS: Or<Whole<usize>> =
        or_none(Whole::count(1, 10_000_000)), "app.max_presence_members",
        default "none", env "RINGWAVE_APP_MAX_PRESENCE_MEMBERS";
    /// Largest `user_info` of a presence member; Pusher's is 1024.
    MAX_PRESENCE_USER_INFO: Or<Whole<usize>> =
        or_none(Whole::bytes(1, 64 * MIB)), "app.max_presence_user_info",
        default "none", env "RINGWAVE_APP_MAX_PRESENCE_USER_INFO";
    /// Longest id of a user.
    MAX_USER_ID: Whole<usize> = Whole::bytes(1, 4 * KIB), "app.max_user_id",
        default "200", env "RINGWAVE_APP_MAX_USER_ID";
    /// Users that a signed-in user watches; of a longer watchlist the first are taken.
    MAX_WATCHLIST: Whole<usize> = Whole::count(0, 10_000), "app.max_watchlist",
        default "100", env "RINGWAVE_APP_MAX_WATCHLIST";
    /// Client events of a connection per second; Pusher's is 10.
    MAX_CLIENT_EVENTS_PER_SECOND: Or<Whole<u32>> =
        or_none(Whole::count(1, 1_000_000)), "app.max_client_events_per_second",
        default "none", env "RINGWAVE_APP_MAX_CLIENT_EVENTS_PER_SECOND";
    /// Largest `data` of a client event.
    MAX_CLIENT_EVENT_DATA: Or<Whole<usize>> =
        or_none(Whole::bytes(1, 64 * MIB)), "app.max_client_event_data",
        default "none", env "RINGWAVE_APP_MAX_CLIENT_EVENT_DATA";
    /// Signed requests of the HTTP API per second; further ones are answered 429 and `Retry-After`.
    MAX_REQUESTS_PER_SECOND: Or<Whole<u32>> =
        or_none(Whole::count(1, 1_000_000)), "app.max_requests_per_second",
        default "none", env "RINGWAVE_APP_MAX_REQUESTS_PER_SECOND";

    /// URL that events are sent to; in `[[apps.webhooks]]`, or by the variable for its one app.
    WEBHOOK_URL: WebhookUrl = WebhookUrl, "app.webhooks.url",
        default "", env "RINGWAVE_APP_WEBHOOK_URL";
    /// Events that are sent there.
    WEBHOOK_EVENTS: EventNames = EventNames, "app.webhooks.events",
        default "channel_occupied, channel_vacated, member_added, member_removed, client_event, \
            cache_miss",
        env "RINGWAVE_APP_WEBHOOK_EVENTS";
    /// Beginning of the names of channels whose events are sent; without one all are.
    WEBHOOK_CHANNEL_PREFIX: AnyText = AnyText, "app.webhooks.channel_prefix", default "";
    /// End of the names of channels whose events are sent; without one all are.
    WEBHOOK_CHANNEL_SUFFIX: AnyText = AnyText, "app.webhooks.channel_suffix", default "";
    /// Headers to send along, never shown.
    WEBHOOK_HEADERS: HeaderLines = HeaderLines, "app.webhooks.headers", default "";
    /// Time that an event waits for others to share its request.
    WEBHOOK_BATCH_WINDOW: Whole<u64> =
        Whole::milliseconds(0, 10_000), "app.webhooks.batch_window_ms", default "50";
    /// Events of one request; 1 sends each alone.
    WEBHOOK_BATCH_MAX: Whole<usize> = Whole::count(1, 1000), "app.webhooks.batch_max",
        default "100";
    /// Time for name, connection and TLS.
    WEBHOOK_CONNECT_TIMEOUT: Seconds = Seconds::range(1, 60), "app.webhooks.connect_timeout",
        default "5";
    /// Time for the answer.
    WEBHOOK_TIMEOUT: Seconds = Seconds::range(1, 60), "app.webhooks.timeout", default "10";
}
