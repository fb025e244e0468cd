//! Handshakes: a shard and its front accept clients whose requests come in pieces cut anywhere,
//! while accepts fail, connections are reset between the accept and the end of the head, the table
//! is full, and completions of earlier users of a slot turn up.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use ringwave::testing::apps::Apps;
use ringwave::testing::bus;
use ringwave::testing::channels::KeyHash;
use ringwave::testing::plane::BacklogLimits;
use ringwave::testing::shard::{Served, ShardMessage};
use ringwave::testing::time::{Clock, Millis};
use ringwave_ring::sim::{Dice, Faults, SimListener, SimNet, SimRing};

use crate::plan::Plan;
use crate::stream::{Heard, Stream, masked};
use crate::world::{app, parts};
use crate::{Replay, from_env, log_if_asked};

/// Slots of the ring, and how many of them WebSockets may take: clients find both full.
const SLOTS: u32 = 10;
const PLACES: u32 = 6;

const CLIENTS: usize = 60;

/// The answer to a WebSocket that finds no place.
const OVER_CAPACITY: u16 = 4100;

/// A request, and the answer that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// A handshake of a known app, with the subscription right behind it.
    Subscribe,
    /// A handshake of an unknown app.
    Stranger,
    /// A health check, whose connection stays open.
    Up,
    /// No HTTP at all.
    Noise,
}

#[derive(Debug)]
struct Client {
    fd: RawFd,
    wish: Wish,
    /// The bytes that have not been sent.
    unsent: Vec<u8>,
    /// The head of the answer, up to its end.
    head: Vec<u8>,
    /// What came behind the head of a 101, or of any other answer.
    stream: Stream,
    body: Vec<u8>,
    heard: Vec<Heard>,
    left: bool,
}

impl Client {
    fn new(fd: RawFd, wish: Wish) -> Self {
        let upgrade = |key: &str| {
            let head = format!(
                "GET /app/{key}?protocol=7 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            head.into_bytes()
        };
        let subscribe = br#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#;
        let unsent = match wish {
            Wish::Subscribe => {
                [upgrade("key-0"), masked(1, true, subscribe, [1, 2, 3, 4])].concat()
            }
            Wish::Stranger => upgrade("nobody"),
            Wish::Up => b"GET /up HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
            Wish::Noise => b"\x16\x03\x01 this is no request".to_vec(),
        };
        let (head, body, heard) = (Vec::new(), Vec::new(), Vec::new());
        Self { fd, wish, unsent, head, stream: Stream::default(), body, heard, left: false }
    }

    fn read(&mut self, net: &SimNet, most: usize) {
        for byte in net.read(self.fd, most) {
            if self.head.ends_with(b"\r\n\r\n") {
                self.body.push(byte);
            } else {
                self.head.push(byte);
            }
        }
        if self.head.starts_with(b"HTTP/1.1 101 ") && self.head.ends_with(b"\r\n\r\n") {
            let frames = std::mem::take(&mut self.body);
            self.heard.extend(self.stream.feed(&frames, &self.fd));
        }
    }

    /// Whether it has got all of its answer.
    fn is_answered(&self) -> bool {
        let texts = self.heard.iter().filter(|heard| matches!(heard, Heard::Text(_))).count();
        let closed = self.heard.iter().any(|heard| matches!(heard, Heard::Close(_)));
        match self.wish {
            Wish::Subscribe => texts == 2 || closed,
            Wish::Stranger => closed,
            Wish::Up => self.body.ends_with(b"}"),
            Wish::Noise => self.head.ends_with(b"\r\n\r\n"),
        }
    }

    /// Checks the answer. Returns whether the wish was granted.
    fn judge(&self) -> bool {
        let head = String::from_utf8_lossy(&self.head);
        let status = head.get(9..12).unwrap_or_default();
        match (self.wish, self.heard.as_slice()) {
            (Wish::Subscribe, [Heard::Text(first), Heard::Text(second)]) => {
                assert!(first.contains("pusher:connection_established"), "{self:?}");
                assert!(second.contains("subscription_succeeded"), "{self:?}");
                true
            }
            (Wish::Subscribe, [Heard::Text(_), Heard::Close(Some(OVER_CAPACITY))]) => false,
            (Wish::Stranger, [Heard::Text(error), Heard::Close(Some(4001))]) => {
                assert!(error.contains("4001"), "{self:?}");
                true
            }
            (Wish::Up, []) => {
                assert_eq!((status, &*self.body), ("200", &br#"{"health":"OK"}"#[..]));
                true
            }
            (Wish::Noise, []) => {
                assert_eq!(status, "400", "{self:?}");
                true
            }
            _ => panic!("{self:?}"),
        }
    }
}

struct World {
    served: Served<SimRing>,
    listener: SimListener,
    net: SimNet,
    dice: Dice,
    clients: Vec<Client>,
    now: Millis,
    granted: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let (net, listener) = (SimNet::default(), SimListener::default());
        let faults = Faults {
            short_send: dice.one_of(&[0, 200, 800]),
            spurious: dice.one_of(&[0, 200]),
            unknown_left: dice.one_of(&[0, 300]),
            stray_again: dice.one_of(&[0, 10, 200]),
            no_buffers: dice.one_of(&[0, 20, 300]),
            reset: dice.one_of(&[0, 0, 3, 30]),
            stale: dice.one_of(&[0, 20, 300]),
            busy: dice.one_of(&[0, 50, 500]),
            delay: dice.one_of(&[0, 100, 700]),
            accept: dice.one_of(&[0, 50, 300]),
        };
        let ring =
            SimRing::new(net.clone(), dice.roll(), faults, SLOTS, 4, dice.one_of(&[7, 4096]));
        let ring = ring.with_queue(dice.one_of(&[1, 8, 256]));
        let apps = Arc::new(Apps::new(vec![app(0, &Plan::new(1, 1))]));
        let parts = parts(
            &apps,
            BacklogLimits { connection: 20_000, shard: 1 << 20 },
            KeyHash::seeded(1),
            seed,
            bus::connect::<ShardMessage>(1, 8).unwrap().remove(0),
        );
        let mut served = Served::new(ring, parts, PLACES, Clock::start());
        served.accept_from(listener.clone());
        let (clients, now, granted) = (Vec::new(), Millis(1), 0);
        Self { served, listener, net, dice, clients, now, granted }
    }

    fn turn(&mut self) {
        self.served.turn(self.now);
    }

    /// Has one client do something.
    fn step(&mut self, connects: bool) {
        let live = self.clients.len();
        if connects && (live == 0 || self.dice.chance(100)) {
            let wishes = [Wish::Subscribe, Wish::Subscribe, Wish::Stranger, Wish::Up, Wish::Noise];
            let wish = self.dice.one_of(&wishes);
            let fd = self.listener.connect(&self.net, None);
            self.clients.push(Client::new(fd, wish));
        } else if live > 0 {
            let at = self.dice.below(live);
            let client = &mut self.clients[at];
            let piece = (1 + self.dice.below(300)).min(client.unsent.len());
            let piece: Vec<_> = client.unsent.drain(..piece).collect();
            self.net.write(client.fd, &piece);
            client.read(&self.net, 1 + self.dice.below(400));
            let gives_up = self.dice.chance(20);
            if client.is_answered() || gives_up {
                client.left = gives_up;
                let client = self.clients.swap_remove(at);
                self.leave(&client);
            }
        }
        self.now = self.now + Duration::from_millis(self.dice.below(20) as u64);
    }

    fn leave(&mut self, client: &Client) {
        if client.is_answered() && client.judge() {
            self.granted += 1;
        }
        self.net.close(client.fd);
    }

    /// Has everybody send and read all, without further faults.
    fn settle(&mut self) {
        self.served.ring_mut().heal();
        for _ in 0..2_000 {
            for at in (0..self.clients.len()).rev() {
                let client = &mut self.clients[at];
                let rest = std::mem::take(&mut client.unsent);
                self.net.write(client.fd, &rest);
                client.read(&self.net, usize::MAX);
                if client.is_answered() || self.net.ended(client.fd) {
                    let client = self.clients.swap_remove(at);
                    assert!(
                        client.is_answered() || self.net.was_reset(client.fd),
                        "it ends without an answer: {client:?}"
                    );
                    self.leave(&client);
                }
            }
            self.turn();
            self.now = self.now + Duration::from_millis(20);
            if self.clients.is_empty() && !self.served.has_work() {
                return;
            }
        }
        panic!("clients wait for ever: {:?}", self.clients);
    }

    /// Stops the front. Nothing is left behind.
    fn stop(&mut self) {
        self.served.stop_front();
        for _ in 0..1_000 {
            self.turn();
            self.now = self.now + Duration::from_millis(20);
            if self.served.ring().leaks().is_none() {
                return;
            }
        }
        panic!("left behind: {:?}", self.served.ring().leaks());
    }
}

fn run(seed: u64) -> usize {
    let _replay = Replay { test: "handshakes", seed };
    let mut world = World::new(seed);
    let mut connected = 0;
    for _ in 0..20_000 {
        let before = world.clients.len();
        world.step(connected < CLIENTS);
        connected += usize::from(world.clients.len() > before);
        if world.dice.chance(500) {
            world.turn();
        }
        if connected == CLIENTS && world.clients.is_empty() {
            break;
        }
    }
    world.settle();
    world.stop();
    world.granted
}

#[test]
fn handshakes_are_answered_whatever_happens_to_the_others() {
    log_if_asked();
    let runs = from_env("RINGWAVE_SIM_RUNS").unwrap_or(40);
    let seeds = match from_env("RINGWAVE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..runs,
    };
    let count = seeds.end - seeds.start;
    let granted: usize = seeds.map(run).sum();
    assert!(granted as u64 > count * CLIENTS as u64 / 4, "only {granted} wishes were granted");
}
