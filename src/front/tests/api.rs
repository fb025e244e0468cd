//! The HTTP API as its clients see it.

use std::fmt::Write as _;
use std::time::SystemTime;

use md5::{Digest, Md5};

use super::*;
use crate::protocol::secret::Secret;

/// Every endpoint: a request that succeeds, and its answer.
const ENDPOINTS: [(&str, &str, &str, &str, &str); 26] = [
    ("POST", "/apps/app-id/events", "", r#"{"name":"n","data":"d","channel":"c"}"#, "{}"),
    (
        "POST",
        "/apps/app-id/events",
        "",
        r#"{"name":"n","data":"d","channels":["presence-a","news","empty","untold"],"info":"user_count,subscription_count"}"#,
        r#"{"channels":{"presence-a":{"user_count":2,"subscription_count":3},"news":{"subscription_count":3},"empty":{"subscription_count":0},"untold":{}}}"#,
    ),
    (
        "POST",
        "/apps/app-id/batch_events",
        "",
        r#"{"batch":[{"name":"n","data":"d","channel":"c"},{"name":"m","data":"e","channel":"c"}]}"#,
        "{}",
    ),
    (
        "POST",
        "/apps/app-id/batch_events",
        "",
        r#"{"batch":[{"name":"n","data":"d","channel":"c","info":"subscription_count"},{"name":"m","data":"e","channel":"c"}]}"#,
        r#"{"batch":[{"subscription_count":3},{}]}"#,
    ),
    (
        "GET",
        "/apps/app-id/channels",
        "",
        "",
        r#"{"channels":{"presence-a":{},"presence-b":{},"news":{}}}"#,
    ),
    (
        "GET",
        "/apps/app-id/channels",
        "filter_by_prefix=presence-&info=user_count",
        "",
        r#"{"channels":{"presence-a":{"user_count":2},"presence-b":{"user_count":2}}}"#,
    ),
    (
        "GET",
        "/apps/app-id/channels",
        "filter_by_prefix=n&info=subscription_count",
        "",
        r#"{"channels":{"news":{"subscription_count":3}}}"#,
    ),
    ("GET", "/apps/app-id/channels", "filter_by_prefix=none", "", r#"{"channels":{}}"#),
    (
        "GET",
        "/apps/app-id/channels",
        "info=user_count",
        "",
        r#"{"channels":{"presence-a":{"user_count":2},"presence-b":{"user_count":2},"news":{}}}"#,
    ),
    ("GET", "/apps/app-id/channels/news", "info=user_count,x", "", r#"{"occupied":true}"#),
    (
        "POST",
        "/apps/app-id/events",
        "",
        r#"{"name":"n","data":"d","channels":["news","presence-a"],"info":"user_count"}"#,
        r#"{"channels":{"news":{},"presence-a":{"user_count":2}}}"#,
    ),
    (
        "POST",
        "/apps/app-id/events",
        "",
        r#"{"name":"n","data":"d","channel":"news","info":"other"}"#,
        r#"{"channels":{"news":{}}}"#,
    ),
    (
        "POST",
        "/apps/app-id/batch_events",
        "",
        r#"{"batch":[{"name":"n","data":"d","channel":"c","info":"user_count"},{"name":"m","data":"e","channel":"c"}]}"#,
        r#"{"batch":[{},{}]}"#,
    ),
    ("GET", "/apps/app-id/channels/news", "", "", r#"{"occupied":true}"#),
    (
        "GET",
        "/apps/app-id/channels/news",
        "info=subscription_count,cache",
        "",
        r#"{"occupied":true,"subscription_count":3}"#,
    ),
    (
        "GET",
        "/apps/app-id/channels/presence-a",
        "info=user_count",
        "",
        r#"{"occupied":true,"user_count":2}"#,
    ),
    (
        "GET",
        "/apps/app-id/channels/cache-a",
        "info=cache",
        "",
        r#"{"occupied":true,"cache":{"data":"{\"a\":1}","ttl":60}}"#,
    ),
    ("GET", "/apps/app-id/channels/cache-a", "", "", r#"{"occupied":true}"#),
    ("GET", "/apps/app-id/channels/empty", "", "", r#"{"occupied":false}"#),
    ("GET", "/apps/app-id/channels/%6Eews", "", "", r#"{"occupied":true}"#),
    ("GET", "/apps/app-id/channels/a%2Fb", "", "", r#"{"occupied":true}"#),
    (
        "GET",
        "/apps/app-id/channels/presence-a/users",
        "",
        "",
        r#"{"users":[{"id":"1"},{"id":"\"2\""}]}"#,
    ),
    ("POST", "/apps/app-id/users/u%201/terminate_connections", "", "{}", "{}"),
    ("POST", "/apps/app-id/users/2/terminate_connections", "", "", "{}"),
    ("GET", "/apps/app-id/connections", "", "", r#"{"connections":0}"#),
    ("GET", "/ws/apps/app-id/connections", "", "", r#"{"connections":0}"#),
];

fn settings() -> Settings {
    Settings { path_prefix: "/ws".into(), ..Settings::default() }
}

/// The query of a request that is signed as Pusher's libraries do.
pub(super) fn signed(
    key: &str,
    secret: &str,
    method: &str,
    path: &str,
    query: &str,
    body: &str,
) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut parameters = vec![
        format!("auth_key={key}"),
        format!("auth_timestamp={now}"),
        "auth_version=1.0".to_owned(),
    ];
    if !body.is_empty() {
        parameters.push(format!("body_md5={}", hex::encode(Md5::digest(body))));
    }
    parameters.extend(query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned));
    parameters.sort();
    let query = parameters.join("&");
    let text = [method, path, &query].join("\n");
    format!("{query}&auth_signature={}", Secret::new(secret).sign(&[text.as_bytes()]))
}

/// Sends a request and reads its answer.
fn call(stream: &mut TcpStream, method: &str, target: &str, body: &str) -> Reply {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n");
    if !body.is_empty() {
        write!(request, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
    read_response(stream)
}

/// As [`call`], signed for the usual app.
fn call_signed(stream: &mut TcpStream, method: &str, path: &str, query: &str, body: &str) -> Reply {
    let query = signed("app-key", "app-secret", method, path, query, body);
    call(stream, method, &format!("{path}?{query}"), body)
}

#[test]
fn every_endpoint_answers_json() {
    with_front(FakeShard::new(two_apps()), settings(), |address| {
        let mut stream = connect(address);
        for (method, path, query, body, expected) in ENDPOINTS {
            let reply = call_signed(&mut stream, method, path, query, body);
            assert_eq!((reply.status, reply.body.as_str()), (200, expected), "{path} {query}");
            assert_eq!(reply.header("content-type"), Some("application/json"), "{path}");
        }
    });
}

#[test]
fn publishes_reach_the_shard_in_their_order() {
    let shard = FakeShard::new(two_apps());
    let log = Rc::clone(&shard.log);
    with_front(shard, settings(), |address| {
        let mut stream = connect(address);
        let event = r#"{"name":"one","data":"d","channels":["b","a","b"],"socket_id":"1.2"}"#;
        let batch = r#"{"batch":[{"name":"two","data":"x","channel":"cache-c"},
            {"name":"three","data":"y","channel":"a","socket_id":"3.4"}]}"#;
        for (path, body) in [("events", event), ("batch_events", batch)] {
            let path = format!("/apps/app-id/{path}");
            assert_eq!(call_signed(&mut stream, "POST", &path, "", body).status, 200);
        }
        let path = "/apps/app-id/users/%C3%BC/terminate_connections";
        assert_eq!(call_signed(&mut stream, "POST", path, "", "").status, 200);
    });
    let expected = [
        "one on b except Some(1.2) keeping None",
        "one on a except Some(1.2) keeping None",
        "two on cache-c except None keeping Some(\"x\")",
        "three on a except Some(3.4) keeping None",
        "terminate ü",
    ];
    assert_eq!(*log.borrow(), expected);
}

#[test]
fn no_endpoint_answers_without_the_right_signature() {
    let shard = FakeShard::new(two_apps());
    let log = Rc::clone(&shard.log);
    with_front(shard, settings(), |address| {
        let mut stream = connect(address);
        for (method, path, query, body, _) in ENDPOINTS {
            let mut status = |key, secret, query: &str| {
                let query = signed(key, secret, method, path, query, body);
                call(&mut stream, method, &format!("{path}?{query}"), body)
            };
            let other = status("other-key", "other-secret", query);
            assert_eq!(other.status, 401, "the key of another app: {path}");
            let wrong = status("app-key", "wrong-secret", query);
            assert_eq!(wrong.status, 401, "{path}");
            assert_eq!(wrong.body, "Authentication signature invalid.", "{path}");
            assert_eq!(wrong.header("content-type"), Some("text/plain; charset=utf-8"));
            let unsigned = call(&mut stream, method, &format!("{path}?{query}"), body);
            assert_eq!(unsigned.status, 401, "{path}");
            let replayed = signed("app-key", "app-secret", method, path, query, "another body");
            let replayed = call(&mut stream, method, &format!("{path}?{replayed}"), body);
            assert_eq!(replayed.status, 401, "{path}");
        }
    });
    assert!(log.borrow().is_empty(), "{:?}", log.borrow());
}

#[test]
fn an_unknown_app_is_named_whatever_the_signature() {
    with_front(FakeShard::new(two_apps()), settings(), |address| {
        let mut stream = connect(address);
        for (method, path, query, body, _) in ENDPOINTS {
            let path = path.replace("app-id", "9");
            let reply = call_signed(&mut stream, method, &path, query, body);
            let text = "No matching application for ID [9].";
            assert_eq!((reply.status, reply.body.as_str()), (404, text), "{path}");
        }
    });
}

#[test]
fn a_prefix_may_be_signed_or_not() {
    with_front(FakeShard::new(two_apps()), settings(), |address| {
        let mut stream = connect(address);
        let path = "/apps/app-id/connections";
        let query = signed("app-key", "app-secret", "GET", path, "", "");
        for target in [format!("{path}?{query}"), format!("/ws{path}?{query}")] {
            assert_eq!(call(&mut stream, "GET", &target, "").status, 200, "{target}");
        }
    });
}

#[test]
fn what_cannot_be_done_is_said() {
    let mut app = test_app();
    app.rules.limits.max_event_data = Some(10);
    with_front(FakeShard::new(vec![app]), settings(), |address| {
        let mut stream = connect(address);
        let events = "/apps/app-id/events";
        let deep = "[".repeat(50_000);
        let oversized = r#"{"name":"n","data":"more than ten","channel":"c"}"#;
        let table = [
            ("POST", events, "", "{", 400, "The body is not valid JSON."),
            ("POST", events, "", "", 400, "The body is not valid JSON."),
            ("POST", events, "", &deep, 400, "The body is not valid JSON."),
            ("POST", events, "", "[1]", 400, "The body must be a JSON object."),
            ("POST", events, "", "\"text\"", 400, "The body must be a JSON object."),
            ("POST", events, "", oversized, 413, "The data of an event may have at most 10 bytes."),
            (
                "POST",
                events,
                "",
                r#"{"name":"n","channel":"c"}"#,
                422,
                r#"{"data":["The data field is required."]}"#,
            ),
            (
                "GET",
                "/apps/app-id/channels/news/users",
                "",
                "",
                400,
                "Only presence channels have users.",
            ),
            ("GET", "/apps/app-id/channels/presence-empty/users", "", "", 404, "{}"),
            ("GET", "/apps/app-id/channels/a%0Ab", "", "", 400, "The channel name is invalid."),
        ];
        for (method, path, query, body, status, expected) in table {
            let reply = call_signed(&mut stream, method, path, query, body);
            assert_eq!((reply.status, reply.body.as_str()), (status, expected), "{path} {query}");
            let json = expected.starts_with('{');
            let content_type = if json { "application/json" } else { "text/plain; charset=utf-8" };
            assert_eq!(reply.header("content-type"), Some(content_type), "{path} {query}");
        }
    });
}

#[test]
fn a_redis_that_is_away_is_told_as_such_and_answers_of_one_node_are_marked() {
    let shard = FakeShard::new(two_apps());
    let switches = Arc::clone(&shard.switches);
    with_front(shard, settings(), move |address| {
        let mut stream = connect(address);
        let refused = r#"{"name":"n","data":"d","channel":"away"}"#;
        let reply = call_signed(&mut stream, "POST", "/apps/app-id/events", "", refused);
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")));
        assert_eq!(reply.body, "The Redis of the cluster is away, try again.");
        for alone in [false, true] {
            switches.alone.store(alone, Ordering::SeqCst);
            for (method, path, query, body, _) in ENDPOINTS {
                let reply = call_signed(&mut stream, method, path, query, body);
                let scope = (reply.status, reply.header("ringwave-scope"));
                assert_eq!(scope, (200, alone.then_some("node")), "{path}");
            }
        }
    });
}

#[test]
fn publishes_are_refused_while_the_bus_is_full_and_everything_when_the_shard_is_gone() {
    let shard = FakeShard::new(two_apps());
    let switches = Arc::clone(&shard.switches);
    with_front(shard, settings(), move |address| {
        let mut stream = connect(address);
        let over = |reply: Reply| {
            assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
            assert_eq!(reply.body, "Over capacity, try again.");
        };
        let events = "/apps/app-id/events";
        let refused = r#"{"name":"n","data":"d","channel":"overloaded"}"#;
        over(call_signed(&mut stream, "POST", events, "", refused));

        switches.overloaded.store(true, Ordering::SeqCst);
        for (method, path, query, body, _) in ENDPOINTS {
            let reply = call_signed(&mut stream, method, path, query, body);
            let publishes = path.ends_with("events");
            assert_eq!(reply.status, if publishes { 503 } else { 200 }, "{path}");
        }
        switches.overloaded.store(false, Ordering::SeqCst);
        switches.gone.store(true, Ordering::SeqCst);
        for (method, path, query, body, _) in ENDPOINTS {
            if !path.ends_with("connections") || path.contains("terminate") {
                over(call_signed(&mut stream, method, path, query, body));
            }
        }
    });
}

#[test]
fn bodies_may_be_chunked_and_wait_for_a_100() {
    with_front(FakeShard::new(two_apps()), settings(), |address| {
        let mut stream = connect(address);
        let path = "/apps/app-id/events";
        let body = r#"{"name":"n","data":"d","channel":"c"}"#;
        let query = signed("app-key", "app-secret", "POST", path, "", body);
        let line = format!("POST {path}?{query} HTTP/1.1\r\nHost: h\r\n");
        let (first, second) = body.split_at(7);
        write!(stream, "{line}Transfer-Encoding: chunked\r\n\r\n7;ext=1\r\n{first}\r\n").unwrap();
        write!(stream, "{:x}\r\n{second}\r\n0\r\nTrailer: x\r\n\r\n", second.len()).unwrap();
        assert_eq!(read_response(&mut stream).status, 200);

        write!(stream, "{line}Content-Length: {}\r\n", body.len()).unwrap();
        write!(stream, "Expect: 100-continue\r\n\r\n").unwrap();
        assert_eq!(read_response(&mut stream).status, 100);
        write!(stream, "{body}").unwrap();
        assert_eq!(read_response(&mut stream).status, 200);
    });
}

/// A signed request whose body is one byte short.
pub(super) struct Held(TcpStream);

/// Sends such a request. Returns when it is being served.
pub(super) fn held(address: SocketAddr) -> Held {
    let mut stream = connect(address);
    let (path, body) = ("/apps/app-id/events", "x");
    let query = signed("app-key", "app-secret", "POST", path, "", body);
    let head = format!("POST {path}?{query} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n");
    stream.write_all(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(read_response(&mut stream).status, 100);
    Held(stream)
}

impl Held {
    /// Sends the last byte of the request.
    pub(super) fn end(mut self) {
        self.0.write_all(b"x").unwrap();
        assert_eq!(read_response(&mut self.0).status, 400);
    }
}

/// A request with these headers and the part of its body that is sent. `sign` is the body that is
/// signed.
fn request(sign: Option<&str>, headers: &str, body: &str) -> String {
    let path = "/apps/app-id/events";
    let query = sign.map(|body| signed("app-key", "app-secret", "POST", path, "", body));
    let query = query.unwrap_or_default();
    format!("POST {path}?{query} HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")
}

const EVENT: &str = r#"{"name":"n","data":"d","channel":"c"}"#;

#[test]
fn only_signed_bodies_are_held_and_count_against_the_shards_budget() {
    let settings = Settings { bodies_bytes_max: 50, ..Settings::default() };
    with_front(FakeShard::new(two_apps()), settings, |address| {
        let large = "x".repeat(60);
        let length = "Content-Length: 60\r\n";
        let answer = exchange(address, request(Some(&large), length, &large).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1\r\n"));

        let mut stream = connect(address);
        for sign in [None, Some("another")] {
            stream.write_all(request(sign, length, &large).as_bytes()).unwrap();
            let reply = read_response(&mut stream);
            let kept = sign.is_none();
            assert_eq!(reply.status, if kept { 401 } else { 503 }, "{sign:?}");
        }
    });
}

#[test]
fn a_request_that_is_not_signed_is_not_asked_for_its_body() {
    with_front(FakeShard::new(two_apps()), settings(), |address| {
        let begun = std::time::Instant::now();
        let headers = "Content-Length: 20\r\nExpect: 100-continue\r\n";
        let answer = exchange(address, request(None, headers, "").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        // The body is sent without `100 Continue`, and has a second to come to its end.
        let answer = exchange(address, request(None, "Content-Length: 20\r\n", "{").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(begun.elapsed() < Duration::from_secs(15), "not after `body_timeout`");
    });
}

#[test]
fn what_follows_the_body_of_a_request_that_is_not_signed_is_the_next_request() {
    with_front(FakeShard::new(two_apps()), settings(), |address| {
        let up = "GET /up HTTP/1.1\r\nHost: h\r\n\r\n";
        let long = "x".repeat(90_000);
        for body in ["", "GET /up HTTP/1.1\r\n\r\n", &long] {
            let length = format!("Content-Length: {}\r\n", body.len());
            let chunks = match body {
                "" => "0\r\n\r\n".to_owned(),
                body => format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            };
            let mut stream = connect(address);
            let chunked = request(None, "Transfer-Encoding: chunked\r\n", &chunks);
            for first in [request(None, &length, body), chunked] {
                stream.write_all([&first, up].concat().as_bytes()).unwrap();
                assert_eq!(read_response(&mut stream).status, 401);
                assert_eq!(read_response(&mut stream).status, 200);
            }
        }
    });
}

#[test]
fn a_signature_without_a_digest_is_one_of_no_body() {
    with_front(FakeShard::new(two_apps()), settings(), |address| {
        let missing = "The body_md5 parameter is missing or malformed.";
        let headers = "Content-Length: 37\r\nExpect: 100-continue\r\n";
        let answer = exchange(address, request(Some(""), headers, "").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 401") && answer.ends_with(missing), "{answer}");
        let mut stream = connect(address);
        let chunked = "Transfer-Encoding: chunked\r\n";
        let chunks = format!("25\r\n{EVENT}\r\n0\r\n\r\n");
        stream.write_all(request(Some(""), chunked, &chunks).as_bytes()).unwrap();
        let reply = read_response(&mut stream);
        assert_eq!((reply.status, reply.body.as_str()), (401, missing));
        // No chunk is no body.
        stream.write_all(request(Some(""), chunked, "0\r\n\r\n").as_bytes()).unwrap();
        let reply = read_response(&mut stream);
        assert_eq!((reply.status, reply.body.as_str()), (400, "The body is not valid JSON."));
    });
}
