//! Publishes that are answered in place, and the same ones behind hyper: nobody can tell which.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::api::signed;
use super::*;
use crate::protocol::rules::{AppRules, Limits};

const EVENTS: &str = "/apps/app-id/events";

/// An option that hyper does not know, with which a request is hyper's.
const OF_HYPER: &str = ", x-of-hyper";

/// A publish that is signed by the usual app.
fn publish(path: &str, connection: &str, headers: &str, body: &str) -> String {
    let query = signed("app-key", "app-secret", "POST", path, "", body);
    request(&format!("{path}?{query}"), connection, headers, body)
}

fn request(target: &str, connection: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n{headers}\r\n{body}"
    )
}

/// Everything that the server answers to these bytes until it closes, without the time.
fn answers(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answers = read_to_end(stream);
    let lines = answers.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
    lines.collect()
}

/// Requests that are publishes, and some that are nearly.
fn requests(connection: &str) -> Vec<String> {
    let event = r#"{"name":"n","data":"d","channel":"c"}"#;
    let batch = r#"{"batch":[{"name":"n","data":"d","channel":"c","info":"subscription_count"}]}"#;
    let of = |path: &str, body: &str| publish(path, connection, "", body);
    let mut requests: Vec<String> = [
        (EVENTS, event),
        ("//apps/app-id/events", event),
        ("/ws/apps/app-id/events", event),
        ("/apps/app-id/batch_events", batch),
        ("/apps/%61pp-id/events", event),
        (EVENTS, r#"{"name":"n","data":"d","channels":["news","presence-a"],"info":"user_count"}"#),
        (EVENTS, r#"{"name":"n","data":"d","channel":"overloaded"}"#),
        (EVENTS, r#"{"name":"n","data":"d","channel":"away"}"#),
        (EVENTS, r#"{"name":"n","data":"a datum that is too long for it","channel":"c"}"#),
        (EVENTS, "{}"),
        (EVENTS, "[]"),
        (EVENTS, "no JSON"),
        (EVENTS, ""),
        ("/apps/app-id/batch_events", "{}"),
        ("/apps/none/events", event),
        ("/apps/app-id/other", event),
        ("/apps/app-id/users/1/terminate_connections", "{}"),
        ("/up", ""),
    ]
    .map(|(path, body)| of(path, body))
    .into();
    requests.push(of(EVENTS, &format!("{event}{}", " ".repeat(1_500))));
    requests.push(request(EVENTS, connection, "", event));
    requests.push(of(EVENTS, event).replace("auth_signature=", "auth_signature=0"));
    requests.push(of(EVENTS, event).replace("body_md5=", "body_md5=0"));
    requests.push(of(EVENTS, event).replace("auth_timestamp=", "auth_timestamp=1"));
    requests.push(of(EVENTS, event).replace("Host: h", "Host: h\r\nHost: i"));
    requests.push(of(EVENTS, event).replace("Host: h\r\n", ""));
    requests.push(of(EVENTS, event).replace("Host:", "Transfer-Encoding: chunked\r\nHost:"));
    requests.push(of(EVENTS, event).replace("Content-Length: ", "Content-Length: +"));
    requests.push(of(EVENTS, event).replace("Content-Length: ", "Content-Length: 1, "));
    requests.push(of(EVENTS, event).replace(" HTTP/1.1", " HTTP/1.0"));
    requests.push(of(EVENTS, event).replace("\r\n", "\n"));
    requests
}

fn shard_and_settings() -> (FakeShard, Settings) {
    let limits = Limits { max_request_size: 1_000, max_event_data: Some(20), ..Limits::default() };
    let app = test_app();
    let app = App { rules: AppRules { limits, ..app.rules }, ..app };
    let settings = Settings { path_prefix: "/ws".into(), ..Settings::default() };
    (FakeShard::new(vec![app]), settings)
}

#[test]
fn a_publish_is_answered_in_place_as_behind_hyper() {
    let (shard, settings) = shard_and_settings();
    with_front(shard, settings, |address| {
        for connection in ["close", "keep-alive"] {
            let behind_hyper = requests(&format!("{connection}{OF_HYPER}"));
            for (plain, behind_hyper) in requests(connection).iter().zip(behind_hyper) {
                let expected = answers(address, behind_hyper.as_bytes());
                assert_eq!(answers(address, plain.as_bytes()), expected, "{plain}");
            }
        }
    });
}

#[test]
fn publishes_and_other_requests_are_answered_in_turn_however_they_are_cut() {
    let (shard, settings) = shard_and_settings();
    with_front(shard, settings, |address| {
        let up = "GET /up HTTP/1.1\r\nHost: h\r\n\r\n";
        let several = requests("keep-alive");
        let all = [&*several[0], up, &several[3], &several[1], up, up, &several[5]].concat();
        let expected = answers(address, all.as_bytes());
        assert_eq!(expected.matches("HTTP/1.1 200").count(), 7, "{expected}");
        for at in (1..all.len()).step_by(7) {
            let mut stream = connect(address);
            let (first, second) = all.split_at(at);
            stream.write_all(first.as_bytes()).unwrap();
            // The first part is read alone most of the time, and the answers are the same anyway.
            thread::sleep(Duration::from_millis(1));
            stream.write_all(second.as_bytes()).unwrap();
            for _ in 0..7 {
                assert_eq!(read_response(&mut stream).status, 200, "cut at {at}");
            }
        }
    });
}

#[test]
fn a_request_that_is_damaged_is_answered_in_place_as_behind_hyper() {
    let (shard, settings) = shard_and_settings();
    with_front(shard, settings, |address| {
        let damage = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), DAMAGE);
        let config = Config { cases: 256, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&damage, |(which, at, damage)| {
                let behind_hyper = requests(&format!("close{OF_HYPER}"));
                let which = which.index(behind_hyper.len());
                // Only the head before the line that tells them apart is damaged.
                let head = behind_hyper[which].find("Connection").unwrap_or(10);
                let damaged = |request: &str| {
                    let mut bytes = request.as_bytes().to_vec();
                    bytes.splice(at.index(head)..=at.index(head), damage.bytes());
                    bytes
                };
                let expected = answers(address, &damaged(&behind_hyper[which]));
                let plain = damaged(&requests("close")[which]);
                prop_assert_eq!(answers(address, &plain), expected);
                Ok(())
            })
            .unwrap();
    });
}

/// Texts that are put in the place of a byte.
const DAMAGE: &str =
    r"[ -~]|\r|\n|\r\n|\t|: |\x00|\r\nContent-Length: 3|\r\nTransfer-Encoding: chunked|";
