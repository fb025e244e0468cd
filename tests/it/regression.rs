//! Bugs of other servers of the Pusher protocol; `neighbours` has those of WebSocket and HTTP
//! servers. Each test is named after the server that had the bug, and says where it was reported.
//!
//! Some bugs cannot exist here: there is no broker whose payloads could be trusted too much
//! (CVE-2026-23524) or whose connection could end (sockudo 5.0.0), no merge of lists per message
//! (laravel/reverb#379), and no lock that could be held (sockudo f3a04626).

mod neighbours;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::client::{Client, data, target};
use crate::gateway::{APP_ID, Gateway, KEY, Setup, eventually, served, served_with};
use crate::http::{Call, Http, publish, until_connected, until_vacated};
use crate::raw::{self, Raw};
use crate::sign::channel_auth;

/// CVE-2024-50347: some endpoints were served without a look at the signature.
#[test]
fn reverb_cve_2024_50347_every_endpoint_checks_the_signature() {
    served(|gateway| {
        for (method, endpoint) in [
            ("POST", "events"),
            ("POST", "batch_events"),
            ("GET", "channels"),
            ("GET", "channels/c"),
            ("GET", "channels/presence-c/users"),
            ("POST", "users/1/terminate_connections"),
            ("GET", "connections"),
        ] {
            let mut http = Http::over(gateway.tcp());
            let path = format!("/apps/{APP_ID}/{endpoint}");
            http.send(format!("{method} {path} HTTP/1.1\r\nHost: it\r\n\r\n").as_bytes());
            assert_eq!(http.response().status, 401, "{method} {path}");
        }
    });
}

/// laravel/reverb#376: `auth_signature[]=` made the signature an array, which compared with
/// anything.
#[test]
fn reverb_376_a_signature_is_no_list() {
    served(|gateway| {
        let call = Call::get("channels");
        for form in ["auth_signature[]=", "auth_signature%5B%5D=", "auth_signature[a]="] {
            let target = call.target().replace("auth_signature=", form);
            let mut http = Http::over(gateway.tcp());
            http.send(format!("GET {target} HTTP/1.1\r\nHost: it\r\n\r\n").as_bytes());
            assert_eq!(http.response().status, 401, "{form}");
        }
    });
}

/// laravel/reverb#381: signatures were compared by `!==`, which takes longer the more of them is
/// right. The type of a signature makes the comparison take constant time. This test checks that
/// every digit and the length count.
#[test]
fn reverb_381_a_signature_that_is_wrong_in_one_digit_is_refused() {
    served(|gateway| {
        let target = Call::get("channels").target();
        let (start, signature) = target.split_at(target.len() - 64);
        assert!(start.ends_with("auth_signature="));
        let mut http = Http::over(gateway.tcp());
        let mut status = |signature: &str| {
            let head = format!("GET {start}{signature} HTTP/1.1\r\nHost: it\r\n\r\n");
            http.send(head.as_bytes());
            http.response().status
        };
        for at in 0..64 {
            let digit = if &signature[at..=at] == "0" { "1" } else { "0" };
            let wrong = format!("{}{digit}{}", &signature[..at], &signature[at + 1..]);
            assert_eq!(status(&wrong), 401, "digit {at}");
        }
        for wrong in [&signature[..63], &signature[1..], "", &format!("{signature}0")] {
            assert_eq!(status(wrong), 401, "{wrong}");
        }
        assert_eq!(status(signature), 200);
    });
}

/// laravel/reverb#331 and #359: every request for the counts of all processes left a listener
/// behind.
#[test]
fn reverb_331_questions_over_all_shards_leave_nothing_behind() {
    served(|gateway| {
        let _client = Client::joined(gateway, "presence-a", &json!({ "user_id": "1" }));
        let mut http = Http::over(gateway.tcp());
        let mut ask = |rounds: usize| {
            for _ in 0..rounds {
                for endpoint in ["channels", "channels/presence-a/users", "connections"] {
                    http.send(&Call::get(endpoint).bytes());
                    assert_eq!(http.response().status, 200);
                }
            }
        };
        ask(200);
        let held = || (gateway.descriptors() + gateway.sockets(), gateway.rss());
        let before = held();
        ask(2000);
        let after = held();
        assert!(after.0 <= before.0 && after.1 < before.1 + (4 << 20), "{before:?} {after:?}");
    });
}

/// laravel/reverb#365: client events were taken from connections that were not on the channel.
#[test]
fn reverb_365_client_events_come_from_members() {
    served(|gateway| {
        let (mut member, mut stranger) = (Client::connect(gateway), Client::connect(gateway));
        member.subscribe("private-a");
        stranger.whisper("private-a", "client-e", &json!({}));
        stranger.expect_error(4009, "The client is not a member of the specified channel.");
        publish(gateway, "private-a", "after", "1");
        member.expect_event("private-a", "after", "1");
    });
}

/// laravel/reverb#89: a private subscribe without `auth` ended the process.
#[test]
fn reverb_89_a_private_subscribe_without_auth_is_refused() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        for channel in ["private-a", "presence-a", "private-cache-a", "presence-cache-a"] {
            client.send(&json!({ "event": "pusher:subscribe", "data": { "channel": channel } }));
            client.expect_error(4009, "Connection is unauthorized");
        }
        Client::connect(gateway).expect_nothing();
    });
}

/// laravel/reverb#269: the reconnect loop of one client took all descriptors, the API's too.
#[test]
fn reverb_269_a_client_that_reconnects_in_a_loop_leaves_no_sockets() {
    served(|gateway| {
        let before = gateway.sockets();
        for round in 0..300 {
            let target = if round % 2 == 0 { target() } else { "/app/nobody".to_owned() };
            let mut client = Client::open(gateway, &target, &[]);
            client.next();
        }
        eventually("all sockets are closed", || (gateway.sockets() <= before).then_some(()));
        until_connected(gateway, 0);
    });
}

/// laravel/reverb#356 and #368: signatures failed when the server has a path prefix.
#[test]
fn reverb_356_signatures_hold_under_a_path_prefix() {
    served_with(
        |setup| setup.env("REVERB_SERVER_PATH", "/deep/ws"),
        |gateway| {
            let bare = format!("/apps/{APP_ID}/channels");
            for path in [bare.clone(), format!("/deep/ws{bare}")] {
                for signed in [bare.clone(), format!("/deep/ws{bare}")] {
                    let signed_path = Some(signed);
                    Call { path: path.clone(), signed_path, ..Call::get("") }.ok(gateway);
                }
            }
        },
    );
}

/// laravel/reverb#375: connections that never subscribe were neither pinged nor dropped.
#[test]
fn reverb_375_a_client_that_never_subscribes_is_dropped_when_silent() {
    let impatient = |setup: Setup| {
        setup.env("REVERB_APP_PING_INTERVAL", "1").env("RINGWAVE_APP_PONG_TIMEOUT", "1")
    };
    served_with(impatient, |gateway| {
        let mut client = Raw::connect(gateway);
        assert!(client.message().contains("pusher:ping"));
        assert!(client.message().contains("4201"));
        assert_eq!(client.expect_close(4201), "Pong reply not received in time");
    });
}

/// laravel/reverb#389: the excepted connection was unknown to other nodes, so `toOthers` reached
/// the sender in half of the cases.
#[test]
fn reverb_389_the_sender_is_excepted_wherever_it_is() {
    served(|gateway| {
        let mut clients: Vec<_> = (0..10).map(|_| Client::connect(gateway)).collect();
        clients.iter_mut().for_each(|client| client.subscribe("room"));
        for client in &mut clients {
            let body = json!({
                "name": "e", "channel": "room", "data": "1", "socket_id": client.socket_id,
            });
            Call::post("events", &body).ok(gateway);
        }
        publish(gateway, "room", "end", "1");
        for client in &mut clients {
            (0..9).for_each(|_| client.expect_event("room", "e", "1"));
            client.expect_event("room", "end", "1");
        }
    });
}

/// laravel/reverb#229: `user_info: true`, from a callback that just returns true, was an error.
#[test]
fn reverb_229_user_info_may_be_true() {
    served(|gateway| {
        let member = json!({ "user_id": "1", "user_info": true });
        let here = Client::connect(gateway).join("presence-a", &member);
        assert_eq!(here["hash"], json!({ "1": true }));
    });
}

/// Reverb: a member without `user_info` made every later subscribe of the channel fail.
#[test]
fn reverb_a_member_without_user_info_poisons_no_channel() {
    served(|gateway| {
        let _first = Client::joined(gateway, "presence-a", &json!({ "user_id": "1" }));
        let here = Client::connect(gateway).join("presence-a", &json!({ "user_id": "2" }));
        assert_eq!(here["count"], 2);
    });
}

/// Reverb: terminating a user failed with 500, halfway, when any connection had no user.
#[test]
fn reverb_a_connection_without_a_user_does_not_stop_a_termination() {
    served(|gateway| {
        let mut unnamed: Vec<_> = (0..5).map(|_| Client::connect(gateway)).collect();
        unnamed.iter_mut().for_each(|client| client.subscribe("room"));
        let mut user = Client::joined(gateway, "presence-a", &json!({ "user_id": 1 }));
        Call::post("users/1/terminate_connections", &json!({})).ok(gateway);
        user.expect_refusal(4009, "Connection terminated by the application");
        unnamed.iter_mut().for_each(Client::expect_nothing);
    });
}

/// Reverb: a client over the quota or of a wrong origin got the error and was served all the same.
#[test]
fn reverb_a_refused_client_cannot_subscribe() {
    let setting = |setup: Setup| setup.env("RINGWAVE_ALLOWED_ORIGINS", "good.test");
    served_with(setting, |gateway| {
        let subscribe = raw::text(r#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#);
        let head = raw::handshake().replacen("\r\n", "\r\nOrigin: https://evil.test\r\n", 1);
        let mut raw = Raw::open(gateway, &[head.as_bytes(), &subscribe].concat());
        assert!(raw.message().contains("4009"));
        raw.expect_close(4009);
        assert_eq!(Call::get("channels/room").ok(gateway), json!({ "occupied": false }));
    });
}

/// Reverb: one captured request could be sent again for ever.
#[test]
fn reverb_a_captured_request_expires() {
    served(|gateway| {
        let call = Call::get("channels");
        let old = Call { timestamp: call.timestamp - 3600, ..call };
        assert_eq!(old.send(gateway).status, 401);
    });
}

/// sockudo 361b6672: the app was looked up by `auth_key`, so a key of one app worked for another.
#[test]
fn sockudo_361b6672_the_key_belongs_to_the_app_of_the_path() {
    let second = |setup: Setup| {
        setup.toml("[[apps]]\napp_id = \"b\"\nkey = \"b-key\"\nsecret = \"b-secret\"\n")
    };
    served_with(second, |gateway| {
        let mut client = Client::subscribed(gateway, "room");
        let event = json!({ "name": "e", "channel": "room", "data": "1" });
        let (key, secret) = ("b-key".to_owned(), "b-secret".to_owned());
        let call = Call { key, secret, ..Call::post("events", &event) };
        assert_eq!(call.send(gateway).status, 401);
        client.expect_nothing();
    });
}

/// sockudo b040fb9b and d04eeb43: connections whose pong did not come stayed as ghosts.
#[test]
fn sockudo_b040fb9b_a_missing_pong_ends_the_connection_and_its_memberships() {
    let impatient = |setup: Setup| {
        setup.env("REVERB_APP_PING_INTERVAL", "1").env("RINGWAVE_APP_PONG_TIMEOUT", "1")
    };
    served_with(impatient, |gateway| {
        let before = gateway.sockets();
        let mut ghosts: Vec<_> = (0..5).map(|_| Client::connect(gateway)).collect();
        for (at, ghost) in ghosts.iter_mut().enumerate() {
            ghost.ask_as("presence-a", &json!({ "user_id": at }));
        }
        until_connected(gateway, 0);
        until_vacated(gateway);
        eventually("and their sockets", || (gateway.sockets() <= before).then_some(()));
    });
}

/// sockudo 7040dc04: `,` and `;` were refused in channel names.
#[test]
fn sockudo_7040dc04_every_character_of_the_alphabet_is_a_name() {
    served_with(
        |setup| setup.env("RINGWAVE_APP_STRICT_NAMES", "true"),
        |gateway| {
            let mut client = Client::connect(gateway);
            for character in "azAZ09_-=@,.;".chars() {
                let channel = format!("private-{character}");
                client.subscribe(&channel);
                publish(gateway, &channel, "e", "1");
                client.expect_event(&channel, "e", "1");
            }
        },
    );
}

/// Subscribes a client to 500 channels of this number, and disconnects it.
fn subscribe_and_disconnect(gateway: &Gateway, number: usize) {
    let mut client = Client::connect(gateway);
    for at in 0..500 {
        client.ask(&format!("room-{number}-{at}"));
    }
    for _ in 0..500 {
        client.expect("pusher_internal:subscription_succeeded");
    }
    drop(client);
    until_vacated(gateway);
}

/// sockudo decf4861: an entry per subscription of each client that disconnected stayed behind.
#[test]
fn sockudo_decf4861_subscriptions_of_a_client_that_disconnects_leave_nothing() {
    served(|gateway| {
        (0..5).for_each(|number| subscribe_and_disconnect(gateway, number));
        let before = gateway.rss();
        (5..25).for_each(|number| subscribe_and_disconnect(gateway, number));
        // The memory of a burst is given back after some seconds.
        eventually("10,000 subscriptions that are over take less than 4 MiB", || {
            (gateway.rss().saturating_sub(before) < 4 << 20).then_some(())
        });
    });
}

/// sockudo 671275f2 and db5fde7c: timers outlived their sockets and hit others. sockudo cfa1a02e:
/// the timer for signing in ran on after a subscription to a private channel.
#[test]
fn sockudo_671275f2_no_timer_outlives_its_connection() {
    for shards in [1, 2] {
        let setup = Setup::new(shards).env("RINGWAVE_APP_USER_AUTHENTICATION_TIMEOUT", "6");
        let gateway = setup.start();
        let started = Instant::now();
        let early: Vec<_> = (0..4).map(|_| Client::connect(&gateway)).collect();
        let until = |time: Duration| {
            eventually("time has passed", || (started.elapsed() >= time).then_some(()));
        };
        until(Duration::from_millis(5500));
        drop(early);
        until_connected(&gateway, 0);
        // These take the same slots, so late that the time of the first ones ends within theirs.
        let connected = Instant::now();
        let mut late: Vec<_> = (0..4).map(|_| Client::connect(&gateway)).collect();
        let mut private = late.pop().unwrap();
        private.subscribe("private-a");
        for client in &mut late {
            client.expect_refusal(4009, "Connection not authorized within timeout");
            let lived = connected.elapsed();
            assert!(lived > Duration::from_millis(5900), "{lived:?}");
        }
        private.expect_nothing();
    }
}

/// sockudo bf8b8f26: with a wrong code clients gave up that should have come back, or came back
/// that should have given up. Below 4100 client libraries stay away; from 4100 on they return.
#[test]
fn sockudo_bf8b8f26_the_code_tells_whether_to_return() {
    let limited = |setup: Setup| {
        let setup = setup.env("REVERB_APP_MAX_CONNECTIONS", "2");
        setup.env("RINGWAVE_ALLOWED_ORIGINS", "good.test").env("RINGWAVE_SHUTDOWN_WINDOW", "0")
    };
    for shards in [1, 2] {
        let mut gateway = limited(Setup::new(shards)).start();
        let origin = [("Origin", "https://good.test")];
        let code = |client: &mut Client| {
            let told = data(&client.expect("pusher:error"))["code"].as_u64().unwrap();
            let (closed, _) = client.expect_close();
            assert_eq!(u64::from(closed), told);
            closed
        };
        let refused = |target: &str, origin| code(&mut Client::open(&gateway, target, origin));
        assert_eq!(refused("/app/nobody", &origin), 4001);
        assert_eq!(refused(&format!("/app/{KEY}?protocol=3"), &origin), 4007);
        assert_eq!(refused(&target(), &[("Origin", "https://evil.test")]), 4009);
        let mut clients: Vec<_> =
            (0..2).map(|_| Client::open(&gateway, &target(), &origin)).collect();
        for client in &mut clients {
            client.established();
        }
        assert_eq!(refused(&target(), &origin), 4004);
        gateway.signal(Signal::TERM);
        for client in &mut clients {
            assert_eq!(code(client), 4102);
        }
        drop(clients);
        assert!(gateway.ended().success());
    }
}

/// soketi#169: a send after the end of a connection threw inside of a continuation.
#[test]
fn soketi_169_clients_that_leave_before_the_answer_harm_nobody() {
    served(|gateway| {
        let mut witness = Client::subscribed(gateway, "room");
        for round in 0..50 {
            let mut raw = Raw::connect(gateway);
            let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#;
            raw.send(&raw::text(subscribe).repeat(1 + round % 3));
            publish(gateway, "room", "e", "1");
            drop(raw);
            witness.expect_event("room", "e", "1");
        }
        until_connected(gateway, 1);
        eventually("only the witness is counted", || {
            let count = Call::get("channels/room").param("info", "subscription_count").ok(gateway);
            (count["subscription_count"] == 1).then_some(())
        });
    });
}

/// A signature for one socket must not open channels for another socket after its end.
#[test]
fn a_signature_of_a_connection_that_is_gone_opens_nothing() {
    served(|gateway| {
        let gone = Client::connect(gateway);
        let auth = channel_auth(&gone.socket_id, "private-a", None);
        drop(gone);
        for _ in 0..20 {
            let mut client = Client::connect(gateway);
            let data = json!({ "auth": auth, "channel": "private-a" });
            client.send(&json!({ "event": "pusher:subscribe", "data": data }));
            client.expect_error(4009, "Connection is unauthorized");
        }
        assert!(auth.starts_with(KEY));
    });
}
