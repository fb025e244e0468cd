use serde_json::json;

use super::super::tests::{allows, has_comment, imported, refused};
use super::*;
use crate::config::import::Predecessor::LaravelWebsockets;
use crate::protocol::rules::ClientEvents;

/// The output of a fresh app with version 2.
fn version_2() -> Value {
    json!({
        "dashboard": { "port": "6002", "domain": null, "path": "laravel-websockets",
            "middleware": ["web", "Authorize"] },
        "managers": {
            "app": "BeyondCode\\LaravelWebSockets\\Apps\\ConfigAppManager",
            "sqlite": { "database": "/x.sqlite" },
        },
        "apps": [{
            "id": "1", "name": "Laravel", "host": null, "key": "k", "secret": "tops3cret",
            "path": null, "capacity": null, "enable_client_messages": false,
            "enable_statistics": true, "allowed_origins": [],
        }],
        "replication": { "mode": "local", "modes": { "local": {} } },
        "statistics": { "interval_in_seconds": 60 },
        "max_request_size_in_kb": 250,
        "ssl": { "local_cert": null, "capath": null, "verify_peer": false },
        "handlers": { "websocket": "X" },
        "promise_resolver": "Y",
    })
}

fn with_app(key: &str, value: Value) -> Value {
    let mut json = version_2();
    json["apps"][0][key] = value;
    json
}

#[test]
fn what_a_fresh_app_has_is_taken_over_and_means_the_same() {
    let (text, config) = imported(LaravelWebsockets, &version_2());
    let app = config.apps.by_id("1").unwrap();
    assert_eq!(config.server.listeners[0].to_string(), "0.0.0.0:6002");
    assert_eq!((app.rules.key.as_str(), app.max_connections), ("k", None));
    assert_eq!(app.rules.client_events, ClientEvents::None);
    assert_eq!(app.rules.limits.max_request_size, 256_000);
    assert!(allows(&config, "https://any.test"), "an empty list is all there");
    assert!(has_comment(&text, "lets all origins in"), "{text}");
    assert!(!text.contains("ssl:") && !text.contains("replication:"), "{text}");
}

#[test]
fn what_an_app_may_and_how_many_connect_arrives() {
    let mut json = with_app("capacity", json!(12));
    json["apps"][0]["enable_client_messages"] = json!(true);
    json["ssl"]["local_cert"] = json!("/c.pem");
    json["replication"]["mode"] = json!("redis");
    json["managers"]["app"] = json!("App\\MyManager");
    let (text, config) = imported(LaravelWebsockets, &json);
    let app = config.apps.by_id("1").unwrap();
    assert_eq!((app.max_connections, app.rules.client_events), (Some(12), ClientEvents::Members));
    assert!(app.rules.client_events_on_public);
    assert!(config.cluster.is_some());
    for comment in ["ssl:", "replication:", "kept elsewhere", "from anyone"] {
        assert!(has_comment(&text, comment), "{comment:?} is not in:\n{text}");
    }
}

#[test]
fn patterns_that_let_nobody_in_there_let_nobody_in_here() {
    for entry in ["*", "*.a.test", "https://*"] {
        let (text, config) =
            imported(LaravelWebsockets, &with_app("allowed_origins", json!([entry])));
        assert!(!allows(&config, "https://x.a.test"), "{text}");
        assert!(has_comment(&text, "knows no patterns"), "{text}");
    }
    let unset = with_app("allowed_origins", json!([null]));
    let (text, config) = imported(LaravelWebsockets, &unset);
    assert!(!allows(&config, "https://a.test"), "a variable that is not set:\n{text}");
}

#[test]
fn the_list_of_version_1_holds_for_all_apps() {
    let mut json = version_2();
    json["allowed_origins"] = json!({ "1": "a.test" });
    for own in [json!([]), json!({}), Value::Null] {
        json["apps"][0]["allowed_origins"] = own;
        let (text, config) = imported(LaravelWebsockets, &json);
        assert!(allows(&config, "https://a.test"), "{text}");
        assert!(!allows(&config, "https://b.test"), "{text}");
    }
    json["apps"][0]["allowed_origins"] = json!(["b.test"]);
    let (text, config) = imported(LaravelWebsockets, &json);
    assert!(!allows(&config, "https://a.test") && allows(&config, "https://b.test"), "{text}");
    json["apps"][0]["allowed_origins"] = json!([]);
    json["allowed_origins"] = json!(false);
    assert!(refused(LaravelWebsockets, &json.to_string()).contains("allowed_origins is false"));
}

#[test]
fn what_is_not_the_configuration_of_laravel_websockets_is_refused() {
    let message = refused(LaravelWebsockets, "{\"servers\": {}}");
    assert_eq!(message, "the input is not Laravel's config('websockets'): it has no apps");
}
