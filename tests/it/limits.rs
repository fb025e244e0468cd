use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Client, data, target};
use crate::gateway::{KEY, SHARD_COUNTS, Setup, eventually, served_with};
use crate::http::{Call, Http, connections, publish, until_connected, until_vacated};
use crate::raw::{self, Raw};
use crate::steps::admission::storm;

fn env<'s>(variables: &'s [(&'s str, &'s str)]) -> impl Fn(Setup) -> Setup + use<'s> {
    move |setup| variables.iter().fold(setup, |setup, (name, value)| setup.env(name, value))
}

#[test]
fn an_app_has_exactly_as_many_connections_as_it_may() {
    served_with(env(&[("REVERB_APP_MAX_CONNECTIONS", "10")]), |gateway| {
        for _ in 0..3 {
            let (mut admitted, refused) = storm(&[gateway], 40);
            assert_eq!((admitted.len(), refused), (10, BTreeMap::from([(4004, 30)])));
            assert_eq!(connections(gateway), 10);
            let mut client = Client::open(gateway, &target(), &[]);
            client.expect_refusal(4004, "Application is over connection quota");
            admitted.pop();
            until_connected(gateway, 9);
            admitted.push(Client::connect(gateway));
            assert_eq!(storm(&[gateway], 1).1, BTreeMap::from([(4004, 1)]));
            drop(admitted);
            until_connected(gateway, 0);
        }
    });
}

#[test]
fn a_shard_whose_table_is_full_refuses_with_4100_and_never_just_hangs_up() {
    served_with(env(&[("RINGWAVE_MAX_CONNECTIONS_PER_SHARD", "4")]), |gateway| {
        let most = 4 * gateway.shards();
        let (mut admitted, refused) = storm(&[gateway], 60);
        assert!(admitted.len() <= most);
        assert_eq!(refused, BTreeMap::from([(4100, 60 - admitted.len())]));
        eventually("every shard is full", || {
            admitted.extend(storm(&[gateway], 10).0);
            (admitted.len() == most).then_some(())
        });
        let mut client = Client::open(gateway, &target(), &[]);
        client.expect_refusal(4100, "Server is over capacity. Please reconnect later.");
        drop(admitted);
        eventually("they are free again", || (storm(&[gateway], 1).0.len() == 1).then_some(()));
    });
}

#[test]
fn a_message_over_the_apps_limit_closes_with_1009() {
    served_with(env(&[("REVERB_APP_MAX_MESSAGE_SIZE", "100")]), |gateway| {
        let mut raw = Raw::connect(gateway);
        let ping = r#"{"event":"pusher:ping"}"#;
        raw.send(&raw::text(&format!("{ping}{}", " ".repeat(100 - ping.len()))));
        assert_eq!(raw.message(), r#"{"event":"pusher:pong"}"#);
        raw.send(&raw::text(&" ".repeat(101)));
        assert_eq!(raw.expect_close(1009), "Maximum message size exceeded");
    });
}

const RATE: [(&str, &str); 3] = [
    ("REVERB_APP_RATE_LIMITING_ENABLED", "true"),
    ("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "5"),
    ("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "1"),
];

#[test]
fn messages_over_the_rate_are_told_so_until_the_window_ends() {
    // The window is so long that the first six are in it on any machine.
    let long = [RATE[0], RATE[1], ("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "60")];
    served_with(env(&long), |gateway| {
        let (mut client, mut other) = (Client::connect(gateway), Client::connect(gateway));
        client.subscribe("room");
        (0..4).for_each(|_| client.expect_nothing());
        client.send_text(r#"{"event":"pusher:ping"}"#);
        client.expect_error(4301, "Rate limit exceeded");
        client.send_text("malformed");
        client.expect_error(4301, "Rate limit exceeded");
        other.expect_nothing();
    });
    served_with(env(&RATE), |gateway| {
        let mut client = Client::connect(gateway);
        for _ in 0..2 {
            eventually("the limit is reached", || {
                client.send_text(r#"{"event":"pusher:ping"}"#);
                (client.next()["event"] == "pusher:error").then_some(())
            });
            eventually("the window is over", || {
                client.send_text(r#"{"event":"pusher:ping"}"#);
                (client.next()["event"] == "pusher:pong").then_some(())
            });
        }
    });
}

#[test]
fn a_client_that_is_closed_for_its_rate_hears_why() {
    let terminating = [RATE[0], RATE[1], ("REVERB_APP_RATE_LIMIT_TERMINATE", "true")];
    served_with(env(&terminating), |gateway| {
        let mut client = Client::connect(gateway);
        (0..5).for_each(|_| client.expect_nothing());
        client.send_text(r#"{"event":"pusher:ping"}"#);
        client.expect_error(4301, "Rate limit exceeded");
        // The code is not 4301, because with that code clients would never come back.
        assert_eq!(client.expect_close(), (4100, "Rate limit exceeded".to_owned()));
    });
}

#[test]
fn only_the_word_true_turns_the_rate_limit_on() {
    let not_on = [("REVERB_APP_RATE_LIMITING_ENABLED", "1"), RATE[1]];
    served_with(env(&not_on), |gateway| {
        let mut client = Client::connect(gateway);
        (0..20).for_each(|_| client.expect_nothing());
    });
}

#[test]
fn client_events_have_limits_of_their_own() {
    let limits = [
        ("RINGWAVE_APP_MAX_CLIENT_EVENTS_PER_SECOND", "3"),
        ("RINGWAVE_APP_MAX_CLIENT_EVENT_DATA", "20"),
    ];
    served_with(env(&limits), |gateway| {
        let (mut client, mut other) = (Client::connect(gateway), Client::connect(gateway));
        client.subscribe("private-a");
        other.subscribe("private-a");
        client.whisper("private-a", "client-e", &json!({ "text": "0123456789" }));
        client.expect_error(4301, "The data of the client event is too large.");
        client.whisper("private-a", "client-\n", &json!({}));
        client.expect_error(4301, "The name of the client event is not valid.");
        let sent = eventually("the limit is reached", || {
            client.whisper("private-a", "client-e", &json!({ "text": "012345678" }));
            client.send_text(r#"{"event":"pusher:ping"}"#);
            let first = client.next();
            (first["event"] == "pusher:error").then_some(first)
        });
        assert_eq!(data(&sent), json!({ "code": 4301, "message": "Rate limit exceeded" }));
        client.expect("pusher:pong");
        (0..3).for_each(|_| drop(other.expect("client-e")));
    });
}

#[test]
fn names_are_held_to_their_length_and_to_the_alphabet_where_the_app_says_so() {
    let too_long = "x".repeat(201);
    served_with(env(&[]), |gateway| {
        let mut client = Client::connect(gateway);
        client.ask("");
        client.expect_error(4009, "The channel name is empty.");
        client.ask(&too_long);
        client.expect_error(4009, "The channel name is too long.");
        client.ask("line\nfeed");
        client.expect_error(4009, "The channel name has a character that is not allowed.");
        client.subscribe(&too_long[..200]);
        client.subscribe("any: name/at all");
    });
    let strict = [("RINGWAVE_APP_STRICT_NAMES", "true"), ("RINGWAVE_APP_MAX_CHANNEL_NAME", "20")];
    served_with(env(&strict), |gateway| {
        let mut client = Client::connect(gateway);
        client.subscribe("-aZ9_=@,.;");
        for name in ["a:b", "a b", "a/b", "ü", "a#b", "#a", "#server-to-user-"] {
            client.ask(name);
            client.expect_error(4009, "The channel name has a character that is not allowed.");
            let event = json!({ "name": "e", "channel": name, "data": "1" });
            let response = Call::post("events", &event).send(gateway);
            let text = "The channel name has a character that is not allowed.";
            assert_eq!((response.status, response.json()), (422, json!({ "channel": [text] })));
        }
        publish(gateway, "#server-to-user-1", "e", "1");
        publish(gateway, "-aZ9_=@,.;", "e", "1");
        client.expect_event("-aZ9_=@,.;", "e", "1");
        client.ask(&too_long[..21]);
        client.expect_error(4009, "The channel name is too long.");
    });
}

#[test]
fn pushers_limits_of_batches_and_event_names_hold_where_they_are_set() {
    let limits = [("RINGWAVE_APP_MAX_BATCH", "10"), ("RINGWAVE_APP_MAX_EVENT_NAME", "200")];
    served_with(env(&limits), |gateway| {
        let event = |name: &str| json!({ "name": name, "channel": "c", "data": "1" });
        Call::post("batch_events", &json!({ "batch": vec![event("e"); 10] })).ok(gateway);
        let batch = json!({ "batch": vec![event("e"); 11] });
        let response = Call::post("batch_events", &batch).send(gateway);
        let text = "The batch field must not have more than 10 items.";
        assert_eq!((response.status, response.json()), (422, json!({ "batch": [text] })));
        Call::post("events", &event(&"e".repeat(200))).ok(gateway);
        let response = Call::post("events", &event(&"e".repeat(201))).send(gateway);
        let text = "The name field must not be greater than 200 bytes.";
        assert_eq!((response.status, response.json()), (422, json!({ "name": [text] })));
        let mut client = Client::subscribed(gateway, "private-a");
        client.whisper("private-a", &format!("client-{}", "e".repeat(194)), &json!({}));
        client.expect_error(4301, "The name of the client event is not valid.");
    });
}

#[test]
fn a_connection_is_subscribed_to_no_more_channels_than_it_may() {
    served_with(env(&[("RINGWAVE_APP_MAX_CHANNELS_PER_CONNECTION", "3")]), |gateway| {
        let mut client = Client::connect(gateway);
        ["a", "b", "c", "a"].iter().for_each(|name| client.subscribe(name));
        client.ask("d");
        let text = "The connection is subscribed to as many channels as it may.";
        client.expect_error(4300, text);
        client.unsubscribe("b");
        client.subscribe("d");
        client.ask("b");
        client.expect_error(4300, text);
        client.expect_nothing();
    });
}

#[test]
fn members_are_held_to_the_size_of_what_is_told_of_them() {
    let limits = [("RINGWAVE_APP_MAX_USER_ID", "5"), ("RINGWAVE_APP_MAX_PRESENCE_USER_INFO", "20")];
    served_with(env(&limits), |gateway| {
        let mut client = Client::connect(gateway);
        client.ask_as("presence-a", &json!({ "user_id": "123456" }));
        client.expect_error(4009, "Connection is unauthorized");
        client.ask_as("presence-a", &json!({ "user_id": "1", "user_info": "x".repeat(19) }));
        client.expect_error(4009, "Connection is unauthorized");
        client.join("presence-a", &json!({ "user_id": "12345", "user_info": "x".repeat(18) }));
    });
}

#[test]
fn origins_are_matched_as_the_app_lists_them() {
    let listed =
        "https://full.test,plain.test,*.wild.test,port.test:8443,http://insecure.test:8080";
    served_with(env(&[("RINGWAVE_ALLOWED_ORIGINS", listed)]), |gateway| {
        let connect = |origin: Option<&str>| {
            let headers: Vec<_> = origin.iter().map(|&origin| ("Origin", origin)).collect();
            Client::open(gateway, &target(), &headers)
        };
        for allowed in [
            "https://full.test",
            "https://full.test:443",
            "HTTPS://Full.Test",
            "http://plain.test",
            "https://plain.test:1234",
            "https://a.wild.test",
            "https://a.b.wild.test:99",
            "https://port.test:8443",
            "http://insecure.test:8080",
        ] {
            connect(Some(allowed)).established();
        }
        for refused in [
            "http://full.test",
            "https://full.test:8443",
            "https://full.test.evil.test",
            "https://evil.test/https://full.test",
            "https://full.test@evil.test",
            "https://plain.test.evil.test",
            "https://evilplain.test",
            "https://wild.test",
            "https://a.wild.test.evil.test",
            "https://port.test",
            "http://insecure.test",
            "null",
            "",
            "full.test",
            "https://",
        ] {
            connect(Some(refused)).expect_refusal(4009, "Origin not allowed");
        }
        connect(None).expect_refusal(4009, "Origin not allowed");
        let two = [("Origin", "https://full.test"), ("origin", "https://full.test")];
        let mut head = raw::handshake();
        for (name, value) in two {
            head = head.replacen("\r\n\r\n", &format!("\r\n{name}: {value}\r\n\r\n"), 1);
        }
        assert!(Raw::open(gateway, head.as_bytes()).message().contains("4009"));
        // Publishers are no browsers, so their origin does not count.
        Call::get("channels").header("Origin: https://evil.test").ok(gateway);
    });
}

#[test]
fn by_default_any_origin_and_none_are_let_in() {
    served_with(env(&[]), |gateway| {
        Client::open(gateway, &target(), &[("Origin", "https://any.test")]).established();
        Client::open(gateway, &target(), &[("Origin", "null")]).established();
        Client::open(gateway, &target(), &[]).established();
    });
}

#[test]
fn many_channels_on_one_connection_are_one_clients_matter_only() {
    served_with(env(&[]), |gateway| {
        let mut client = Client::connect(gateway);
        for at in 0..2000 {
            client.ask(&format!("channel-{at}"));
        }
        (0..2000).for_each(|_| drop(client.expect("pusher_internal:subscription_succeeded")));
        let listed: Value = Call::get("channels").ok(gateway);
        assert_eq!(listed["channels"].as_object().unwrap().len(), 2000);
        drop(client);
        until_vacated(gateway);
    });
}

#[test]
fn few_descriptors_are_enough_for_many_connections_one_after_the_other() {
    for shards in SHARD_COUNTS {
        let setup = Setup::new(shards);
        let serving = setup.command("start");
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 120; exec \"$0\" \"$@\""]);
        limited.arg(serving.get_program()).args(serving.get_args());
        limited.current_dir(setup.path("")).stdin(std::process::Stdio::null());
        let gateway = setup.start_as(&mut limited);
        let mut open = Vec::new();
        while open.len() < 200 {
            open.push(TcpStream::connect(gateway.address()).unwrap());
        }
        gateway.logged(&["WARN", "idle HTTP connections are closed to make room"]);
        assert!(!gateway.log().contains("connections cannot be accepted"));
        drop(open);
        let mut http = Http::over(gateway.tcp());
        http.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
        assert_eq!(http.response().status, 200);
        Client::open(&gateway, &format!("/app/{KEY}"), &[]).established();
        eventually("all others are gone", || (gateway.sockets() <= 1).then_some(()));
    }
}
