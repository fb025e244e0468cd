use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames;
use crate::gateway::{APP_ID, Gateway, KEY, Setup, eventually};
use crate::http::Call;
use crate::memory_limit_group::{Ballast, MemoryGroup};
use crate::raw::{self, Raw};
use crate::sign::{channel_auth, user_auth};

const MIB: u64 = 1 << 20;

/// Clients that were connected before the attack, and that must not notice it.
const BYSTANDERS: usize = 50;

/// The duration of an attack that is never refused.
const ATTACK: Duration = Duration::from_secs(60);

/// A client that reads while it sends.
struct Attacker {
    stream: TcpStream,
    socket_id: String,
    reader: Option<JoinHandle<Taken>>,
}

/// The answers that an attacker has got.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    bytes: usize,
    /// Whether an error with 4100 or a Close frame was among them.
    refused: bool,
}

impl Attacker {
    /// Connects. Returns `None` if the connection was refused.
    fn connect(gateway: &Gateway) -> Option<Self> {
        let (socket_id, raw) = with_id(gateway)?;
        let stream = raw.stream;
        let mut reading = stream.try_clone().unwrap();
        let reader = thread::spawn(move || take(&mut reading));
        Some(Self { stream, socket_id, reader: Some(reader) })
    }

    /// Sends all of these messages. Returns `false` if the connection was closed.
    fn send(&mut self, messages: impl Iterator<Item = String>) -> bool {
        let bytes: Vec<u8> = messages.flat_map(|message| frame(&message)).collect();
        self.stream.write_all(&bytes).is_ok()
    }

    /// Ends the connection, and returns the answers that it has got.
    fn end(mut self) -> Taken {
        let _gone = self.stream.shutdown(Shutdown::Both);
        self.reader.take().unwrap().join().unwrap()
    }
}

/// A connection with its socket id, or `None` if it was refused.
fn with_id(gateway: &Gateway) -> Option<(String, Raw)> {
    let mut raw = Raw::open(gateway, raw::handshake().as_bytes());
    let first = raw.message();
    let (_, rest) = first.split_once(r#"\"socket_id\":\""#)?;
    let socket_id = rest.split('\\').next()?.to_owned();
    Some((socket_id, raw))
}

/// A text message whose mask changes nothing, so that it costs the client nothing.
fn frame(message: &str) -> Vec<u8> {
    [&frames::header(0x81, message.len())[..], &[0; 4], message.as_bytes()].concat()
}

/// Reads until the end.
fn take(stream: &mut TcpStream) -> Taken {
    let mut taken = Taken::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => {
                taken.bytes += read;
                // Once it is refused, nearly every message is an error: a look at the last is
                // enough, and costs the gateway beside it nothing.
                let last = &buffer[read.saturating_sub(LAST)..read];
                taken.refused |= last.windows(REFUSED.len()).any(|part| part == REFUSED.as_bytes());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return taken,
        }
    }
}

/// The bytes of an error message and some more.
const LAST: usize = 200;
const REFUSED: &str = r#"\"code\":4100"#;

/// A gateway in a group of its own, and its bystanders.
struct Scene {
    _ballast: Option<Ballast>,
    bystanders: Vec<Raw>,
    gateway: Gateway,
    group: MemoryGroup,
}

impl Scene {
    fn new(limit_mib: u64, setup: impl Fn(Setup) -> Setup) -> Option<Self> {
        let group = MemoryGroup::new(limit_mib * MIB)?;
        // The part of a large limit that exceeds a small one is filled at once, so that the rest
        // takes seconds.
        let beyond = limit_mib.saturating_sub(96) * MIB;
        let ballast = (beyond > 0).then(|| group.ballast(beyond));
        let gateway = group.start(setup(Setup::new(2)));
        let bystanders = (0..BYSTANDERS).map(|_| subscribed(&gateway)).collect();
        Some(Self { _ballast: ballast, bystanders, gateway, group })
    }

    /// Attacks until the log says that memory is short, or for some seconds.
    fn until_short(&self, mut step: impl FnMut(usize) -> bool) {
        let started = Instant::now();
        let mut number = 0;
        while started.elapsed() < ATTACK && !self.gateway.log().contains("memory is short") {
            if !step(number) {
                break;
            }
            number += 1;
        }
    }

    /// Checks that the bystanders are connected and get what is published, and that everything is
    /// let in again when the attackers are gone.
    fn ends_well(mut self, attackers: impl FnOnce()) {
        eprintln!("{} MiB in use", self.group.used() / MIB);
        self.hear("during");
        attackers();
        self.hear("afterwards");
        eventually("everything is let in again", || {
            let mut late = Raw::open(&self.gateway, raw::handshake().as_bytes());
            if !late.message().contains("connection_established") {
                return None;
            }
            late.send(&raw::text(SUBSCRIBE));
            late.message().contains("subscription_succeeded").then_some(())
        });
        // This checks that the process is alive.
        drop(self.gateway);
    }

    /// Publishes as a backend does, which repeats a publish that is answered with 503, and waits
    /// until all bystanders have the event.
    fn hear(&mut self, what: &str) {
        let event = json!({"name": "e", "channel": "news", "data": what});
        eventually("an event is published", || {
            (Call::post("events", &event).send(&self.gateway).status == 200).then_some(())
        });
        for bystander in &mut self.bystanders {
            // A subscriber may have got more than one event by now.
            while !bystander.message().contains(what) {}
        }
    }
}

const SUBSCRIBE: &str = r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#;

fn subscribed(gateway: &Gateway) -> Raw {
    let mut raw = Raw::connect(gateway);
    raw.send(&raw::text(SUBSCRIBE));
    let answer = raw.message();
    assert!(answer.contains("subscription_succeeded"), "{answer}");
    raw
}

/// As many subscribers as there are attackers at a time.
fn attackers(scene: &Scene, count: usize) -> Vec<Attacker> {
    (0..count).map_while(|_| Attacker::connect(&scene.gateway)).collect()
}

fn end_all(attackers: Vec<Attacker>) {
    attackers.into_iter().for_each(|attacker| {
        attacker.end();
    });
}

/// Subscribes each of them to a hundred channels that only it and only this round has.
fn subscribe_all(attackers: &mut [Attacker], round: usize) {
    for (number, attacker) in attackers.iter_mut().enumerate() {
        let name = |n| format!("{:-<200}", format!("{number}-{round}-{n}-"));
        let subscribe =
            |n| json!({"event": "pusher:subscribe", "data": {"channel": name(n)}}).to_string();
        attacker.send((0..100).map(subscribe));
    }
}

fn many_subscriptions(limit_mib: u64, connections: usize) {
    let Some(scene) = Scene::new(limit_mib, |setup| setup) else { return };
    let mut attackers = attackers(&scene, connections);
    scene.until_short(|round| {
        subscribe_all(&mut attackers, round);
        round < 100
    });
    for round in 100..105 {
        subscribe_all(&mut attackers, round);
    }
    scene.gateway.logged(&["WARN", "memory is short", "subscriptions"]);
    scene.gateway.logged(&["WARN", "refused with 4100", "memory is short"]);
    scene.ends_well(|| {
        let taken: Vec<_> = attackers.into_iter().map(Attacker::end).collect();
        assert!(taken.iter().any(|taken| taken.refused), "{taken:?}");
    });
}

#[test]
fn many_subscriptions_of_few_connections_are_refused_when_memory_is_short() {
    let _alone = crate::alone();
    for (limit_mib, connections) in [(64, 30), (128, 30), (512, 30)] {
        many_subscriptions(limit_mib, connections);
    }
}

/// Each of them joins a presence channel of its own as a member with this information. Returns
/// whether any was refused.
fn join_all(attackers: &mut [(String, Raw)], round: usize, user_info: &str) -> bool {
    let mut refused = false;
    for (number, (socket_id, raw)) in attackers.iter_mut().enumerate() {
        let channel = format!("presence-{number}-{round}");
        let user = format!(r#"{{"user_id":"1","user_info":"{user_info}"}}"#);
        let auth = channel_auth(socket_id, &channel, Some(&user));
        let data = json!({"channel": channel, "auth": auth, "channel_data": user});
        raw.send(&frame(&json!({"event": "pusher:subscribe", "data": data}).to_string()));
        // One after the other, because messages that come in parts have a share of their own.
        refused |= raw.message().contains(REFUSED);
    }
    refused
}

fn large_members(limit_mib: u64, user_info: usize) {
    let setup = |setup: Setup| setup.env("REVERB_APP_MAX_MESSAGE_SIZE", "1000000");
    let Some(scene) = Scene::new(limit_mib, setup) else { return };
    let mut attackers: Vec<_> = (0..10).filter_map(|_| with_id(&scene.gateway)).collect();
    let padding = "x".repeat(user_info);
    let mut refused = false;
    scene.until_short(|round| {
        refused |= join_all(&mut attackers, round, &padding);
        !refused
    });
    // Memory may be short since the last round.
    refused |= join_all(&mut attackers, usize::MAX, &padding);
    assert!(refused, "{} MiB in use", scene.group.used() / MIB);
    scene.gateway.logged(&["WARN", "memory is short", "members"]);
    scene.ends_well(|| drop(attackers));
}

#[test]
fn members_with_much_user_info_are_refused_when_memory_is_short() {
    let _alone = crate::alone();
    for (limit_mib, user_info) in [(64, 100_000), (128, 300_000), (512, 900_000)] {
        large_members(limit_mib, user_info);
    }
}

#[test]
fn unfinished_messages_have_a_share_of_a_small_limit() {
    let _alone = crate::alone();
    let Some(scene) = Scene::new(64, |setup| setup) else { return };
    let mut held = Vec::new();
    scene.until_short(|number| {
        let mut client = Raw::connect(&scene.gateway);
        // These are all but the last bytes of a message.
        let whole = raw::text(&"x".repeat(9000));
        client.send(&whole[..8990]);
        held.push(client);
        number < 1000
    });
    scene.gateway.logged(&["WARN", "closed with 4100", "unfinished messages take"]);
    scene.ends_well(|| drop(held));
}

#[test]
fn sign_ins_with_long_watchlists_are_refused_when_memory_is_short() {
    let _alone = crate::alone();
    let setup = |setup: Setup| setup.env("REVERB_APP_MAX_MESSAGE_SIZE", "100000");
    let Some(scene) = Scene::new(64, setup) else { return };
    let info = "x".repeat(50_000);
    let mut attackers = Vec::new();
    scene.until_short(|number| {
        let Some(mut attacker) = Attacker::connect(&scene.gateway) else { return false };
        let watchlist: Vec<_> =
            (0..80).map(|n| format!("{:-<100}", format!("{number}-{n}"))).collect();
        let user = json!({"id": number.to_string(), "user_info": info, "watchlist": watchlist})
            .to_string();
        let auth = user_auth(&attacker.socket_id, &user);
        let data = json!({"auth": auth, "user_data": user});
        let sent = attacker
            .send(std::iter::once(json!({"event": "pusher:signin", "data": data}).to_string()));
        attackers.push(attacker);
        sent
    });
    scene.gateway.logged(&["WARN", "memory is short", "sign-ins"]);
    scene.ends_well(|| end_all(attackers));
}

#[test]
fn cached_events_of_ever_new_channels_have_a_share_of_a_small_limit() {
    let _alone = crate::alone();
    let Some(scene) = Scene::new(64, |setup| setup) else { return };
    let data = "x".repeat(40_000);
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let gateway = &scene.gateway;
            let data = &data;
            move || {
                for round in 0..30 {
                    let channels: Vec<_> =
                        (0..50).map(|n| format!("cache-{publisher}-{round}-{n}")).collect();
                    let event = json!({"name": "e", "channels": channels, "data": data});
                    let status = Call::post("events", &event).send(gateway).status;
                    assert!([200, 503].contains(&status), "{status}");
                }
            }
        })
        .collect();
    thread::scope(|scope| {
        publishers.into_iter().for_each(|publisher| drop(scope.spawn(publisher)))
    });
    // The last event that was published is cached, unless it had to make room for another.
    scene.ends_well(|| {});
}

#[test]
fn backlogs_of_slow_readers_have_a_share_of_a_small_limit() {
    let _alone = crate::alone();
    let Some(scene) = Scene::new(64, |setup| setup) else { return };
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"busy"}}"#;
    let mut slow: Vec<_> = (0..100).map(|_| Raw::connect(&scene.gateway)).collect();
    slow.iter_mut().for_each(|slow| slow.send(&raw::text(subscribe)));
    let event = json!({"name": "e", "channel": "busy", "data": "x".repeat(90_000)});
    for _ in 0..200 {
        let status = Call::post("events", &event).send(&scene.gateway).status;
        assert!([200, 503].contains(&status), "{status}");
    }
    scene.gateway.logged(&["WARN", "closed with 4101"]);
    scene.ends_well(|| drop(slow));
}

/// A gateway that waits two seconds for a head, and connections that send only the beginning of
/// something, until memory is short and some more.
fn half_open(bytes: &[u8], most: usize) {
    let setup = |setup: Setup| setup.env("RINGWAVE_HEADER_TIMEOUT", "2");
    let Some(scene) = Scene::new(64, setup) else { return };
    let mut streams = Vec::new();
    let mut open = || {
        let mut stream = scene.gateway.tcp();
        // A connection that is not accepted takes as many bytes as the kernel has room for.
        stream.set_nonblocking(true).unwrap();
        let _part = stream.write(bytes);
        streams.push(stream);
    };
    scene.until_short(|number| {
        open();
        number < most
    });
    (0..200).for_each(|_| open());
    scene.ends_well(|| drop(streams));
}

#[test]
fn half_open_heads_are_accepted_as_far_as_memory_goes() {
    let _alone = crate::alone();
    let head = format!("GET /app/x HTTP/1.1\r\nHost: x\r\nX-Padding: {}", "x".repeat(15_000));
    half_open(head.as_bytes(), 3000);
}

#[test]
fn half_sent_bodies_are_accepted_as_far_as_memory_goes() {
    let _alone = crate::alone();
    let request = format!(
        "POST /apps/{APP_ID}/events?auth_key={KEY} HTTP/1.1\r\nHost: x\r\n\
         Content-Length: 90001\r\n\r\n{}",
        "x".repeat(90_000)
    );
    half_open(request.as_bytes(), 1000);
}

#[test]
fn client_events_for_a_webhook_that_is_down_have_a_share_of_a_small_limit() {
    let _alone = crate::alone();
    // Nothing listens on the port of `discard`.
    let setup = |setup: Setup| setup.env("RINGWAVE_APP_WEBHOOK_URL", "http://127.0.0.1:9/");
    let Some(scene) = Scene::new(64, setup) else { return };
    let mut attackers = attackers(&scene, 8);
    let data = "x".repeat(9000);
    for attacker in &mut attackers {
        let auth = channel_auth(&attacker.socket_id, "private-a", None);
        let data = json!({"channel": "private-a", "auth": auth});
        attacker
            .send(std::iter::once(json!({"event": "pusher:subscribe", "data": data}).to_string()));
    }
    scene.until_short(|round| {
        let event =
            |_| json!({"event": "client-x", "channel": "private-a", "data": data}).to_string();
        attackers.iter_mut().all(|attacker| attacker.send((0..20).map(event))) && round < 100
    });
    scene.gateway.logged(&["WARN", "webhook"]);
    scene.ends_well(|| end_all(attackers));
}
