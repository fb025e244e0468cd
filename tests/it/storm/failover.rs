//! Storms over two relays to one gateway, which stand for two nodes of a cluster. One of them dies.

use std::process::{Command, Output};

use serde_json::Value;

use super::relay::Relay;
use super::{RINGWAVE, due, outcome, started};
use crate::gateway::{APP_ID, KEY, SECRET, Setup, eventually};

fn storm(relays: &[&Relay], arguments: &str) -> Command {
    let mut storm = Command::new(RINGWAVE);
    storm.arg("storm").args(arguments.split(' ')).arg("--json");
    storm.args(["--app-id", APP_ID, "--key", KEY, "--secret", SECRET]);
    for relay in relays {
        storm.args(["--url", &relay.url()]);
    }
    storm
}

/// Runs a storm in whose middle the first of two relays dies.
fn half_killed(arguments: &str, middle: impl Fn(&Relay, &Relay) -> bool) -> (Output, Value) {
    let gateway = Setup::new(2).start();
    let (mut first, second) = (Relay::start(&gateway), Relay::start(&gateway));
    let mut storm = storm(&[&first, &second], arguments);
    let storm = started(&mut storm);
    eventually("the middle of the storm", || middle(&first, &second).then_some(()));
    first.kill();
    let output = storm.wait_with_output().unwrap();
    let outcome = outcome(&output);
    (output, outcome)
}

#[test]
fn connections_and_publishers_of_a_dead_node_go_on_at_the_other_and_lose_nothing_that_is_owed() {
    for channels in ["1", "4"] {
        let arguments = format!("fanout -n 40 -c {channels} -p 4 -r 200 -d 3 --failover");
        let (output, outcome) = half_killed(&arguments, |first, _| first.publishes() > 50);
        assert_eq!(output.status.code(), Some(0), "{outcome:#}");
        let connections = &outcome["connections"];
        assert_eq!((&connections["cut"], &connections["away"]), (&20.into(), &0.into()));
        assert_eq!(connections["handshakes"], 60);
        assert_eq!(due(&outcome), 600);
        assert!(outcome["messages"]["unknown"].as_u64().unwrap() <= 2, "one for each publisher");
        let messages = |figure: &str| outcome["messages"][figure].as_u64().unwrap();
        let per_channel = 40 / channels.parse::<u64>().unwrap();
        let all = messages("sent") * per_channel;
        assert!(messages("missed_away") < all / 2, "{outcome:#}");
        let possible = all - messages("missed_away")..=all + messages("unknown") * per_channel;
        assert!(possible.contains(&messages("delivered")), "{outcome:#}");
    }
}

#[test]
fn without_failover_a_dead_node_fails_the_storm() {
    let arguments = "fanout -n 10 -r 100 -d 2 --grace 1";
    let (output, outcome) = half_killed(arguments, |_, second| second.publishes() > 50);
    assert_eq!(output.status.code(), Some(1), "{outcome:#}");
    assert_eq!(outcome["connections"]["cut"], 5);
    assert_eq!(outcome["messages"]["sent"], 200, "the publisher was at the other node");
}

#[test]
fn connections_that_find_no_node_any_more_fail_the_storm() {
    let gateway = Setup::new(1).start();
    let mut relay = Relay::start(&gateway);
    let arguments = "fanout -n 5 -p 1 -r 50 -d 1 --failover --grace 0.5";
    let storm = started(&mut storm(&[&relay], arguments));
    eventually("the middle of the storm", || (relay.publishes() > 10).then_some(()));
    relay.kill();
    let output = storm.wait_with_output().unwrap();
    let outcome = outcome(&output);
    assert_eq!(output.status.code(), Some(1), "{outcome:#}");
    assert_eq!(outcome["connections"]["away"], 5);
    assert!(outcome["connections"]["retried"].as_u64().unwrap() > 0);
    assert_eq!((due(&outcome), &outcome["messages"]["lost"]), (50, &0.into()));
}

#[test]
fn members_that_are_listed_at_every_node_are_those_that_are_connected() {
    let arguments = "fanout -n 20 -c 2 -r 100 -d 1 --kind presence --failover --ghosts 10";
    let (output, outcome) = half_killed(arguments, |_, second| second.publishes() > 30);
    assert_eq!(output.status.code(), Some(0), "{outcome:#}");
    assert_eq!(
        (&outcome["connections"]["cut"], &outcome["members"]["nodes"]),
        (&10.into(), &1.into())
    );
    assert_eq!(outcome["members"]["ghosts"], 0);
}

#[test]
fn a_node_that_knows_nothing_of_another_lists_neither_its_members_nor_ghosts() {
    let gateways = [Setup::new(1).start(), Setup::new(1).start()];
    let relays = gateways.each_ref().map(Relay::start);
    let arguments = "connect -n 12 -c 2 -d 0.2 --kind presence --ghosts 0";
    let output = storm(&relays.each_ref(), arguments).output().unwrap();
    let outcome = outcome(&output);
    assert_eq!(output.status.code(), Some(1), "{outcome:#}");
    let figures = ["nodes", "ghosts", "absent"].map(|figure| &outcome["members"][figure]);
    assert_eq!(figures, [2, 0, 12], "each node lists its own half");
}

#[test]
fn client_events_of_a_dead_node_are_sent_from_the_other() {
    let arguments = "whisper -n 20 -c 2 -p 8 -r 80 -d 3 --failover";
    let (output, outcome) = half_killed(arguments, |first, _| first.pieces() > 50);
    assert_eq!(output.status.code(), Some(0), "{outcome:#}");
    assert_eq!((due(&outcome), &outcome["messages"]["unsent"]), (240, &0.into()));
    assert_eq!(outcome["connections"]["cut"], 10);
}

#[test]
fn a_connection_that_returns_takes_the_next_node_in_turn() {
    let gateway = Setup::new(1).start();
    let relays = [Relay::start(&gateway), Relay::start(&gateway)];
    let [first, second] = &relays;
    let output = storm(&[first, second], "reconnect -n 3 -d 0.2 --rounds 3").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{:#}", outcome(&output));
    assert_eq!(relays.each_ref().map(Relay::handshakes), [6, 6]);
}
