//! A node with 20,000 presence members dies: the time until a client of another node has heard of
//! all their departures, and the longest time for which one call stalls Redis meanwhile. On the way
//! there, the memory that members take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::Options;
use crate::client::{Subscriber, contains};
use crate::figures::Figures;
use crate::nodes::cluster;
use crate::redis_server::until;
use crate::registration::trimmed;

const MEMBERS: usize = 20_000;

/// The members of a room: each connection is in as many rooms.
const ROOM: usize = 20;

/// The most seconds until all have left: the lease and five.
const GONE_S: f64 = 10.0;

/// The most milliseconds that a call may take.
const STALL_MS: f64 = 20.0;

pub(crate) fn measure(options: &Options) -> Figures {
    let mut figures = Figures::new(format!(
        "a node of three with {MEMBERS} presence members in rooms of {ROOM} dies"
    ));
    for _ in 0..options.rounds {
        round(&mut figures);
    }
    figures.goal("all are gone after, s", figures.median("last departure heard after"), GONE_S);
    let stall_ms = figures.median("longest stall of Redis by a call");
    figures.goal("longest stall, ms", stall_ms, STALL_MS);
    figures
}

fn round(figures: &mut Figures) {
    let (mut nodes, redis) = cluster();
    let rooms: Vec<String> =
        (0..MEMBERS / ROOM).map(|room| format!("presence-{room:04}")).collect();
    let observer = Observer::of(&nodes[1].address, &rooms);
    trimmed(&redis);
    let empty_bytes = redis.key_bytes();
    let mut all = Vec::new();
    for (group, rooms) in rooms.chunks(ROOM).enumerate() {
        let mut members: Vec<Subscriber> =
            (0..ROOM).map(|_| Subscriber::connect(&nodes[0].address)).collect();
        for (member, subscriber) in members.iter_mut().enumerate() {
            subscriber.enter(&format!("user-{:06}", group * ROOM + member), rooms.iter().cloned());
        }
        for subscriber in &mut members {
            subscriber.await_messages("subscription_succeeded", ROOM);
        }
        all.append(&mut members);
    }
    observer.hear(&observer.arrivals);
    trimmed(&redis);
    figures.add("bytes per member", "B", (redis.key_bytes() - empty_bytes) / MEMBERS as f64);
    let _done: String = redis.ask(&["SLOWLOG", "RESET"]);
    let cpu_s = redis.cpu_s();
    nodes[0].kill();
    let first_s = until("a departure", || observer.departures.load(Ordering::Relaxed) > 0);
    let rest_s = observer.hear(&observer.departures);
    figures.add("first departure heard after", "s", first_s);
    figures.add("last departure heard after", "s", first_s + rest_s);
    figures.add(
        "burial: CPU of Redis per member",
        "us",
        (redis.cpu_s() - cpu_s) * 1e6 / MEMBERS as f64,
    );
    figures.add("longest stall of Redis by a call", "ms", redis.longest_call_ms());
}

/// A client in all rooms, in a thread of its own, that counts who comes and goes.
struct Observer {
    arrivals: Arc<AtomicUsize>,
    departures: Arc<AtomicUsize>,
}

impl Observer {
    fn of(address: &str, rooms: &[String]) -> Self {
        let mut subscriber = Subscriber::connect(address);
        subscriber.enter("observer", rooms.iter().cloned());
        subscriber.await_messages("subscription_succeeded", rooms.len());
        let observer = Self { arrivals: Arc::default(), departures: Arc::default() };
        let counters = [&observer.arrivals, &observer.departures].map(Arc::clone);
        // The thread ends with its connection.
        thread::spawn(move || {
            while let Some(message) = subscriber.next_or_end() {
                for (counter, event) in counters.iter().zip(["member_added", "member_removed"]) {
                    counter.fetch_add(usize::from(contains(&message, event)), Ordering::Relaxed);
                }
            }
        });
        observer
    }

    /// Waits until a counter has counted all members; returns the seconds that it took.
    fn hear(&self, counter: &AtomicUsize) -> f64 {
        until("all members are heard of", || counter.load(Ordering::Relaxed) >= MEMBERS)
    }
}
