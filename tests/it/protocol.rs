use std::collections::HashSet;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::client::{Client, data, target};
use crate::gateway::{KEY, eventually, served, served_with};
use crate::http::{Call, Http, publish, until_vacated};
use crate::raw::{self, Raw};
use crate::sign::{channel_auth, hmac_sha256};

const UNAUTHORISED: (u16, &str) = (4009, "Connection is unauthorized");
const MALFORMED: (u16, &str) = (4200, "Invalid message format");

#[test]
fn the_first_message_names_the_connection_and_the_activity_timeout() {
    served(|gateway| {
        let mut client = Client::open(gateway, &target(), &[]);
        let text = client.next_text();
        let start = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\""#;
        let rest = text.strip_prefix(start).unwrap_or_else(|| panic!("{text}"));
        let (socket_id, end) = rest.split_once(r"\").unwrap();
        assert_eq!(end, r#"",\"activity_timeout\":30}"}"#);
        let (high, low) = socket_id.split_once('.').unwrap();
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        assert!(digits(high) && digits(low), "{socket_id}");
        client.expect_nothing();
    });
}

#[test]
fn the_handshake_agrees_on_nothing_beyond_the_websocket() {
    served(|gateway| {
        let mut http = Http::over(gateway.tcp());
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n\
             Sec-WebSocket-Protocol: pusher\r\nUpgrade: websocket";
        http.send(raw::handshake().replace("Upgrade: websocket", offer).as_bytes());
        let response = http.response();
        assert_eq!(response.status, 101);
        assert_eq!(response.header("upgrade"), Some("websocket"));
        assert_eq!(response.header("connection"), Some("Upgrade"));
        assert_eq!(response.header("sec-websocket-accept"), Some(raw::ACCEPT));
        assert_eq!(response.header("sec-websocket-extensions"), None);
        assert_eq!(response.header("sec-websocket-protocol"), None);
    });
}

#[test]
fn no_two_connections_have_the_same_socket_id() {
    served(|gateway| {
        let mut clients: Vec<_> = (0..50).map(|_| Client::connect(gateway)).collect();
        let again: Vec<_> = (0..50).map(|_| Client::connect(gateway)).collect();
        let ids = clients.iter().chain(&again).map(|client| client.socket_id.clone());
        assert_eq!(ids.collect::<HashSet<_>>().len(), 100);
        clients[0].expect_nothing();
    });
}

#[test]
fn versions_5_to_7_and_none_are_served_and_others_are_refused() {
    served(|gateway| {
        for query in ["?protocol=5", "?protocol=6", "?protocol=7&unknown=x", "", "?flash=false"] {
            Client::open(gateway, &format!("/app/{KEY}{query}"), &[]).established();
        }
        for query in ["?protocol=4", "?protocol=8", "?protocol=99", "?protocol=", "?protocol=x"] {
            let mut client = Client::open(gateway, &format!("/app/{KEY}{query}"), &[]);
            client.expect_refusal(4007, "Unsupported protocol version");
        }
    });
}

#[test]
fn an_unknown_key_is_refused_by_an_error_and_a_close_frame() {
    served(|gateway| {
        for key in ["nobody", "it-key%20", "IT-KEY", "4711"] {
            let mut client = Client::open(gateway, &format!("/app/{key}?protocol=7"), &[]);
            client.expect_refusal(4001, "Application does not exist");
        }
        Client::open(gateway, "/app/%69t%2Dkey?protocol=7", &[]).established();
    });
}

#[test]
fn a_refused_client_that_goes_on_is_not_served() {
    served(|gateway| {
        let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#;
        let head = raw::handshake().replace(KEY, "nobody");
        let glued = [head.as_bytes(), &raw::text(subscribe)].concat();
        let mut raw = Raw::open(gateway, &glued);
        assert!(raw.message().contains("4001"));
        let _closed = std::io::Write::write_all(&mut raw.stream, &raw::text(subscribe));
        raw.expect_close(4001);
        assert_eq!(Call::get("channels").ok(gateway), json!({ "channels": {} }));
    });
}

#[test]
fn pings_are_answered_in_the_form_that_they_have() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        client.send_text(r#"{"event":"pusher:ping","data":{}}"#);
        assert_eq!(client.next_text(), r#"{"event":"pusher:pong"}"#);
        client.send_text(r#"{"event":"pusher:ping"}"#);
        assert_eq!(client.next_text(), r#"{"event":"pusher:pong"}"#);
        client.send_text(r#"{"event":"pusher:pong","data":{}}"#);
        client.socket.send(Message::Ping("payload".into())).unwrap();
        assert_eq!(client.socket.read().unwrap(), Message::Pong("payload".into()));
        client.socket.send(Message::Pong("unasked".into())).unwrap();
        client.expect_nothing();
    });
}

#[test]
fn a_message_outside_of_the_protocol_gets_an_error_and_the_connection_lives() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        let deep = "[".repeat(9_000);
        for text in [
            "",
            "x",
            "1",
            "null",
            "[]",
            "{}",
            "\"text\"",
            r#"{"event":1}"#,
            r#"{"event":null}"#,
            r#"{"event":"pusher:signin","data":{"auth":"a"}}"#,
            r#"{"event":"pusher:signin","data":{"auth":"a","user_data":{}}}"#,
            r#"{"event":"pusher:connection_established"}"#,
            r#"{"event":"pusher:no_such_thing","data":{}}"#,
            r#"{"event":"pusher:subscribe"}"#,
            r#"{"event":"pusher:subscribe","data":{}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":"a","channel_data":{"user_id":1}}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":"a","channel_data":"no json"}}"#,
            r#"{"event":"pusher:unsubscribe","data":{}}"#,
            r#"{"event":"client-x","data":{}}"#,
            r#"{"event":"client-x","data":7,"channel":"private-a"}"#,
            r#"{"event":"client-x","data":{},"channel":[]}"#,
            r#"{"event":"pusher:ping""#,
            &deep,
        ] {
            client.send_text(text);
            client.expect_error(MALFORMED.0, MALFORMED.1);
        }
        client.expect_nothing();
    });
}

#[test]
fn events_of_other_names_are_dropped_without_a_word() {
    served(|gateway| {
        let (mut sender, mut other) = (Client::connect(gateway), Client::connect(gateway));
        sender.subscribe("private-a");
        other.subscribe("private-a");
        sender.whisper("private-a", "App\\Events\\Forged", &json!({}));
        sender.whisper("private-a", "pusher_internal:member_added", &json!({}));
        sender.whisper("private-a", "client", &json!({}));
        sender.expect_nothing();
        publish(gateway, "private-a", "after", "1");
        other.expect_event("private-a", "after", "1");
    });
}

#[test]
fn binary_messages_are_read_as_text() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        client.socket.send(Message::binary(r#"{"event":"pusher:ping"}"#)).unwrap();
        client.expect("pusher:pong");
        client.socket.send(Message::binary(vec![0xff, 0xfe])).unwrap();
        client.expect_error(MALFORMED.0, MALFORMED.1);
        client.expect_nothing();
    });
}

#[test]
fn subscribe_takes_its_data_as_a_string_of_json_too() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        let auth = channel_auth(&client.socket_id, "private-a", None);
        let data = json!({ "auth": auth, "channel": "private-a" }).to_string();
        client.send(&json!({ "event": "pusher:subscribe", "data": data }));
        assert_eq!(client.succeeded("private-a"), json!({}));
    });
}

#[test]
fn every_kind_of_channel_delivers_what_is_published_after_the_success() {
    served(|gateway| {
        let kinds = ["room", "private-a", "private-encrypted-a", "a:b/c d", "privateer", "ü"];
        let cached = ["cache-a", "private-cache-a", "private-encrypted-cache-a"];
        for channel in kinds.into_iter().chain(cached) {
            let mut client = Client::subscribed(gateway, channel);
            if cached.contains(&channel) {
                let miss = json!({ "event": "pusher:cache_miss", "channel": channel });
                assert_eq!(client.next(), miss);
            }
            if channel.is_ascii() && !channel.contains([':', ' ']) {
                publish(gateway, channel, "App\\Events\\Seen", r#"{"a":1}"#);
                client.expect_event(channel, "App\\Events\\Seen", r#"{"a":1}"#);
            }
            client.expect_nothing();
        }
    });
}

#[test]
fn the_success_has_exactly_the_form_of_reverb() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        client.ask("room");
        let expected =
            r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"room"}"#;
        assert_eq!(client.next_text(), expected);
        client.ask("cache-room");
        client.succeeded("cache-room");
        assert_eq!(client.next_text(), r#"{"event":"pusher:cache_miss","channel":"cache-room"}"#);
    });
}

#[test]
fn names_and_data_arrive_as_they_were_published() {
    served(|gateway| {
        let mut client = Client::subscribed(gateway, "room");
        let odd = "quote \" backslash \\ slash / nul \u{0} tab \t line \u{2028} ü 😀 \u{7f}";
        for data in ["{}", "plain", odd, r#"{"html":"<a href=\"\/x\">"}"#, &"x".repeat(70_000)] {
            publish(gateway, "room", "App\\Events\\Odd \"name\"", data);
            client.expect_event("room", "App\\Events\\Odd \"name\"", data);
        }
    });
}

#[test]
fn a_private_channel_takes_only_the_signature_for_it() {
    served(|gateway| {
        let other = Client::connect(gateway);
        let mut client = Client::connect(gateway);
        let right = channel_auth(&client.socket_id, "private-a", None);
        let text = format!("{}:private-a", client.socket_id);
        let mut flipped = right.clone().into_bytes();
        *flipped.last_mut().unwrap() ^= 1;
        let wrong = [
            Value::Null,
            json!(""),
            json!(KEY),
            json!(format!("{KEY}:")),
            json!(right.replace(KEY, "other-key")),
            json!(right.replace(KEY, "")),
            json!(right.split_once(':').unwrap().1),
            json!(String::from_utf8(flipped).unwrap()),
            json!(&right[..right.len() - 2]),
            json!(format!("{right}00")),
            json!(format!("{right} ")),
            json!(channel_auth(&client.socket_id, "private-b", None)),
            json!(channel_auth(&other.socket_id, "private-a", None)),
            json!(channel_auth(&client.socket_id, "private-a", Some("{}"))),
            json!(format!("{KEY}:{}", hmac_sha256("another secret", &text))),
        ];
        for auth in wrong {
            let data = json!({ "auth": auth, "channel": "private-a" });
            client.send(&json!({ "event": "pusher:subscribe", "data": data }));
            client.expect_error(UNAUTHORISED.0, UNAUTHORISED.1);
        }
        publish(gateway, "private-a", "secret", "1");
        client.expect_nothing();
        client.subscribe("private-a");
        publish(gateway, "private-a", "secret", "2");
        client.expect_event("private-a", "secret", "2");
    });
}

#[test]
fn channel_data_is_signed_along_wherever_it_is_sent() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        let signed = channel_auth(&client.socket_id, "private-a", Some("{}"));
        let data = json!({ "auth": signed, "channel": "private-a", "channel_data": "{}" });
        client.send(&json!({ "event": "pusher:subscribe", "data": data }));
        client.succeeded("private-a");
        let unsigned = channel_auth(&client.socket_id, "private-b", None);
        let data = json!({ "auth": unsigned, "channel": "private-b", "channel_data": "{}" });
        client.send(&json!({ "event": "pusher:subscribe", "data": data }));
        client.expect_error(UNAUTHORISED.0, UNAUTHORISED.1);
    });
}

#[test]
fn the_channel_of_a_user_is_for_nobody_who_has_not_signed_in() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        client.ask("#server-to-user-1");
        client.expect_error(UNAUTHORISED.0, UNAUTHORISED.1);
    });
}

#[test]
fn a_refused_subscription_is_told_on_its_channel_where_the_app_wants_it() {
    let wanted =
        |setup: crate::gateway::Setup| setup.env("RINGWAVE_APP_SUBSCRIPTION_ERRORS", "true");
    served_with(wanted, |gateway| {
        let mut client = Client::connect(gateway);
        let data = json!({ "auth": "x", "channel": "private-a" });
        client.send(&json!({ "event": "pusher:subscribe", "data": data }));
        client.expect_error(UNAUTHORISED.0, UNAUTHORISED.1);
        let expected = json!({
            "event": "pusher:subscription_error",
            "channel": "private-a",
            "data": {
                "type": "AuthError", "error": "The connection is unauthorized.", "status": 401,
            },
        });
        assert_eq!(client.next(), expected);
    });
}

#[test]
fn a_second_subscription_succeeds_again_and_doubles_nothing() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        for channel in ["room", "private-a"] {
            client.subscribe(channel);
            client.subscribe(channel);
            publish(gateway, channel, "once", "1");
            client.expect_event(channel, "once", "1");
            publish(gateway, channel, "after", "2");
            client.expect_event(channel, "after", "2");
            client.unsubscribe(channel);
            client.expect_nothing();
        }
        until_vacated(gateway);
    });
}

#[test]
fn two_subscribes_at_once_are_one_subscription() {
    served(|gateway| {
        for round in 0..10 {
            let mut client = Client::connect(gateway);
            let channel = format!("private-{round}");
            client.ask(&channel);
            client.ask(&channel);
            client.ask(&channel);
            client.succeeded(&channel);
            let state = Call::get(&format!("channels/{channel}"))
                .param("info", "subscription_count")
                .ok(gateway);
            assert_eq!(state, json!({ "occupied": true, "subscription_count": 1 }));
        }
    });
}

#[test]
fn after_an_unsubscribe_nothing_more_arrives() {
    served(|gateway| {
        let (mut leaver, mut stayer) = (Client::connect(gateway), Client::connect(gateway));
        leaver.subscribe("room");
        stayer.subscribe("room");
        leaver.unsubscribe("room");
        leaver.unsubscribe("room");
        leaver.unsubscribe("never-subscribed");
        leaver.unsubscribe("");
        leaver.expect_nothing();
        publish(gateway, "room", "late", "1");
        stayer.expect_event("room", "late", "1");
        leaver.subscribe("room");
        publish(gateway, "room", "again", "2");
        leaver.expect_event("room", "again", "2");
    });
}

#[test]
fn subscribe_and_unsubscribe_in_one_breath_leave_nothing_behind() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        for round in 0..20 {
            client.ask("room");
            client.unsubscribe("room");
            if round % 2 == 0 {
                client.ask("room");
                client.unsubscribe("room");
            }
        }
        until_vacated(gateway);
        client.ask("last");
        let last = eventually("the last success", || {
            let message = client.next();
            (message["channel"] == "last").then_some(message)
        });
        assert_eq!(data(&last), json!({}));
    });
}

#[test]
fn the_excepted_connection_is_left_out_whatever_its_shard() {
    served(|gateway| {
        let mut clients: Vec<_> = (0..8).map(|_| Client::connect(gateway)).collect();
        clients.iter_mut().for_each(|client| client.subscribe("private-a"));
        for excepted in 0..clients.len() {
            let socket_id = clients[excepted].socket_id.clone();
            let body = json!({
                "name": "e", "data": excepted.to_string(), "channels": ["private-a"],
                "socket_id": socket_id,
            });
            Call::post("events", &body).ok(gateway);
            publish(gateway, "private-a", "after", "all");
            for (at, client) in clients.iter_mut().enumerate() {
                if at != excepted {
                    client.expect_event("private-a", "e", &excepted.to_string());
                }
                client.expect_event("private-a", "after", "all");
            }
        }
    });
}

#[test]
fn excepting_a_connection_that_does_not_exist_excepts_nobody() {
    served(|gateway| {
        let mut client = Client::subscribed(gateway, "room");
        let long = "18446744073709551615.18446744073709551615";
        for socket_id in ["1.1", long, "0.0", "", "undefined", "123123", " ", "1.2\n"] {
            let body = json!({
                "name": "e", "data": "1", "channel": "room", "socket_id": socket_id,
            });
            Call::post("events", &body).ok(gateway);
            client.expect_event("room", "e", "1");
            let other = json!({ "name": "e", "data": "2", "channel": "room" });
            Call::post("batch_events", &json!({ "batch": [body, other] })).ok(gateway);
            client.expect_event("room", "e", "1");
            client.expect_event("room", "e", "2");
        }
    });
}
