use serde_json::json;

use super::super::tests::{allows, has_comment, imported, refused};
use super::*;
use crate::cluster::RedisPlace;
use crate::config::import::{Predecessor::Sockudo, import};
use crate::protocol::rules::{ClientEvents, RateLimit, Standing};

/// The parts of sockudo's own example configuration that matter here, as TOML.
const FILE: &str = r#"
host = "127.0.0.1"
port = 6002 # the second node
path_prefix = "/"
mode = "production"
websocket_max_payload_kb = 128
max_connections = 50
user_authentication_timeout = 3600
activity_timeout = 100

[adapter]
driver = "redis"

[app_manager]
driver = "memory"

[[app_manager.array.apps]]
id = "1"
key = "k1"
secret = "tops3cret"
enabled = true

[app_manager.array.apps.policy.limits]
max_connections = 100
max_client_events_per_second = 60
decay_seconds = 30
max_event_payload_in_kb = "64"
message_rate_limit = { enabled = true, max_attempts = 15, decay_seconds = 16 }

[app_manager.array.apps.policy.features]
enable_client_messages = true
enable_user_authentication = true

[app_manager.array.apps.policy.channels]
allowed_origins = ["https://a.test", "*.b.test"]

[[app_manager.array.apps.policy.channels.channel_namespaces]]
name = "chat"
channel_name_pattern = "^chat:.*$"

[[app_manager.array.apps.policy.webhooks]]
url = "https://a.test/hook"
event_types = ["member_added"]
filter = { channel_prefix = "presence-" }

[rate_limiter]
enabled = true
api_rate_limit = { max_requests = 600, window_seconds = 60 }
websocket_rate_limit = { max_requests = 300, window_seconds = 60 }

[channel_limits]
cache_ttl = 60

[event_limits]
max_batch_size = 7
"#;

fn imported_toml(text: &str) -> (String, crate::config::Config) {
    let json = crate::config::import::input::json_or_toml(text).unwrap();
    let of_toml = import(Sockudo, text.as_bytes(), &Environment::new()).unwrap();
    let (of_json, config) = imported(Sockudo, &json);
    assert_eq!(of_toml, of_json);
    (of_toml, config)
}

#[test]
fn every_setting_of_sockudo_arrives_from_toml_as_from_json() {
    let (text, config) = imported_toml(FILE);
    assert_eq!(config.server.listeners[0].to_string(), "127.0.0.1:6002");
    assert_eq!(config.server.address_limits.requests_per_second, Some(5));
    let app = config.apps.by_id("1").unwrap();
    assert!(app.rules.standing == Standing::Enabled);
    assert_eq!(app.max_connections, Some(50), "of all apps together, which is less");
    assert_eq!(app.rules.client_events, ClientEvents::Members);
    assert_eq!(app.rules.limits.max_client_events_per_second, Some(2));
    assert_eq!(app.rules.limits.max_event_data, Some(65_536));
    assert!(text.contains("\nmax_batch = 7\n"), "{text}");
    assert_eq!(app.rules.limits.max_message_size, 141_072);
    assert_eq!(app.rules.limits.max_request_size, 10_485_760);
    assert_eq!((app.rules.activity_timeout_s, app.ping_interval.as_secs()), (100, 100));
    assert_eq!(app.cache_ttl.as_secs(), 60);
    assert_eq!(app.user_authentication_timeout.unwrap().as_secs(), 3600);
    let decay = std::time::Duration::from_secs(16);
    assert_eq!(app.rules.rate_limit, Some(RateLimit { max_attempts: 15, decay, terminate: false }));
    assert!(text.contains("\nchannel_prefix = \"presence-\"\n"), "{text}");
    let cluster = config.cluster.unwrap();
    assert_eq!(cluster.place.addresses()[0].to_string(), "redis://127.0.0.1:6379");
    for comment in ["channel_namespaces:", "rate_limiter:"] {
        assert!(has_comment(&text, comment), "{comment:?} is not in:\n{text}");
    }
}

#[test]
fn origins_mean_here_what_they_mean_there() {
    let (_, config) = imported_toml(FILE);
    for (origin, allowed) in [
        ("https://a.test", true),
        ("http://a.test", false),
        ("https://a.test:8443", false),
        ("https://b.test", true),
        ("http://x.y.b.test", true),
        ("https://x.b.test:8443", false),
        ("https://evil-b.test", false),
    ] {
        assert_eq!(allows(&config, origin), allowed, "{origin}");
    }
    for (entry, origin, allowed) in [
        ("Any", "https://evil.test", true),
        ("localhost:3000", "http://localhost:3000", true),
        ("localhost:3000", "http://localhost:3001", false),
        ("a.test", "https://a.test:8443", false),
        ("http*", "https://evil.test", false),
        ("http*", "https://httpevil.test", false),
        ("*.a.*", "https://x.a.evil", false),
        ("https://*.a.test", "https://x.a.test", true),
    ] {
        let text = FILE.replace("\"https://a.test\", \"*.b.test\"", &format!("{entry:?}"));
        let (text, config) = imported_toml(&text);
        assert_eq!(allows(&config, origin), allowed, "{entry} {origin}:\n{text}");
    }
}

#[test]
fn apps_of_older_files_have_their_limits_beside_the_key() {
    let app = json!({
        "id": "1", "key": "k", "secret": "s", "max_connections": "100",
        "enable_client_messages": false, "max_client_events_per_second": "0",
        "allowed_origins": ["https://a.test"],
    });
    let json = json!({ "app_manager": { "array": { "apps": [app] } } });
    let (text, config) = imported(Sockudo, &json);
    let app = config.apps.by_id("1").unwrap();
    assert_eq!(app.max_connections, Some(100));
    assert_eq!(app.rules.limits.max_client_events_per_second, None);
    assert!(!allows(&config, "https://evil.test"), "{text}");
    assert!(app.rules.standing == Standing::Disabled, "without `enabled`, as there:\n{text}");
    assert_eq!(config.server.listeners[0].to_string(), "0.0.0.0:6001");
}

#[test]
fn variables_are_filled_from_the_environment_or_end_the_import() {
    let text = FILE.replace("\"tops3cret\"", "\"${APP_SECRET}\"");
    let text = text.replace("port = 6002", "port = ${PORT:-6003}");
    let environment: Environment = [("APP_SECRET".to_owned(), "of-the-host".to_owned())].into();
    let written = import(Sockudo, text.as_bytes(), &environment).unwrap();
    assert!(written.contains("\nsecret = \"of-the-host\"\n"), "{written}");
    assert!(written.contains("\nport = 6003\n"), "{written}");
    assert!(refused(Sockudo, &text).contains("needs APP_SECRET of sockudo's environment"));
    for plain in ["${", "${}", "${1}", "${a b}", "$a", "${x-y}", "ü${ä}"] {
        assert_eq!(filled(plain, &environment).unwrap(), plain);
    }
    assert_eq!(filled("a${X:-}b${Y:-${}c}", &environment).unwrap(), "ab${c}");
}

#[test]
fn a_limit_of_toml_that_is_no_number_is_not_dropped() {
    for value in ["nan", "inf", "1979-05-27", "[1]", "-inf"] {
        let text = FILE.replace("max_connections = 100\n", &format!("max_connections = {value}\n"));
        let message = refused(Sockudo, &text);
        assert!(message.contains("max_connections is "), "{value}: {message}");
    }
    let message = refused(Sockudo, "key = \"k\"\nsecret = \"tops3cret\nx = 1\n");
    assert!(message.starts_with("the input is neither JSON nor TOML: line 2"), "{message}");
}

#[test]
fn a_unix_socket_takes_the_place_of_the_port() {
    let with = |fields: &str| format!("{FILE}\n[unix_socket]\nenabled = true\n{fields}\n");
    let (text, config) =
        imported_toml(&with("path = \"/run/sockudo.sock\"\npermission_mode = \"660\""));
    assert_eq!(config.server.listeners[0].to_string(), "unix:///run/sockudo.sock");
    assert!(has_comment(&text, "permission_mode"), "{text}");
    assert!(refused(Sockudo, &with("path = \"\"")).contains("unix_socket.path is \"\""));
}

#[test]
fn names_of_toml_that_are_nested_without_end_are_refused() {
    for deep in [
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[{}]", vec!["a"; 100_000].join(".")),
        format!("a = {}", "[".repeat(100_000)),
    ] {
        assert!(refused(Sockudo, &deep).starts_with("the input is neither JSON nor TOML"));
    }
    let huge: Environment = [("A".to_owned(), "x".repeat(1 << 20))].into();
    let message = filled(&"${A}".repeat(64), &huge).err().unwrap().to_string();
    assert!(message.contains("too long"), "{message}");
}

#[test]
fn nodes_meet_on_the_redis_of_sockudo_whatever_kind_it_is() {
    let with = |adapter: &str, database: &str| {
        let file = FILE.replace("[adapter]\ndriver = \"redis\"\n", adapter);
        imported_toml(&format!("{file}\n{database}"))
    };
    let (_, config) = with(
        "[adapter]\ndriver = \"redis\"\n[adapter.redis]\nprefix = \"shop:\"\n\
         redis_pub_options = { url = \"rediss://u:p%2F@redis.test:7/3\" }\n",
        "",
    );
    let cluster = config.cluster.unwrap();
    assert_eq!(cluster.place.addresses()[0].to_string(), "rediss://redis.test:7");
    assert_eq!((cluster.name.as_str(), cluster.database), ("shop:", 3));
    let (text, config) = with(
        "[adapter]\ndriver = \"redis\"\n",
        "[database.redis]\nname = \"m\"\nsentinel_password = \"s3cret\"\n\
         sentinels = [{ host = \"a\", port = 1 }]\n[database.redis.master_tls]\n\
         enabled = true\nca_path = \"/ca.pem\"\naccept_invalid_certs = true\n",
    );
    let cluster = config.cluster.unwrap();
    let RedisPlace::Sentinel { sentinels, master, .. } = &cluster.place else { panic!() };
    assert_eq!((sentinels[0].to_string().as_str(), master.as_str()), ("rediss://a:1", "m"));
    assert!(cluster.tls.authorities.is_some());
    assert!(has_comment(&text, "always checked"), "{text}");
    let (_, config) = with(
        "[adapter]\ndriver = \"redis-cluster\"\n[adapter.cluster]\n\
         nodes = [\"redis://a:1\", \"b:2\"]\n",
        "[database.redis]\npassword = \"s3cret\"\n[database.redis.cluster]\nuse_tls = true\n",
    );
    let cluster = config.cluster.unwrap();
    let servers: Vec<_> = cluster.place.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["rediss://a:1", "rediss://b:2"]);
    assert!(matches!(cluster.place, RedisPlace::Cluster(_)) && cluster.login.password.is_some());
}
