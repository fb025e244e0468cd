use rustix::process::Signal;
use serde_json::json;

use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::http::{Call, connections, until_connected};
use crate::nodes::{Cluster, over};
use crate::steps::api::{self, described, subscribers};

#[test]
fn every_node_lists_the_channels_of_all() {
    over(|cluster: Cluster<3>| api::list_channels(&cluster.gateways()));
}

#[test]
fn every_node_describes_a_channel_with_the_subscribers_of_all() {
    over(|cluster: Cluster<3>| api::describe_channels(&cluster.gateways()));
}

#[test]
fn every_node_lists_the_users_of_all_once_each() {
    over(|cluster: Cluster<3>| api::list_users(&cluster.gateways()));
}

#[test]
fn every_node_counts_the_connections_of_all() {
    over(|cluster: Cluster<3>| {
        let clients: Vec<_> =
            (0..9).map(|number| Client::connect(&cluster.nodes[number % 3])).collect();
        cluster.nodes.iter().for_each(|node| assert_eq!(connections(node), 9));
        drop(clients);
        cluster.nodes.iter().for_each(|node| until_connected(node, 0));
    });
}

#[test]
fn the_counts_of_a_publish_cover_all_nodes() {
    over(|cluster: Cluster<3>| api::count_at_publishes(&cluster.gateways()));
}

#[test]
fn a_node_that_does_not_answer_while_its_lease_runs_makes_counts_unavailable_and_never_partial() {
    over(|cluster: Cluster<3>| {
        let [a, _, c] = &cluster.nodes;
        let _clients = subscribers(&cluster.gateways(), 3);
        c.signal(Signal::STOP);
        let calls =
            [Call::get("channels"), described("c", "subscription_count"), Call::get("connections")];
        let answers = std::thread::scope(|scope| {
            let asked = calls.each_ref().map(|call| scope.spawn(|| call.send(a)));
            asked.map(|answer| answer.join().unwrap())
        });
        c.signal(Signal::CONT);
        for answer in answers {
            assert_eq!(answer.status, 503, "{}", answer.text());
        }
        whole(a);
    });
}

/// Waits until a node answers for all, and checks that it does not answer for less before that.
#[track_caller]
fn whole(node: &Gateway) {
    eventually("it answers for all nodes", || {
        let answer = described("c", "subscription_count").send(node);
        if answer.status == 503 {
            return None;
        }
        assert_eq!(answer.json(), json!({ "occupied": true, "subscription_count": 3 }));
        Some(())
    });
}
