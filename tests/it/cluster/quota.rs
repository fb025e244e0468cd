use rustix::process::Signal;

use crate::client::Client;
use crate::gateway::{Gateway, Setup, eventually};
use crate::http::connections;
use crate::nodes::{Cluster, brief, over_with};
use crate::steps::admission::{admitted_or_refused, storm};

const QUOTA: usize = 10;

/// The code of a refusal at the quota.
const FULL: u16 = 4004;

fn limited(setup: Setup) -> Setup {
    setup.env("REVERB_APP_MAX_CONNECTIONS", &QUOTA.to_string())
}

/// A client, unless the app has as many connections as it may.
fn let_in(node: &Gateway) -> Option<Client> {
    admitted_or_refused(node).map_err(|code| assert_eq!(code, FULL)).ok()
}

/// Connects twenty clients to each node at once. Returns those that were let in.
fn stormed<const N: usize>(cluster: &Cluster<N>) -> Vec<Client> {
    let (admitted, refused) = storm(&cluster.gateways(), 20 * N);
    assert!(refused.keys().all(|&code| code == FULL), "{refused:?}");
    admitted
}

#[test]
fn an_app_has_exactly_as_many_connections_as_it_may_over_all_nodes() {
    over_with(limited, |cluster: Cluster<2>| {
        let mut held = stormed(&cluster);
        assert_eq!(held.len(), QUOTA);
        for _ in 0..2 {
            assert_eq!(connections(&cluster.nodes[0]), QUOTA as u64);
            cluster.nodes.iter().for_each(|node| assert!(let_in(node).is_none()));
            drop(held);
            // The connections of the last round are counted until their nodes have seen them end.
            held = eventually("all places are taken", || {
                let held = stormed(&cluster);
                assert!(held.len() <= QUOTA, "{} are let in", held.len());
                (held.len() == QUOTA).then_some(held)
            });
        }
    });
}

#[test]
fn one_node_may_have_all_connections_and_another_gets_those_that_become_free() {
    over_with(limited, |cluster: Cluster<3>| {
        let [a, b, c] = &cluster.nodes;
        let mut held: Vec<_> = (0..QUOTA).map(|_| let_in(a).expect("a place")).collect();
        assert!(let_in(b).is_none() && let_in(c).is_none());
        for node in [b, c, b] {
            held.remove(0);
            held.push(eventually("a place is free", || let_in(node)));
        }
        assert!(let_in(a).is_none());
    });
}

#[test]
fn the_connections_of_a_node_that_died_are_free_after_its_lease() {
    let settings = |setup| limited(brief(setup));
    over_with(settings, |cluster: Cluster<2>| {
        let Cluster { nodes: [a, mut b], redis: _redis } = cluster;
        let lost: Vec<_> = (0..QUOTA).map(|_| let_in(&b).expect("a place")).collect();
        assert!(let_in(&a).is_none());
        b.signal(Signal::KILL);
        b.gateway().ended();
        let _first = eventually("a place is free", || let_in(&a));
        let _rest: Vec<_> = (1..QUOTA).map(|_| let_in(&a).expect("a place")).collect();
        assert!(let_in(&a).is_none());
        drop(lost);
    });
}

#[test]
fn a_node_that_stops_gives_its_places_back_at_once() {
    let settings = |setup: Setup| limited(setup).env("RINGWAVE_SHUTDOWN_WINDOW", "0");
    over_with(settings, |cluster: Cluster<2>| {
        let Cluster { nodes: [a, mut b], redis: _redis } = cluster;
        let clients: Vec<_> = (0..QUOTA).map(|_| let_in(&b).expect("a place")).collect();
        b.signal(Signal::TERM);
        drop(clients);
        assert!(b.gateway().ended().success());
        let _all: Vec<_> = (0..QUOTA).map(|_| let_in(&a).expect("a place")).collect();
    });
}
