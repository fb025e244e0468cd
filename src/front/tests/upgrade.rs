//! The way from HTTP to a WebSocket: the handshake, the handover, the refusals.

use std::time::Instant;

use super::*;
use crate::protocol::close::{ProtocolError, refusal_frames};
use crate::protocol::origin::Origins;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const HANDSHAKE: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";

/// A handshake for this target with these headers besides the needed ones.
fn opening(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n{HANDSHAKE}{KEY}{headers}\r\n").into_bytes()
}

/// A message that a client sends behind its handshake.
const BEHIND: &str = "a message that comes right behind";

fn frames() -> Vec<u8> {
    masked(BEHIND)
}

/// The connection of a client behind its 101.
fn opened(address: SocketAddr, target: &str, headers: &str) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(&opening(target, headers)).unwrap();
    assert_eq!(read_response(&mut stream).status, 101, "{target} {headers}");
    stream
}

fn read_bytes(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_answer_is_the_one_of_rfc_6455_and_agrees_on_nothing_more() {
    with_front(FakeShard::new(two_apps()), Settings::default(), |address| {
        let mut stream = connect(address);
        let offers = "Sec-WebSocket-Protocol: pusher\r\n\
                      Sec-WebSocket-Extensions: permessage-deflate\r\n";
        stream.write_all(&opening("/app/app-key?protocol=7&client=js", offers)).unwrap();
        let reply = read_response(&mut stream);
        assert_eq!(reply.status, 101);
        assert_eq!(reply.header("upgrade"), Some("websocket"));
        assert_eq!(reply.header("connection"), Some("Upgrade"));
        assert_eq!(reply.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for header in ["sec-websocket-protocol", "sec-websocket-extensions", "content-length"] {
            assert_eq!(reply.header(header), None, "{header}");
        }
    });
}

#[test]
fn no_byte_behind_the_handshake_is_lost_wherever_the_stream_is_cut() {
    with_front(FakeShard::new(two_apps()), Settings::default(), |address| {
        let sent = [opening("/app/app-key", ""), frames()].concat();
        for split in 0..=sent.len() {
            let mut stream = connect(address);
            stream.write_all(&sent[..split]).unwrap();
            stream.write_all(&sent[split..]).unwrap();
            assert_eq!(read_response(&mut stream).status, 101, "cut at {split}");
            let answer = echoed(BEHIND);
            assert_eq!(read_bytes(&mut stream, answer.len()), answer, "cut at {split}");
        }
    });
}

#[test]
fn a_client_that_waits_for_the_server_to_speak_first_is_handed_over() {
    let shard = FakeShard::new(two_apps());
    let switches = Arc::clone(&shard.switches);
    with_front(shard, Settings::default(), move |address| {
        let silent = opened(address, "/app/app-key", "");
        let begun = Instant::now();
        while switches.adopted.load(Ordering::SeqCst) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(5), "a read of the front's is in flight");
            thread::yield_now();
        }
        drop(silent);
    });
}

#[test]
fn an_upgrade_may_follow_requests_on_the_same_connection() {
    with_front(FakeShard::new(two_apps()), Settings::default(), |address| {
        let mut stream = connect(address);
        let up = b"GET /up HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
        stream.write_all(&[up, opening("/app/app-key", ""), frames()].concat()).unwrap();
        assert_eq!(read_response(&mut stream).status, 200);
        assert_eq!(read_response(&mut stream).status, 101);
        assert_eq!(read_bytes(&mut stream, echoed(BEHIND).len()), echoed(BEHIND));
        stream.write_all(&masked("later")).unwrap();
        assert_eq!(read_bytes(&mut stream, echoed("later").len()), echoed("later"));
    });
}

#[test]
fn bad_handshakes_are_answered_in_http_and_never_twice() {
    let wanted = |method: &str, version: &str, headers: &str| {
        format!("{method} /app/app-key HTTP/{version}\r\nHost: h\r\n{headers}\r\n")
    };
    let no_key = wanted("GET", "1.1", HANDSHAKE);
    let bad_key = wanted("GET", "1.1", &format!("{HANDSHAKE}Sec-WebSocket-Key: short\r\n"));
    let old = wanted("GET", "1.1", &format!("{HANDSHAKE}{KEY}").replace("13", "8"));
    let other = wanted("GET", "1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n");
    let http10 = wanted("GET", "1.0", &format!("{HANDSHAKE}{KEY}"));
    let body = wanted("GET", "1.1", &format!("{HANDSHAKE}{KEY}Content-Length: 3\r\n")) + "abc";
    let table = [
        (wanted("GET", "1.1", ""), 426),
        (wanted("GET", "1.1", "Connection: Upgrade\r\n"), 426),
        (no_key, 400),
        (bad_key, 400),
        (old, 426),
        (other, 400),
        (http10, 400),
        (body, 400),
        (wanted("POST", "1.1", &format!("{HANDSHAKE}{KEY}")), 405),
    ];
    with_front(FakeShard::new(two_apps()), Settings::default(), move |address| {
        for (request, status) in table {
            let behind = "GET /up HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            let answer = exchange(address, [&request, behind].concat().as_bytes());
            assert_eq!(answer[9..12].parse(), Ok(status), "{request}{answer}");
            // A POST is a request like any other, and what follows it another one.
            let answers = if status == 405 { 2 } else { 1 };
            let dates = answer.matches("\ndate: ").count();
            assert_eq!(dates, answers, "one of each answer: {request}{answer}");
            let named = answer.contains("sec-websocket-version: 13\r\n");
            assert_eq!(named, request.contains("Version: 8"), "{answer}");
        }
    });
}

/// The refusal arrives whole, then the end of the stream, whatever the client still sends.
fn assert_refused(address: SocketAddr, target: &str, headers: &str, error: ProtocolError) {
    for behind in [Vec::new(), frames()] {
        let mut stream = connect(address);
        stream.write_all(&[opening(target, headers), behind].concat()).unwrap();
        assert_eq!(read_response(&mut stream).status, 101, "{target} {headers}");
        let frames = refusal_frames(error);
        assert_eq!(read_bytes(&mut stream, frames.len()), *frames.bytes(), "{target} {headers}");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{target} {headers}");
    }
}

#[test]
fn refused_clients_are_told_why_and_closed() {
    let mut app = test_app();
    app.allowed_origins = Origins::parse(&["https://good.example".into()]).unwrap();
    let shard = FakeShard::new(vec![app]);
    let switches = Arc::clone(&shard.switches);
    with_front(shard, Settings::default(), move |address| {
        let good = "Origin: https://good.example\r\n";
        let twice = [good, good].concat();
        let bad = "Origin: https://good.example.evil.example\r\n";
        let key = "/app/app-key";
        assert_refused(address, "/app/unknown", good, ProtocolError::UnknownApp);
        assert_refused(
            address,
            "/app/app-key?protocol=99",
            good,
            ProtocolError::UnsupportedVersion,
        );
        for headers in ["", bad, &twice] {
            assert_refused(address, key, headers, ProtocolError::OriginRefused);
        }
        switches.full.store(true, Ordering::SeqCst);
        assert_refused(address, key, good, ProtocolError::OverCapacity);
        switches.draining.store(true, Ordering::SeqCst);
        assert_refused(address, key, good, ProtocolError::ShuttingDown);
        switches.full.store(false, Ordering::SeqCst);
        switches.short_of_memory.store(1, Ordering::SeqCst);
        assert_refused(address, key, good, ProtocolError::ShuttingDown);
        switches.draining.store(false, Ordering::SeqCst);
        assert_refused(address, key, good, ProtocolError::OverCapacity);
        switches.short_of_memory.store(0, Ordering::SeqCst);
        switches.draining.store(false, Ordering::SeqCst);
        drop(opened(address, key, good));
    });
}

#[test]
fn the_quota_counts_open_websockets_and_refused_ones_give_nothing_away() {
    let shard = FakeShard::new(vec![App { max_connections: Some(2), ..test_app() }]);
    let apps = shard.apps();
    let app = apps.by_id("app-id").unwrap();
    let counted = Arc::clone(app);
    let switches = Arc::clone(&shard.switches);
    with_front(shard, Settings::default(), move |address| {
        let open = || counted.counters.connections();
        let (first, second) =
            (opened(address, "/app/app-key", ""), opened(address, "/app/app-key", ""));
        assert_eq!(open(), 2);
        assert_refused(address, "/app/app-key", "", ProtocolError::OverQuota);
        switches.quota_unknown.store(true, Ordering::SeqCst);
        assert_refused(address, "/app/app-key", "", ProtocolError::QuotaUnknown);
        assert_eq!(open(), 2);
        drop(first);
        while open() == 2 {
            thread::yield_now();
        }
        let third = opened(address, "/app/app-key", "");
        assert_eq!(open(), 2);
        drop((second, third));
        while open() > 0 {
            thread::yield_now();
        }
    });
}

#[test]
fn a_prefix_and_an_encoded_key_lead_to_the_same_app() {
    let settings = Settings { path_prefix: "/ws".into(), ..Settings::default() };
    with_front(FakeShard::new(two_apps()), settings, |address| {
        for target in ["/ws/app/app-key", "/app/app%2Dkey?protocol=5"] {
            let mut stream = opened(address, target, "");
            stream.write_all(&masked("echo")).unwrap();
            assert_eq!(read_bytes(&mut stream, 6), echoed("echo"), "{target}");
        }
    });
}
