//! The time from publish to receive at 100 events per second, in turns: on one gateway without a
//! cluster, from one node of a cluster to another, and by a plain `PUBLISH` to its subscriber. The
//! cluster adds the difference of the first two.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::client::{Publisher, Subscriber, contains};
use crate::figures::Figures;
use crate::nodes::{Node, cluster};
use crate::redis_server::Redis;

const EVENTS_PER_S: u32 = 100;

/// The most that a cluster may add to the median, in hops by `PUBLISH`.
const HOPS: f64 = 2.0;

/// The most milliseconds between nodes that one event in a hundred may exceed.
const P99_MS: f64 = 5.0;

const CHANNEL: &str = "orders";

pub(crate) fn measure(options: &Options) -> Figures {
    let mut figures = Figures::new(format!(
        "latency at {EVENTS_PER_S} events per second of {} B, runs of {} s",
        options.size, options.seconds
    ));
    let events = (EVENTS_PER_S * options.seconds) as usize;
    let alone = Node::start(None);
    let (nodes, redis) = cluster();
    for _ in 0..options.rounds {
        let one = between(&alone, &alone, options.size, events);
        let other = between(&nodes[0], &nodes[1], options.size, events);
        let hop = hop(&redis, options.size, events);
        for (name, times) in [("one gateway", &one), ("node to node", &other), ("PUBLISH", &hop)] {
            for percent in [50, 99] {
                let time = percentile(times, percent);
                figures.add(format!("{name}, p{percent}"), "us", time.as_secs_f64() * 1e6);
            }
        }
        let added = percentile(&other, 50).as_secs_f64() - percentile(&one, 50).as_secs_f64();
        figures.add("added by the cluster, p50", "us", added * 1e6);
        figures.add("added, in hops", "x", added / percentile(&hop, 50).as_secs_f64());
    }
    let hops = figures.median("added, in hops");
    figures.goal("added to p50, in hops by PUBLISH", hops, HOPS);
    let p99_ms = figures.median("node to node, p99") / 1000.0;
    figures.goal("p99 node to node, ms", p99_ms, P99_MS);
    figures
}

/// The times from a publish at one gateway to its receipt at another.
fn between(from: &Node, to: &Node, size: usize, events: usize) -> Vec<Duration> {
    let mut subscriber = Subscriber::connect(&to.address);
    subscriber.subscribe([CHANNEL.to_owned()].into_iter());
    subscriber.await_messages("subscription_succeeded", 1);
    let receive = move |_| {
        while !contains(&subscriber.next(), r#""event":"e""#) {}
        Instant::now()
    };
    let receive_all = move || (0..events).map(receive).collect();
    let mut publisher = Publisher::connect(&from.address);
    let data = "x".repeat(size);
    times(events, receive_all, || {
        let request = Publisher::request(CHANNEL, &data);
        let sent = Instant::now();
        publisher.publish(&request);
        sent
    })
}

/// The times from a `PUBLISH` to its receipt.
fn hop(redis: &Redis, size: usize, events: usize) -> Vec<Duration> {
    let (mut publisher, mut subscriber) = (redis.connection(), redis.connection());
    let (subscribed, is_subscribed) = mpsc::channel();
    let receive_all = move || {
        let mut subscriber = subscriber.as_pubsub();
        subscriber.subscribe(CHANNEL).expect("Redis takes a subscription");
        subscribed.send(()).expect("the publisher waits");
        let mut receive = |_| {
            subscriber.get_message().expect("Redis delivers");
            Instant::now()
        };
        (0..events).map(&mut receive).collect()
    };
    let data = "x".repeat(size);
    let mut waiting = true;
    times(events, receive_all, || {
        if std::mem::take(&mut waiting) {
            is_subscribed.recv().expect("the subscriber subscribes");
        }
        let sent = Instant::now();
        redis::cmd("PUBLISH").arg(CHANNEL).arg(&data).exec(&mut publisher).expect("Redis answers");
        sent
    })
}

/// Sends events in time. Returns the sorted times from the sending of each to its receipt, of which
/// `receive_all` returns all.
fn times(
    events: usize,
    receive_all: impl FnOnce() -> Vec<Instant> + Send + 'static,
    mut send: impl FnMut() -> Instant,
) -> Vec<Duration> {
    let receiver = thread::spawn(receive_all);
    let (began, mut due) = (Instant::now(), Duration::ZERO);
    let sent = (0..events).map(|_| {
        thread::sleep(due.saturating_sub(began.elapsed()));
        due += Duration::from_secs(1) / EVENTS_PER_S;
        send()
    });
    let sent: Vec<Instant> = sent.collect();
    let received = receiver.join().expect("every event arrives");
    let mut times: Vec<_> = received.iter().zip(&sent).map(|(at, sent)| *at - *sent).collect();
    times.sort();
    times
}

/// The value below which so many percent of the sorted times are.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
