use serde_json::json;

use crate::client::Client;
use crate::gateway::{APP_ID, Gateway, KEY, SECRET, Setup, served, served_with};
use crate::http::{Call, Http, publish};
use crate::sign::{channel_auth_by, hmac_sha256};

/// A key as many guides make it: `base64:` and 32 bytes, with every character that has a meaning
/// elsewhere.
const BASE64_KEY: &str = "base64:oT+9/x8Lk+a/Rz0qWvN1cE5uJbYh7sPdGmKfA2tXi4w=";

fn status(gateway: &Gateway, line: &str) -> u16 {
    let mut http = Http::over(gateway.tcp());
    http.send(format!("{line} HTTP/1.1\r\nHost: it\r\n\r\n").as_bytes());
    http.response().status
}

#[test]
fn leading_slashes_count_as_one_and_either_path_may_be_signed() {
    for (prefix, sent) in [("", &["/", "//"][..]), ("/ws", &["/", "/ws/", "//ws", "//ws/"])] {
        let settings = |setup: Setup| setup.env("REVERB_SERVER_PATH", prefix);
        served_with(settings, |gateway| {
            sent.iter().for_each(|before| answers_behind(gateway, before, prefix));
            let elsewhere = Call { path: format!("/apps//{APP_ID}/channels"), ..Call::get("") };
            assert_eq!(elsewhere.send(gateway).status, 404, "as in Reverb");
        });
    }
}

/// Whether everything is served with `before` in front of its path.
fn answers_behind(gateway: &Gateway, before: &str, prefix: &str) {
    assert_eq!(status(gateway, &format!("GET {before}/up")), 200, "{before}");
    let mut client = Client::open(gateway, &format!("{before}/app/{KEY}?protocol=7"), &[]);
    client.established();
    client.subscribe("c");
    let call = Call::post("events", &json!({ "name": "e", "channel": "c", "data": "1" }));
    let plain = call.path.clone();
    let path = format!("{before}{plain}");
    for signed in [plain.clone(), path.clone(), format!("{prefix}{plain}")] {
        Call { path: path.clone(), signed_path: Some(signed), ..call.clone() }.ok(gateway);
        client.expect_event("c", "e", "1");
    }
    let wrong = Call { path, signed_path: Some(format!("//x{plain}")), ..call };
    assert_eq!(wrong.send(gateway).status, 401);
}

#[test]
fn health_checks_may_use_any_method_that_asks() {
    served(|gateway| {
        assert_eq!(status(gateway, "OPTIONS /up"), 200);
        let mut http = Http::over(gateway.tcp());
        http.send(b"HEAD /up HTTP/1.1\r\nHost: it\r\n\r\n");
        assert!(http.head_response().starts_with("HTTP/1.1 200"));
        assert_eq!(status(gateway, "POST /up"), 405);
    });
}

fn base64_keys(setup: Setup) -> Setup {
    let app = format!(
        "[[apps]]\napp_id = \"b\"\nkey = \"{BASE64_KEY}\"\nsecret = \"{SECRET}\"\n\
         keys = [{{ key = \"old:{BASE64_KEY}\", secret = \"old-{SECRET}\" }}]\n"
    );
    setup.dotenv("").toml(&app)
}

#[test]
fn keys_of_base64_connect_subscribe_sign_in_and_publish() {
    let encoded =
        BASE64_KEY.replace(':', "%3A").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    served_with(base64_keys, |gateway| {
        let keys = [
            (BASE64_KEY.to_owned(), SECRET.to_owned()),
            (format!("old:{BASE64_KEY}"), format!("old-{SECRET}")),
        ];
        for (key, secret) in &keys {
            // pusher-js sends the key as it is; a URL has it percent-encoded.
            for path in [key.clone(), key.replace(BASE64_KEY, &encoded)] {
                let mut client = Client::open(gateway, &format!("/app/{path}?protocol=7"), &[]);
                client.established();
                let auth = channel_auth_by(key, secret, &client.socket_id, "private-a", None);
                let subscribe = json!({ "auth": auth, "channel": "private-a" });
                client.send(&json!({ "event": "pusher:subscribe", "data": subscribe }));
                client.succeeded("private-a");
                let user = json!({ "id": "1" }).to_string();
                let signed = format!("{}::user::{user}", client.socket_id);
                let auth = format!("{key}:{}", hmac_sha256(secret, &signed));
                let sign_in = json!({ "auth": auth, "user_data": user });
                client.send(&json!({ "event": "pusher:signin", "data": sign_in }));
                client.expect("pusher:signin_success");
                let cut = json!({ "auth": "base64:x", "channel": "private-b" });
                client.send(&json!({ "event": "pusher:subscribe", "data": cut }));
                client.expect_error(4009, "Connection is unauthorized");

                let event = json!({ "name": "e", "channel": "private-a", "data": "1" });
                let (path, secret) = ("/apps/b/events".to_owned(), secret.clone());
                Call { path, secret, key: key.clone(), ..Call::post("", &event) }.ok(gateway);
                client.expect_event("private-a", "e", "1");
            }
        }
        let mut client = Client::open(gateway, "/app/base64?protocol=7", &[]);
        client.expect_refusal(4001, "Application does not exist");
    });
}

#[test]
fn names_that_can_be_subscribed_can_be_published_to() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        for channel in ["room:1", "a/b", "ä", "any name", "#room"] {
            client.subscribe(channel);
            publish(gateway, channel, "e", "1");
            client.expect_event(channel, "e", "1");
            let both = json!({ "name": "e", "channels": [channel, "other"], "data": "2" });
            Call::post("events", &both).ok(gateway);
            client.expect_event(channel, "e", "2");
            let event = json!({ "name": "e", "channel": channel, "data": "3" });
            Call::post("batch_events", &json!({ "batch": [event] })).ok(gateway);
            client.expect_event(channel, "e", "3");
        }
    });
}

#[test]
fn a_batch_has_as_many_events_as_fit_into_its_request() {
    served(|gateway| {
        let mut client = Client::subscribed(gateway, "c");
        let count = 2_000;
        let event = |data: usize| json!({ "name": "e", "channel": "c", "data": data.to_string() });
        let batch: Vec<_> = (0..count).map(event).collect();
        assert_eq!(Call::post("batch_events", &json!({ "batch": batch })).ok(gateway), json!({}));
        (0..count).for_each(|data| client.expect_event("c", "e", &data.to_string()));
        client.expect_nothing();
    });
}

#[test]
fn names_of_events_are_as_long_as_their_message_allows() {
    served(|gateway| {
        let mut clients = [Client::connect(gateway), Client::connect(gateway)];
        clients.iter_mut().for_each(|client| client.subscribe("private-a"));
        let name = format!("App\\Events\\{}", "N".repeat(5_000));
        publish(gateway, "private-a", &name, "1");
        clients.iter_mut().for_each(|client| client.expect_event("private-a", &name, "1"));
        let name = format!("client-{}", "n".repeat(5_000));
        clients[0].whisper("private-a", &name, &json!({}));
        clients[1].expect(&name);
    });
}

#[test]
fn requests_have_as_many_headers_as_fit_into_their_head() {
    served(|gateway| {
        let event = json!({ "name": "e", "channel": "c", "data": "1" });
        let headers: Vec<_> = (0..1_000).map(|at| format!("X-{at}: 1")).collect();
        Call { headers: headers.clone(), ..Call::post("events", &event) }.ok(gateway);
        let headers: Vec<_> = headers.iter().map(|line| line.split_once(": ").unwrap()).collect();
        Client::open(gateway, &format!("/app/{KEY}?protocol=7"), &headers).established();
    });
}

#[test]
fn info_that_does_not_apply_is_left_out_of_answers_to_publishes_too() {
    served(|gateway| {
        let mut client = Client::subscribed(gateway, "c");
        client.join("presence-a", &json!({ "user_id": "1" }));
        let body = json!({
            "name": "e", "channels": ["c", "presence-a"], "data": "1", "info": "user_count",
        });
        let expected = json!({ "channels": { "c": {}, "presence-a": { "user_count": 1 } } });
        assert_eq!(Call::post("events", &body).ok(gateway), expected);
        let event = |channel: &str| {
            let info = "user_count";
            json!({ "name": "e", "channel": channel, "data": "1", "info": info })
        };
        let batch = json!({ "batch": [event("c"), event("presence-a"), event("nobody")] });
        let expected = json!({ "batch": [{}, { "user_count": 1 }, {}] });
        assert_eq!(Call::post("batch_events", &batch).ok(gateway), expected);
    });
}

#[test]
fn a_client_event_without_data_carries_null() {
    served(|gateway| {
        let mut clients = [Client::connect(gateway), Client::connect(gateway)];
        clients[0].join("presence-a", &json!({ "user_id": "1" }));
        clients[1].join("presence-a", &json!({ "user_id": "2" }));
        clients[0].expect("pusher_internal:member_added");
        for message in [
            r#"{"event":"client-e","channel":"presence-a"}"#,
            r#"{"event":"client-e","channel":"presence-a","data":null}"#,
        ] {
            clients[0].send_text(message);
            let expected =
                r#"{"event":"client-e","channel":"presence-a","data":null,"user_id":"1"}"#;
            assert_eq!(clients[1].next_text(), expected);
        }
    });
}
