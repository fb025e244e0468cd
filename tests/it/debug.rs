//! The lines of `--debug` for a developer beside a browser.

use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{APP_ID, Gateway, SHARD_COUNTS, Setup, eventually, served_with};
use crate::http::{Call, publish};
use crate::raw::Raw;

/// Gateways of each number of shards that log as JSON, since its fields are compared.
fn debugged(settings: impl Fn(Setup) -> Setup, test: impl Fn(&Gateway)) {
    for shards in SHARD_COUNTS {
        let setup = settings(Setup::new(shards)).flag("--debug").flag("--log-format=json");
        test(&setup.start());
    }
}

/// The complete lines with this message.
fn lines(gateway: &Gateway, message: &str) -> Vec<Value> {
    let log = gateway.log();
    let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
    let lines = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// Waits for the line with this message and these fields.
#[track_caller]
fn told(gateway: &Gateway, message: &str, fields: &Value) -> Value {
    let fits = |line: &Value| {
        fields.as_object().unwrap().iter().all(|(name, value)| line[name.as_str()] == *value)
    };
    let what = format!("{message} with {fields}; there is:\n{}", gateway.log());
    eventually(&what, || lines(gateway, message).into_iter().find(fits))
}

#[test]
fn a_publish_is_told_with_its_channel_event_data_and_how_many_get_it() {
    debugged(
        |setup| setup,
        |gateway| {
            let data = r#"{"id":1}"#;
            publish(gateway, "room", "App\\Events\\Seen", data);
            const SENTENCE: &str = "broadcasting to room: App\\Events\\Seen";
            let with = |subscribers: u32| json!({ "data": data, "subscribers": subscribers });
            told(gateway, SENTENCE, &with(0));
            // These are enough to be on several shards.
            let mut clients: Vec<_> = (0..7).map(|_| Client::connect(gateway)).collect();
            clients.iter_mut().for_each(|client| client.subscribe("room"));
            publish(gateway, "room", "App\\Events\\Seen", data);
            told(gateway, SENTENCE, &with(7));
            let mut excepting = json!({ "name": "App\\Events\\Seen", "channel": "room" });
            excepting["data"] = data.into();
            excepting["socket_id"] = clients[3].socket_id.as_str().into();
            Call::post("events", &excepting).ok(gateway);
            told(gateway, SENTENCE, &with(6));
            // A connection that is not subscribed cannot be excepted.
            clients[3].unsubscribe("room");
            let state =
                || Call::get("channels/room").param("info", "subscription_count").ok(gateway);
            eventually("the channel's home knows", || {
                (state()["subscription_count"] == 6).then_some(())
            });
            Call::post("events", &excepting).ok(gateway);
            eventually("it is told again with 6", || {
                let told = lines(gateway, SENTENCE);
                let six = told.iter().filter(|line| line["subscribers"] == 6);
                (six.count() == 2).then_some(())
            });
            assert_eq!(lines(gateway, SENTENCE).len(), 4);
        },
    );
}

#[test]
fn a_request_is_told_with_its_answer_and_the_id_that_a_proxy_gave_it() {
    let settings = |setup: Setup| setup.flag("--log=info,front=debug").flag("--log-format=json");
    served_with(settings, |gateway| {
        let event = json!({ "name": "e", "channel": "room", "data": "1" });
        let publish = Call::post("events", &event);
        let with_id = |call: &Call, id: &str| call.clone().header(&format!("X-Request-Id: {id}"));
        with_id(&publish, "c0ffee-1").ok(gateway);
        let path = format!("/apps/{APP_ID}/events");
        let of = |id: &str| {
            let client = "127.0.0.1";
            json!({ "request_id": id, "method": "POST", "path": path, "client": client })
        };
        told(gateway, "request answered with 200", &of("c0ffee-1"));
        let unsigned = Call { secret: "another".to_owned(), ..publish.clone() };
        assert_eq!(with_id(&unsigned, "c0ffee-2").send(gateway).status, 401);
        told(gateway, "request answered with 401", &of("c0ffee-2"));
        let warning = gateway.logged(&["WARN", "refused with 401"]);
        assert!(warning.contains(r#""request_id":"c0ffee-2""#), "{warning}");
        // An endpoint that is not answered in place.
        with_id(&Call::get("channels"), "c0ffee-3").ok(gateway);
        told(gateway, "request answered with 200", &json!({ "request_id": "c0ffee-3" }));
        with_id(&publish, "not an id").ok(gateway);
        publish.ok(gateway);
        eventually("lines without an id", || {
            let lines = lines(gateway, "request answered with 200");
            let publishes = lines.iter().filter(|line| line["path"] == path);
            (publishes.filter(|line| line["request_id"].is_null()).count() == 2).then_some(())
        });
        assert!(!gateway.log().contains("broadcasting"), "shards have another level");
    });
}

#[test]
fn the_first_200_characters_of_published_data_are_told() {
    debugged(
        |setup| setup,
        |gateway| {
            publish(gateway, "room", "e", &"ü".repeat(5000));
            told(gateway, "broadcasting to room: e", &json!({ "data": "ü".repeat(200) }));
        },
    );
}

#[test]
fn a_client_event_is_told_with_its_data_and_how_many_others_get_it() {
    debugged(
        |setup| setup,
        |gateway| {
            let mut clients: Vec<_> = (0..4).map(|_| Client::connect(gateway)).collect();
            clients.iter_mut().for_each(|client| client.subscribe("private-a"));
            clients[0].whisper("private-a", "client-typing", &json!({ "on": true }));
            told(
                gateway,
                "whisper to private-a: client-typing",
                &json!({
                    "data": r#"{"on":true}"#, "subscribers": 3, "socket_id": clients[0].socket_id,
                }),
            );
        },
    );
}

#[test]
fn the_life_of_a_connection_is_told_from_its_address_to_the_reason_of_its_end() {
    debugged(
        |setup| setup,
        |gateway| {
            let mut client = Client::connect(gateway);
            let id = client.socket_id.clone();
            let of = |fields: Value| {
                let mut fields = fields;
                fields["socket_id"] = id.as_str().into();
                fields
            };
            let fields = json!({ "client": "127.0.0.1", "app": APP_ID });
            told(gateway, "connection established", &of(fields));
            client.subscribe("private-a");
            told(gateway, "subscribed", &of(json!({ "channel": "private-a" })));
            client.sign_in(&json!({ "id": "u1" }));
            told(gateway, "signed in", &of(json!({ "user_id": "u1" })));
            client.unsubscribe("private-a");
            told(gateway, "unsubscribed", &of(json!({ "channel": "private-a" })));
            client.socket.close(None).unwrap();
            let reason = json!({ "reason": "the client closed it" });
            told(gateway, "connection closed", &of(reason));
            drop(Raw::connect(gateway));
            let reason = json!({ "reason": "the client left without a Close frame" });
            told(gateway, "connection closed", &reason);
        },
    );
}

#[test]
fn a_connection_that_the_server_ends_is_told_with_the_code_and_the_reason() {
    debugged(
        |setup| setup,
        |gateway| {
            let client = Client::signed_in(gateway, &json!({ "id": "u1" }));
            Call::post("users/u1/terminate_connections", &json!({})).ok(gateway);
            let reason = "4009 Connection terminated by the application";
            told(
                gateway,
                "connection closed",
                &json!({ "socket_id": client.socket_id, "reason": reason }),
            );
            assert_eq!(lines(gateway, "connection closed").len(), 1);
        },
    );
}

#[test]
fn a_signature_is_withheld_and_the_rest_of_its_line_is_shown() {
    debugged(
        |setup| setup,
        |gateway| {
            let _client = Client::subscribed(gateway, "private-a");
            let line = eventually("the message is told", || {
                let received = lines(gateway, "received").into_iter();
                received.filter_map(|line| line["text"].as_str().map(str::to_owned)).next()
            });
            let message: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(message["data"]["channel"], "private-a");
            assert_eq!(message["data"]["auth"], "it-key:[withheld]");
        },
    );
}

#[test]
fn lines_of_text_have_no_module_and_no_field_that_a_channel_forges() {
    for shards in SHARD_COUNTS {
        let gateway = Setup::new(shards).flag("--debug").start();
        let mut client = Client::connect(&gateway);
        let name = "x socket_id=1.1 \"y\" \u{202e}\u{2028}";
        client.subscribe(name);
        let quoted = r#"channel="x socket_id=1.1 \"y\" \u202e\u2028""#;
        gateway.logged(&["DEBUG", " subscribed ", quoted]);
        let log = gateway.log();
        assert!(!log.contains("ringwave::") && !log.contains("Some("), "{log}");
        assert!(!log.contains('\u{202e}') && !log.contains('\u{2028}'), "{log}");
    }
}

#[test]
fn the_start_is_a_line_of_json_with_version_listeners_and_shards() {
    for shards in SHARD_COUNTS {
        let gateway = Setup::new(shards).flag("--log-format=json").start();
        let line = gateway.logged(&["Starting server on"]);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(line["listeners"], gateway.address().to_string());
        assert_eq!(line["shards"], shards);
    }
}
