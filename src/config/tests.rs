use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::apps::App;
use crate::apps::webhook::EventKind;
use crate::protocol::rules::{ClientEvents, Limits, RateLimit, Standing};

use super::dotenv::DotEnvError;
use super::setting::Declaration;
use super::settings::ALL;
use super::text_file::Unreadable;
use super::value_source::ValueSource;
use super::*;

mod cluster;
mod other_servers;
mod secret_files;
mod sources;

/// A directory of its own for each test, gone at the end.
struct Directory(PathBuf);

impl Directory {
    fn with(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringwave-{}-{n}", std::process::id()));
        fs::create_dir(&path).unwrap();
        for (name, text) in files {
            fs::write(path.join(name), text).unwrap();
        }
        Self(path)
    }

    fn load(&self, flags: &Flags, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment =
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        load(flags, &environment, &self.0)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const APP: [(&str, &str); 3] =
    [("REVERB_APP_ID", "1"), ("REVERB_APP_KEY", "k"), ("REVERB_APP_SECRET", "tops3cret")];

const DOTENV: &str = "REVERB_APP_ID=654321\nREVERB_APP_KEY=filekey\n\
    REVERB_APP_SECRET=\"tops3cret\"\nREVERB_HOST=\"localhost\"\nREVERB_PORT=8081\n\
    REVERB_SCHEME=http\nVITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\n";

fn with_app(more: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment: Vec<_> = APP.iter().chain(more).copied().collect();
    Directory::with(&[]).load(&Flags::default(), &environment)
}

fn with_toml(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Directory::with(&[("ringwave.toml", text)]).load(&Flags::default(), environment)
}

fn refused(result: Result<Config, ConfigError>) -> String {
    let message = result.err().unwrap().to_string();
    assert!(!message.contains("tops3cret"), "{message}");
    message
}

fn only_app(config: &Config) -> &App {
    assert_eq!(config.apps.iter().count(), 1);
    config.apps.iter().next().unwrap()
}

fn resolved<'a>(config: &'a Config, key: &str) -> &'a Resolved {
    config.resolved.iter().find(|line| line.key == key).unwrap()
}

fn address(config: &Config) -> String {
    config.server.listeners[0].to_string()
}

#[test]
fn every_default_is_a_value_of_its_setting_and_the_limits_are_those_of_the_protocol() {
    let config = Directory::with(&[]).load(&Flags::default(), &[]).unwrap();
    assert_eq!(only_app(&config).rules.limits, Limits::default());
    let is_idle = |key: &str| {
        key.starts_with("app.webhooks.")
            || (key.starts_with("cluster.") && key != "cluster.enabled")
    };
    let settings = ALL.iter().filter(|setting| !is_idle(setting.declaration().key));
    assert_eq!(config.resolved.len(), settings.count(), "each setting is read once");
    assert!(config.resolved.iter().all(|line| line.source == ValueSource::Default));
    assert_eq!(config.notes, [""; 0]);
}

#[test]
fn each_setting_has_a_key_a_variable_and_perhaps_a_flag_of_its_own() {
    let declarations = || ALL.iter().map(|setting| setting.declaration());
    for name in [|d: &Declaration| Some(d.key), |d: &Declaration| d.env, |d: &Declaration| d.flag] {
        let mut names: Vec<_> = declarations().filter_map(name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
    let tables = ["server.", "admin.", "cluster.", "app."];
    assert!(declarations().all(|d| tables.iter().any(|table| d.key.starts_with(table))));
}

#[test]
fn without_an_app_the_development_app_is_served_to_this_host_only() {
    let directory = Directory::with(&[]);
    let config = directory.load(&Flags::default(), &[]).unwrap();
    let app = only_app(&config);
    assert_eq!((app.id.as_str(), app.rules.key.as_str()), ("100001", "app-key"));
    assert!(config.development);
    assert_eq!(address(&config), "127.0.0.1:8080");

    let public = Flags::default().with("--host", &["0.0.0.0"]);
    let message = refused(directory.load(&public, &[]));
    assert!(message.contains("0.0.0.0:8080") && message.contains("--dev"), "{message}");

    let dev = Flags { dev: true, ..public };
    let config = directory.load(&dev, &[]).unwrap();
    assert_eq!(address(&config), "0.0.0.0:8080");
    assert!(config.notes[0].contains("anyone who can connect"), "{:?}", config.notes);
}

#[test]
fn the_development_app_may_be_served_besides_configured_ones() {
    let dev = Flags { dev: true, ..Flags::default() };
    let config = Directory::with(&[]).load(&dev, &APP).unwrap();
    assert!(config.apps.by_key("k").is_some() && config.apps.by_key("app-key").is_some());
    let same =
        [("REVERB_APP_ID", "100001"), ("REVERB_APP_KEY", "mine"), ("REVERB_APP_SECRET", "s")];
    let config = Directory::with(&[]).load(&dev, &same).unwrap();
    assert_eq!(only_app(&config).rules.key, "mine");
}

#[test]
fn a_laravel_env_file_is_enough_to_serve_its_app_on_all_addresses() {
    let config = Directory::with(&[(".env", DOTENV)]).load(&Flags::default(), &[]).unwrap();
    let app = only_app(&config);
    assert_eq!((app.id.as_str(), app.rules.key.as_str()), ("654321", "filekey"));
    assert!(!config.development);
    assert_eq!(address(&config), "0.0.0.0:8080");
    assert_eq!(config.server.starting_line(), "Starting server on 0.0.0.0:8080 (localhost)");
    let source = &resolved(&config, "apps[0].key").source;
    assert_eq!(source.to_string(), "REVERB_APP_KEY in .env line 2");
}

#[test]
fn flags_beat_the_environment_beats_the_env_file_beats_toml_beats_the_default() {
    let directory = Directory::with(&[
        (".env", "REVERB_SERVER_PORT=3\n"),
        ("ringwave.toml", "[server]\nport = 4\n[app]\nping_interval = 7"),
    ]);
    let flags = Flags::default().with("--port", &["1"]);
    let environment = [("REVERB_SERVER_PORT", "2")];
    let port = |result: Result<Config, _>| {
        let config: Config = result.unwrap();
        let line = resolved(&config, "server.port");
        (line.value.clone(), line.source.to_string())
    };
    let told = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(port(directory.load(&flags, &environment)), told("1", "--port"));
    assert_eq!(
        port(directory.load(&Flags::default(), &environment)),
        told("2", "REVERB_SERVER_PORT of the environment")
    );
    assert_eq!(
        port(directory.load(&Flags::default(), &[])),
        told("3", "REVERB_SERVER_PORT in .env line 1")
    );
    // An empty variable hides the one of the file, as in Laravel, and sets nothing.
    assert_eq!(
        port(directory.load(&Flags::default(), &[("REVERB_SERVER_PORT", "")])),
        told("4", "server.port in ringwave.toml")
    );
    assert_eq!(port(Directory::with(&[]).load(&Flags::default(), &[])), told("8080", "default"));
}

#[test]
fn the_env_file_of_the_environment_is_read_instead_if_there_is_one() {
    let directory = Directory::with(&[
        (".env", "REVERB_SERVER_PORT=1"),
        (".env.staging", "REVERB_SERVER_PORT=2"),
        ("other", "REVERB_SERVER_PORT=3"),
    ]);
    for (name, flag, port) in
        [("staging", None, 2), ("testing", None, 1), ("staging", Some("other"), 3)]
    {
        let flags = Flags { env: flag.map(PathBuf::from), ..Flags::default() };
        let config = directory.load(&flags, &[("APP_ENV", name)]).unwrap();
        assert_eq!(address(&config), format!("127.0.0.1:{port}"), "{name}");
    }
}

#[test]
fn a_named_file_has_to_exist() {
    let directory = Directory::with(&[]);
    let env = Flags { env: Some("a.env".into()), ..Flags::default() };
    let message = refused(directory.load(&env, &[]));
    assert_eq!(message, "a.env (from --env) does not exist");
    let config = Flags { config: Some("a.toml".into()), ..Flags::default() };
    let message = refused(directory.load(&config, &[]));
    assert_eq!(message, "a.toml (from --config) does not exist");
}

#[test]
fn ids_and_keys_are_any_text_without_control_characters() {
    for text in ["base64:oT+9/x=", "a b", "a/b:c", "ä%2F?#", "100001"] {
        let app = [("REVERB_APP_ID", text), ("REVERB_APP_KEY", text), ("REVERB_APP_SECRET", "s")];
        let config = Directory::with(&[]).load(&Flags::default(), &app).unwrap();
        let app = only_app(&config);
        assert_eq!((app.id.as_str(), app.rules.key.as_str()), (text, text));
    }
    let toml = "[[apps]]\napp_id = \"1\"\nkey = \"k\"\nsecret = \"s\"\n\
        keys = [{ key = \"base64:a/b=\", secret = \"s\" }]";
    assert!(with_toml(toml, &[]).unwrap().apps.by_key("base64:a/b=").is_some());
    let toml = "[[apps]]\napp_id = \"1\"\nkey = \"a\\nb\"\nsecret = \"s\"";
    let message = refused(with_toml(toml, &[]));
    assert!(message.contains("1 to 200 bytes of text without control characters"), "{message}");
}

#[test]
fn the_development_app_has_an_id_of_digits() {
    assert!(DEVELOPMENT.id.bytes().all(|byte| byte.is_ascii_digit()), "pusher-http-python asks it");
    let same = "[[apps]]\napp_id = 100001\nkey = \"k\"\nsecret = \"s\"";
    let directory = Directory::with(&[("ringwave.toml", same)]);
    let dev = Flags { dev: true, ..Flags::default() };
    let config = directory.load(&dev, &[]).unwrap();
    assert_eq!(only_app(&config).rules.key, "k", "the configured app of that id is meant");
}

#[test]
fn half_of_the_credentials_are_refused_naming_the_other_half() {
    let message = refused(Directory::with(&[]).load(&Flags::default(), &APP[1..2]));
    assert_eq!(
        message,
        "an app needs REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET, but with \
         REVERB_APP_KEY of the environment set REVERB_APP_ID and REVERB_APP_SECRET are missing"
    );
    let message = refused(with_toml("[[apps]]\napp_id = \"1\"\nkey = \"k\"", &[]));
    assert!(message.starts_with("apps[0].secret is missing in ringwave.toml"), "{message}");
}

#[test]
fn a_bad_value_is_refused_with_its_setting_its_source_and_what_is_accepted() {
    for (name, value, message) in [
        (
            "REVERB_SERVER_PORT",
            "80800",
            "server.port cannot be \"80800\" (REVERB_SERVER_PORT of the environment): it takes a \
             whole number from 1 to 65535",
        ),
        (
            "REVERB_SERVER_HOST",
            "example.com",
            "server.host cannot be \"example.com\" (REVERB_SERVER_HOST of the environment): it \
             takes an IPv4 address, an IPv6 address in brackets, or `localhost`",
        ),
        (
            "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM",
            "subscribers",
            "apps[0].accept_client_events_from cannot be \"subscribers\" \
             (REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM of the environment): it takes one of `all`, \
             `members`, `none`",
        ),
        (
            "RINGWAVE_SHUTDOWN_WINDOW",
            "301",
            "server.shutdown_window cannot be \"301\" (RINGWAVE_SHUTDOWN_WINDOW of the \
             environment): it takes a time from 0 to 5m (seconds, or `s`, `m`, `h`, `d`), or \
             `auto`",
        ),
        (
            "REVERB_APP_MAX_CONNECTIONS",
            "-1",
            "apps[0].max_connections cannot be \"-1\" (REVERB_APP_MAX_CONNECTIONS of the \
             environment): it takes a whole number from 1 to 4294967295, or `none`",
        ),
    ] {
        assert_eq!(refused(with_app(&[(name, value)])), message);
    }
    for (name, value) in [
        ("REVERB_SERVER_PORT", "+80"),
        ("REVERB_SERVER_PORT", "true"),
        ("REVERB_SERVER_PATH", "/a?b"),
        ("RINGWAVE_LISTEN", "tcp://::1:80"),
        ("RINGWAVE_LISTEN", "tcp://1.2.3.4:+80"),
        ("RINGWAVE_LISTEN", "unix://relative"),
        ("RINGWAVE_LISTEN", "127.0.0.1:80"),
        ("RINGWAVE_SHARDS", "0"),
        ("RINGWAVE_ALLOWED_ORIGINS", "https://a.test/path"),
        ("RINGWAVE_APP_STRICT_NAMES", "on"),
        ("REVERB_APP_PING_INTERVAL", "99999999999999999999"),
    ] {
        let message = refused(with_app(&[(name, value)]));
        assert!(message.contains(name) && message.contains("it takes"), "{message}");
    }
}

#[test]
fn a_bad_secret_is_refused_without_being_shown() {
    let toml = "[[apps]]\napp_id = 1\nkey = \"k\"\nsecret = [\"tops3cret\"]";
    let message = refused(with_toml(toml, &[]));
    assert!(message.starts_with("apps[0].secret cannot be [withheld] (apps[0].secret in"));
    let directory = Directory::with(&[(".env", "REVERB_APP_SECRET=tops3cret tops3cret")]);
    refused(directory.load(&Flags::default(), &[]));
}

#[test]
fn secrets_are_nowhere_in_a_configuration() {
    let config = with_app(&[]).unwrap();
    assert_eq!(resolved(&config, "apps[0].secret").value, WITHHELD);
    assert!(!format!("{config:?}").contains("tops3cret"));
}

#[test]
fn the_settings_of_an_app_are_taken_from_the_variables_of_reverb() {
    let config = with_app(&[
        ("REVERB_APP_PING_INTERVAL", "11"),
        ("REVERB_APP_ACTIVITY_TIMEOUT", "12"),
        ("REVERB_APP_MAX_CONNECTIONS", "13"),
        ("REVERB_APP_MAX_MESSAGE_SIZE", "14"),
        ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "all"),
        ("REVERB_APP_RATE_LIMITING_ENABLED", "true"),
        ("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "15"),
        ("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "16"),
        ("REVERB_APP_RATE_LIMIT_TERMINATE", "yes"),
        ("REVERB_MAX_REQUEST_SIZE", "10000"),
        ("RINGWAVE_ALLOWED_ORIGINS", "example.com, https://b.test"),
    ])
    .unwrap();
    let app = only_app(&config);
    assert_eq!(app.ping_interval, Duration::from_secs(11));
    assert_eq!(app.rules.activity_timeout_s, 12);
    assert_eq!(app.max_connections, Some(13));
    assert_eq!(app.rules.limits.max_message_size, 14);
    assert_eq!(app.rules.client_events, ClientEvents::All);
    let limit = RateLimit { max_attempts: 15, decay: Duration::from_secs(16), terminate: true };
    assert_eq!(app.rules.rate_limit, Some(limit));
    assert_eq!(app.rules.limits.max_request_size, 10_000);
    assert!(app.allowed_origins.check(Some("https://b.test")).is_ok());
    assert!(app.allowed_origins.check(Some("http://b.test")).is_err());
    assert_eq!(config.notes, [""; 0]);
}

#[test]
fn words_that_reverb_takes_another_way_than_it_seems_are_spoken_of() {
    let config = with_app(&[
        ("REVERB_APP_RATE_LIMITING_ENABLED", "1"),
        ("REVERB_SCALING_ENABLED", "off"),
        ("REVERB_SERVER", "other"),
        ("RINGWAVE_SHARD", "2"),
    ])
    .unwrap();
    assert_eq!(only_app(&config).rules.rate_limit, None);
    for (note, part) in config.notes.iter().zip([
        "There is one server, named `reverb`",
        "Rate limiting stays off, as in Reverb: \"1\" is not the word true",
        "There is no variable RINGWAVE_SHARD; the nearest is RINGWAVE_SHARDS",
        "\"off\" switches scaling on (REVERB_SCALING_ENABLED of the environment)",
    ]) {
        assert!(note.starts_with(part), "{note}");
    }
    assert_eq!(config.notes.len(), 4);
}

#[test]
fn entries_of_toml_take_what_they_leave_open_from_the_common_table() {
    let toml = "[app]\nping_interval = 20\nallowed_origins = [\"a.test\"]\n\
        [[apps]]\napp_id = 10\nkey = \"a\"\nsecret = \"s\"\n\
        [[apps]]\napp_id = \"11\"\nkey = \"b\"\nsecret = \"s\"\nping_interval = 30\n\
        rate_limiting = { enabled = true, max_attempts = 5 }";
    let config = with_toml(toml, &[("REVERB_APP_PING_INTERVAL", "40")]).unwrap();
    let intervals: Vec<_> = config.apps.iter().map(|app| app.ping_interval.as_secs()).collect();
    assert_eq!(intervals, [20, 30]);
    let second = config.apps.by_id("11").unwrap();
    assert_eq!(second.rules.rate_limit.map(|limit| limit.max_attempts), Some(5));
    assert!(second.allowed_origins.check(Some("http://b.test")).is_err());
    assert_eq!(
        config.notes,
        ["REVERB_APP_PING_INTERVAL has no effect: the 2 app(s) of ringwave.toml take their \
          settings from the file."]
    );
}

#[test]
fn the_app_of_the_variables_is_the_entry_with_its_id_or_one_more() {
    let entry = |id: u32| {
        format!("[[apps]]\napp_id = {id}\nkey = \"old\"\nsecret = \"s\"\npong_timeout = 9")
    };
    let config = with_toml(&entry(1), &APP).unwrap();
    let app = only_app(&config);
    assert_eq!((app.rules.key.as_str(), app.pong_timeout), ("k", Duration::from_secs(9)));
    let config = with_toml(&entry(2), &APP).unwrap();
    let keys: Vec<_> = config.apps.iter().map(|app| app.rules.key.as_str()).collect();
    assert_eq!(keys, ["k", "old"]);
}

#[test]
fn two_apps_with_one_id_or_one_key_are_refused() {
    let entry = |id: &str, key: &str| {
        format!("[[apps]]\napp_id = \"{id}\"\nkey = \"{key}\"\nsecret = \"tops3cret\"\n")
    };
    let message = refused(with_toml(&(entry("1", "a") + &entry("1", "b")), &[]));
    assert!(message.starts_with("apps[0] and apps[1] have the same app_id \"1\""), "{message}");
    let message = refused(with_toml(&(entry("1", "a") + &entry("2", "a")), &[]));
    assert!(message.starts_with("apps[0] and apps[1] have the same key \"a\""), "{message}");
}

#[test]
fn further_keys_are_taken_and_shown_without_their_secrets() {
    let toml = "[[apps]]\napp_id = 1\nkey = \"new\"\nsecret = \"tops3cret\"\n\
        keys = [{ key = \"old\", secret = \"tops3cret\" }]\n\
        [[apps]]\napp_id = 2\nkey = \"two\"\nsecret = \"tops3cret\"\n\
        [[apps.keys]]\nkey = \"older\"\nsecret = \"tops3cret\"\n";
    let config = with_toml(toml, &[]).unwrap();
    assert_eq!(config.apps.by_key("old").map(|app| app.id.as_str()), Some("1"));
    assert_eq!(config.apps.by_key("older").map(|app| app.id.as_str()), Some("2"));
    assert_eq!(resolved(&config, "apps[0].keys").value, "old");
    assert!(!format!("{config:?}").contains("tops3cret"));
    // The app of the variables takes them from the entry with its id.
    let toml = "[[apps]]\napp_id = 1\nkeys = [{ key = \"old\", secret = \"tops3cret\" }]";
    let config = with_toml(toml, &APP).unwrap();
    assert_eq!(only_app(&config).rules.keys().collect::<Vec<_>>(), ["k", "old"]);
}

#[test]
fn keys_that_are_no_pairs_or_not_distinct_are_refused() {
    let with_keys = |keys: &str| {
        let app = "[[apps]]\napp_id = 1\nkey = \"k\"\nsecret = \"tops3cret\"\n";
        refused(with_toml(&format!("{app}keys = {keys}"), &[]))
    };
    for keys in [
        "[\"tops3cret\"]",
        "[{ key = \"a\" }]",
        "[{ key = \"a\", secret = \"\" }]",
        "[{ key = \"a\\nb\", secret = \"tops3cret\" }]",
        "[{ key = \"a\", secret = \"tops3cret\", enabled = true }]",
        "{ key = \"a\", secret = \"tops3cret\" }",
    ] {
        let message = with_keys(keys);
        assert!(message.starts_with("apps[0].keys cannot be [withheld]"), "{message}");
    }
    assert_eq!(
        with_keys("[{ key = \"k\", secret = \"tops3cret\" }]"),
        "apps[0] has the key \"k\" twice: list it once"
    );
    let toml = "[app]\nkeys = [{ key = \"a\", secret = \"tops3cret\" }]";
    assert!(refused(with_toml(toml, &[])).contains("app.keys belongs to one app"));
}

#[test]
fn an_app_may_be_switched_off() {
    let standing = |config: Result<Config, _>| only_app(&config.unwrap()).rules.standing;
    assert_eq!(standing(with_app(&[("RINGWAVE_APP_ENABLED", "false")])), Standing::Disabled);
    assert_eq!(standing(with_app(&[])), Standing::Enabled);
    let toml = "[[apps]]\napp_id = 1\nenabled = false";
    assert_eq!(standing(with_toml(toml, &APP)), Standing::Disabled);
}

#[test]
fn listeners_replace_host_and_port() {
    let listen = ["tcp://[::1]:9000", "unix:///run/ringwave.sock"];
    let flags = Flags::default().with("--listen", &listen).with("--path", &["ws/"]);
    let config = Directory::with(&[]).load(&flags, &[("REVERB_SERVER_HOST", "0.0.0.0")]).unwrap();
    let loopback: SocketAddr = "[::1]:9000".parse().unwrap();
    assert_eq!(
        config.server.listeners,
        [ListenAddr::Tcp(loopback), ListenAddr::Unix("/run/ringwave.sock".into())]
            .map(ListenerConfig::from)
    );
    assert_eq!(
        config.server.starting_line(),
        "Starting server on [::1]:9000/ws, unix:///run/ringwave.sock"
    );
    let twice = ["tcp://127.0.0.1:1", "tcp://localhost:1"];
    let flags = Flags::default().with("--listen", &twice);
    let message = refused(Directory::with(&[]).load(&flags, &[]));
    assert!(message.starts_with("server.listen names 127.0.0.1:1 twice"), "{message}");
}

#[test]
fn hosts_may_be_written_as_reverb_takes_them() {
    for (host, shown) in [
        ("localhost", "127.0.0.1:8080"),
        ("[::1]", "[::1]:8080"),
        ("::", "[::]:8080"),
        ("10.0.0.1", "10.0.0.1:8080"),
    ] {
        let config = with_app(&[("REVERB_SERVER_HOST", host)]).unwrap();
        assert_eq!(address(&config), shown);
    }
}

#[test]
fn a_mapped_loopback_address_is_local_and_a_mapped_public_one_is_not() {
    let flags = |host: &str| Flags::default().with("--host", &[host]);
    let directory = Directory::with(&[]);
    assert!(directory.load(&flags("[::ffff:127.0.0.1]"), &[]).is_ok());
    assert!(directory.load(&flags("[::ffff:10.0.0.1]"), &[]).is_err());
    assert!(directory.load(&flags("[::]"), &[]).is_err());
}

#[test]
fn webhooks_come_from_the_variables_and_from_the_entry_of_their_app() {
    let toml = "[[apps]]\napp_id = \"1\"\n\
        [[apps.webhooks]]\nurl = \"https://b.example/x?tops3cret\"\nevents = [\"cache_miss\"]\n\
        headers = [\"Authorization: tops3cret\"]\nbatch_window_ms = 0\nbatch_max = 1\n\
        channel_prefix = \"private-\"\n\
        [[apps]]\napp_id = \"2\"\nkey = \"k2\"\nsecret = \"s\"\n";
    let variables = [("RINGWAVE_APP_WEBHOOK_URL", "http://a.example")];
    let environment: Vec<_> = APP.into_iter().chain(variables).collect();
    let config = with_toml(toml, &environment).unwrap();
    let apps: Vec<_> = config.apps.iter().collect();
    let first: Vec<_> = apps[0].webhooks.iter().collect();
    assert_eq!(first.len(), 2);
    assert_eq!(first[0].url.whole(), "http://a.example/");
    assert!(first[0].wants(EventKind::MemberAdded, "a"));
    assert!(!first[0].wants(EventKind::SubscriptionCount, "a"), "only when it is named");
    assert!(first[1].wants(EventKind::CacheMiss, "private-a"));
    assert!(!first[1].wants(EventKind::CacheMiss, "a"));
    assert_eq!((first[1].batch_max, first[1].batch_window), (1, Duration::ZERO));
    assert!(apps[1].webhooks.watched().is_empty(), "the variable is for its app alone");
    let url = resolved(&config, "apps[0].webhooks[1].url");
    assert_eq!(url.value, "https://b.example/x?[withheld]");
    assert_eq!(url.source.to_string(), "apps[0].webhooks[0].url in ringwave.toml");
    let headers = resolved(&config, "apps[0].webhooks[1].headers");
    assert_eq!(headers.value, "Authorization: [withheld]");
    assert!(!format!("{config:?}").contains("tops3cret"));
}

#[test]
fn values_are_listed_in_the_order_of_the_declarations_app_by_app() {
    let toml = "[[apps]]\napp_id = \"1\"\n[[apps.webhooks]]\nurl = \"http://a\"\n\
        [[apps]]\napp_id = \"2\"\nkey = \"k2\"\nsecret = \"s\"\n";
    let environment: Vec<_> = APP.into_iter().chain([("REVERB_SCALING_ENABLED", "true")]).collect();
    let config = with_toml(toml, &environment).unwrap();
    let listed: Vec<_> = config.resolved.iter().map(|line| line.key.as_str()).collect();
    let declared = |table: &'static str| {
        let keys = ALL.iter().map(|setting| setting.declaration().key);
        keys.filter_map(move |key| key.strip_prefix(table))
    };
    let server = ["server.", "admin.", "cluster."].into_iter();
    let mut expected: Vec<_> =
        server.flat_map(|table| declared(table).map(move |key| format!("{table}{key}"))).collect();
    for app in ["apps[0].", "apps[1]."] {
        let own = declared("app.").filter(|key| !key.starts_with("webhooks."));
        expected.extend(own.map(|key| format!("{app}{key}")));
        if app == "apps[0]." {
            expected.extend(declared("app.webhooks.").map(|key| format!("{app}webhooks[0].{key}")));
        }
    }
    assert_eq!(listed, expected);
}

#[test]
fn a_webhook_that_cannot_be_sent_is_refused() {
    for (webhook, parts) in [
        ("events = [\"cache_miss\"]", ["apps[0].webhooks[0].url", "is missing"]),
        ("url = \"http://u:tops3cret@a\"", ["cannot be [withheld]", "a URL of `https`"]),
        ("url = \"ftp://a\"", ["cannot be \"ftp://a\"", "a URL of `https`"]),
        ("url = \"http://a\"\nevents = []", ["webhooks[0].events", "`cache_miss`"]),
        ("url = \"http://a\"\nevents = [\"miss\"]", ["cannot be \"miss\"", "`cache_miss`"]),
        ("url = \"http://a\"\nheaders = [\"Host: tops3cret\"]", ["[withheld]", "Name: value"]),
        ("url = \"http://a\"\nbatch_max = 0", ["cannot be 0", "from 1 to 1000"]),
    ] {
        let toml = format!("[[apps]]\napp_id = \"1\"\n[[apps.webhooks]]\n{webhook}\n");
        let message = refused(with_toml(&toml, &APP));
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn events_without_a_url_are_noted() {
    let config = with_app(&[("RINGWAVE_APP_WEBHOOK_EVENTS", "cache_miss")]).unwrap();
    assert!(config.notes[0].contains("RINGWAVE_APP_WEBHOOK_URL is not set"), "{:?}", config.notes);
}

#[test]
fn an_error_gives_its_cause_to_code_and_its_sentence_has_that_too() {
    let broken = Directory::with(&[(".env", "A=1\nB='never closed\n")]);
    let error = broken.load(&Flags::default(), &[]).err().unwrap();
    assert_eq!(error.to_string(), ".env line 2: the value of B has a quote that never closes");
    let cause = error.source().unwrap().downcast_ref::<DotEnvError>().unwrap();
    assert_eq!((cause.line, error.to_string().ends_with(&cause.to_string())), (2, true));

    let absent = Flags { config: Some("a.toml".into()), ..Flags::default() };
    let error = broken.load(&Flags { env: Some("/dev/null".into()), ..absent }, &[]).err().unwrap();
    let cause = error.source().unwrap().downcast_ref::<Unreadable>().unwrap();
    assert!(matches!(cause, Unreadable::Absent), "{error}");

    let error = with_app(&[("REVERB_SERVER_PORT", "x")]).err().unwrap();
    let ConfigError::Rejected(rejected) = &error else { panic!("{error:?}") };
    assert_eq!(rejected.source, ValueSource::Env("REVERB_SERVER_PORT"));
}
