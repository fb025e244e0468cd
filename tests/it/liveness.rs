use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;

use crate::client::{Client, data, target};
use crate::gateway::{Gateway, Setup, eventually, served_with};
use crate::http::until_connected;
use crate::raw::{self, PING, Raw};

/// The shortest times that can be set.
fn impatient(setup: Setup) -> Setup {
    setup.env("REVERB_APP_PING_INTERVAL", "1").env("RINGWAVE_APP_PONG_TIMEOUT", "1")
}

/// Times for clients that answer, which may take a while on a busy machine.
fn patient(setup: Setup) -> Setup {
    setup.env("REVERB_APP_PING_INTERVAL", "1").env("RINGWAVE_APP_PONG_TIMEOUT", "20")
}

fn served(test: impl Fn(&Gateway)) {
    served_with(impatient, test);
}

#[test]
fn a_silent_client_is_pinged_and_then_closed_with_4201() {
    served(|gateway| {
        for subscribed in [true, false] {
            // This is before the client's last bytes. However late this side hears of anything, the
            // measured time contains the server's.
            let started = Instant::now();
            // Both go in one piece, because a client that is late with its subscribe finds a ping
            // there already.
            let subscribe = raw::text(r#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#);
            let said = if subscribed { &subscribe[..] } else { &[] };
            let mut client = Raw::open(gateway, &[raw::handshake().as_bytes(), said].concat());
            client.established();
            // The success comes from the channel's home, which may be another shard, and late.
            if subscribed && gateway.shards() == 1 {
                assert!(client.message().contains("subscription_succeeded"));
            }
            let mut told = || {
                let message = client.message();
                let success = subscribed && message.contains("subscription_succeeded");
                if success { client.message() } else { message }
            };
            assert_eq!(told(), r#"{"event":"pusher:ping"}"#);
            assert!(started.elapsed() > Duration::from_millis(800), "{:?}", started.elapsed());
            let error = r#"{\"code\":4201,\"message\":\"Pong reply not received in time\"}"#;
            assert_eq!(told(), format!(r#"{{"event":"pusher:error","data":"{error}"}}"#));
            assert_eq!(client.expect_close(4201), "Pong reply not received in time");
            assert!(started.elapsed() > Duration::from_millis(1700), "{:?}", started.elapsed());
        }
        until_connected(gateway, 0);
    });
}

#[test]
fn a_client_of_an_idle_gateway_has_the_whole_interval_too() {
    // A shard that sleeps looks at its clock when it is woken, at any time within a second.
    let gateway = impatient(Setup::new(1)).start();
    for slept in [300, 600, 900] {
        std::thread::sleep(Duration::from_millis(slept));
        let started = Instant::now();
        let mut client = Raw::connect(&gateway);
        assert_eq!(client.message(), r#"{"event":"pusher:ping"}"#);
        assert!(started.elapsed() > Duration::from_millis(800), "{:?}", started.elapsed());
    }
}

/// Checks that the client is answered. After a second of silence a ping may come first.
fn lives(client: &mut Client) {
    client.send_text(r#"{"event":"pusher:ping"}"#);
    loop {
        match client.socket.read().unwrap() {
            Message::Text(text) if text.contains("pusher:pong") => return,
            Message::Text(text) if text.contains("pusher:ping") => {}
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_that_answers_lives_on() {
    served_with(patient, |gateway| {
        let mut client = Client::connect(gateway);
        for _ in 0..3 {
            client.expect("pusher:ping");
            client.send(&json!({ "event": "pusher:pong", "data": {} }));
        }
        lives(&mut client);
    });
}

#[test]
fn any_message_is_an_answer() {
    served_with(patient, |gateway| {
        let mut client = Client::connect(gateway);
        client.expect("pusher:ping");
        client.ask("room");
        // The success comes from the channel's home and may be late; a second ping only follows an
        // answer.
        let mut heard = [client.next(), client.next()].map(|message| message["event"].clone());
        heard.sort_by_key(ToString::to_string);
        assert_eq!(heard, ["pusher:ping", "pusher_internal:subscription_succeeded"]);
        client.send_text("malformed");
        client.expect("pusher:error");
        client.expect("pusher:ping");
        client.socket.send(Message::Pong("".into())).unwrap();
        lives(&mut client);
    });
}

/// Takes both pings, in the order in which one send has them.
#[track_caller]
fn pinged(client: &mut Raw) -> Vec<u8> {
    let text = client.frame().unwrap();
    assert_eq!((text.opcode, &text.payload[..]), (raw::TEXT, &br#"{"event":"pusher:ping"}"#[..]));
    let ping = client.frame().unwrap();
    assert_eq!(ping.opcode, PING);
    ping.payload
}

/// Checks that an answer keeps the client alive: the third ping comes only if the answers to the
/// first two counted.
fn outlives(answer: impl Fn(&[u8]) -> Vec<u8>) {
    served_with(patient, |gateway| {
        let mut client = Raw::connect(gateway);
        for _ in 0..3 {
            let payload = pinged(&mut client);
            client.send(&answer(&payload));
        }
    });
}

#[test]
fn a_client_that_answers_only_websocket_pings_lives_on() {
    outlives(|payload| raw::frame(0x80 | raw::PONG, payload));
}

#[test]
fn a_client_that_answers_only_pusher_pings_lives_on() {
    outlives(|_| raw::text(r#"{"event":"pusher:pong","data":{}}"#));
}

#[test]
fn a_client_that_answers_neither_ping_is_closed_though_it_answered_earlier_ones() {
    served(|gateway| {
        let mut client = Raw::connect(gateway);
        let payload = pinged(&mut client);
        client.send(&raw::frame(0x80 | raw::PONG, &payload));
        // It is closed in place of the second ping if it was late with its pong.
        loop {
            let frame = client.frame().unwrap();
            if frame.opcode != PING && frame.payload != br#"{"event":"pusher:ping"}"# {
                assert!(String::from_utf8(frame.payload).unwrap().contains("4201"));
                break;
            }
        }
        client.expect_close(4201);
    });
}

#[test]
fn a_client_that_talks_is_not_pinged() {
    let interval = |setup: Setup| setup.env("REVERB_APP_PING_INTERVAL", "3");
    served_with(interval, |gateway| {
        let started = Instant::now();
        let mut client = Client::connect(gateway);
        let mut spoke = started;
        while started.elapsed() < Duration::from_millis(4500) {
            let speaks = Instant::now();
            client.send_text(r#"{"event":"pusher:ping"}"#);
            // A ping of the server would come before the pong, and rightly after a long pause.
            let mut heard = client.next();
            if heard["event"] == "pusher:ping" {
                assert!(spoke.elapsed() > Duration::from_millis(2500), "it talks, and is pinged");
                heard = client.next();
            }
            assert_eq!(heard, json!({ "event": "pusher:pong" }));
            spoke = speaks;
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

#[test]
fn a_member_that_is_gone_without_a_word_leaves_its_presence_channel() {
    // The time is long enough for a witness that answers on a busy machine.
    let times = |setup: Setup| impatient(setup).env("RINGWAVE_APP_PONG_TIMEOUT", "5");
    served_with(times, |gateway| {
        let mut witness = Client::connect(gateway);
        witness.ask_as("presence-a", &json!({ "user_id": "w" }));
        let mut next = || {
            loop {
                let message = witness.next();
                if message["event"] != "pusher:ping" {
                    return message;
                }
                witness.send(&json!({ "event": "pusher:pong" }));
            }
        };
        assert_eq!(next()["event"], "pusher_internal:subscription_succeeded");
        let mut gone = Client::connect(gateway);
        gone.ask_as("presence-a", &json!({ "user_id": "gone" }));
        assert_eq!(next()["event"], "pusher_internal:member_added");
        let left = next();
        assert_eq!(left["event"], "pusher_internal:member_removed");
        assert_eq!(data(&left), json!({ "user_id": "gone" }));
    });
}

#[test]
fn the_dead_leave_no_socket_and_no_slot_behind() {
    let scarce = |setup| impatient(setup).env("RINGWAVE_MAX_CONNECTIONS_PER_SHARD", "40");
    served_with(scarce, |gateway| {
        let before = gateway.sockets();
        for _ in 0..2 {
            // The connections stay open on this side and are never read.
            let dead: Vec<_> = (0..20).map(|_| Client::connect(gateway)).collect();
            until_connected(gateway, 0);
            eventually("no socket is left", || (gateway.sockets() <= before).then_some(()));
            drop(dead);
        }
    });
}

#[test]
fn the_activity_timeout_is_the_apps() {
    let told = |setup: Setup| setup.env("REVERB_APP_ACTIVITY_TIMEOUT", "7");
    served_with(told, |gateway| {
        let established = Client::open(gateway, &target(), &[]).established();
        assert_eq!(established["activity_timeout"], 7);
    });
}
