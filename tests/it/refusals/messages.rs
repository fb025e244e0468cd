use serde_json::json;

use super::{in_both_forms, told};
use crate::client::Client;
use crate::gateway::{APP_ID, Gateway, KEY, SECRET, eventually};
use crate::raw::{self, Raw};
use crate::sign::{channel_auth, channel_auth_by};

const MINE: Option<&str> = Some(APP_ID);

/// Asks for a subscription with this signature and is refused.
fn refused(client: &mut Client, channel: &str, auth: &str, channel_data: Option<&str>) {
    let data = json!({ "auth": auth, "channel": channel, "channel_data": channel_data });
    client.send(&json!({ "event": "pusher:subscribe", "data": data }));
    client.expect("pusher:error");
}

#[test]
fn a_wrong_channel_signature_is_told_with_its_channel_and_the_remedy_and_not_shown() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let mut client = Client::connect(gateway);
            let auth = channel_auth_by(KEY, "old-secret", &client.socket_id, "private-a", None);
            refused(&mut client, "private-a", &auth, None);
            let facts = ["subscription to \"private-a\" refused with 4009", "REVERB_APP_SECRET"];
            let line = told(gateway, MINE, "wrong channel or user signature", &facts);
            assert!(line.line.contains(&client.socket_id), "{}", line.line);
            let (_, signature) = auth.rsplit_once(':').unwrap();
            assert!(!gateway.log().contains(&signature[..16]));
        },
    );
}

#[test]
fn each_reason_of_a_refused_subscription_is_told_by_itself() {
    in_both_forms(
        |setup| setup.env("RINGWAVE_APP_MAX_USER_ID", "5"),
        |gateway| {
            let mut client = Client::connect(gateway);
            refused(&mut client, "private-a", "", None);
            told(
                gateway,
                MINE,
                "no channel or user signature",
                &["\"private-a\"", "/broadcasting/auth"],
            );
            let auth = channel_auth_by("other-key", SECRET, &client.socket_id, "private-b", None);
            refused(&mut client, "private-b", &auth, None);
            let facts = ["\"private-b\"", "with the key othe…", "the app's key is it-…"];
            told(gateway, MINE, "channel or user signed with another key", &facts);
            let member = json!({ "user_id": "too-long" }).to_string();
            let auth = channel_auth(&client.socket_id, "presence-c", Some(&member));
            refused(&mut client, "presence-c", &auth, Some(&member));
            told(gateway, MINE, "signed data not valid", &["\"presence-c\"", "5 bytes"]);
            refused(&mut client, "#server-to-user-1", "", None);
            let facts = ["\"#server-to-user-1\"", "pusher.signin()"];
            told(gateway, MINE, "signed in as nobody or as another user", &facts);
        },
    );
}

#[test]
fn a_refused_sign_in_is_told() {
    in_both_forms(
        |setup| setup.env("RINGWAVE_APP_MAX_WATCHLIST", "1"),
        |gateway| {
            let mut client = Client::connect(gateway);
            let data = json!({ "auth": "other:5ec2e7", "user_data": "{\"id\":\"1\"}" });
            client.send(&json!({ "event": "pusher:signin", "data": data }));
            client.expect("pusher:error");
            told(
                gateway,
                MINE,
                "channel or user signed with another key",
                &["sign-in refused with 4009"],
            );
            client.ask_sign_in(&json!({ "id": "1", "watchlist": ["a", "b"] }).to_string());
            client.expect("pusher:signin_success");
            let facts = ["the first 1 users are watched", "app.max_watchlist"];
            told(gateway, MINE, "watchlist too long", &facts);
        },
    );
}

#[test]
fn names_and_numbers_of_channels_are_told_with_their_settings() {
    in_both_forms(
        |setup| {
            let setup = setup.env("RINGWAVE_APP_STRICT_NAMES", "true");
            let setup = setup.env("RINGWAVE_APP_MAX_PRESENCE_MEMBERS", "1");
            setup.env("RINGWAVE_APP_MAX_CHANNELS_PER_CONNECTION", "1")
        },
        |gateway| {
            let mut client = Client::connect(gateway);
            refused(&mut client, "room:1", "", None);
            told(gateway, MINE, "channel name not allowed", &["\"room:1\"", "app.strict_names"]);
            client.join("presence-a", &json!({ "user_id": "1" }));
            refused(&mut client, "b", "", None);
            let facts = ["\"b\"", "1 subscriptions", "app.max_channels_per_connection"];
            told(gateway, MINE, "too many channels of a connection", &facts);
            let mut other = Client::connect(gateway);
            other.ask_as("presence-a", &json!({ "user_id": "2" }));
            other.expect("pusher:error");
            let facts = ["\"presence-a\"", "1 members", "app.max_presence_members"];
            told(gateway, MINE, "too many members of a channel", &facts);
        },
    );
}

#[test]
fn a_refused_client_event_is_told_with_channel_event_and_setting() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let mut client = Client::connect(gateway);
            client.whisper("room", "client-typing", &json!({}));
            client.expect("pusher:error");
            let facts = ["client event \"client-typing\" on \"room\"", "client_events_on_public"];
            told(gateway, MINE, "client event refused", &facts);
            client.whisper("private-a", "client-typing", &json!({}));
            client.expect("pusher:error");
            let facts = ["client event on \"private-a\"", "not subscribed"];
            told(gateway, MINE, "client event without a subscription", &facts);
        },
    );
}

#[test]
fn an_app_that_takes_no_client_events_is_told_with_its_setting() {
    in_both_forms(
        |setup| setup.env("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "none"),
        |gateway| {
            let mut client = Client::connect(gateway);
            client.whisper("private-a", "client-typing", &json!({}));
            client.expect("pusher:error");
            let facts = ["takes no client events", "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM"];
            told(gateway, MINE, "client event refused", &facts);
        },
    );
}

#[test]
fn a_rate_of_messages_is_told_with_its_numbers() {
    in_both_forms(
        |setup| {
            let setup = setup.env("REVERB_APP_RATE_LIMITING_ENABLED", "true");
            setup.env("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "1")
        },
        |gateway| {
            let mut client = Client::connect(gateway);
            client.subscribe("a");
            client.ask("b");
            client.expect_error(4301, "Rate limit exceeded");
            let facts = ["more than 1 messages in 60 s", "app.rate_limiting"];
            told(gateway, MINE, "over the rate of messages", &facts);
        },
    );
}

#[test]
fn a_message_that_is_not_of_the_protocol_is_told_by_its_beginning() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let mut client = Client::connect(gateway);
            let signature = "5ec2e7ab".repeat(8);
            client.send_text(&format!(r#"{{"event":"pusher:subscribe","auth":"k:{signature}""#));
            client.expect("pusher:error");
            let facts = ["not of the Pusher protocol", "pusher:subscribe", "[withheld]"];
            told(gateway, MINE, "message not of the protocol", &facts);
            assert!(!gateway.log().contains("5ec2e7"));
        },
    );
}

#[test]
fn connections_that_are_closed_are_told_with_the_reason() {
    in_both_forms(
        |setup| setup.env("REVERB_APP_MAX_MESSAGE_SIZE", "1000"),
        |gateway| {
            let mut raw = Raw::connect(gateway);
            raw.send(&raw::text(&"x".repeat(2000)));
            raw.expect_close(1009);
            let facts = ["longer than 1000 bytes", "REVERB_APP_MAX_MESSAGE_SIZE"];
            told(gateway, MINE, "message too long", &facts);
            let mut raw = Raw::connect(gateway);
            raw.send(&[0x81, 1, b'x']);
            raw.expect_close(1002);
            told(gateway, MINE, "WebSocket frames not valid", &["1002", "RFC 6455"]);
        },
    );
}

#[test]
fn a_connection_that_shows_no_signature_in_time_is_told() {
    in_both_forms(
        |setup| setup.env("RINGWAVE_APP_USER_AUTHENTICATION_TIMEOUT", "1"),
        |gateway| {
            let mut client = Client::connect(gateway);
            client.expect_refusal(4009, "Connection not authorized within timeout");
            told(gateway, MINE, "not authenticated in time", &["within 1 s"]);
        },
    );
}

#[test]
fn with_debug_each_refusal_is_a_line_and_the_first_is_still_the_warning() {
    in_both_forms(
        |setup| setup.flag("--debug"),
        |gateway: &Gateway| {
            let mut client = Client::connect(gateway);
            for number in 0..5 {
                refused(&mut client, &format!("private-{number}"), "", None);
            }
            told(gateway, MINE, "no channel or user signature", &["private-0"]);
            eventually("each is told", || {
                let log = gateway.log();
                let told = log.lines().filter(|line| line.contains("refused with 4009"));
                (told.count() == 5).then_some(())
            });
            gateway.logged(&["DEBUG", "private-4", "refused with 4009"]);
        },
    );
}
