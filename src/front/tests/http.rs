//! HTTP/1.1 itself: connections, messages, limits and deadlines.

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use super::*;

const UP: &str = "GET /up HTTP/1.1\r\nHost: h\r\n\r\n";
const UP_LAST: &str = "GET /up HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const HEALTHY: &str = r#"{"health":"OK"}"#;

fn shard() -> FakeShard {
    FakeShard::new(two_apps())
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    with_front(shard(), Settings::default(), |address| {
        let mut stream = connect(address);
        for _ in 0..3 {
            stream.write_all(UP.as_bytes()).unwrap();
            let reply = read_response(&mut stream);
            assert_eq!((reply.status, reply.body.as_str()), (200, HEALTHY));
            assert_eq!(reply.header("content-type"), Some("application/json"));
        }
        stream.write_all(UP_LAST.as_bytes()).unwrap();
        let rest = read_to_end(stream);
        assert!(rest.ends_with(HEALTHY), "closes after it was asked to: {rest}");
    });
}

#[test]
fn pipelined_requests_are_all_answered_in_order() {
    with_front(shard(), Settings::default(), |address| {
        let missing = "GET /missing HTTP/1.1\r\nHost: h\r\n\r\n";
        let pipeline = [UP.repeat(20), missing.into(), UP_LAST.into()].concat();
        let answers = exchange(address, pipeline.as_bytes());
        let statuses: Vec<_> =
            answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
        assert_eq!(statuses, [vec!["200"; 20], vec!["404", "200"]].concat());
    });
}

#[test]
fn a_head_may_arrive_in_any_two_pieces() {
    with_front(shard(), Settings::default(), |address| {
        let mut stream = connect(address);
        for split in 1..UP.len() {
            let (first, second) = UP.as_bytes().split_at(split);
            stream.write_all(first).unwrap();
            stream.write_all(second).unwrap();
            assert_eq!(read_response(&mut stream).body, HEALTHY, "split at {split}");
        }
        for byte in UP.bytes() {
            stream.write_all(&[byte]).unwrap();
        }
        assert_eq!(read_response(&mut stream).body, HEALTHY);
    });
}

#[test]
fn head_is_answered_as_get_without_the_body() {
    with_front(shard(), Settings::default(), |address| {
        let request = "HEAD /up HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let answer = exchange(address, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-length: 15\r\n") && answer.ends_with("\r\n\r\n"));
    });
}

#[test]
fn options_on_up_is_200_and_tells_the_methods() {
    with_front(shard(), Settings::default(), |address| {
        let mut stream = connect(address);
        for path in ["/up", "//up"] {
            write!(stream, "OPTIONS {path} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            let reply = read_response(&mut stream);
            assert_eq!((reply.status, reply.body.as_str()), (200, HEALTHY), "{path}");
            assert_eq!(reply.header("allow"), Some("GET, HEAD, OPTIONS"), "{path}");
        }
    });
}

#[test]
fn wrong_paths_and_methods_are_told_so() {
    with_front(shard(), Settings::default(), |address| {
        let mut stream = connect(address);
        let table = [
            ("GET /", 404, "Not found.", None),
            ("POST /up", 405, "Method not allowed.", Some("GET, HEAD, OPTIONS")),
            ("GET /apps/app-id/events", 405, "Method not allowed.", Some("POST")),
            ("POST /app/app-key", 405, "Method not allowed.", Some("GET")),
            ("OPTIONS /apps/app-id/channels", 405, "Method not allowed.", Some("GET, HEAD")),
        ];
        for (line, status, text, allow) in table {
            write!(stream, "{line} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            let reply = read_response(&mut stream);
            assert_eq!((reply.status, reply.body.as_str()), (status, text), "{line}");
            assert_eq!(reply.header("allow"), allow, "{line}");
        }
    });
}

#[test]
fn the_prefix_is_optional() {
    let settings = Settings { path_prefix: "/ws".into(), ..Settings::default() };
    with_front(shard(), settings, |address| {
        let mut stream = connect(address);
        for path in ["/up", "/ws/up"] {
            write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert_eq!(read_response(&mut stream).body, HEALTHY, "{path}");
        }
    });
}

#[test]
fn connection_upgrade_without_a_protocol_is_plain_http() {
    with_front(shard(), Settings::default(), |address| {
        let mut stream = connect(address);
        for headers in ["Connection: Upgrade\r\n", "Connection: upgrade\r\nUpgrade: \r\n"] {
            write!(stream, "GET /up HTTP/1.1\r\nHost: h\r\n{headers}\r\n").unwrap();
            assert_eq!(read_response(&mut stream).body, HEALTHY, "{headers}");
        }
    });
}

#[test]
fn a_head_past_the_limits_is_431() {
    with_front(shard(), Settings::default(), |address| {
        let long = format!("GET /up HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        assert!(exchange(address, long.as_bytes()).starts_with("HTTP/1.1 431"));
        let many =
            |count| format!("GET /up HTTP/1.1\r\nHost: h\r\n{}\r\n", "X:x\r\n".repeat(count));
        assert!(exchange(address, many(2_048).as_bytes()).starts_with("HTTP/1.1 431"));
        let mut stream = connect(address);
        stream.write_all(many(2_047).as_bytes()).unwrap();
        assert_eq!(read_response(&mut stream).status, 200, "as many as Reverb's 10,000 bytes hold");
        let fits = format!("GET /up HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(15_000));
        let mut stream = connect(address);
        stream.write_all(fits.as_bytes()).unwrap();
        assert_eq!(read_response(&mut stream).status, 200);
    });
}

#[test]
fn ambiguous_requests_get_no_second_answer() {
    let smuggled = "GET /up HTTP/1.1\r\nHost: h\r\n\r\n";
    let path = "/apps/app-id/events";
    let requests = [
        post(path, "Content-Length: 3\r\nContent-Length: 4\r\n", "{}"),
        post(path, "Content-Length: +2\r\n", "{}"),
        post(path, "Content-Length: 0x2\r\n", "{}"),
        post(path, "Transfer-Encoding: gzip\r\n", "{}"),
        post(path, "Transfer-Encoding: chunked, gzip\r\n", "{}"),
        post(path, "Content-Length : 2\r\n", "{}"),
        post(path, "X: a\r\n folded\r\n", "{}"),
        // hyper shows only one of the two, and which one a proxy in front believes is unknown.
        post(path, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post(path, "transfer-encoding: chunked\r\ncontent-length: 0\r\n", "0\r\n\r\n"),
        [UP, &post(path, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")]
            .concat(),
        "POST /apps/app-id/events HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
    ];
    with_front(shard(), Settings::default(), move |address| {
        for request in &requests {
            let answer = exchange(address, [request, smuggled].concat().as_bytes());
            let answer = match request.strip_prefix(UP) {
                // The one in front is answered.
                Some(_) => answer.split_once(HEALTHY).unwrap().1,
                None => &answer,
            };
            assert!(answer.starts_with("HTTP/1.1 400"), "{request}: {answer}");
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{request}: {answer}");
        }
    });
}

#[test]
fn a_body_past_the_limit_is_413_before_it_is_asked_for() {
    let mut app = test_app();
    app.rules.limits.max_request_size = 1_000;
    with_front(FakeShard::new(vec![app]), Settings::default(), |address| {
        let path = "/apps/app-id/events";
        let body = "x".repeat(1_001);
        let announced = post(path, "Content-Length: 1001\r\nExpect: 100-continue\r\n", "");
        let answer = exchange(address, announced.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 413"), "no 100 Continue: {answer}");
        assert!(answer.ends_with("Payload too large."), "{answer}");

        let sent = post(path, "Content-Length: 1001\r\n", &body);
        let answer = exchange(address, [sent, UP.into()].concat().as_bytes());
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("connection: close"));
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");

        let chunked = post(path, "Transfer-Encoding: chunked\r\n", &format!("3e9\r\n{body}\r\n"));
        assert!(exchange(address, chunked.as_bytes()).starts_with("HTTP/1.1 413"));
    });
}

#[test]
fn a_large_body_that_is_refused_does_not_lose_its_answer() {
    with_front(shard(), Settings::default(), |address| {
        let body = "x".repeat(600_000);
        let headers = format!("Content-Length: {}\r\n", body.len());
        let answer = exchange(address, post("/apps/app-id/events", &headers, &body).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    });
}

#[test]
fn a_slow_head_is_cut_at_its_deadline_however_it_trickles() {
    let head_timeout = Duration::from_millis(400);
    let settings = Settings { head_timeout, ..Settings::default() };
    with_front(shard(), settings, move |address| {
        let mut stream = connect(address);
        let begun = Instant::now();
        let cut = UP.bytes().cycle().skip(1).find(|_| {
            let pause = stream.set_read_timeout(Some(Duration::from_millis(30)));
            pause.unwrap();
            match stream.read(&mut [0]) {
                Ok(0) => return true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => panic!("{other:?}"),
            }
            stream.write_all(b"x").is_err()
        });
        assert!(cut.is_some());
        // The server's clock counts whole milliseconds.
        let taken = begun.elapsed() + Duration::from_millis(1);
        assert!(taken >= head_timeout && taken < head_timeout * 4, "{taken:?}");
    });
}

#[test]
fn a_silent_connection_is_closed() {
    let settings = Settings { idle_timeout: Duration::from_millis(200), ..Settings::default() };
    with_front(shard(), settings, |address| {
        let mut stream = connect(address);
        stream.write_all(UP.as_bytes()).unwrap();
        assert_eq!(read_response(&mut stream).status, 200);
        assert_eq!(read_to_end(stream), "");
    });
}

#[test]
fn a_stop_closes_idle_connections_and_takes_no_new_ones() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let listeners = Listeners { tcp: vec![tcp.into()], ..Listeners::default() };
    run(shard(), Settings::default(), listeners, move |stop| {
        let fresh = connect(address);
        let mut used = connect(address);
        used.write_all(UP.as_bytes()).unwrap();
        assert_eq!(read_response(&mut used).status, 200);
        stop.send(true).unwrap();
        assert_eq!(read_to_end(used), "");
        assert_eq!(read_to_end(fresh), "");
        let refused = TcpStream::connect(address).map(|mut stream| stream.read(&mut [0]));
        assert!(!matches!(refused, Ok(Ok(1))), "{refused:?}");
    });
}

#[test]
fn a_stop_serves_whoever_waits_in_the_queue_of_a_listener() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let path = std::env::temp_dir().join(format!("ringwave-stop-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let unix = UnixListener::bind(&path).unwrap();
    let file = path.clone();
    let listeners =
        Listeners { tcp: vec![tcp.into()], unix: vec![unix.into()], ..Listeners::default() };
    // On a busy machine the heads take their time.
    let settings =
        Settings { head_timeout_at_stop: Duration::from_secs(60), ..Settings::default() };
    run(shard(), settings, listeners, move |stop| {
        // More than are accepted between the request and the stop.
        let mut by_port: Vec<_> = (0..100).map(|_| connect(address)).collect();
        let mut by_path: Vec<_> = (0..100).map(|_| UnixStream::connect(&file).unwrap()).collect();
        for stream in &mut by_port {
            stream.write_all(UP.as_bytes()).unwrap();
        }
        for stream in &mut by_path {
            stream.write_all(UP.as_bytes()).unwrap();
        }
        std::fs::remove_file(&file).unwrap();
        stop.send(true).unwrap();
        for mut stream in by_port {
            assert_eq!(read_response(&mut stream).status, 200);
        }
        for mut stream in by_path {
            assert_eq!(read_response(&mut stream).status, 200);
        }
    });
}

#[test]
fn a_stop_leaves_whoever_waits_in_an_inherited_queue_to_the_successor() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let successor = tcp.try_clone().unwrap();
    let listeners =
        Listeners { shared_tcp: vec![tcp.into()], inherited: true, ..Listeners::default() };
    run(shard(), Settings::default(), listeners, move |stop| stop.send(true).unwrap());
    let mut waiting = connect(address);
    waiting.write_all(UP.as_bytes()).unwrap();
    let listeners =
        Listeners { shared_tcp: vec![successor.into()], inherited: true, ..Listeners::default() };
    run(shard(), Settings::default(), listeners, move |_| {
        assert_eq!(read_response(&mut waiting).status, 200);
    });
}

#[test]
fn a_draining_front_closes_after_the_request() {
    let shard = shard();
    shard.switches.draining.store(true, Ordering::SeqCst);
    with_front(shard, Settings::default(), |address| {
        let answer = exchange(address, UP.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close\r\n"));
    });
}

#[test]
fn connections_over_the_bound_wait_while_others_are_served() {
    let settings = Settings { connections_max: 1, ..Settings::default() };
    with_front(shard(), settings, |address| {
        // This is past the second after which an idle connection would make room.
        let first = api::held(address);
        let mut second = connect(address);
        second.write_all(UP.as_bytes()).unwrap();
        second.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
        assert_eq!(second.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        first.end();
        second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(read_response(&mut second).status, 200);
    });
}

#[test]
fn idle_connections_make_room_for_others_the_longest_idle_first() {
    let settings = Settings { connections_max: 3, ..Settings::default() };
    with_front(shard(), settings, |address| {
        let used = |address| {
            let mut stream = connect(address);
            stream.write_all(UP.as_bytes()).unwrap();
            assert_eq!(read_response(&mut stream).status, 200);
            stream
        };
        let held = api::held(address);
        let [first, mut second, mut third] = [0; 3].map(|_| used(address));
        assert_eq!(read_to_end(first), "", "closed for the third");
        second.write_all(UP_LAST.as_bytes()).unwrap();
        third.write_all(UP_LAST.as_bytes()).unwrap();
        let answers = [second, third].map(read_to_end);
        assert!(answers.iter().any(|answer| answer.ends_with(HEALTHY)), "{answers:?}");
        held.end();
    });
}

#[test]
fn heads_that_do_not_end_make_room_for_others() {
    let settings = Settings { connections_max: 2, ..Settings::default() };
    with_front(shard(), settings, |address| {
        let begun = Instant::now();
        let halves = [0; 4].map(|_| {
            let mut stream = connect(address);
            stream.write_all(&UP.as_bytes()[..20]).unwrap();
            stream
        });
        let mut stream = connect(address);
        stream.write_all(UP.as_bytes()).unwrap();
        assert_eq!(read_response(&mut stream).status, 200);
        assert!(begun.elapsed() < Duration::from_secs(9), "it had to wait for their deadline");
        drop(halves);
    });
}

#[test]
fn unix_sockets_serve_the_same() {
    let path = std::env::temp_dir().join(format!("ringwave-front-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let unix = UnixListener::bind(&path).unwrap();
    let listeners = Listeners {
        unix: vec![unix.try_clone().unwrap().into(), unix.into()],
        ..Listeners::default()
    };
    run(shard(), Settings::default(), listeners, move |_| {
        for _ in 0..4 {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(UP_LAST.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with(HEALTHY), "{answer}");
        }
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_silent_client_does_not_keep_a_descriptor() {
    let idle_timeout = Duration::from_millis(500);
    with_front(shard(), Settings { idle_timeout, ..Settings::default() }, |address| {
        let silent: Vec<_> = (0..20).map(|_| connect(address)).collect();
        for mut stream in &silent {
            stream.write_all(UP.as_bytes()).unwrap();
        }
        let peers: Vec<_> = silent.iter().map(|stream| stream.local_addr().unwrap()).collect();
        for mut stream in silent {
            assert_eq!(read_response(&mut stream).status, 200);
            assert_eq!(read_to_end(stream), "", "closed at its deadline");
        }
        let begun = Instant::now();
        while peers.iter().any(|&peer| held(address, peer)) {
            assert!(begun.elapsed() < Duration::from_secs(10), "closed, and still held");
            thread::sleep(Duration::from_millis(10));
        }
    });
}

/// Whether a process still has a descriptor of the front's end of this connection: the kernel shows
/// the inode of a closed one as 0.
fn held(address: SocketAddr, peer: SocketAddr) -> bool {
    let port = |column: &str| u16::from_str_radix(column.rsplit_once(':').unwrap().1, 16).unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).any(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let ports = (port(columns[1]), port(columns[2]));
        ports == (address.port(), peer.port()) && columns[9] != "0"
    })
}

#[test]
fn answers_that_nobody_reads_do_not_outlive_their_connection() {
    let idle_timeout = Duration::from_secs(2);
    with_front(shard(), Settings { idle_timeout, ..Settings::default() }, |address| {
        const PATIENCE: Duration = Duration::from_secs(30);
        const UNREAD: usize = 64 << 10;
        let begun = Instant::now();
        let requests = UP.repeat(100);
        let mut client = connect(address);
        while unread(address, client.local_addr().unwrap()) < UNREAD {
            assert!(begun.elapsed() < PATIENCE, "its answers are never that many");
            client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            match client.write_all(requests.as_bytes()) {
                Ok(()) => {}
                // The gateway reads no more, or this thread did not run for so long that the
                // connection was closed.
                Err(_) => client = connect(address),
            }
        }
        let peer = client.local_addr().unwrap();
        while unread(address, peer) > 0 {
            assert!(begun.elapsed() < 2 * PATIENCE, "{} B", unread(address, peer));
            thread::sleep(Duration::from_millis(10));
        }
        drop(client);
    });
}

/// Bytes that the kernel holds for this client, whether or not a process owns the socket.
fn unread(address: SocketAddr, peer: SocketAddr) -> usize {
    let port = |column: &str| u16::from_str_radix(column.rsplit_once(':').unwrap().1, 16).unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let of_it = (port(columns[1]), port(columns[2])) == (address.port(), peer.port());
        let queue = columns[4].split(':').next().unwrap();
        of_it.then(|| usize::from_str_radix(queue, 16).unwrap())
    };
    table.lines().skip(1).find_map(queue).unwrap_or(0)
}
