use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::client::Client;
use crate::gateway::{DEADLINE, Setup, served, served_with};
use crate::http::{Call, Http};
use crate::raw;

fn event(data: usize) -> Call {
    Call::post("events", &json!({ "name": "e", "channel": "c", "data": data.to_string() }))
}

/// The same request with its body in chunks.
fn chunked(call: &Call, chunk: usize) -> Vec<u8> {
    let mut bytes = call.head().into_bytes();
    bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
    for part in call.body.chunks(chunk) {
        bytes.extend(format!("{:x}\r\n", part.len()).bytes());
        bytes.extend(part);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[test]
fn a_connection_is_kept_for_any_number_of_requests() {
    served(|gateway| {
        let mut client = Client::subscribed(gateway, "c");
        let mut http = Http::over(gateway.tcp());
        for data in 0..50 {
            http.send(&event(data).bytes());
            let response = http.response();
            assert_eq!(response.status, 200);
            assert_ne!(response.header("connection"), Some("close"));
            assert!(response.header("date").is_some());
            client.expect_event("c", "e", &data.to_string());
        }
        // Errors do not end the connection either.
        http.send(&Call { secret: String::new(), ..event(0) }.bytes());
        assert_eq!(http.response().status, 401);
        http.send(&Call::post_text("events", "{").bytes());
        assert_eq!(http.response().status, 400);
        http.send(&Call::get("channels").bytes());
        assert_eq!(http.response().status, 200);
    });
}

#[test]
fn the_connection_ends_where_the_client_says_so() {
    served(|gateway| {
        let mut http = Http::over(gateway.tcp());
        http.send(&event(1).header("Connection: close").bytes());
        let responses = http.responses();
        assert_eq!(responses.len(), 1);
        assert_eq!(responses[0].header("connection"), Some("close"));
        let mut http = Http::over(gateway.tcp());
        http.send(b"GET /up HTTP/1.0\r\n\r\n");
        assert_eq!(http.responses().len(), 1);
        let mut http = Http::over(gateway.tcp());
        http.send(b"GET /up HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(http.response().status, 200);
        http.send(b"GET /up HTTP/1.0\r\n\r\n");
        assert_eq!(http.responses().len(), 1);
    });
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    served(|gateway| {
        let mut client = Client::subscribed(gateway, "c");
        let mut http = Http::over(gateway.tcp());
        let mut all = Vec::new();
        for data in 0..100 {
            all.extend(event(data).bytes());
            all.extend(Call::get(&format!("channels/c{data}")).bytes());
            all.extend(chunked(&Call::post_text("events", "{"), 1));
        }
        all.extend(Call::get("nothing").header("Connection: close").bytes());
        let mut writer = http.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| std::io::Write::write_all(&mut writer, &all).unwrap());
            for data in 0..100 {
                assert_eq!(http.response().status, 200);
                assert_eq!(http.response().json(), json!({ "occupied": false }));
                assert_eq!(http.response().status, 400);
                client.expect_event("c", "e", &data.to_string());
            }
            assert_eq!(http.responses().iter().map(|of| of.status).collect::<Vec<_>>(), [404]);
        });
    });
}

#[test]
fn a_request_may_come_in_any_pieces() {
    served(|gateway| {
        let bytes = event(1).bytes();
        let mut http = Http::over(gateway.tcp());
        for cut in 1..bytes.len() {
            http.send(&bytes[..cut]);
            // Without this the two parts would likely be read at once.
            std::thread::yield_now();
            http.send(&bytes[cut..]);
            assert_eq!(http.response().status, 200, "cut at {cut}");
        }
        bytes.chunks(1).for_each(|byte| http.send(byte));
        assert_eq!(http.response().status, 200);
    });
}

#[test]
fn chunked_bodies_are_taken_and_signed_as_a_whole() {
    served(|gateway| {
        let mut client = Client::subscribed(gateway, "c");
        let mut http = Http::over(gateway.tcp());
        for chunk in [1, 2, 7, 1000] {
            http.send(&chunked(&event(chunk), chunk));
            assert_eq!(http.response().status, 200);
            client.expect_event("c", "e", &chunk.to_string());
        }
        let bytes = chunked(&event(5), 3);
        bytes.chunks(1).for_each(|byte| http.send(byte));
        assert_eq!(http.response().status, 200);
        let extended = String::from_utf8(chunked(&event(6), 1000)).unwrap();
        let extended = extended.replace("\r\n0\r\n\r\n", "\r\n0;ext=1\r\nTrailer: x\r\n\r\n");
        http.send(extended.as_bytes());
        assert_eq!(http.response().status, 200);
    });
}

#[test]
fn a_chunked_body_over_the_limit_is_413_and_ends_the_connection() {
    served_with(
        |setup| setup.env("REVERB_MAX_REQUEST_SIZE", "1000"),
        |gateway| {
            let call = Call::post_text("events", &"x".repeat(5000));
            let mut http = Http::over(gateway.tcp());
            http.send(&chunked(&call, 100));
            http.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
            let responses = http.responses();
            assert_eq!(responses.iter().map(|of| of.status).collect::<Vec<_>>(), [413]);
        },
    );
}

#[test]
fn a_request_that_expects_100_continue_gets_it_before_its_body_is_sent() {
    served(|gateway| {
        let call = event(1).header("Expect: 100-continue");
        let bytes = call.bytes();
        let (head, body) = bytes.split_at(bytes.len() - call.body.len());
        let mut http = Http::over(gateway.tcp());
        for _ in 0..3 {
            http.send(head);
            assert_eq!(http.response().status, 100);
            http.send(body);
            assert_eq!(http.response().status, 200);
        }
        let mut http = Http::over(gateway.tcp());
        let large = Call::post_text("events", &"x".repeat(200_000)).header("Expect: 100-continue");
        let bytes = large.bytes();
        http.send(&bytes[..bytes.len() - large.body.len()]);
        assert_eq!(http.response().status, 413, "it need not be sent at all");
    });
}

#[test]
fn plain_requests_with_connection_upgrade_are_plain_requests() {
    served(|gateway| {
        let mut http = Http::over(gateway.tcp());
        for headers in [&["Connection: Upgrade"][..], &["Connection: upgrade", "Upgrade:"]] {
            let with = |call: Call| headers.iter().fold(call, |call, line| call.header(line));
            http.send(&with(event(1)).bytes());
            assert_eq!(http.response().status, 200);
            http.send(&with(Call::get("channels")).bytes());
            assert_eq!(http.response().status, 200);
            http.send(&chunked(&with(event(1)), 10));
            assert_eq!(http.response().status, 200);
        }
    });
}

#[test]
fn an_upgrade_to_anything_else_leaves_http_as_it_is() {
    served(|gateway| {
        let mut http = Http::over(gateway.tcp());
        for upgrade in ["Upgrade: h2c", "Upgrade: websocket"] {
            http.send(&event(1).header("Connection: Upgrade").header(upgrade).bytes());
            assert_eq!(http.response().status, 200);
        }
    });
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    served(|gateway| {
        let mut http = Http::over(gateway.tcp());
        for _ in 0..2 {
            http.send(&Call { method: "HEAD", ..Call::get("channels") }.bytes());
            let head = http.head_response().to_lowercase();
            assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
            assert!(head.contains("content-length: 15\r\n"), "{head}");
        }
        http.send(b"HEAD /up HTTP/1.1\r\nHost: it\r\n\r\n");
        assert!(http.head_response().starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn a_client_that_ends_its_direction_gets_its_answers() {
    served(|gateway| {
        let mut http = Http::over(gateway.tcp());
        http.send(&[event(1).bytes(), event(2).bytes()].concat());
        http.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let responses = http.responses();
        assert_eq!(responses.iter().map(|of| of.status).collect::<Vec<_>>(), [200, 200]);
    });
}

#[test]
fn a_request_that_stops_in_the_middle_is_not_carried_out() {
    served(|gateway| {
        let mut client = Client::subscribed(gateway, "c");
        for bytes in [event(1).bytes(), chunked(&event(1), 10)] {
            let mut http = Http::over(gateway.tcp());
            http.send(&bytes[..bytes.len() - 1]);
            http.stream.shutdown(std::net::Shutdown::Write).unwrap();
            let statuses: Vec<_> = http.responses().iter().map(|of| of.status).collect();
            assert!(statuses.is_empty() || statuses == [400], "{statuses:?}");
        }
        event(2).ok(gateway);
        client.expect_event("c", "e", "2");
    });
}

#[test]
fn an_invalid_handshake_is_answered_with_what_is_wrong() {
    served(|gateway| {
        let good = raw::handshake();
        let table = [
            ("Upgrade: websocket\r\n", "", 426),
            ("Upgrade: websocket", "Upgrade: h2c", 400),
            ("Connection: Upgrade", "Connection: keep-alive", 400),
            ("Connection: Upgrade\r\n", "", 400),
            ("Sec-WebSocket-Version: 13\r\n", "", 426),
            ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426),
            ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13, 8", 426),
            (raw::NONCE, "", 400),
            (raw::NONCE, "c2hvcnQ=", 400),
            (raw::NONCE, "dGhlIHNhbXBsZSBub25jZSE=x", 400),
            ("GET ", "POST ", 405),
            ("HTTP/1.1", "HTTP/1.0", 400),
            ("Host: it", "Host: it\r\nContent-Length: 1", 400),
            ("Host: it", "Host: it\r\nTransfer-Encoding: chunked", 400),
        ];
        for (from, to, status) in table {
            let mut http = Http::over(gateway.tcp());
            http.send(good.replacen(from, to, 1).as_bytes());
            let response = http.response();
            assert_eq!(response.status, status, "{from} -> {to}: {}", response.text());
            assert!(!response.text().is_empty());
            let version = response.header("sec-websocket-version");
            assert_eq!(version, from.contains("Version").then_some("13"));
            assert_eq!(response.header("upgrade"), (status == 426).then_some("websocket"));
        }
        let two_keys = format!("Sec-WebSocket-Key: {}\r\n\r\n", raw::NONCE);
        let mut http = Http::over(gateway.tcp());
        http.send(good.replacen("\r\n\r\n", &format!("\r\n{two_keys}"), 1).as_bytes());
        assert_eq!(http.response().status, 400);
    });
}

#[test]
fn the_tokens_of_a_handshake_may_be_written_in_any_way_that_http_allows() {
    served(|gateway| {
        let good = raw::handshake();
        for (from, to) in [
            ("Upgrade: websocket", "upgrade: WebSocket"),
            ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
            ("Connection: Upgrade", "Connection: keep-alive\r\nconnection: ,upgrade"),
            ("Upgrade: websocket", "Upgrade: h2c, websocket"),
            ("Sec-WebSocket-Key: ", "sec-websocket-key:    "),
            ("GET /", "GET http://it/"),
        ] {
            raw::Raw::open(gateway, good.replacen(from, to, 1).as_bytes()).established();
        }
    });
}

#[test]
fn a_unix_socket_serves_the_same() {
    let listening = |setup: Setup| {
        let tcp = format!("--listen=tcp://{}", setup.address());
        let unix = format!("--listen=unix://{}", setup.path("gateway.sock").display());
        setup.flag(&tcp).flag(&unix)
    };
    served_with(listening, |gateway| {
        let connect = || {
            let stream = UnixStream::connect(gateway.path("gateway.sock")).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream
        };
        let mut http = Http::over(connect());
        for data in 0..20 {
            http.send(&event(data).bytes());
            assert_eq!(http.response().status, 200);
        }
        let mut client = Client::subscribed(gateway, "c");
        let uri = format!("ws://it{}", crate::client::target());
        let sockets: Vec<_> = (0..10)
            .map(|_| {
                let (mut socket, _) = tungstenite::client(&uri, connect()).unwrap();
                assert!(socket.read().unwrap().to_text().unwrap().contains("established"));
                let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#;
                socket.send(tungstenite::Message::text(subscribe)).unwrap();
                assert!(socket.read().unwrap().to_text().unwrap().contains("succeeded"));
                socket
            })
            .collect();
        event(7).ok(gateway);
        client.expect_event("c", "e", "7");
        for mut socket in sockets {
            assert!(socket.read().unwrap().to_text().unwrap().contains(r#""data":"7""#));
        }
    });
}

#[test]
fn heads_over_the_limit_are_refused() {
    served(|gateway| {
        let long = "x".repeat(60_000);
        let many = "H:x\r\n".repeat(2_048);
        for head in [
            format!("GET /up HTTP/1.1\r\nHost: it\r\nX: {long}\r\n\r\n"),
            format!("GET /up HTTP/1.1\r\nHost: it\r\n{many}\r\n"),
            format!("GET /{long} HTTP/1.1\r\nHost: it\r\n\r\n"),
            format!("GET /up HTTP/1.1\r\nHost: it\r\n{}", "a".repeat(1_000_000)),
        ] {
            let mut http = Http::over(gateway.tcp());
            http.send(head.as_bytes());
            let statuses: Vec<_> = http.responses().iter().map(|of| of.status).collect();
            assert!(matches!(statuses[..], [431 | 414 | 400]), "{statuses:?}");
        }
    });
}

#[test]
fn a_head_that_trickles_is_cut_at_its_deadline() {
    served_with(
        |setup| setup.env("RINGWAVE_HEADER_TIMEOUT", "1"),
        |gateway| {
            let started = std::time::Instant::now();
            let mut slow = Http::over(gateway.tcp());
            slow.send(b"GET /up HTTP/1.1\r\n");
            let mut writer = slow.stream.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    while std::io::Write::write_all(&mut writer, b"X").is_ok() {
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                });
                let statuses: Vec<_> = slow.responses().iter().map(|of| of.status).collect();
                assert!(statuses.is_empty() || statuses == [408], "{statuses:?}");
            });
            assert!(started.elapsed() >= std::time::Duration::from_millis(900));
            assert!(started.elapsed() < DEADLINE);
        },
    );
}
