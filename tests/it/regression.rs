//! Each test is named after the server that had the bug, and says where it was reported.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, target};
use crate::gateway::{APP_ID, DEADLINE, Gateway, KEY, Setup, eventually, served, served_with};
use crate::http::{Call, Http, publish};
use crate::raw::{self, CONTINUATION, PING, PONG, Raw, TEXT};
use crate::sign::channel_auth;

fn connections(gateway: &Gateway) -> Value {
    Call::get("connections").ok(gateway)["connections"].take()
}

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

/// laravel/reverb#365: client events were taken from connections that are not on the channel.
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
fn reverb_269_a_client_that_reconnects_in_a_loop_leaves_no_descriptors() {
    served(|gateway| {
        let before = gateway.descriptors();
        for round in 0..300 {
            let target = if round % 2 == 0 { target() } else { "/app/nobody".to_owned() };
            let mut client = Client::open(gateway, &target, &[]);
            client.next();
        }
        eventually("all descriptors are back", || (gateway.descriptors() <= before).then_some(()));
        assert_eq!(connections(gateway), 0);
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
fn reverb_375_who_never_subscribes_is_dropped_when_silent() {
    let impatient = |setup: Setup| {
        setup.env("REVERB_APP_PING_INTERVAL", "1").env("RINGWAVE_APP_PONG_TIMEOUT", "1")
    };
    served_with(impatient, |gateway| {
        let mut client = Client::connect(gateway);
        client.expect("pusher:ping");
        client.expect_refusal(4201, "Pong reply not received in time");
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
        let mut first = Client::connect(gateway);
        first.join("presence-a", &json!({ "user_id": "1" }));
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
        let mut user = Client::connect(gateway);
        user.join("presence-a", &json!({ "user_id": 1 }));
        Call::post("users/1/terminate_connections", &json!({})).ok(gateway);
        user.expect_refusal(4009, "Connection terminated by the application");
        unnamed.iter_mut().for_each(Client::expect_nothing);
    });
}

/// Reverb: a client over the quota or of a wrong origin was told so and then served.
#[test]
fn reverb_who_is_refused_cannot_subscribe() {
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

/// sockudo 361b6672: the app was looked up by `auth_key`, so the key of one app acted on another.
#[test]
fn sockudo_361b6672_the_key_belongs_to_the_app_of_the_path() {
    let second = |setup: Setup| {
        setup.toml("[[apps]]\napp_id = \"b\"\nkey = \"b-key\"\nsecret = \"b-secret\"\n")
    };
    served_with(second, |gateway| {
        let mut client = Client::connect(gateway);
        client.subscribe("room");
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
        let before = gateway.descriptors();
        let mut ghosts: Vec<_> = (0..5).map(|_| Client::connect(gateway)).collect();
        for (at, ghost) in ghosts.iter_mut().enumerate() {
            ghost.ask_as("presence-a", &json!({ "user_id": at }));
        }
        eventually("they are gone", || (connections(gateway) == 0).then_some(()));
        assert_eq!(Call::get("channels").ok(gateway), json!({ "channels": {} }));
        eventually("and their sockets", || (gateway.descriptors() <= before).then_some(()));
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

/// soketi#169: what was sent after the end of a connection threw inside of a continuation.
#[test]
fn soketi_169_clients_that_leave_before_the_answer_harm_nobody() {
    served(|gateway| {
        let mut witness = Client::connect(gateway);
        witness.subscribe("room");
        for round in 0..50 {
            let mut raw = Raw::connect(gateway);
            let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#;
            raw.send(&raw::text(subscribe).repeat(1 + round % 3));
            publish(gateway, "room", "e", "1");
            drop(raw);
            witness.expect_event("room", "e", "1");
        }
        eventually("only the witness is left", || (connections(gateway) == 1).then_some(()));
        let count = Call::get("channels/room").param("info", "subscription_count").ok(gateway);
        assert_eq!(count["subscription_count"], 1);
    });
}

/// nats-server CVE-2026-27889: a 64-bit length with its top bit set was negative, and a panic.
#[test]
fn nats_cve_2026_27889_a_length_with_the_top_bit_is_a_protocol_error() {
    served(|gateway| {
        for length in [1_u64 << 63, u64::MAX, (1 << 63) + 5] {
            let mut raw = Raw::connect(gateway);
            raw.send(&[&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat());
            raw.expect_close(1002);
        }
        Client::connect(gateway).expect_nothing();
    });
}

/// nats-server CVE-2026-27571 and 409d394aa: compressed frames, as bombs or empty. Never agreed on
/// here, so their bit is a violation.
#[test]
fn nats_cve_2026_27571_compressed_frames_are_refused() {
    served(|gateway| {
        for payload in [&b""[..], b"\x00", &[0xff; 100]] {
            let mut raw = Raw::connect(gateway);
            raw.send(&raw::frame(0x80 | 0x40 | TEXT, payload));
            raw.expect_close(1002);
        }
    });
}

/// nats-server dc6827ade and fcc826057: upgrades of other paths, and ones that fail, were panics.
#[test]
fn nats_dc6827ade_an_upgrade_of_another_path_is_an_ordinary_answer() {
    served(|gateway| {
        let target = target();
        for (path, status) in [
            ("/up", 200),
            ("/nothing", 404),
            ("/app", 404),
            ("/app/", 404),
            (&format!("/apps/{APP_ID}/channels"), 401),
            (&format!("/apps/{APP_ID}/events"), 405),
        ] {
            let mut http = Http::over(gateway.tcp());
            http.send(raw::handshake().replace(&target, path).as_bytes());
            assert_eq!(http.response().status, status, "{path}");
        }
        Client::connect(gateway).expect_nothing();
    });
}

/// nats-server 2925899fa: a buffer that was reused carried bytes of one client to another.
#[test]
fn nats_2925899fa_answers_hold_nothing_of_others() {
    served(|gateway| {
        std::thread::scope(|scope| {
            for number in 0..6_u8 {
                scope.spawn(move || {
                    let own = [b'A' + number; 64];
                    for _ in 0..100 {
                        let mut raw = Raw::connect(gateway);
                        raw.send(&raw::frame(0x80 | PING, &own));
                        let answer = raw.frame().unwrap();
                        assert_eq!((answer.opcode, &answer.payload[..]), (PONG, &own[..]));
                    }
                });
            }
        });
    });
}

/// ws 8.21.0: tiny fragments cost memory beyond their bytes.
#[test]
fn ws_8_21_0_tiny_fragments_are_bounded() {
    served(|gateway| {
        let before = gateway.rss();
        let mut open = Vec::new();
        for _ in 0..50 {
            let mut raw = Raw::connect(gateway);
            raw.send(&raw::frame(TEXT, b"{"));
            raw.send(&raw::frame(CONTINUATION, b" ").repeat(1000));
            open.push(raw);
        }
        open.iter_mut().for_each(|raw| {
            raw.send(&raw::frame(0x80 | PING, b""));
            assert_eq!(raw.frame().unwrap().opcode, PONG);
        });
        let grown = gateway.rss().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes for 50 messages of 1000 bytes");
        let more = raw::frame(CONTINUATION, b"").repeat(100);
        for mut raw in open {
            let _closed = raw.stream.write_all(&more);
            raw.expect_close(1009);
        }
    });
}

/// tungstenite CVE-2023-43669: the time for a long head was quadratic.
#[test]
fn tungstenite_cve_2023_43669_long_heads_cost_linear_time() {
    served(|gateway| {
        let started = Instant::now();
        for _ in 0..5 {
            let mut http = Http::over(gateway.tcp());
            let line = format!("X: {}\r\n", "x".repeat(100)).repeat(90);
            let head = raw::handshake().replacen("\r\n", &format!("\r\n{line}"), 1);
            head.as_bytes().chunks(7).for_each(|piece| http.send(piece));
            assert_eq!(http.response().status, 101);
            let mut http = Http::over(gateway.tcp());
            let endless = format!("GET / HTTP/1.1\r\n{}", "x".repeat(1 << 20));
            http.send(endless.as_bytes());
            assert_eq!(http.responses().len(), 1);
        }
        assert!(started.elapsed() < DEADLINE);
    });
}

/// pingora CVE-2026-2833: bytes behind an upgrade that fails were taken as a request that had been
/// checked.
#[test]
fn pingora_cve_2026_2833_bytes_behind_an_upgrade_are_frames_and_never_a_request() {
    served(|gateway| {
        let request = String::from_utf8(Call::get("connections").bytes()).unwrap();
        let mut raw = Raw::open(gateway, format!("{}{request}", raw::handshake()).as_bytes());
        raw.established();
        raw.expect_close(1002);
    });
}

/// pingora CVE-2026-2835: bodies whose end two readers see in different places.
#[test]
fn pingora_cve_2026_2835_http_1_0_has_no_chunks() {
    served(|gateway| {
        let mut http = Http::over(gateway.tcp());
        http.send(
            b"GET /up HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n\
              0\r\n\r\nGET /up HTTP/1.1\r\nHost: it\r\n\r\n",
        );
        let statuses: Vec<_> = http.responses().iter().map(|response| response.status).collect();
        assert_eq!(statuses, [400]);
    });
}

/// pingora CVE-2025-4366, and uWebSockets: what was left of a body became the next request.
#[test]
fn pingora_cve_2025_4366_the_rest_of_a_body_is_no_request() {
    served(|gateway| {
        let smuggled = "GET /up HTTP/1.1\r\nHost: it\r\n\r\n";
        for target in ["GET /up", "GET /nothing", "POST /apps/9/events"] {
            let mut http = Http::over(gateway.tcp());
            let length = smuggled.len();
            let head = format!("{target} HTTP/1.1\r\nHost: it\r\nContent-Length: {length}\r\n\r\n");
            http.send(head.as_bytes());
            assert_ne!(http.response().status, 0);
            http.send(smuggled.as_bytes());
            let _ended = http.stream.shutdown(std::net::Shutdown::Write);
            assert_eq!(http.responses().len(), 0, "{target}");
        }
    });
}

/// Node CVE-2024-22019: chunk extensions without end were read without end.
#[test]
fn node_cve_2024_22019_chunk_extensions_are_bounded() {
    served(|gateway| {
        let mut http = Http::over(gateway.tcp());
        let head = format!(
            "POST /apps/{APP_ID}/events HTTP/1.1\r\nHost: it\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        http.send(head.as_bytes());
        let started = Instant::now();
        let mut sent = 0;
        // One byte of body per 1000 of extension, until it no longer listens.
        while started.elapsed() < DEADLINE {
            let chunk = format!("1;{}\r\na\r\n", "e".repeat(1000));
            if http.stream.write_all(chunk.as_bytes()).is_err() {
                break;
            }
            sent += chunk.len();
            assert!(sent < 32 << 20, "it takes any number of them");
        }
    });
}

/// Redis CVE-2025-21605: a client that has not proven anything grew its output without bound.
#[test]
fn redis_cve_2025_21605_answers_that_are_not_read_are_bounded() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        raw.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let before = gateway.rss();
        let flood = raw::text("malformed").repeat(1000);
        let started = Instant::now();
        while raw.stream.write_all(&flood).is_ok() && started.elapsed() < DEADLINE {}
        // One turn answers all that a shard's 8 MiB of receive buffers hold, here with ten times as
        // many bytes, before it finds that nobody reads.
        let grown = gateway.rss().saturating_sub(before);
        assert!(grown < 128 << 20, "{grown} bytes");
        eventually("it is closed", || (connections(gateway) == 0).then_some(()));
    });
}

/// engine.io CVE-2022-21676 and others: one bad frame of one client ended the process.
#[test]
fn engine_io_cve_2022_21676_bad_frames_end_their_own_connection_only() {
    served(|gateway| {
        let mut witness = Client::connect(gateway);
        witness.subscribe("room");
        for first in 0..=255_u8 {
            for second in [0, 0x80, 0xff, 0xfe, 0x7f] {
                let mut raw = Raw::connect(gateway);
                let _closed = raw.stream.write_all(&[first, second, 0xff, 0xff, 0xff, 0xff, 0, 1]);
            }
        }
        publish(gateway, "room", "e", "1");
        witness.expect_event("room", "e", "1");
    });
}

/// A key that holds for one socket must not open another's channels after its end.
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
