//! Bugs of WebSocket and HTTP servers and of the proxies in front of them.
//!
//! Some bugs cannot exist here: there is no cache of answers (pingora CVE-2026-2836), no change of
//! the user after a ring was made (Node CVE-2024-22017), no URL that is made of a client's claims
//! (Centrifugo CVE-2026-32301), and no memory that was never written (ws 8.20.1).

use std::io::Write;
use std::time::{Duration, Instant};

use crate::client::{Client, target};
use crate::gateway::{APP_ID, DEADLINE, Setup, served, served_with};
use crate::http::{Call, Http, publish, until_connected};
use crate::raw::{self, CLOSE, CONTINUATION, PING, PONG, Raw, TEXT};

/// nats-server CVE-2026-27889: a 64-bit length with its top bit set was negative, and ended in a
/// panic.
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

/// nats-server CVE-2026-27571 and 409d394aa: compressed frames, as bombs or empty. This server
/// never agrees on compression, so the bit of a compressed frame is a violation.
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

/// nats-server 036aa3aab: neither the length nor the code of a Close frame was checked.
#[test]
fn nats_036aa3aab_a_close_frame_is_held_to_its_form() {
    served(|gateway| {
        let reason = |len: usize| [&1000_u16.to_be_bytes()[..], &vec![b'x'; len]].concat();
        for payload in [vec![3], vec![0, 0], 1005_u16.to_be_bytes().into(), reason(124)] {
            let mut raw = Raw::connect(gateway);
            raw.send(&raw::frame(0x80 | CLOSE, &payload));
            raw.expect_close(1002);
        }
        let mut raw = Raw::connect(gateway);
        raw.send(&raw::frame(0x80 | CLOSE, &[3, 232, 0xff]));
        raw.expect_close(1007);
        for payload in [Vec::new(), reason(0), reason(123)] {
            let mut raw = Raw::connect(gateway);
            raw.send(&raw::frame(0x80 | CLOSE, &payload));
            let answer = raw.frame().unwrap();
            assert_eq!((answer.opcode, answer.payload.get(..2)), (CLOSE, payload.get(..2)));
        }
    });
}

/// nats-server baec9e86e: any text was taken as `Sec-WebSocket-Key`.
#[test]
fn nats_baec9e86e_a_key_is_16_bytes_in_base64() {
    served(|gateway| {
        for key in
            ["", "x", "dGhlIHNhbXBsZQ==", "dGhlIHNhbXBsZSBub25jZQ", "????????????????????????"]
        {
            let mut http = Http::over(gateway.tcp());
            http.send(raw::handshake().replace(raw::NONCE, key).as_bytes());
            assert_eq!(http.response().status, 400, "{key:?}");
        }
    });
}

/// nats-server 0f2ddacec and 6ffaacdc6: only the host of an origin was compared.
#[test]
fn nats_0f2ddacec_an_origin_is_scheme_host_and_port() {
    served_with(
        |setup| setup.env("RINGWAVE_ALLOWED_ORIGINS", "https://good.test:8443"),
        |gateway| {
            let open = |origin| Client::open(gateway, &target(), &[("Origin", origin)]);
            for other in ["http://good.test:8443", "https://good.test", "https://good.test:443"] {
                open(other).expect_refusal(4009, "Origin not allowed");
            }
            open("https://good.test:8443").established();
        },
    );
}

/// nats-server dc6827ade and fcc826057: upgrades of other paths and upgrades that fail ended in
/// panics.
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

/// ws 8.17.1: a request with more headers than the server takes ended it.
#[test]
fn ws_8_17_1_too_many_headers_end_their_own_connection_only() {
    served(|gateway| {
        let mut witness = Client::connect(gateway);
        let with_more = |count| {
            let lines = "H:x\r\n".repeat(count);
            raw::handshake().replacen("\r\n", &format!("\r\n{lines}"), 1)
        };
        // The handshake has five headers of its own.
        Raw::open(gateway, with_more(2_043).as_bytes()).established();
        for count in [2_044, 3_000, 5_000] {
            let mut http = Http::over(gateway.tcp());
            http.send(with_more(count).as_bytes());
            assert_eq!(http.response().status, 431, "{count}");
        }
        witness.expect_nothing();
    });
}

/// ws 7.4.6: the time for `Sec-WebSocket-Protocol` was quadratic in the number of its blanks.
#[test]
fn ws_7_4_6_a_list_of_protocols_costs_linear_time() {
    served(|gateway| {
        let started = Instant::now();
        for blanks in [1, 1000, 14_000] {
            for value in [format!("a{}b", " ".repeat(blanks)), " ,".repeat(blanks / 2)] {
                let line = format!("\r\nSec-WebSocket-Protocol: {value}\r\n");
                let mut http = Http::over(gateway.tcp());
                http.send(raw::handshake().replacen("\r\n", &line, 1).as_bytes());
                assert_eq!(http.response().status, 101, "{blanks}");
            }
        }
        assert!(started.elapsed() < DEADLINE);
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

/// pingora CVE-2026-2835: bodies whose end two readers saw in different places.
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

/// pingora CVE-2025-4366, and uWebSockets: the rest of a body became the next request.
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
        // These send one byte of body per 1000 of extension, until the server no longer reads.
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

/// Redis CVE-2025-21605: the output for a client that had not authenticated grew without bound.
#[test]
fn redis_cve_2025_21605_answers_that_are_not_read_are_bounded() {
    let impatient = |setup: Setup| {
        setup.env("REVERB_APP_PING_INTERVAL", "1").env("RINGWAVE_APP_PONG_TIMEOUT", "1")
    };
    served_with(impatient, |gateway| {
        let mut raw = Raw::connect(gateway);
        raw.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let before = gateway.rss();
        let flood = raw::text("malformed").repeat(1000);
        let started = Instant::now();
        while raw.stream.write_all(&flood).is_ok() && started.elapsed() < DEADLINE {}
        // The receive buffers become resident, and the answers to the client's share of a turn.
        // Nothing more is read from it while it does not read them.
        let grown = gateway.rss().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes");
        until_connected(gateway, 0);
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
