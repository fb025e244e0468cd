use serde_json::json;

use super::super::tests::{has_comment, imported, refused};
use super::*;
use crate::cluster::RedisPlace;
use crate::config::import::Predecessor::Soketi;
use crate::protocol::rules::{ClientEvents, Standing};

/// A file as soketi's documentation has it: names that are paths beside objects.
fn file() -> Value {
    json!({
        "debug": false,
        "port": 6002,
        "pathPrefix": "/ws",
        "appManager.driver": "array",
        "appManager.array.apps": [
            {
                "id": "1",
                "key": "k1",
                "secret": "tops3cret",
                "maxConnections": -1,
                "enableClientMessages": true,
                "enabled": true,
                "maxBackendEventsPerSecond": 100,
                "maxClientEventsPerSecond": 7,
                "maxReadRequestsPerSecond": -1,
                "enableUserAuthentication": true,
                "webhooks": [
                    {
                        "url": "https://a.test/hook?token=s3cret",
                        "event_types": ["channel_occupied", "client_event", "colour"],
                        "headers": { "X-Token": "s3cret", "Content-Type": "x" },
                        "filter": { "channel_name_starts_with": "private-" },
                    },
                    { "lambda_function": "f", "event_types": ["client_event"] },
                    {
                        "url": "https://b.test/",
                        "event_types": ["client_event"],
                        "filter": { "channel_name_matches": "x" },
                    },
                ],
            },
            {
                "id": 2,
                "key": "k2",
                "secret": "tops3cret",
                "enabled": 0,
                "max_connections": "250",
                "max_presence_members_per_channel": "5",
                "maxEventPayloadInKb": 0.5,
            },
        ],
        "eventLimits.maxBatchSize": 20,
        "presence": { "maxMembersPerChannel": 40 },
        "userAuthenticationTimeout": 1500,
        "adapter": { "driver": "redis" },
        "cors": { "origin": ["https://a.test"] },
        "queue": { "driver": "redis" },
        "ssl.certPath": "/c.pem",
    })
}

#[test]
fn every_setting_of_soketi_arrives() {
    let (text, config) = imported(Soketi, &file());
    assert_eq!(config.server.listeners[0].to_string(), "0.0.0.0:6002");
    assert_eq!(config.server.path, "/ws");
    let app = config.apps.by_id("1").unwrap();
    assert_eq!((app.rules.key.as_str(), app.max_connections), ("k1", None));
    assert_eq!(app.rules.client_events, ClientEvents::Members);
    assert!(app.rules.client_events_on_public);
    assert_eq!(app.rules.limits.max_client_events_per_second, Some(7));
    assert_eq!(app.rules.limits.max_requests_per_second, Some(100));
    assert_eq!(app.rules.limits.max_presence_members, Some(40));
    assert_eq!(app.rules.limits.max_event_data, Some(102_400));
    assert_eq!(app.rules.limits.max_client_event_data, Some(102_400));
    assert_eq!(app.rules.limits.max_message_size, 112_400);
    assert_eq!(app.user_authentication_timeout.unwrap().as_secs(), 1);
    let second = config.apps.by_id("2").unwrap();
    assert!(second.rules.standing == Standing::Disabled);
    assert_eq!(second.max_connections, Some(250));
    assert_eq!(second.rules.client_events, ClientEvents::None);
    assert_eq!(second.rules.limits.max_presence_members, Some(5));
    assert_eq!(second.rules.limits.max_event_data, Some(512));
    assert_eq!(second.user_authentication_timeout, None);
    let cluster = config.cluster.unwrap();
    assert_eq!(cluster.place.addresses()[0].to_string(), "redis://127.0.0.1:6379");
    for comment in ["cors:", "ssl:", "Without a counterpart: \"queue\"."] {
        assert!(has_comment(&text, comment), "{comment:?} is not in:\n{text}");
    }
}

#[test]
fn webhooks_arrive_one_event_each_and_those_that_cannot_are_left_out() {
    let (text, _) = imported(Soketi, &file());
    assert_eq!(text.matches("[[apps.webhooks]]").count(), 1, "{text}");
    assert!(text.contains("\nurl = \"https://a.test/hook?token=s3cret\"\n"), "{text}");
    assert!(text.contains("\nevents = [\"channel_occupied\", \"client_event\"]\n"), "{text}");
    assert!(text.contains("\nheaders = [\"X-Token: s3cret\"]\n"), "{text}");
    assert!(text.contains("\nchannel_prefix = \"private-\"\n"), "{text}");
    assert!(text.contains("\nbatch_max = 1\n"), "{text}");
    for comment in [
        "There is no event \"colour\"",
        "The header \"Content-Type\" is left out",
        "AWS Lambda",
        "its filter has no counterpart (channel_name_matches)",
    ] {
        assert!(has_comment(&text, comment), "{comment:?} is not in:\n{text}");
    }
    let mut json = file();
    json["webhooks.batching"] = json!({ "enabled": true, "duration": 200 });
    let (text, _) = imported(Soketi, &json);
    assert!(text.contains("\nbatch_window_ms = 200\n"), "{text}");
}

#[test]
fn limits_that_soketi_has_by_itself_hold_here_too() {
    let app = json!({ "id": "1", "key": "k", "secret": "s" });
    let (_, config) = imported(Soketi, &json!({ "appManager": { "array": { "apps": [app] } } }));
    let app = config.apps.by_id("1").unwrap();
    assert_eq!(config.server.listeners[0].to_string(), "0.0.0.0:6001");
    assert_eq!(app.rules.limits.max_presence_members, Some(100));
    assert_eq!(app.rules.limits.max_presence_user_info, Some(2048));
    assert_eq!(app.rules.limits.max_event_data, Some(102_400));
    assert_eq!(app.rules.client_events, ClientEvents::None);
    // Ten events of 100 KiB fit into one request.
    assert!(app.rules.limits.max_request_size > 1_024_000);
}

#[test]
fn names_that_are_paths_reach_into_lists_and_end_somewhere() {
    let json = json!({
        "appManager": { "array": { "apps": [{ "id": "1", "key": "k", "secret": "s" }] } },
        "appManager.array.apps.0.secret": "tops3cret",
        "appManager.array.apps.1.id": 7,
        "appManager.array.apps.1.key": "k7",
        "appManager.array.apps.1.secret": "tops3cret",
    });
    let (text, config) = imported(Soketi, &json);
    assert_eq!(text.matches("secret = \"tops3cret\"").count(), 2, "{text}");
    assert_eq!(config.apps.by_id("7").unwrap().rules.key, "k7");
    let deep = json!({ vec!["a"; 100_000].join("."): 1 });
    assert!(refused(Soketi, &deep.to_string()).contains("leads nowhere"));
    let through = json!({ "port": 1, "port.a": 2 });
    assert!(refused(Soketi, &through.to_string()).contains("\"port.a\" leads nowhere"));
}

#[test]
fn a_file_without_apps_is_told_where_they_should_be() {
    let message = refused(Soketi, "{\"port\": 6001}");
    assert!(message.contains("it has no appManager.array.apps"), "{message}");
}

#[test]
fn nodes_meet_on_the_redis_of_soketi_whatever_kind_it_is() {
    let with = |adapter: Value, redis: Value| {
        let mut json = file();
        json["adapter"] = json!({ "driver": "redis", "redis": adapter });
        json["database.redis"] = redis;
        imported(Soketi, &json)
    };
    let servers = json!([{ "host": "a", "port": 1 }, { "host": "b", "port": "2" }]);
    let (_, config) = with(
        json!({ "clusterMode": true, "prefix": "shop" }),
        json!({ "clusterNodes": servers, "password": "s3cret" }),
    );
    let cluster = config.cluster.unwrap();
    assert!(matches!(&cluster.place, RedisPlace::Cluster(servers) if servers.len() == 2));
    assert_eq!((cluster.name.as_str(), cluster.partitions), ("shop", 16));
    let (text, config) = with(
        json!({ "redisPubOptions": { "tls": {}, "lazyConnect": true }, "requestsTimeout": 5000 }),
        json!({ "sentinels": servers, "sentinelPassword": "s3cret", "db": 3, "keyPrefix": "x" }),
    );
    let cluster = config.cluster.unwrap();
    let RedisPlace::Sentinel { sentinels, master, login } = &cluster.place else { panic!() };
    assert_eq!(sentinels[1].to_string(), "rediss://b:2");
    assert_eq!((master.as_str(), login.password.is_some()), ("mymaster", true));
    assert_eq!(cluster.database, 3);
    for comment in ["\"lazyConnect\"", "\"requestsTimeout\"", "\"keyPrefix\""] {
        assert!(has_comment(&text, comment), "{comment:?} is not in:\n{text}");
    }
}

#[test]
fn nodes_that_met_elsewhere_are_told_where_they_meet() {
    let mut json = file();
    json["adapter"] = json!({ "driver": "nats" });
    json["database"] = json!({ "mysql": {} });
    let (text, config) = imported(Soketi, &json);
    assert!(config.cluster.is_none());
    assert!(has_comment(&text, "adapter: nodes meet on a Redis here"), "{text}");
    assert!(has_comment(&text, "Without a counterpart: \"queue\", \"database\"."), "{text}");
}
