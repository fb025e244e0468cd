use std::net::Shutdown;
use std::thread;

use serde_json::json;

use crate::gateway::{APP_ID, Gateway, KEY, Setup, eventually};
use crate::http::{Call, Http, Response};
use crate::left_out::left_out;

/// Connections of an attack: each takes a descriptor of this process and a slot of the gateway.
const CONNECTIONS: usize = 1_400;

/// The bytes that are sent of a body that is announced as one byte more: 139 MB on all connections.
const BODY: usize = 99_500;

/// The largest body that the app takes, above that of the attack.
const REQUEST_SIZE_MAX: usize = 100_000;

/// Whether this process can open so many connections.
fn connections_can_be_had() -> bool {
    let nofile = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let enough = nofile.is_none_or(|nofile| nofile >= 3_000);
    if !enough {
        left_out("this needs 3,000 descriptors (ulimit -n)");
    }
    enough
}

fn started() -> Gateway {
    let size = REQUEST_SIZE_MAX.to_string();
    Setup::new(1).env("REVERB_MAX_REQUEST_SIZE", &size).start()
}

fn published(gateway: &Gateway) -> Response {
    let data = "x".repeat(8_000);
    Call::post("events", &json!({ "name": "e", "channel": "c", "data": data })).send(gateway)
}

/// Opens connections that have sent these bytes.
fn opened(gateway: &Gateway, bytes: &[u8]) -> Vec<Http<std::net::TcpStream>> {
    let open = |_| {
        let mut http = Http::over(gateway.tcp());
        http.send(bytes);
        http
    };
    (0..CONNECTIONS).map(open).collect()
}

/// The growth of the gateway's memory during `attack`, at its peak, in bytes.
fn grown(gateway: &Gateway, attack: impl FnOnce() + Send) -> usize {
    let before = gateway.rss();
    let mut most = before;
    thread::scope(|scope| {
        let attacking = scope.spawn(attack);
        while !attacking.is_finished() {
            most = most.max(gateway.rss());
            thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    most.max(gateway.rss()) - before
}

#[test]
fn bodies_that_nobody_has_signed_take_nothing_from_those_that_are() {
    let _alone = crate::alone();
    if !connections_can_be_had() {
        return;
    }
    let gateway = started();
    assert_eq!(published(&gateway).status, 200);
    let head = format!(
        "POST /apps/{APP_ID}/events?auth_key={KEY} HTTP/1.1\r\nHost: it\r\n\
         Content-Length: {}\r\n\r\n",
        BODY + 1
    );
    let request = [head.into_bytes(), vec![b'x'; BODY]].concat();
    let grown = grown(&gateway, || {
        let mut held = opened(&gateway, &request);
        for _ in 0..50 {
            assert_eq!(published(&gateway).status, 200);
        }
        for http in &mut held {
            let refused = http.response();
            // For some, the second is over: they are reset because they send to a closed socket.
            assert!(matches!(refused.status, 0 | 401), "{}", refused.text());
        }
        assert_eq!(published(&gateway).status, 200);
    });
    // They have sent 139 MB. Each is a connection for the second that it has, with the buffers of
    // its socket and of hyper for the part of its body that passes through: 24 to 34 kB.
    let each = grown / CONNECTIONS;
    assert!(each < BODY / 2, "{each} bytes for each request that is not signed");
}

#[test]
fn half_a_head_holds_less_than_16_kb() {
    let _alone = crate::alone();
    if !connections_can_be_had() {
        return;
    }
    for (name, first, second) in [
        ("no head", &b""[..], &b""[..]),
        ("half a head", b"GET /up HTTP/1.1\r\nHost: it\r\nX: ", b""),
        ("half a head in pieces", b"GET /up HTTP/1.1\r\nHost: it\r\nX: ", b"yyyyyyyyyyyyyyyy"),
        ("half the second head", b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n", b"GET /up HTTP/1.1\r\nX"),
    ] {
        // The deadline of a head is later than the end of all this.
        let gateway = Setup::new(1).env("RINGWAVE_HEADER_TIMEOUT", "300").start();
        let before = gateway.rss();
        let mut held = opened(&gateway, first);
        if first.ends_with(b"\r\n\r\n") {
            held.iter_mut().for_each(|http| assert_eq!(http.response().status, 200));
        }
        held.iter_mut().for_each(|http| http.send(second));
        // The gateway has read everything when it answers the last request.
        for _ in 0..3 {
            assert_eq!(Call::get("channels").send(&gateway).status, 200);
        }
        let accepted = || (gateway.sockets() >= CONNECTIONS).then_some(());
        eventually("all are accepted", accepted);
        let each = (gateway.rss() - before) / CONNECTIONS;
        eprintln!("{name}: {each} bytes");
        assert!(each < 16_000, "{name}: {each} bytes");
    }
}

#[test]
fn answers_that_are_never_read_hold_little_memory() {
    let _alone = crate::alone();
    const READERS: usize = 100;
    let gateway = started();
    // Each request, signed or not, is answered with about 200 bytes.
    let requests = "GET /nothing HTTP/1.1\r\nHost: it\r\n\r\n".repeat(2_000);
    let grown = grown(&gateway, || {
        let held: Vec<_> = (0..READERS).map(|_| gateway.tcp()).collect();
        for stream in &held {
            // These are as many as are taken at once, because the answers before the rest hold it
            // up.
            stream.set_nonblocking(true).unwrap();
        }
        for _ in 0..100 {
            for mut stream in &held {
                let _full = std::io::Write::write(&mut stream, requests.as_bytes());
            }
        }
        assert_eq!(published(&gateway).status, 200);
        held.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    });
    let each = grown / READERS;
    eprintln!("unread answers: {each} bytes");
    assert!(each < 64 << 10, "{each} bytes for each client that does not read");
}

#[test]
fn requests_behind_a_slow_one_wait_in_its_socket() {
    let _alone = crate::alone();
    const SENDERS: usize = 100;
    let gateway = started();
    let call = Call::post("events", &json!({ "name": "e", "channel": "c", "data": "1" }));
    // The last byte of this request never comes.
    let bytes = call.bytes();
    let slow = &bytes[..bytes.len() - 1];
    let behind = "GET /up HTTP/1.1\r\nHost: it\r\n\r\n".repeat(2_000);
    let grown = grown(&gateway, || {
        let held: Vec<_> = (0..SENDERS).map(|_| gateway.tcp()).collect();
        for mut stream in &held {
            std::io::Write::write_all(&mut stream, slow).unwrap();
        }
        for _ in 0..20 {
            for mut stream in &held {
                stream.set_nonblocking(true).unwrap();
                let _full = std::io::Write::write(&mut stream, behind.as_bytes());
            }
        }
        assert_eq!(published(&gateway).status, 200);
    });
    let each = grown / SENDERS;
    eprintln!("requests behind a slow one: {each} bytes");
    assert!(each < 64 << 10, "{each} bytes for each client that sends ahead");
}
