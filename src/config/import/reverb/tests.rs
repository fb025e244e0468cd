use serde_json::json;

use super::super::tests::{self, allows, has_comment};
use super::*;
use crate::config::Config;
use crate::config::import::Predecessor;
use crate::protocol::rules::{ClientEvents, RateLimit};

/// The output of a fresh Laravel app with Reverb 1.10, apart from its credentials.
fn stub() -> Value {
    json!({
        "default": "reverb",
        "servers": { "reverb": {
            "host": "0.0.0.0",
            "port": 8080,
            "path": "",
            "hostname": "localhost",
            "options": { "tls": [] },
            "max_request_size": 10_000,
            "scaling": {
                "enabled": false,
                "channel": "reverb",
                "server": { "url": null, "host": "127.0.0.1", "port": "6379", "username": null,
                    "password": "redis-s3cret", "database": "0", "timeout": 60 },
            },
            "pulse_ingest_interval": 15,
            "telescope_ingest_interval": 15,
        } },
        "apps": { "provider": "config", "apps": [{
            "key": "stub-key",
            "secret": "tops3cret",
            "app_id": "654321",
            "options": { "host": "localhost", "port": "8081", "scheme": "http", "useTLS": false },
            "allowed_origins": ["*"],
            "ping_interval": 60,
            "activity_timeout": 30,
            "max_connections": null,
            "max_message_size": 10_000,
            "accept_client_events_from": "members",
            "rate_limiting": {
                "enabled": false,
                "max_attempts": 60,
                "decay_seconds": 60,
                "terminate_on_limit": false,
            },
        }] },
    })
}

/// The stub with something else at this place; without it for null.
fn with(pointer: &str, value: Value) -> Value {
    let mut json = stub();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = json.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => drop(parent.remove(key)),
        value => drop(parent.insert(key.to_owned(), value)),
    }
    json
}

fn with_app(key: &str, value: Value) -> Value {
    with(&format!("/apps/apps/0/{key}"), value)
}

#[track_caller]
fn imported(json: &Value) -> (String, Config) {
    tests::imported(Predecessor::Reverb, json)
}

#[track_caller]
fn refused(json: &Value) -> String {
    tests::refused(Predecessor::Reverb, &json.to_string())
}

#[test]
fn what_a_fresh_app_has_is_taken_over_and_means_the_same() {
    let (text, config) = imported(&stub());
    let app = config.apps.by_id("654321").unwrap();
    assert_eq!(app.rules.key, "stub-key");
    assert!(app.rules.secret_of("stub-key").is_some() && text.contains("secret = \"tops3cret\""));
    assert_eq!((app.rules.client_events, app.rules.rate_limit), (ClientEvents::Members, None));
    assert_eq!(app.max_connections, None);
    assert_eq!(config.server.starting_line(), "Starting server on 0.0.0.0:8080 (localhost)");
    assert_eq!(app.rules.limits.max_request_size, 100_000);
    assert!(has_comment(&text, "max_request_size") && has_comment(&text, "options: where"));
    assert!(!text.contains("redis-s3cret") && !text.contains("no counterpart"), "{text}");
    assert!(!text.contains("tls") && !text.contains("scaling"), "{text}");
}

#[test]
fn every_setting_of_an_app_arrives() {
    let mut json = stub();
    let second = json!({
        "app_id": 7, "key": "k\"2", "secret": "with \"quotes\" and \\ and\nlines",
        "allowed_origins": ["example.com", "*.example.com", "https://yourdomain.com"],
        "ping_interval": "11", "activity_timeout": 12, "max_connections": "13",
        "max_message_size": 14, "accept_client_events_from": "nobody",
        "rate_limiting": { "enabled": true, "max_attempts": "15", "decay_seconds": 16,
            "terminate_on_limit": "1" },
    });
    json.pointer_mut("/apps/apps").unwrap().as_array_mut().unwrap().push(second);
    let (_, config) = imported(&json);
    assert_eq!(config.apps.iter().count(), 2);
    let app = config.apps.by_id("7").unwrap();
    let secret = crate::protocol::secret::Secret::new("with \"quotes\" and \\ and\nlines");
    assert_eq!(app.rules.secret_of("k\"2").unwrap().sign(&[b"x"]), secret.sign(&[b"x"]));
    assert!(app.allowed_origins.check(Some("https://yourdomain.com")).is_ok());
    assert!(app.allowed_origins.check(Some("https://other.com")).is_err());
    assert_eq!((app.ping_interval.as_secs(), app.rules.activity_timeout_s), (11, 12));
    assert_eq!((app.max_connections, app.rules.limits.max_message_size), (Some(13), 14));
    assert_eq!(app.rules.client_events, ClientEvents::None);
    let decay = std::time::Duration::from_secs(16);
    assert_eq!(app.rules.rate_limit, Some(RateLimit { max_attempts: 15, decay, terminate: true }));
}

#[test]
fn a_file_from_before_the_policy_of_client_events_keeps_what_it_did() {
    let mut json = with_app("accept_client_events_from", Value::Null);
    json.pointer_mut("/apps/apps/0").unwrap().as_object_mut().unwrap().remove("rate_limiting");
    let (text, config) = imported(&json);
    assert_eq!(config.apps.by_id("654321").unwrap().rules.client_events, ClientEvents::All);
    assert!(has_comment(&text, "`members` is safer"), "{text}");
}

#[test]
fn what_has_no_counterpart_or_cannot_be_served_is_told_in_a_comment() {
    let server = |key: &str| format!("/servers/reverb/{key}");
    for (json, comment) in [
        (with(&server("host"), json!("reverb.test")), "host cannot be \"reverb.test\""),
        (with(&server("port"), json!(80_800)), "port cannot be 80800"),
        (with(&server("options"), json!({ "tls": { "local_cert": "c.pem" } })), "options.tls"),
        (with(&server("scaling"), json!({ "enabled": "off" })), "scaling.server is empty"),
        (with(&server("colour"), json!("s3cret")), "Without a counterpart: \"colour\""),
        (with("/apps/provider", json!("database")), "apps.provider"),
        (with_app("ping_interval", json!(0)), "ping_interval cannot be 0"),
        (with_app("ping_interval", json!("1\n[x]\ny")), "ping_interval cannot be \"1\\n"),
        (with_app("a\nb", json!(1)), "Without a counterpart: \"a\\nb\""),
        (with_app("allowed_origins", json!(["a.test", "a b"])), "left out are \"a b\""),
        (with_app("rate_limiting", json!({ "enabled": "1" })), "not the word true"),
    ] {
        let (text, config) = imported(&json);
        assert!(has_comment(&text, comment), "{comment:?} is not in:\n{text}");
        assert_eq!(config.apps.iter().count(), 1);
    }
    let (text, config) = imported(&with("/servers/reverb/max_request_size", json!("50000")));
    assert_eq!(config.apps.iter().next().unwrap().rules.limits.max_request_size, 50_000, "{text}");
}

#[test]
fn entries_that_fitted_no_origin_in_reverb_fit_none_here() {
    for entry in ["null", "https://*", "http://*.*/", "*:8080", "**://*", " *", "* ", ""] {
        let (text, config) = imported(&with_app("allowed_origins", json!([entry])));
        for origin in ["https://evil.test", "http://evil.test:8080", "null"] {
            assert!(!allows(&config, origin), "{entry:?} {origin}:\n{text}");
        }
    }
    let (_, config) = imported(&with_app("allowed_origins", json!(["a.test", "*"])));
    assert!(allows(&config, "https://evil.test"), "as in Reverb");
}

#[test]
fn a_missing_list_of_origins_is_refused_since_reverb_cannot_serve_it() {
    for absent in [with_app("allowed_origins", Value::Null), {
        let mut json = stub();
        json["apps"]["apps"][0]["allowed_origins"] = Value::Null;
        json
    }] {
        let message = refused(&absent);
        assert!(
            message.starts_with("apps.apps[0].allowed_origins is missing or null"),
            "{message}"
        );
    }
    for empty in [json!([]), json!({})] {
        let (_, config) = imported(&with_app("allowed_origins", empty));
        assert!(!allows(&config, "https://a.test"), "an empty list lets nobody in");
    }
}

#[test]
fn a_server_by_another_name_is_taken_by_that_name() {
    let mut json = with("/default", json!("edge"));
    let reverb = json["servers"]["reverb"].take();
    json["servers"] = json!({ "edge": reverb });
    json["servers"]["edge"]["port"] = json!(9000);
    let (text, config) = imported(&json);
    assert_eq!(config.server.listeners[0].to_string(), "0.0.0.0:9000");
    assert!(has_comment(&text, "From the server \"edge\""));
}

#[test]
fn a_default_server_that_is_not_there_is_refused() {
    let message = refused(&with("/default", json!("edge")));
    assert!(message.starts_with("servers.edge is missing in the input"), "{message}");
}

#[test]
fn what_is_not_the_configuration_of_reverb_is_refused() {
    let none = "the input is not Laravel's config('reverb'): it has no apps.apps";
    for json in [json!({}), json!({ "apps": [] }), json!({ "apps": { "apps": null } })] {
        assert_eq!(refused(&json), none);
    }
    let mut twice = stub();
    let app = twice["apps"]["apps"][0].clone();
    twice["apps"]["apps"].as_array_mut().unwrap().push(app);
    assert!(refused(&twice).contains("have the same app_id"));
}

#[test]
fn scaling_becomes_a_cluster_and_fields_without_effect_are_named() {
    let scaling = |fields: Value| {
        let mut json = stub();
        let scaling = &mut json["servers"]["reverb"]["scaling"];
        scaling["enabled"] = json!("1");
        for (name, value) in fields.as_object().unwrap() {
            scaling["server"][name] = value.clone();
        }
        imported(&json)
    };
    let (text, config) =
        scaling(json!({ "read_timeout": 60, "prefix": "x", "options": { "a": 1 } }));
    let cluster = config.cluster.unwrap();
    assert_eq!(cluster.place.addresses()[0].to_string(), "redis://127.0.0.1:6379");
    assert_eq!((cluster.name.as_str(), cluster.database), ("reverb", 0));
    assert_eq!(cluster.login.password.unwrap().0, "redis-s3cret");
    assert!(has_comment(&text, "scaling.server.timeout has no effect"), "{text}");
    let unknown = "Without a counterpart: \"options\", \"prefix\", \"read_timeout\".";
    assert!(has_comment(&text, unknown), "{text}");
    let (_, config) = scaling(json!({ "url": "rediss://u:p%2F@redis.test/3", "port": 7 }));
    let cluster = config.cluster.unwrap();
    assert_eq!(cluster.place.addresses()[0].to_string(), "rediss://redis.test:7");
    assert_eq!((cluster.login.password.unwrap().0.as_str(), cluster.database), ("p/", 3));
    let mut json = stub();
    json["servers"]["reverb"]["scaling"] = json!({ "enabled": true, "channel": "a b" });
    let (text, config) = imported(&json);
    assert_eq!(config.cluster.unwrap().name, "reverb");
    assert!(has_comment(&text, "channel cannot be \"a b\""), "{text}");
}
