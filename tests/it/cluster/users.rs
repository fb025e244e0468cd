use std::collections::VecDeque;

use rustix::process::Signal;
use serde_json::json;

use crate::client::{Client, data};
use crate::gateway::eventually;
use crate::nodes::{Cluster, brief, over, over_with};
use crate::steps::users::{TERMINATED, reach_users, terminate, terminate_a_user};

#[track_caller]
fn expect_news(client: &mut Client, name: &str, id: &str) {
    let news = data(&client.expect("pusher_internal:watchlist_events"));
    assert_eq!(news, json!({ "events": [{ "name": name, "user_ids": [id] }] }));
}

#[test]
fn an_event_for_a_user_reaches_all_connections_of_that_user_on_all_nodes() {
    over(|cluster: Cluster<3>| drop(reach_users(&cluster.gateways())));
}

#[test]
fn watchers_hear_of_the_first_connection_on_any_node_and_of_the_end_of_the_last() {
    over(|cluster: Cluster<3>| {
        let [a, b, c] = &cluster.nodes;
        let watching = json!({ "id": "w", "watchlist": ["ann", "ben"] });
        let ann = Client::signed_in(b, &json!({ "id": "ann" }));
        let mut watchers = [Client::signed_in(a, &watching), Client::signed_in(c, &watching)];
        watchers.iter_mut().for_each(|watcher| expect_news(watcher, "online", "ann"));
        let mut bens = VecDeque::from(
            [a, b, c, b].map(|node| Client::signed_in(node, &json!({ "id": "ben" }))),
        );
        watchers.iter_mut().for_each(|watcher| expect_news(watcher, "online", "ben"));
        drop(ann);
        watchers.iter_mut().for_each(|watcher| expect_news(watcher, "offline", "ann"));
        while bens.len() > 1 {
            drop(bens.pop_front());
        }
        watchers.iter_mut().for_each(Client::expect_nothing);
        drop(bens);
        watchers.iter_mut().for_each(|watcher| expect_news(watcher, "offline", "ben"));
        watchers.iter_mut().for_each(Client::expect_nothing);
    });
}

#[test]
fn watchers_hear_of_the_users_of_a_node_that_died() {
    over_with(brief, |cluster: Cluster<2>| {
        let Cluster { nodes: [a, mut b], redis: _redis } = cluster;
        let _ann = Client::signed_in(&b, &json!({ "id": "ann" }));
        let mut watcher = Client::signed_in(&a, &json!({ "id": "w", "watchlist": ["ann"] }));
        expect_news(&mut watcher, "online", "ann");
        b.signal(Signal::KILL);
        b.gateway().ended();
        expect_news(&mut watcher, "offline", "ann");
    });
}

#[test]
fn terminating_a_user_closes_the_connections_on_all_nodes_and_no_others() {
    over(|cluster: Cluster<3>| terminate_a_user(&cluster.gateways()));
}

#[test]
fn a_termination_that_a_living_node_does_not_confirm_is_not_answered_with_success() {
    over(|cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut ann = Client::signed_in(b, &json!({ "id": "ann" }));
        b.signal(Signal::STOP);
        let response = terminate("ann").send(a);
        b.signal(Signal::CONT);
        assert_eq!(response.status, 503, "{}", response.text());
        eventually("all nodes confirm", || (terminate("ann").send(a).status == 200).then_some(()));
        ann.expect_refusal(4009, TERMINATED);
    });
}
