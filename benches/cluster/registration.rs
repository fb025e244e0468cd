//! 100,000 channels with a subscriber each on one node of three: the bytes that they take in Redis,
//! the time until a Redis that was emptied knows them again, and the time until it has forgotten
//! them behind the death of the node. The connections are fewer, with
//! many channels each, because a process may have some thousand files open.

use std::thread;
use std::time::Duration;

use crate::Options;
use crate::client::Subscriber;
use crate::figures::Figures;
use crate::nodes::{RETENTION_S, cluster, is_settled};
use crate::redis_server::{Redis, TAG, until};

const CHANNELS: usize = 100_000;

/// The most seconds until everything is registered anew.
const ANEW_S: f64 = 3.0;

/// The most milliseconds for which one call may stall Redis while it forgets a dead node.
const STALL_MS: f64 = 20.0;

/// The most bytes in Redis per channel.
const BYTES: f64 = 300.0;

/// The seconds for which Redis keeps the channels of a node that is silent: lease and retention.
const KEPT_S: f64 = 5.0 + RETENTION_S as f64;

/// Twice the lease, for which a node repeats what it has sent, and a second.
const REPEATED: Duration = Duration::from_secs(11);

/// The subscriptions that are asked for before the answers are read.
const AT_ONCE: usize = 1000;

pub(crate) fn measure(options: &Options) -> Figures {
    let each = CHANNELS.div_ceil(options.connections);
    let mut figures = Figures::new(format!(
        "{CHANNELS} channels with a subscriber each on one of three nodes, {each} per connection"
    ));
    let (mut nodes, redis) = cluster();
    let empty_bytes = redis.key_bytes();
    let channels: Vec<usize> = (0..CHANNELS).collect();
    let (cpu_s, node_s) = (redis.cpu_s(), nodes[0].cpu_s());
    let mut subscribers = Vec::new();
    for numbers in channels.chunks(each) {
        let mut subscriber = Subscriber::connect(&nodes[0].address);
        for some in numbers.chunks(AT_ONCE) {
            subscriber.subscribe(some.iter().map(|number| format!("orders.{number:06}")));
            subscriber.await_messages("subscription_succeeded", some.len());
        }
        subscribers.push(subscriber);
    }
    let per_channel = |seconds: f64| seconds * 1e6 / CHANNELS as f64;
    figures.add("first subscription: CPU of Redis", "us", per_channel(redis.cpu_s() - cpu_s));
    figures.add(
        "first subscription: CPU of the node",
        "us",
        per_channel(nodes[0].cpu_s() - node_s),
    );
    // What was executed a short time before Redis was emptied is sent again, beside everything that
    // is registered.
    thread::sleep(REPEATED);
    for _ in 0..options.rounds {
        trimmed(&redis);
        figures.add("bytes per channel", "B", (redis.key_bytes() - empty_bytes) / CHANNELS as f64);
        let (cpu_s, node_s) = (redis.cpu_s(), nodes[0].cpu_s());
        let _done: String = redis.ask(&["FLUSHALL", "ASYNC"]);
        let _done: String = redis.ask(&["SLOWLOG", "RESET"]);
        let anew_s = until("everything is registered anew", || {
            registered(&redis) == CHANNELS && is_settled(&redis, nodes.len())
        });
        figures.add("registered anew after", "s", anew_s);
        figures.add("anew: longest stall of Redis by a call", "ms", redis.longest_call_ms());
        figures.add("anew: CPU of Redis per channel", "us", per_channel(redis.cpu_s() - cpu_s));
        figures.add(
            "anew: CPU of the node per channel",
            "us",
            per_channel(nodes[0].cpu_s() - node_s),
        );
    }
    let cpu_s = redis.cpu_s();
    let _done: String = redis.ask(&["SLOWLOG", "RESET"]);
    nodes[0].kill();
    let gone_s = until("the channels of a dead node are gone", || registered(&redis) == 0);
    figures.add("dead: channels gone after lease, retention and", "s", gone_s - KEPT_S);
    figures.add("dead: CPU of Redis per channel", "us", per_channel(redis.cpu_s() - cpu_s));
    figures.add("dead: longest stall of Redis by a call", "ms", redis.longest_call_ms());
    figures.goal("registered anew, s", figures.median("registered anew after"), ANEW_S);
    let stall_ms = figures.median("dead: longest stall of Redis by a call");
    figures.goal("dead: longest stall, ms", stall_ms, STALL_MS);
    figures.goal("bytes per channel", figures.median("bytes per channel"), BYTES);
    figures
}

/// The registrations of the node that has most.
fn registered(redis: &Redis) -> usize {
    let nodes: Vec<String> = redis.ask(&["ZRANGE", &format!("{TAG}nodes"), "0", "-1"]);
    let counts = nodes.iter().map(|node| redis.ask(&["SCARD", &format!("{TAG}of:{node}")]));
    counts.max().unwrap_or_default()
}

/// Waits until the inboxes are trimmed: the memory is then that of the state alone.
pub(crate) fn trimmed(redis: &Redis) {
    until("the inboxes are read and trimmed", || {
        let nodes: Vec<String> = redis.ask(&["ZRANGE", &format!("{TAG}nodes"), "0", "-1"]);
        let lens = nodes.iter().map(|node| redis.ask(&["XLEN", &format!("{TAG}in:{node}")]));
        lens.max().unwrap_or(0_usize) <= 3
    });
}
