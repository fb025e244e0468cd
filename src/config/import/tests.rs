//! Tests of all imports, and the helpers of the tests of each.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::config::load::{Config, load_text};
use crate::config::settings::ALL;
use crate::config::sources::Environment;

use super::{Predecessor, import};

const SERVERS: [Predecessor; 4] = [
    Predecessor::Reverb,
    Predecessor::Soketi,
    Predecessor::Sockudo,
    Predecessor::LaravelWebsockets,
];

/// The result of an import and the configuration that it comes to.
#[track_caller]
pub(super) fn imported(from: Predecessor, json: &Value) -> (String, Config) {
    let text = import(from, json.to_string().as_bytes(), &Environment::new()).unwrap();
    let config = served(&text);
    (text, config)
}

/// The sentence that ends an import.
#[track_caller]
pub(super) fn refused(from: Predecessor, input: &str) -> String {
    let message = import(from, input.as_bytes(), &Environment::new()).err().unwrap().to_string();
    assert!(!message.contains("s3cret"), "{message}");
    message
}

pub(super) fn has_comment(text: &str, part: &str) -> bool {
    text.lines().any(|line| line.starts_with("# ") && line.contains(part))
}

/// Whether the only app of a configuration lets a page of this origin connect.
pub(super) fn allows(config: &Config, origin: &str) -> bool {
    let app = config.apps.iter().next().unwrap();
    app.allowed_origins.check(Some(origin)).is_ok()
}

fn served(text: &str) -> Config {
    load_text(text).unwrap()
}

/// A configuration with one app, and these fields in addition to those of the app.
fn with_app(from: Predecessor, fields: &[(&str, Value)]) -> Value {
    let mut app = json!({ "key": "k", "secret": "tops3cret" });
    let id = if from == Predecessor::Reverb { "app_id" } else { "id" };
    app[id] = json!("1");
    app["enabled"] = json!(true);
    for (name, value) in fields {
        app[*name] = value.clone();
    }
    match from {
        Predecessor::Reverb => json!({ "apps": { "apps": [app] } }),
        Predecessor::Soketi => json!({ "appManager.array.apps": [app] }),
        Predecessor::Sockudo => json!({ "app_manager": { "array": { "apps": [app] } } }),
        Predecessor::LaravelWebsockets => json!({ "apps": [app] }),
    }
}

fn with_origins(from: Predecessor, origins: &Value) -> Value {
    with_app(from, &[("allowed_origins", origins.clone())])
}

/// The servers that have a list of origins.
const WITH_ORIGINS: [Predecessor; 3] =
    [Predecessor::Reverb, Predecessor::Sockudo, Predecessor::LaravelWebsockets];

#[test]
fn a_list_of_origins_is_taken_in_every_form_that_php_gives_it() {
    for from in WITH_ORIGINS {
        for origins in [
            json!(["https://a.example", "https://b.example"]),
            json!({ "0": "https://a.example", "2": "https://b.example" }),
            json!({ "web": "https://a.example", "app": "https://b.example" }),
            json!(["https://a.example", null, "", false, "https://b.example"]),
            json!("https://a.example, https://b.example"),
        ] {
            let (text, config) = imported(from, &with_origins(from, &origins));
            assert!(allows(&config, "https://a.example"), "{from:?} {origins}:\n{text}");
            assert!(allows(&config, "https://b.example"), "{from:?} {origins}:\n{text}");
            assert!(!allows(&config, "https://evil.example"), "{from:?} {origins}:\n{text}");
            assert!(!allows(&config, "null"), "{from:?} {origins}:\n{text}");
        }
    }
}

#[test]
fn origins_that_cannot_be_understood_end_the_import() {
    for from in WITH_ORIGINS {
        for origins in [
            json!(false),
            json!(true),
            json!(7),
            json!(""),
            json!(" , "),
            json!("[\"a.example\"]"),
            json!("a.example; b.example"),
            json!(["a.example", 7]),
            json!(["a.example", true]),
            json!([["a.example"]]),
            json!({ "a.example": true }),
            json!({ "allow": ["a.example"] }),
        ] {
            let message = refused(from, &with_origins(from, &origins).to_string());
            assert!(message.contains("allowed_origins"), "{from:?} {origins}: {message}");
            assert!(message.contains("cannot be understood as origins"), "{message}");
        }
    }
}

#[test]
fn a_list_without_a_usable_entry_stays_closed() {
    for from in WITH_ORIGINS {
        for origins in [json!([null]), json!([""]), json!({ "3": false }), json!(["a b"])] {
            let (text, config) = imported(from, &with_origins(from, &origins));
            assert!(!allows(&config, "https://a.example"), "{from:?} {origins}:\n{text}");
            assert!(has_comment(&text, "lets no browser in"), "{text}");
        }
    }
}

#[test]
fn a_restriction_of_origins_under_a_wrong_name_ends_the_import() {
    for from in SERVERS {
        for name in ["allowed_origin", "allowedOrigins", "Origins"] {
            let mut json = with_origins(from, &json!(["a.example"]));
            let app = apps_of(from, &mut json).as_array_mut().unwrap()[0].as_object_mut().unwrap();
            let origins = app.remove("allowed_origins").unwrap();
            if from == Predecessor::Reverb {
                app.insert("allowed_origins".into(), json!(["*"]));
            }
            app.insert(name.into(), origins);
            let message = refused(from, &json.to_string());
            assert!(message.contains(name), "{from:?}: {message}");
        }
    }
}

fn apps_of(from: Predecessor, json: &mut Value) -> &mut Value {
    let pointer = match from {
        Predecessor::Reverb => "/apps/apps",
        Predecessor::Soketi => "/appManager.array.apps",
        Predecessor::Sockudo => "/app_manager/array/apps",
        Predecessor::LaravelWebsockets => "/apps",
    };
    json.pointer_mut(pointer).unwrap()
}

#[test]
fn apps_may_be_keyed_by_name_or_by_numbers_with_gaps() {
    for from in SERVERS {
        for names in [["shop", "blog"], ["10", "2"]] {
            let mut json = with_origins(from, &json!(["a.example"]));
            if from == Predecessor::Soketi {
                json = with_app(from, &[]);
            }
            let apps = apps_of(from, &mut json);
            let mut second = apps[0].clone();
            for id in ["id", "app_id", "key"] {
                if second.get(id).is_some() {
                    second[id] = json!("second");
                }
            }
            *apps = json!({ names[0]: apps[0], names[1]: second });
            let (_, config) = imported(from, &json);
            let mut ids: Vec<_> = config.apps.iter().map(|app| app.id.clone()).collect();
            ids.sort_unstable();
            assert_eq!(ids, ["1", "second"], "{from:?}");
        }
    }
}

#[test]
fn what_is_no_configuration_of_the_server_is_refused() {
    for from in SERVERS {
        for input in ["{}", "{\"apps\": null}", "{\"a\": 1}"] {
            let message = refused(from, input);
            assert!(message.starts_with("the input is not "), "{from:?} {input}: {message}");
        }
        let empty = {
            let mut json = with_app(from, &[]);
            *apps_of(from, &mut json) = json!([]);
            json.to_string()
        };
        assert!(refused(from, &empty).starts_with("there is no app"), "{from:?}");
        for (name, value) in [("key", json!(null)), ("key", json!("")), ("secret", json!([]))] {
            let message = refused(from, &with_app(from, &[(name, value)]).to_string());
            assert!(message.contains(&format!("{name} is missing in the input")), "{message}");
        }
    }
}

#[test]
fn an_input_that_is_no_json_is_told_by_what_it_is() {
    let from = Predecessor::Reverb;
    let json = with_origins(from, &json!(["*"])).to_string();
    let warning = "PHP Warning:  Undefined array key \"x\" in /app/config/reverb.php on line 3";
    for (input, sentence) in [
        (String::new(), "the input is empty"),
        (" \n".into(), "the input is empty"),
        (format!("\n{warning}\n{json}"), "begins with \"PHP Warning:  Undefined array key"),
        (format!("{warning} {json}"), "begins with \"PHP Warning:  Undefined array key"),
        (format!("{json}\nDeprecated: x in y\n"), "behind it came \"Deprecated: x in y\""),
        (format!("{json}{json}"), "behind it came \"another object\""),
        ("<?php return ['secret' => 's3cret'];".into(), "PHP source"),
        ("APP_KEY=s3cret\nDB=1".into(), "withheld"),
        ("  'secret' => 's3cret'".into(), "withheld"),
        ("Could not open input file: artisan".into(), "Could not open input file"),
        ("null".into(), "the input is null"),
        ("[]".into(), "the input is an empty list"),
        ("[1]".into(), "the input is a list"),
        ("{\n \"secret\": tops3cret".into(), "the input is not JSON: line 2"),
        ("\u{1b}[31mError\u{1b}[0m".into(), "begins with \"\\u{1b}[31mError"),
    ] {
        let message = refused(from, &input);
        assert!(message.contains(sentence), "{input:?}: {message}");
        assert!(!message.contains('\n'), "{message:?}");
    }
    for (bytes, sentence) in [
        (&b"\xff\xfe{\0}\0"[..], "is UTF-16"),
        (b"{\"a\": \"\xe4\"}", "is not UTF-8 text: byte 7"),
        (&vec![b' '; super::INPUT_BYTES_MAX + 1], "is longer than"),
    ] {
        let message = import(from, bytes, &Environment::new()).err().unwrap().to_string();
        assert!(message.contains(sentence), "{message}");
    }
    let marked = format!("\u{feff}{json}\n");
    assert!(import(from, marked.as_bytes(), &Environment::new()).is_ok());
}

#[test]
fn a_limit_that_cannot_be_kept_ends_the_import() {
    for (from, name, value) in [
        (Predecessor::Reverb, "max_connections", json!("lots")),
        (Predecessor::Reverb, "max_connections", json!(0)),
        (Predecessor::Reverb, "max_connections", json!(-1)),
        (Predecessor::Reverb, "max_connections", json!(10.5)),
        (Predecessor::Reverb, "max_connections", json!([5])),
        (Predecessor::Reverb, "max_message_size", json!("ten")),
        (Predecessor::Reverb, "rate_limiting", json!(true)),
        (Predecessor::Reverb, "rate_limiting", json!({ "enabled": true, "max_attempts": "x" })),
        (Predecessor::Soketi, "maxConnections", json!("lots")),
        (Predecessor::Soketi, "max_connections", json!({})),
        (Predecessor::Soketi, "maxClientEventsPerSecond", json!(0)),
        (Predecessor::Soketi, "maxBackendEventsPerSecond", json!("many")),
        (Predecessor::Soketi, "enabled", json!("maybe")),
        (Predecessor::Sockudo, "max_connections", json!("lots")),
        (Predecessor::Sockudo, "policy", json!({ "limits": { "max_event_batch_size": "x" } })),
        (Predecessor::Sockudo, "policy", json!("strict")),
        (Predecessor::Sockudo, "enabled", json!("maybe")),
        (Predecessor::LaravelWebsockets, "capacity", json!("lots")),
        (Predecessor::LaravelWebsockets, "capacity", json!(0)),
    ] {
        let mut json = with_app(from, &[(name, value.clone())]);
        if from == Predecessor::Reverb {
            json = with_app(from, &[("allowed_origins", json!(["*"])), (name, value.clone())]);
        }
        let message = refused(from, &json.to_string());
        assert!(message.contains(name), "{from:?} {name} {value}: {message}");
    }
}

#[test]
fn a_host_that_is_a_name_does_not_become_all_addresses() {
    for (from, pointer) in [(Predecessor::Soketi, "host"), (Predecessor::Sockudo, "host")] {
        let mut json = with_app(from, &[]);
        json[pointer] = json!("internal.test");
        let (text, config) = imported(from, &json);
        assert!(config.server.listeners[0].is_local(), "{text}");
        assert!(has_comment(&text, "host cannot be \"internal.test\""), "{text}");
    }
}

#[test]
fn every_setting_that_an_import_may_write_is_declared() {
    let sources = [
        include_str!("cluster.rs"),
        include_str!("limits.rs"),
        include_str!("origins.rs"),
        include_str!("reverb.rs"),
        include_str!("sockudo.rs"),
        include_str!("soketi.rs"),
        include_str!("webhooks.rs"),
        include_str!("websockets.rs"),
        include_str!("writer.rs"),
    ];
    let quoted = sources.iter().flat_map(|source| source.split('"').skip(1).step_by(2));
    let settings = quoted.filter(|text| {
        let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.');
        let tables = ["app.", "cluster.", "server."];
        plain && !text.ends_with('.') && tables.iter().any(|table| text.starts_with(table))
    });
    let mut count = 0;
    for setting in settings {
        assert!(ALL.iter().any(|known| known.declaration().key == setting), "{setting}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

/// Any JSON of some depth, with names and texts that importers look for among others.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any_name(), inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_name() -> impl Strategy<Value = String> {
    const NAMES: &str = "adapter driver redis database clusterMode clusterNodes nodes sentinels \
        server channel url prefix password username tls master_tls apps app_id id key \
        secret allowed_origins servers reverb default host port options scaling \
        rate_limiting enabled max_connections appManager array app_manager policy limits \
        channels features webhooks url event_types filter headers presence eventLimits \
        maxPayloadInKb batching unix_socket path rate_limiter dashboard capacity managers \
        appManager.array.apps appManager.array.apps.0.id a.b.c.d.e.f 0 1 10";
    let names: Vec<String> = NAMES.split_whitespace().map(str::to_owned).collect();
    prop_oneof![4 => prop::sample::select(names), 1 => any_text()]
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z.*:/\\-]{0,12}",
        ".{0,8}",
        prop::sample::select(vec![
            "true",
            "1",
            "-1",
            "1e400",
            "nan",
            "null",
            "*",
            "any",
            "\n#[",
            "redis",
            "redis-cluster",
            "rediss://u:p@h/1",
        ])
        .prop_map(str::to_owned),
    ]
}

/// Entries of lists of origins. None lets a page of `evil.test` in, in any of the servers.
fn restricted_entry() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!(false)),
        Just(json!("")),
        "(https?://)?(\\*\\.)?[a-d]{1,6}\\.example(:[1-9][0-9]{0,3})?/?".prop_map(Value::from),
        "[a-d .:/\\[\\]-]{0,9}".prop_map(Value::from),
        Just(json!(" *")),
        Just(json!("* ")),
        Just(json!("null")),
        Just(json!("null\n")),
        Just(json!("http*")),
    ]
}

/// A list in one of the forms that PHP gives it.
fn restricted_origins() -> impl Strategy<Value = Value> {
    let entries = prop::collection::vec(restricted_entry(), 1..5);
    (entries, 0..3).prop_map(|(entries, form)| match form {
        0 => Value::from(entries),
        1 => entries.into_iter().enumerate().map(|(at, it)| ((at * 2).to_string(), it)).collect(),
        _ => {
            let texts: Vec<_> = entries.iter().filter_map(Value::as_str).map(str::trim).collect();
            texts.iter().filter(|text| **text != "*").copied().collect::<Vec<_>>().join(",").into()
        }
    })
}

proptest! {
    #[test]
    fn no_json_makes_an_import_panic_and_every_result_is_served(json in any_json()) {
        for from in SERVERS {
            if let Ok(text) = import(from, json.to_string().as_bytes(), &Environment::new()) {
                served(&text);
            }
        }
    }

    #[test]
    fn no_value_of_an_app_makes_an_import_panic(name in any_name(), value in any_json()) {
        for from in SERVERS {
            let origins = json!(["a.test"]);
            let json = with_app(from, &[("allowed_origins", origins), (&name, value.clone())]);
            if let Ok(text) = import(from, json.to_string().as_bytes(), &Environment::new()) {
                served(&text);
            }
        }
    }

    #[test]
    fn no_bytes_make_an_import_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for from in SERVERS {
            let _ = import(from, &bytes, &Environment::new());
        }
    }

    #[test]
    fn no_restriction_of_origins_becomes_wider(origins in restricted_origins()) {
        for from in WITH_ORIGINS {
            let json = with_origins(from, &origins);
            let Ok(text) = import(from, json.to_string().as_bytes(), &Environment::new()) else {
                continue;
            };
            let config = served(&text);
            for origin in ["https://evil.test", "http://evil.test:8080", "null", "garbage"] {
                prop_assert!(!allows(&config, origin), "{from:?} {origins} {origin}:\n{text}");
            }
            let app = config.apps.iter().next().unwrap();
            prop_assert!(app.allowed_origins.check(None).is_err(), "{from:?} {origins}:\n{text}");
        }
    }

    #[test]
    fn any_value_of_origins_is_refused_or_says_all_in_so_many_words(origins in any_json()) {
        let says_all = |text: &str| text.contains(['*']) || text.to_lowercase().contains("any");
        for from in WITH_ORIGINS {
            let json = with_origins(from, &origins);
            let Ok(text) = import(from, json.to_string().as_bytes(), &Environment::new()) else {
                continue;
            };
            let is_none = origins.is_null() || origins == json!([]) || origins == json!({});
            let empty_is_all = from != Predecessor::Reverb && is_none;
            let open = allows(&served(&text), "https://evil.test");
            prop_assert!(
                !open || empty_is_all || says_all(&origins.to_string()),
                "{from:?} {origins}:\n{text}"
            );
        }
    }
}

/// The input with its nodes on this Redis, and the address and the password that come of it.
fn with_redis(from: Predecessor, host: &str, password: &str) -> Value {
    let mut json = match from {
        Predecessor::Reverb => with_origins(from, &json!(["*"])),
        _ => with_app(from, &[]),
    };
    let redis = json!({ "host": host, "port": 7, "username": "u", "password": password, "db": 2 });
    match from {
        Predecessor::Reverb => {
            json["servers"]["reverb"]["scaling"] = json!({ "enabled": true, "server": {
                "host": host, "port": "7", "username": "u", "password": password, "database": "2",
            } });
        }
        _ => {
            json["adapter"]["driver"] = json!("redis");
            json["database"]["redis"] = redis;
        }
    }
    json
}

#[test]
fn nodes_that_met_on_a_redis_meet_there_again() {
    for from in [Predecessor::Reverb, Predecessor::Soketi, Predecessor::Sockudo] {
        let (text, config) = imported(from, &with_redis(from, "redis.test", "p/s3cret"));
        let cluster = config.cluster.unwrap();
        let addresses: Vec<_> = cluster.place.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["redis://redis.test:7"], "{from:?}");
        assert_eq!(cluster.login.username.as_deref(), Some("u"), "{from:?}");
        assert_eq!(cluster.login.password.unwrap().0, "p/s3cret", "{from:?}");
        assert_eq!((cluster.database, cluster.name.as_str()), (2, "reverb"), "{from:?}");
        assert_eq!(text.matches("s3cret").count(), 2, "the app's and that of Redis: {text}");
    }
}

#[test]
fn a_redis_that_cannot_be_reached_ends_the_import_without_its_password() {
    for from in [Predecessor::Reverb, Predecessor::Soketi, Predecessor::Sockudo] {
        let message = refused(from, &with_redis(from, "http://s3cret@redis.test", "p").to_string());
        assert!(message.contains("host names no server that can be reached"), "{message}");
    }
}
