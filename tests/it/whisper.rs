use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, Setup, served, served_with};
use crate::http::publish;
use crate::steps::delivery::{self, subscribers};

const NOT_MEMBER: (u16, &str) = (4009, "The client is not a member of the specified channel.");

fn from(whom: &'static str) -> impl Fn(Setup) -> Setup {
    move |setup| setup.env("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", whom)
}

#[test]
fn the_others_get_it_and_the_sender_does_not() {
    served(|gateway| {
        for channel in ["private-a", "private-encrypted-a"] {
            delivery::whisper(&[gateway], channel);
        }
    });
}

#[test]
fn data_is_relayed_as_it_was_sent() {
    served(|gateway| {
        let mut clients = subscribers(&[gateway], "private-a", 4);
        let numbers = r#"{"big":123456789012345678901234567890,"f":1.10,"dup":1,"dup":2}"#;
        for data in ["{}", "[]", r#""text""#, r#""{\"a\":1}""#, r#"{ "a" : "\u00fc" }"#, numbers] {
            let message = format!(r#"{{"event":"client-e","data":{data},"channel":"private-a"}}"#);
            clients[0].send_text(&message);
            let expected = format!(r#"{{"event":"client-e","channel":"private-a","data":{data}}}"#);
            assert_eq!(clients[1].next_text(), expected);
        }
        clients[0].send_text(r#"{"event":"client-e","channel":"private-a"}"#);
        let expected = r#"{"event":"client-e","channel":"private-a","data":null}"#;
        assert_eq!(clients[1].next_text(), expected, "without data it carries null");
    });
}

#[test]
fn on_presence_channels_the_sender_is_named_by_the_server() {
    served(|gateway| delivery::whisper_as_members(&[gateway]));
}

#[test]
fn by_default_only_members_may_send() {
    served(|gateway| {
        let mut clients = subscribers(&[gateway], "private-a", 4);
        let mut stranger = Client::connect(gateway);
        stranger.whisper("private-a", "client-e", &json!({}));
        stranger.expect_error(NOT_MEMBER.0, NOT_MEMBER.1);
        stranger.subscribe("private-b");
        stranger.whisper("private-a", "client-e", &json!({}));
        stranger.expect_error(NOT_MEMBER.0, NOT_MEMBER.1);
        clients[0].unsubscribe("private-a");
        clients[0].whisper("private-a", "client-e", &json!({}));
        clients[0].expect_error(NOT_MEMBER.0, NOT_MEMBER.1);
        publish(gateway, "private-a", "after", "1");
        clients[1].expect_event("private-a", "after", "1");
    });
}

#[test]
fn from_all_takes_them_from_strangers_but_no_more_than_event_channel_and_data() {
    served_with(from("all"), |gateway| {
        let mut clients = subscribers(&[gateway], "private-a", 4);
        let mut stranger = Client::connect(gateway);
        let message = json!({
            "event": "client-e", "channel": "private-a", "data": { "a": 1 }, "user_id": "1",
            "socket_id": "1.1",
        });
        stranger.send(&message);
        let expected = json!({ "event": "client-e", "channel": "private-a", "data": { "a": 1 } });
        clients.iter_mut().for_each(|client| assert_eq!(client.next(), expected));
        stranger.expect_nothing();
    });
}

#[test]
fn from_none_takes_them_from_nobody() {
    served_with(from("none"), |gateway| {
        let mut clients = subscribers(&[gateway], "private-a", 4);
        clients[0].whisper("private-a", "client-e", &json!({}));
        clients[0].expect_error(4301, "The app does not have client messaging enabled.");
        publish(gateway, "private-a", "after", "1");
        clients[1].expect_event("private-a", "after", "1");
    });
}

#[test]
fn public_channels_take_them_only_where_the_app_says_so() {
    let text = "Client events are for private and presence channels only.";
    let refused: fn(&Gateway) = |gateway| {
        let mut clients = subscribers(&[gateway], "room", 4);
        clients[0].whisper("room", "client-e", &json!({}));
        let data: Value = crate::client::data(&clients[0].expect("pusher:error"));
        assert_eq!(data["code"], 4301);
        publish(gateway, "room", "after", "1");
        clients[1].expect_event("room", "after", "1");
    };
    served(|gateway| {
        refused(gateway);
        let mut client = Client::connect(gateway);
        client.whisper("room", "client-e", &json!({}));
        client.expect_error(4301, text);
    });
    let on_public = |setup: Setup| setup.env("RINGWAVE_APP_CLIENT_EVENTS_ON_PUBLIC", "true");
    served_with(on_public, |gateway| {
        let mut clients = subscribers(&[gateway], "room", 4);
        clients[0].whisper("room", "client-e", &json!({}));
        clients[1].expect("client-e");
    });
}

#[test]
fn a_sender_sees_its_events_and_those_of_others_in_one_order() {
    served(|gateway| {
        let mut clients = subscribers(&[gateway], "private-a", 4);
        for number in 0..50 {
            clients[0].whisper("private-a", "client-e", &json!({ "n": number }));
        }
        clients[0].expect_nothing();
        for client in &mut clients[1..] {
            for number in 0..50 {
                assert_eq!(client.expect("client-e")["data"]["n"], number);
            }
        }
    });
}
