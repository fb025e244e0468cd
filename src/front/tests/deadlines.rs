//! The deadlines of connections and requests, on a simulated ring and by a simulated clock.

use std::os::fd::RawFd;

use super::super::Reception;
use super::super::accepted::Opening;
use super::super::listener::Door;
use super::super::stand::Echo;
use super::api::signed;
use super::*;
use crate::frame::Frame;
use crate::plane::{BacklogLimits, Intake, Plane};
use crate::protocol::close::refusal_frames;
use crate::ring::sim::{Faults, SimListener, SimNet, SimRing};

const UP: &str = "GET /up HTTP/1.1\r\nHost: h\r\n\r\n";

/// The front of a shard, whose time passes only when a test says so.
struct World {
    shard: FakeShard,
    plane: Plane<SimRing>,
    reception: Reception<FakeShard>,
    listener: SimListener,
    net: SimNet,
    now: Millis,
}

impl World {
    fn new(apps: Vec<App>) -> Self {
        let (shard, net, listener) =
            (FakeShard::new(apps), SimNet::default(), SimListener::default());
        let ring = SimRing::new(net.clone(), 1, Faults::NONE, 8, 8, 4096);
        let limits = BacklogLimits { connection: 1 << 20, shard: 1 << 24 };
        let mut plane = Plane::new(ring, limits, Frame::close(4100, ""));
        let settings = CurrentSettings::new(Settings::default());
        let mut reception = Reception::new(shard.clone(), settings);
        reception.accept_from(&mut plane, listener.clone(), Opening::Http, Door::default());
        Self { shard, plane, reception, listener, net, now: Millis(1_000) }
    }

    /// Connects a client that sends this. Returns once nothing more happens by itself.
    fn send(&mut self, bytes: &str) -> RawFd {
        let client = self.listener.connect(&self.net, None);
        self.net.write(client, bytes.as_bytes());
        self.settle();
        client
    }

    fn turn(&mut self) {
        self.plane.begin_turn(self.now);
        self.plane.poll(Intake::All, &mut Echo);
        self.reception.turn(&mut self.plane, self.now);
        while self.plane.next_closed().is_some() {}
        self.plane.flush();
    }

    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.turn();
            let ready = self.plane.has_work() || self.plane.ring().ready();
            if !ready && !self.reception.has_work() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.settle();
    }

    /// Has this time pass but for its last millisecond, when nothing has happened to the client
    /// yet. Returns what the client then gets.
    fn answer_after(&mut self, client: RawFd, time: Duration) -> String {
        let last = Duration::from_millis(1);
        self.pass(time - last);
        assert_eq!(self.heard(client), "", "too early");
        assert!(!self.net.ended(client), "too early");
        self.pass(last);
        self.heard(client)
    }

    fn heard(&self, client: RawFd) -> String {
        String::from_utf8_lossy(&self.net.read(client, usize::MAX)).into_owned()
    }

    fn is_answered(&self, client: RawFd) -> bool {
        self.heard(client).starts_with("HTTP/1.1 200 ")
    }
}

/// A signed request for this path.
fn get(path: &str, query: &str) -> String {
    let query = signed("app-key", "app-secret", "GET", path, query, "");
    format!("GET {path}?{query} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// The head of a signed publish, whose body has these bytes.
fn publish(body: &str) -> String {
    let path = "/apps/app-id/events";
    let query = signed("app-key", "app-secret", "POST", path, "", body);
    format!("POST {path}?{query} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len())
}

const CONNECTIONS: &str = "/apps/app-id/connections";

#[test]
fn a_question_that_the_shard_never_answers_is_503_after_25_s() {
    let mut world = World::new(two_apps());
    world.shard.switches.silent.store(true, Ordering::SeqCst);
    let client = world.send(&get(CONNECTIONS, ""));
    let answer = world.answer_after(client, Duration::from_secs(25));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("Over capacity, try again."), "{answer}");
    // The connection goes on.
    world.shard.switches.silent.store(false, Ordering::SeqCst);
    world.net.write(client, get(CONNECTIONS, "").as_bytes());
    world.settle();
    assert!(world.is_answered(client));
}

#[test]
fn a_question_whose_client_has_left_ends_too() {
    let mut world = World::new(two_apps());
    world.shard.switches.silent.store(true, Ordering::SeqCst);
    let none = world.shard.requests.others();
    let client = world.send(&get(CONNECTIONS, ""));
    world.net.close(client);
    world.settle();
    let last = Duration::from_millis(1);
    world.pass(Duration::from_secs(25) - last);
    assert_eq!(world.shard.requests.others(), none + 1);
    world.pass(last);
    assert_eq!(world.shard.requests.others(), none);
}

#[test]
fn a_body_that_stalls_is_408_at_its_limit_while_others_go_on() {
    let mut world = World::new(two_apps());
    let body = r#"{"name":"n","data":"d","channel":"c"}"#;
    let stalled = world.send(&publish(body));
    let other = world.send(&publish(body));
    world.pass(Duration::from_secs(20));
    // Bytes that trickle gain nothing.
    world.net.write(stalled, &body.as_bytes()[..1]);
    world.net.write(other, body.as_bytes());
    world.settle();
    assert!(world.is_answered(other));
    let later = world.send(&publish(body));
    let answer = world.answer_after(stalled, Duration::from_secs(10));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(world.net.finished(stalled), "the rest of the body would be taken for a request");
    for (client, bytes) in [(other, UP), (later, body)] {
        world.net.write(client, bytes.as_bytes());
        world.settle();
        assert!(world.is_answered(client));
    }
}

#[test]
fn a_client_whose_place_the_cluster_does_not_know_is_told_so_after_5_s() {
    let mut world = World::new(vec![App { max_connections: Some(1), ..test_app() }]);
    let handshake = "GET /app/app-key HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    world.send(handshake);
    assert_eq!(world.shard.upgraded.borrow().len(), 1);
    world.shard.switches.silent.store(true, Ordering::SeqCst);
    let client = world.send(handshake);
    let answer = world.answer_after(client, Duration::from_secs(5));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let refusal = refusal_frames(ProtocolError::QuotaUnknown);
    assert!(answer.ends_with(&*String::from_utf8_lossy(refusal.bytes())), "{answer}");
}

#[test]
fn an_unfinished_head_and_an_idle_connection_close_at_their_limits() {
    let mut world = World::new(two_apps());
    let (slow, idle) = (world.send(&UP[..10]), world.send(UP));
    assert!(world.is_answered(idle));
    assert_eq!(world.answer_after(slow, Duration::from_secs(10)), "");
    assert!(world.net.ended(slow) && !world.net.ended(idle));
    assert_eq!(world.answer_after(idle, Duration::from_secs(65)), "");
    assert!(world.net.ended(idle));
}

#[test]
fn a_long_list_takes_several_turns_and_no_time() {
    let mut world = World::new(two_apps());
    let (list, other) = (world.send(UP), world.send(UP));
    assert!(world.is_answered(list) && world.is_answered(other));
    world.net.write(list, get("/apps/app-id/channels", "filter_by_prefix=many").as_bytes());
    world.net.write(other, UP.as_bytes());
    let (mut begun, mut answered, mut answer) = (None, None, String::new());
    for turn in 0..1_000 {
        world.turn();
        if world.is_answered(other) {
            answered = Some(turn);
        }
        answer += &world.heard(list);
        if !answer.is_empty() && begun.is_none() {
            begun = Some(turn);
        }
        if answer.ends_with("}}") {
            break;
        }
        let World { plane, reception, .. } = &world;
        let at_once = reception.has_work() || plane.has_work() || plane.ring().ready();
        assert!(at_once, "it waits for time to pass");
    }
    assert_eq!(answer.matches("\"many-").count(), MANY);
    assert!(answered.is_some() && answered < begun, "{answered:?} {begun:?}");
}
