use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use serde_json::json;

use super::{in_both_forms, told, warnings};
use crate::client::{Client, target};
use crate::gateway::{APP_ID, DEADLINE, Gateway, KEY, Setup, eventually};
use crate::http::{Call, Http};
use crate::raw::{self, Raw};
use crate::reload;

const MINE: Option<&str> = Some(APP_ID);

/// Sends these bytes and waits until the gateway closes.
fn sent(gateway: &Gateway, bytes: &[u8]) -> String {
    sent_over(gateway.tcp(), bytes)
}

fn sent_over(mut stream: TcpStream, bytes: &[u8]) -> String {
    // The server may not read a request that it refuses to its end.
    let _refused = stream.write_all(bytes);
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _end = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends a request with this head and returns the status.
fn status(gateway: &Gateway, head: &str) -> u16 {
    let mut http = Http::over(gateway.tcp());
    http.send(format!("{head}\r\n\r\n").as_bytes());
    http.response().status
}

fn refused(gateway: &Gateway, target: &str, headers: &[(&str, &str)], code: u16) {
    let mut client = Client::open(gateway, target, headers);
    let message = client.expect("pusher:error");
    assert!(message["data"].as_str().unwrap().contains(&code.to_string()), "{message}");
}

fn other_app(setup: Setup) -> Setup {
    setup.toml("[[apps]]\napp_id = \"5822\"\nkey = \"second-key-22\"\nsecret = \"second-secret\"\n")
}

// ---- bytes --------------------------------------------------------------------------------------

/// The beginning of a `ClientHello` (RFC 8446 section 4.1.2).
const CLIENT_HELLO: &[u8] =
    b"\x16\x03\x01\x00\xc5\x01\x00\x00\xc1\x03\x03\xca\xfe\xba\xbe\x00\x01\x02\x03\x04\x05\x06\x07";

#[test]
fn tls_on_a_plain_port_is_told_once_with_the_address_of_the_peer_and_the_remedy() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            for _ in 0..20 {
                sent_over(gateway.tcp_from(Ipv4Addr::new(127, 9, 0, 7)), CLIENT_HELLO);
            }
            let facts = ["127.9.0.7 speaks TLS to this port; it is plain", "REVERB_SCHEME=http"];
            told(gateway, None, "TLS on a plain port", &facts);
        },
    );
}

#[test]
fn other_protocols_are_told_by_their_names() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            sent(gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            let facts = ["127.0.0.1 speaks HTTP/2", "proxy_http_version 1.1"];
            told(gateway, None, "HTTP/2 on a port of HTTP/1.1", &facts);
            sent(gateway, b"PROXY TCP4 203.0.113.1 127.0.0.1 47011 80\r\nGET /up HTTP/1.1\r\n\r\n");
            let facts = ["header of the PROXY protocol", "tcp+proxy://"];
            told(gateway, None, "unexpected header of the PROXY protocol", &facts);
            sent(gateway, b"SSH-2.0-OpenSSH_9.9\r\n\r\n");
            told(gateway, None, "no HTTP", &["127.0.0.1 sends something that is no HTTP/1.1"]);
        },
    );
}

#[test]
fn a_connection_without_a_header_of_the_proxy_protocol_is_told() {
    let settings = |setup: Setup| {
        let address = setup.address();
        let proxied = SocketAddr::from((address.ip(), address.port() + 1));
        let setup = setup.flag(&format!("--listen=tcp://{address}"));
        setup.flag(&format!("--listen=tcp+proxy://{proxied}"))
    };
    in_both_forms(settings, |gateway| {
        let address = gateway.address();
        let proxied = SocketAddr::from((address.ip(), address.port() + 1));
        let stream = gateway.tcp_between(Ipv4Addr::new(127, 9, 0, 8), proxied);
        sent_over(stream, b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
        let facts = ["127.9.0.8 sends no header of the PROXY protocol", "switch it on"];
        told(gateway, None, "no header of the PROXY protocol", &facts);
    });
}

#[test]
fn a_head_that_is_too_large_or_does_not_end_is_told_and_silence_is_not() {
    in_both_forms(
        |setup| setup.env("RINGWAVE_HEADER_TIMEOUT", "1"),
        |gateway| {
            let large = format!("GET /up HTTP/1.1\r\nHost: it\r\nCookie: {}", "x".repeat(40_000));
            assert!(sent(gateway, large.as_bytes()).contains(" 431 "));
            let facts = ["431", "16 KiB", "cookies"];
            told(gateway, None, "head of a request too large", &facts);
            // The connection is closed after the same time, without a line in the log.
            let silent = sent(gateway, b"");
            assert_eq!(silent, "");
            assert!(!warnings(gateway).iter().any(|line| line.cause.ends_with("too late")));
            sent(gateway, b"GET /up HTTP/1.1\r\nHost");
            let facts = ["did not end within 1 s", "server.header_timeout"];
            told(gateway, None, "head of a request too late", &facts);
        },
    );
}

// ---- handshakes ---------------------------------------------------------------------------------

#[test]
fn an_unknown_key_is_told_with_the_app_that_there_is() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            refused(gateway, "/app/zhcnzhcnzhcnzhcn?protocol=7", &[], 4001);
            let served =
                format!("unknown key zhcn…; this server has the app {APP_ID} with key it-…");
            let line = told(gateway, None, "unknown key", &[&served, "VITE_REVERB_APP_KEY"]);
            assert!(line.line.contains("127.0.0.1"), "{}", line.line);
        },
    );
}

#[test]
fn the_key_of_a_page_that_has_the_apps_id_or_its_secret_is_told_as_such_and_not_in_full() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            refused(gateway, &format!("/app/{APP_ID}"), &[], 4001);
            told(gateway, None, "unknown key", &["which is the id of an app and not its key"]);
            // The log is searched for the secret when the gateway is dropped.
            refused(gateway, &format!("/app/{}", crate::gateway::SECRET), &[], 4001);
        },
    );
}

#[test]
fn an_app_that_is_switched_off_is_told_for_connections_and_requests_alike() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let open = Client::connect(gateway);
            let off = format!("[[apps]]\napp_id = \"{APP_ID}\"\nenabled = false\n");
            std::fs::write(gateway.path("ringwave.toml"), off).unwrap();
            assert!(reload::reload(gateway).status.success());
            let line = told(gateway, MINE, "app switched off", &["4003"]);
            assert!(line.line.contains("socket_id"), "{}", line.line);
            refused(gateway, &target(), &[], 4003);
            assert_eq!(Call::get("channels").send(gateway).status, 403);
            told(gateway, MINE, "app switched off", &[]);
            drop(open);
        },
    );
}

#[test]
fn a_protocol_version_that_is_not_spoken_is_told_with_those_that_are() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            refused(gateway, &format!("/app/{KEY}?protocol=4"), &[], 4007);
            let facts = ["\"4\"", "5, 6 and 7 are served"];
            // The text form does not escape the quotes of the message.
            told(gateway, MINE, "unsupported protocol version", &facts);
        },
    );
}

#[test]
fn a_refused_origin_is_told_with_the_list() {
    in_both_forms(
        |setup| setup.toml("[app]\nallowed_origins = [\"a.example\", \"*.b.example\"]\n"),
        |gateway| {
            refused(gateway, &target(), &[("Origin", "https://evil.example")], 4009);
            let facts = [
                "the origin \"https://evil.example\" is not in the list",
                "which has a.example, *.b.example",
                "app.allowed_origins",
            ];
            told(gateway, MINE, "origin not allowed", &facts);
        },
    );
}

#[test]
fn a_client_without_an_origin_is_told_as_one_that_is_no_browser() {
    in_both_forms(
        |setup| setup.toml("[app]\nallowed_origins = [\"a.example\"]\n"),
        |gateway| {
            refused(gateway, &target(), &[], 4009);
            told(gateway, MINE, "origin not allowed", &["it names no origin", "only *"]);
        },
    );
}

#[test]
fn a_quota_is_told_with_its_number_and_its_setting() {
    in_both_forms(
        |setup| setup.env("REVERB_APP_MAX_CONNECTIONS", "2"),
        |gateway| {
            let held = [Client::connect(gateway), Client::connect(gateway)];
            refused(gateway, &target(), &[], 4004);
            let facts = ["the app has 2 connections", "REVERB_APP_MAX_CONNECTIONS"];
            told(gateway, MINE, "over the app's connection quota", &facts);
            drop(held);
        },
    );
}

#[test]
fn a_lack_of_memory_is_told_with_what_to_raise() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            // With so little memory the start would be refused, so the limit is lowered by a
            // reload.
            reload::reloaded(gateway, "[server]\nmemory_limit = \"1M\"\n");
            eventually("a connection is refused", || {
                let mut client = Client::open(gateway, &target(), &[]);
                (client.next()["event"] == "pusher:error").then_some(())
            });
            let facts = ["4100 for lack of memory", "RINGWAVE_MEMORY_LIMIT"];
            told(gateway, None, "out of memory", &facts);
        },
    );
}

#[test]
fn a_full_shard_is_told_with_what_to_raise() {
    in_both_forms(
        |setup| setup.env("RINGWAVE_MAX_CONNECTIONS_PER_SHARD", "1"),
        |gateway| {
            let mut held = Vec::new();
            eventually("all slots are taken", || {
                let mut client = Client::open(gateway, &target(), &[]);
                let refused = client.next()["event"] == "pusher:error";
                held.push(client);
                refused.then_some(())
            });
            let facts = ["4100", "server.max_connections_per_shard"];
            told(gateway, None, "no free slot", &facts);
        },
    );
}

#[test]
fn a_limit_of_connections_per_address_is_told_with_the_address() {
    const HOST: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 3);
    in_both_forms(
        |setup| setup.env("RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS", "1"),
        |gateway| {
            let from = || gateway.tcp_from(HOST);
            let mut held = Client::over(from(), gateway, &target(), &[]);
            held.established();
            Client::over(from(), gateway, &target(), &[]).expect("pusher:error");
            let facts = ["its address has 1 connections", "server.trusted_proxies"];
            let line = told(gateway, None, "too many connections of one address", &facts);
            assert!(line.line.contains("127.9.0.3"), "{}", line.line);
            let silent: Vec<_> = (0..100).map(|_| from()).collect();
            let cause = "connections of one address closed without an answer";
            told(gateway, None, cause, &["its address has 1 connections"]);
            drop((held, silent));
        },
    );
}

#[test]
fn a_limit_of_requests_per_address_is_told_with_the_address() {
    in_both_forms(
        |setup| setup.env("RINGWAVE_MAX_REQUESTS_PER_ADDRESS", "1"),
        |gateway| {
            eventually("it is too fast", || {
                (Call::get("channels").send(gateway).status == 429).then_some(())
            });
            let facts = ["429", "more than 1 handshakes and requests per second"];
            let line = told(gateway, None, "too many requests of one address", &facts);
            assert!(line.line.contains("127.0.0.1"), "{}", line.line);
        },
    );
}

// ---- requests -----------------------------------------------------------------------------------

#[test]
fn requests_that_come_to_the_wrong_place_are_told_with_the_right_one() {
    in_both_forms(
        |setup| setup.flag("--path=/ws"),
        |gateway| {
            assert_eq!(status(gateway, "GET /healthz?token=5ec2e7 HTTP/1.1\r\nHost: it"), 404);
            let facts = ["404: GET \"/healthz\" is not served", "health checks to /ws/up"];
            let line = told(gateway, None, "unknown path", &facts);
            assert!(!line.line.contains("5ec2e7"), "{}", line.line);
            assert_eq!(status(gateway, "DELETE /up HTTP/1.1\r\nHost: it"), 405);
            told(gateway, None, "method not allowed", &["DELETE \"/up\"", "GET"]);
            assert_eq!(status(gateway, "GET /up HTTP/1.1"), 400);
            told(gateway, None, "not exactly one Host header", &["proxy_set_header Host"]);
            let plain = format!("GET /app/{KEY} HTTP/1.1\r\nHost: it");
            assert_eq!(status(gateway, &plain), 426);
            let facts = ["426", "proxy_set_header Upgrade $http_upgrade"];
            told(gateway, None, "no WebSocket handshake", &facts);
        },
    );
}

#[test]
fn an_unknown_app_id_is_told_with_the_apps_that_there_are() {
    in_both_forms(other_app, |gateway| {
        let path = "/apps/9999/channels".to_owned();
        assert_eq!(Call { path, ..Call::get("") }.send(gateway).status, 404);
        let facts =
            ["unknown app id 9999; ", "this server has 2 apps", APP_ID, "5822", "REVERB_APP_ID"];
        told(gateway, None, "unknown app id", &facts);
    });
}

#[test]
fn a_key_where_the_id_should_be_is_told_as_such() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let path = format!("/apps/{KEY}/channels");
            assert_eq!(Call { path, ..Call::get("") }.send(gateway).status, 404);
            told(gateway, None, "unknown app id", &["the key of an app and not its id"]);
        },
    );
}

#[test]
fn a_request_with_a_key_of_another_app_is_told_with_both_apps() {
    in_both_forms(other_app, |gateway| {
        let call = Call { key: "second-key-22".to_owned(), ..Call::get("channels") };
        assert_eq!(call.send(gateway).status, 401);
        let facts = ["signed with the key seco… of the app 5822", "whose key is it-…"];
        told(gateway, MINE, "request signed with another key", &facts);
    });
}

#[test]
fn a_request_with_an_old_key_is_told_with_the_one_of_the_app() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let call = Call { key: "last-years-key".to_owned(), ..Call::get("channels") };
            assert_eq!(call.send(gateway).status, 401);
            let facts = ["the key last…", "the app's key is it-…", "REVERB_APP_KEY"];
            told(gateway, MINE, "request signed with another key", &facts);
        },
    );
}

#[test]
fn a_wrong_request_signature_is_told_and_not_shown() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let call = Call { secret: "old".to_owned(), ..Call::get("channels") };
            let target = call.target();
            assert_eq!(call.send(gateway).status, 401);
            told(gateway, MINE, "wrong request signature", &["REVERB_APP_SECRET", "401"]);
            let (_, signature) = target.rsplit_once('=').unwrap();
            assert!(!gateway.log().contains(&signature[..16]));
        },
    );
}

#[test]
fn a_clock_that_is_off_is_told_with_whose_it_is_and_by_how_much() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let mut call =
                Call::post("events", &json!({ "name": "e", "channel": "c", "data": "1" }));
            call.timestamp -= 3660;
            assert_eq!(call.send(gateway).status, 401);
            let facts = ["signed 61 min ago by the clock of 127.0.0.1", "check NTP", "10 min"];
            told(gateway, MINE, "request signed too long ago", &facts);
        },
    );
}

#[test]
fn a_request_that_is_not_signed_is_told_with_what_is_missing() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let head = format!("GET /apps/{APP_ID}/channels HTTP/1.1\r\nHost: it");
            assert_eq!(status(gateway, &head), 401);
            let facts = ["The auth_key parameter is missing"];
            told(gateway, MINE, "request not signed as it has to be", &facts);
        },
    );
}

#[test]
fn a_body_that_is_too_large_is_told_with_its_size_and_the_setting() {
    in_both_forms(
        |setup| setup.env("REVERB_MAX_REQUEST_SIZE", "1000"),
        |gateway| {
            let event = json!({ "name": "e", "channel": "c", "data": "x".repeat(2000) });
            let call = Call::post("events", &event);
            let size = format!("its body has {} bytes, 1000 are allowed", call.body.len());
            assert_eq!(call.send(gateway).status, 413);
            told(gateway, MINE, "request too large", &[&size, "REVERB_MAX_REQUEST_SIZE"]);
        },
    );
}

#[test]
fn data_that_is_too_large_is_told_with_its_own_setting() {
    in_both_forms(
        |setup| setup.env("RINGWAVE_APP_MAX_EVENT_DATA", "10"),
        |gateway| {
            let event = json!({ "name": "e", "channel": "c", "data": "x".repeat(20) });
            assert_eq!(Call::post("events", &event).send(gateway).status, 413);
            told(gateway, MINE, "request too large", &["at most 10 bytes", "app.max_event_data"]);
        },
    );
}

#[test]
fn an_app_that_asks_too_fast_is_told_with_its_rate() {
    in_both_forms(
        |setup| setup.env("RINGWAVE_APP_MAX_REQUESTS_PER_SECOND", "1"),
        |gateway| {
            eventually("it is too fast", || {
                (Call::get("channels").send(gateway).status == 429).then_some(())
            });
            let facts = ["more than its 1 requests per second", "app.max_requests_per_second"];
            told(gateway, MINE, "over the app's rate of requests", &facts);
        },
    );
}

#[test]
fn a_request_that_is_not_valid_is_told_in_the_words_of_its_answer() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let event = json!({ "name": "e", "data": "1" });
            assert_eq!(Call::post("events", &event).send(gateway).status, 422);
            let facts = ["422", "The channels field is required when channel is not present."];
            told(gateway, MINE, "invalid request", &facts);
        },
    );
}

// ---- forging ------------------------------------------------------------------------------------

#[test]
fn bytes_of_strangers_forge_neither_fields_nor_lines() {
    in_both_forms(
        |setup| setup.toml("[app]\nallowed_origins = [\"a.example\"]\n"),
        |gateway| {
            let origin = "https://x\" app=\"forged\" cause=\"none\" \\";
            refused(gateway, &target(), &[("Origin", origin)], 4009);
            let line = told(gateway, MINE, "origin not allowed", &["not a scheme"]);
            let quoted = r#"the origin "https://x\" app=\"forged\" cause=\"none\" \\" is not"#;
            assert!(line.message.contains(quoted), "{}", line.line);
            let head = "GET /%0a%e2%80%ae\u{1b}x HTTP/1.1\r\nHost: it";
            sent(gateway, format!("{head}\r\nConnection: close\r\n\r\n").as_bytes());
            let log = gateway.log();
            assert!(!log.contains('\u{1b}') && !log.contains('\u{202e}'), "{log}");
        },
    );
}

#[test]
fn one_that_is_let_in_leaves_no_warning() {
    in_both_forms(
        |setup| setup,
        |gateway| {
            let mut raw = Raw::open(gateway, raw::handshake().as_bytes());
            raw.established();
            raw.stream.set_read_timeout(Some(DEADLINE)).unwrap();
            Call::get("channels").ok(gateway);
            assert_eq!(Call::get("channels/presence-x/users").send(gateway).status, 404);
            drop(raw);
            crate::http::until_connected(gateway, 0);
            assert_eq!(warnings(gateway).len(), 0, "{}", gateway.log());
        },
    );
}
