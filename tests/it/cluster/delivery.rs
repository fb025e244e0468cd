use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::traffic::Traffic;
use crate::client::{Client, data};
use crate::gateway::{Gateway, Setup, eventually};
use crate::http::{Call, publish};
use crate::nodes::{Cluster, Node, TAG, over, over_with};
use crate::steps::api;
use crate::steps::delivery::{self, subscribers};

/// The node after this one.
fn beside(nodes: &[Node], at: usize) -> &Node {
    &nodes[(at + 1) % nodes.len()]
}

#[test]
fn all_nodes_see_what_publishers_on_all_nodes_send_in_one_order() {
    over(|cluster: Cluster<3>| {
        let [a, b, c] = &cluster.nodes;
        let traffic = Traffic::start(&[a, b, c], &[a, b, c]);
        for _ in 0..5 {
            traffic.goes_on();
        }
        traffic.complete_in_one_order();
    });
}

#[test]
fn an_event_published_on_another_node_after_the_success_arrives() {
    over(|cluster: Cluster<3>| delivery::publish_after_the_success(&cluster.gateways()));
}

#[test]
fn a_subscriber_who_returns_sees_nothing_before_the_success_and_everything_after_it() {
    over(|cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // It ends by itself, too, for the case that the other thread fails.
            let numbers = (0..5000).take_while(|_| !done.load(Ordering::SeqCst));
            scope.spawn(|| numbers.for_each(|number| publish(b, "room", "e", &number.to_string())));
            let mut client = Client::connect(a);
            for _ in 0..30 {
                client.ask("room");
                // Events of the subscription before may still come.
                while client.next()["event"] != "pusher_internal:subscription_succeeded" {}
                let [first, second] = [number(&client.next()), number(&client.next())];
                assert_eq!(first + 1, second);
                client.unsubscribe("room");
            }
            done.store(true, Ordering::SeqCst);
        });
    });
}

fn number(event: &Value) -> usize {
    event["data"].as_str().unwrap().parse().unwrap()
}

#[test]
fn an_event_is_withheld_from_the_socket_that_caused_it_whichever_node_is_asked() {
    over(|cluster: Cluster<3>| {
        let mut clients = subscribers(&cluster.gateways(), "private-room", 3);
        for at in 0..3 {
            let body = json!({
                "name": "e", "channel": "private-room", "data": "1",
                "socket_id": clients[at].socket_id,
            });
            Call::post("events", &body).ok(beside(&cluster.nodes, at));
            publish(&cluster.nodes[at], "private-room", "after", "1");
            for (other, client) in clients.iter_mut().enumerate() {
                if other != at {
                    client.expect_event("private-room", "e", "1");
                }
                client.expect_event("private-room", "after", "1");
            }
        }
    });
}

#[test]
fn no_two_connections_of_a_cluster_have_one_socket_id() {
    over(|cluster: Cluster<2>| {
        let clients = cluster.nodes.iter().flat_map(|node| (0..50).map(|_| Client::connect(node)));
        let mut ids: Vec<_> = clients.map(|client| client.socket_id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 100);
    });
}

#[test]
fn a_batch_keeps_its_order_on_every_node() {
    over(|cluster: Cluster<3>| drop(api::publish_a_batch(&cluster.gateways())));
}

#[test]
fn an_event_for_several_channels_reaches_subscribers_of_each_on_every_node() {
    over(|cluster: Cluster<3>| {
        let names = ["a", "private-b", "c"];
        let mut clients: Vec<_> = cluster.nodes.iter().map(|node| Client::connect(node)).collect();
        for (client, name) in clients.iter_mut().zip(names) {
            client.subscribe(name);
        }
        let body = json!({ "name": "e", "channels": names, "data": "1" });
        Call::post("events", &body).ok(&cluster.nodes[1]);
        for (client, name) in clients.iter_mut().zip(names) {
            client.expect_event(name, "e", "1");
        }
    });
}

#[test]
fn events_go_only_to_nodes_with_subscribers() {
    over(|cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut client = Client::subscribed(a, "room");
        let large = "x".repeat(9000);
        for _ in 0..50 {
            publish(b, "room", "e", &large);
            client.expect_event("room", "e", &large);
        }
        // Redis counts the bytes that a node has read, behind its next renewal of its lease.
        eventually("one node has read them, and the other has not", || {
            let ids: Vec<String> = cluster.redis.ask(&format!("ZRANGE {TAG}nodes 0 -1"));
            let read = |id| cluster.redis.ask(&format!("HGET {TAG}node:{id} read"));
            let mut read: Vec<usize> = ids.iter().map(read).collect();
            read.sort_unstable();
            assert!(read[0] < 100_000, "{read:?}");
            (read[1] > 450_000).then_some(())
        });
    });
}

#[test]
fn whispers_reach_the_others_on_all_nodes_and_not_their_sender() {
    over(|cluster: Cluster<3>| delivery::whisper(&cluster.gateways(), "private-room"));
}

#[test]
fn a_reaction_on_one_node_to_an_event_from_another_is_ordered_behind_it() {
    over(|cluster: Cluster<3>| delivery::react(&cluster.gateways()));
}

#[test]
fn the_last_event_of_a_cache_channel_follows_the_success_on_any_node() {
    over(|cluster: Cluster<3>| delivery::follow_the_success(&cluster.gateways()));
}

#[test]
fn a_cache_channel_keeps_its_event_without_subscribers_until_its_time_is_over() {
    let brief = |setup: Setup| setup.env("RINGWAVE_APP_CACHE_TTL", "2");
    over_with(brief, |cluster: Cluster<2>| {
        let mut later = delivery::keep_without_subscribers(&cluster.gateways());
        eventually("it is forgotten", || {
            later.unsubscribe("cache-a");
            later.subscribe("cache-a");
            (later.next()["event"] == "pusher:cache_miss").then_some(())
        });
    });
}

#[test]
fn every_subscriber_hears_the_number_of_all_nodes() {
    over_with(delivery::counted, |cluster: Cluster<3>| {
        delivery::count_subscribers(&cluster.gateways(), "room");
    });
}

#[test]
fn all_nodes_tell_the_same_numbers_at_the_same_places_among_the_events() {
    over_with(delivery::counted, |cluster: Cluster<2>| {
        let mut witnesses = subscribers(&cluster.gateways(), "room", 2);
        publish(&cluster.nodes[0], "room", "begin", "1");
        thread::scope(|scope| {
            for node in &cluster.nodes {
                scope.spawn(|| come_and_go(node, 20));
                scope.spawn(|| (0..50).for_each(|_| publish(node, "room", "e", "1")));
            }
        });
        eventually("only the witnesses are left", || {
            let told = Call::get("channels/room").param("info", "subscription_count");
            (told.ok(&cluster.nodes[0])["subscription_count"] == 2).then_some(())
        });
        publish(&cluster.nodes[1], "room", "end", "1");
        let [first, second] = [0, 1].map(|at| between_begin_and_end(&mut witnesses[at]));
        assert_eq!(first, second);
        assert_eq!(first.iter().rfind(|seen| *seen != "e").unwrap(), "2");
        assert_eq!(first.iter().filter(|seen| *seen == "e").count(), 100);
    });
}

fn come_and_go(node: &Gateway, times: usize) {
    for _ in 0..times {
        let mut client = Client::connect(node);
        client.ask("room");
        client.expect("pusher_internal:subscription_succeeded");
    }
}

/// The numbers of subscribers where they change, and an `e` for each event.
fn between_begin_and_end(client: &mut Client) -> Vec<String> {
    let mut seen = Vec::new();
    // A node that merges a leave and a join may tell the same number twice, also that of before.
    let mut last = String::new();
    loop {
        let message = client.next();
        match message["event"].as_str().unwrap() {
            "begin" => seen.clear(),
            "end" => return seen,
            "e" => seen.push("e".to_owned()),
            "pusher_internal:subscription_count" => {
                let number = data(&message)["subscription_count"].to_string();
                if number != last {
                    seen.push(number.clone());
                    last = number;
                }
            }
            other => panic!("unexpected: {other}"),
        }
    }
}
