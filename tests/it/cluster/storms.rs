//! Storms over three nodes while something fails again and again. Each takes a few seconds, or as
//! many as `RINGWAVE_STORM_S` says, which `scripts/soak` sets.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::gateway::{APP_ID, KEY, SECRET, Setup, eventually};
use crate::http::Call;
use crate::nodes::{Cluster, brief, over_with};
use crate::proxy::Flow;
use crate::redis_server::{RedisSetup, is_installed};

/// The seconds of a storm, unless the environment says otherwise.
const STORM_S: u64 = 5;

/// The time between two failures of a storm.
const BETWEEN: Duration = Duration::from_millis(700);

/// The time from the last failure to the end of a storm, in which whoever was cut returns.
const LAST: Duration = Duration::from_secs(1);

/// Longer than the lease of [`brief`], and shorter than the retention behind it.
const BEYOND_LEASE: Duration = Duration::from_secs(3);

fn seconds() -> u64 {
    std::env::var("RINGWAVE_STORM_S").map_or(STORM_S, |seconds| seconds.parse().unwrap())
}

/// Starts a storm over all nodes: members of presence channels who return at another node when they
/// are cut, and publishers who repeat what was refused.
fn storm(cluster: &Cluster<3>) -> Child {
    let mut storm = Command::new(env!("CARGO_BIN_EXE_ringwave"));
    storm.args(["storm", "fanout", "-n", "60", "-c", "6", "-p", "3", "-r", "150"]);
    storm.args(["--kind", "presence", "--failover", "--retry", "--ghosts", "7", "--grace", "20"]);
    storm.args(["--json", "-d", &seconds().to_string()]);
    storm.args(["--app-id", APP_ID, "--key", KEY, "--secret", SECRET]);
    for node in &cluster.nodes {
        storm.arg("--url").arg(format!("ws://{}", node.address()));
    }
    storm.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// Runs a storm with a failure in it, again and again, which gets the number of those before it.
/// Returns the outcome, which counts nothing lost, doubled or left behind.
fn stormed(cluster: &mut Cluster<3>, mut failure: impl FnMut(&mut Cluster<3>, usize)) -> Value {
    let storm = storm(cluster);
    eventually("all channels are there", || {
        let channels = Call::get("channels").send(&cluster.nodes[0]);
        (channels.status == 200 && channels.json()["channels"].as_object()?.len() == 6)
            .then_some(())
    });
    let (began, mut round) = (Instant::now(), 0);
    while began.elapsed() + LAST < Duration::from_secs(seconds()) {
        failure(cluster, round);
        thread::sleep(BETWEEN);
        round += 1;
    }
    let output = storm.wait_with_output().unwrap();
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    let messages = &outcome["messages"];
    for figure in ["lost", "duplicated", "unpublished", "unsent"] {
        assert_eq!(messages[figure], 0, "{figure}: {outcome:#}");
    }
    assert_eq!(outcome["members"]["ghosts"], 0, "{outcome:#}");
    assert_eq!(outcome["members"]["absent"], 0, "{outcome:#}");
    assert_eq!(outcome["connections"]["away"], 0, "{outcome:#}");
    assert!(messages["delivered"].as_u64().unwrap() > 0, "{outcome:#}");
    outcome
}

/// Runs a storm as [`stormed`] does. Nothing may be out of order, either.
fn ordered(cluster: &mut Cluster<3>, failure: impl FnMut(&mut Cluster<3>, usize)) {
    let outcome = stormed(cluster, failure);
    assert_eq!(outcome["messages"]["reordered"], 0, "{outcome:#}");
}

/// Runs a storm as [`ordered`] does. No connection may be cut, either.
fn unnoticed(cluster: &mut Cluster<3>, failure: impl FnMut(&mut Cluster<3>, usize)) {
    let outcome = stormed(cluster, failure);
    assert_eq!(outcome["messages"]["reordered"], 0, "{outcome:#}");
    assert_eq!(outcome["connections"]["cut"], 0, "{outcome:#}");
}

#[test]
fn connections_to_redis_that_break_are_not_noticed() {
    over_with(brief, |mut cluster: Cluster<3>| {
        unnoticed(&mut cluster, |cluster, round| match round % 2 {
            0 => cluster.redis.disconnect_all(),
            _ => cluster.nodes[round % 3].proxy.cut(),
        });
    });
}

#[test]
fn answers_of_redis_that_are_lost_are_not_noticed() {
    over_with(brief, |mut cluster: Cluster<3>| {
        unnoticed(&mut cluster, |cluster, round| {
            let proxy = &cluster.nodes[round % 3].proxy;
            proxy.set(Flow::Unanswered);
            thread::sleep(Duration::from_millis(150));
            proxy.set(Flow::Open);
        });
    });
}

#[test]
fn a_redis_that_restarts_with_its_data_is_not_noticed() {
    if !is_installed() {
        return;
    }
    let mut cluster = Cluster::on(RedisSetup::new().durable().start(), brief);
    unnoticed(&mut cluster, |cluster, _| {
        cluster.redis.crash();
        cluster.redis.go_on();
    });
}

#[test]
fn a_redis_that_stands_still_is_not_noticed() {
    over_with(brief, |mut cluster: Cluster<3>| {
        unnoticed(&mut cluster, |cluster, _| cluster.redis.stall(Duration::from_secs(1)));
    });
}

#[test]
fn a_redis_that_comes_back_empty_loses_nothing() {
    over_with(brief, |mut cluster: Cluster<3>| {
        stormed(&mut cluster, |cluster, round| match round % 2 {
            0 => {
                cluster.redis.crash();
                cluster.redis.go_on_empty();
            }
            _ => {
                let _done: String = cluster.redis.ask("FLUSHALL");
            }
        });
    });
}

#[test]
fn failovers_that_lose_the_last_writes_lose_nothing() {
    over_with(brief, |mut cluster: Cluster<3>| {
        stormed(&mut cluster, |cluster, _| {
            let replica = cluster.redis.replica();
            let _done: String = replica.ask("REPLICAOF NO ONE");
            thread::sleep(Duration::from_millis(150));
            cluster.redis.crash();
            cluster.nodes.iter().for_each(|node| node.proxy.turn_to(replica.address()));
            cluster.redis = replica;
        });
    });
}

#[test]
fn a_node_that_is_cut_off_for_a_while_loses_nothing() {
    over_with(brief, |mut cluster: Cluster<3>| {
        ordered(&mut cluster, |cluster, round| {
            let flows = [Flow::Refused, Flow::Swallowed, Flow::Stalled];
            let proxy = &cluster.nodes[round % 3].proxy;
            proxy.set(flows[round % 3]);
            thread::sleep(BEYOND_LEASE);
            proxy.set(Flow::Open);
        });
    });
}

#[test]
fn a_node_that_stands_still_for_a_while_loses_nothing() {
    over_with(brief, |mut cluster: Cluster<3>| {
        ordered(&mut cluster, |cluster, round| {
            let node = &cluster.nodes[round % 3];
            node.signal(Signal::STOP);
            thread::sleep(BEYOND_LEASE);
            node.signal(Signal::CONT);
        });
    });
}

#[test]
fn nodes_that_are_killed_or_restarted_cost_their_clients_a_return_and_nobody_anything_else() {
    let settings = |setup: Setup| brief(setup).env("RINGWAVE_SHUTDOWN_WINDOW", "1");
    over_with(settings, |mut cluster: Cluster<3>| {
        let signals = [Signal::KILL, Signal::TERM];
        ordered(&mut cluster, |cluster, round| {
            cluster.nodes[round % 3].restart(signals[round % 2]);
        });
    });
}
