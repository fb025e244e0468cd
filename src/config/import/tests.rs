use serde_json::json;

use super::super::file::File;
use super::super::sources::{Environment, Sources};
use super::super::{Config, Flags, resolve};
use super::*;
use crate::protocol::app::{ClientEvents, RateLimit};

/// What a fresh Laravel app with Reverb 1.10 prints, apart from its credentials.
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
    let text = import_reverb(&json.to_string()).unwrap();
    let file = File::parse("ringwave.toml".as_ref(), &text).unwrap();
    let (flags, environment) = (Flags::default(), Environment::new());
    let config = resolve(&Sources::of_file(&flags, &environment, file), false).unwrap();
    (text, config)
}

fn refused(json: &str) -> String {
    let message = import_reverb(json).err().unwrap().to_string();
    assert!(!message.contains("s3cret"), "{message}");
    message
}

fn has_comment(text: &str, part: &str) -> bool {
    text.lines().any(|line| line.starts_with("# ") && line.contains(part))
}

#[test]
fn what_a_fresh_app_has_is_taken_over_and_means_the_same() {
    let (text, config) = imported(&stub());
    let app = config.apps.by_id("654321").unwrap();
    assert_eq!(app.key, "stub-key");
    assert!(app.secret_of("stub-key").is_some() && text.contains("secret = \"tops3cret\""));
    assert_eq!((app.client_events, app.rate_limit), (ClientEvents::Members, None));
    assert_eq!(app.max_connections, None);
    assert_eq!(config.server.starting_line(), "Starting server on 0.0.0.0:8080 (localhost)");
    assert_eq!(app.limits.max_request_size, 100_000);
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
    let secret = crate::protocol::auth::Secret::new("with \"quotes\" and \\ and\nlines");
    assert_eq!(app.secret_of("k\"2").unwrap().sign(&[b"x"]), secret.sign(&[b"x"]));
    assert!(app.allowed_origins.check(Some("https://yourdomain.com")).is_ok());
    assert!(app.allowed_origins.check(Some("https://other.com")).is_err());
    assert_eq!((app.ping_interval.as_secs(), app.activity_timeout_s), (11, 12));
    assert_eq!((app.max_connections, app.limits.max_message_size), (Some(13), 14));
    assert_eq!(app.client_events, ClientEvents::None);
    let decay = std::time::Duration::from_secs(16);
    assert_eq!(app.rate_limit, Some(RateLimit { max_attempts: 15, decay, terminate: true }));
}

#[test]
fn a_file_from_before_the_policy_of_client_events_keeps_what_it_did() {
    let mut json = with_app("accept_client_events_from", Value::Null);
    json.pointer_mut("/apps/apps/0").unwrap().as_object_mut().unwrap().remove("rate_limiting");
    let (text, config) = imported(&json);
    assert_eq!(config.apps.by_id("654321").unwrap().client_events, ClientEvents::All);
    assert!(has_comment(&text, "`members` is safer"), "{text}");
}

#[test]
fn what_has_no_counterpart_or_cannot_be_served_is_told_in_a_comment() {
    let server = |key: &str| format!("/servers/reverb/{key}");
    for (json, comment) in [
        (with(&server("host"), json!("reverb.test")), "host cannot be \"reverb.test\""),
        (with(&server("port"), json!(80_800)), "port cannot be 80800"),
        (with(&server("options"), json!({ "tls": { "local_cert": "c.pem" } })), "options.tls"),
        (with(&server("scaling"), json!({ "enabled": "off" })), "scaling: not available"),
        (with(&server("colour"), json!("s3cret")), "\"colour\" has no counterpart"),
        (with("/apps/provider", json!("database")), "apps.provider"),
        (with_app("ping_interval", json!(0)), "ping_interval cannot be 0"),
        (with_app("ping_interval", json!("1\n[x]\ny")), "ping_interval cannot be \"1\\n"),
        (with_app("a\nb", json!(1)), "\"a\\nb\" has no counterpart"),
        (with_app("allowed_origins", json!(["a.test", "a b"])), "left out, as they are"),
        (with_app("rate_limiting", json!({ "enabled": "1" })), "not the word true"),
    ] {
        let (text, config) = imported(&json);
        assert!(has_comment(&text, comment), "{comment:?} is not in:\n{text}");
        assert_eq!(config.apps.iter().count(), 1);
    }
    let (_, config) = imported(&with_app("allowed_origins", json!(["a b"])));
    let app = config.apps.by_id("654321").unwrap();
    assert!(app.allowed_origins.check(Some("https://a.test")).is_err(), "not open to all");
    let (text, config) = imported(&with("/servers/reverb/max_request_size", json!("50000")));
    assert_eq!(config.apps.iter().next().unwrap().limits.max_request_size, 50_000, "{text}");
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
fn what_is_not_the_configuration_of_reverb_is_refused() {
    assert_eq!(refused(""), "the input is not JSON: line 1, column 0");
    assert!(refused("{\n \"secret\": tops3cret").starts_with("the input is not JSON: line 2"));
    let none = "the input is not Laravel's config('reverb'): it has no apps.apps";
    for json in ["null", "[]", "\"reverb\"", "{\"apps\":[]}", "{\"apps\":{\"apps\":{}}}"] {
        assert_eq!(refused(json), none);
    }
    let empty = with("/apps", json!({ "apps": [] })).to_string();
    assert!(refused(&empty).starts_with("there is no app"), "{empty}");
    for (key, value) in [("key", Value::Null), ("app_id", json!("a\nb")), ("secret", json!(""))] {
        let message = refused(&with_app(key, value).to_string());
        assert!(message.starts_with(&format!("apps.apps[0].{key} is missing")), "{message}");
    }
    let mut twice = stub();
    let app = twice["apps"]["apps"][0].clone();
    twice["apps"]["apps"].as_array_mut().unwrap().push(app);
    assert!(refused(&twice.to_string()).contains("have the same app_id"));
}
