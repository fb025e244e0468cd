use std::collections::VecDeque;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{Client, data};
use crate::gateway::{Gateway, eventually};
use crate::http::{Call, publish};
use crate::nodes::{Cluster, brief, over, over_with};

const TERMINATED: &str = "Connection terminated by the application";

fn user(node: &Gateway, user_data: &Value) -> Client {
    let mut client = Client::connect(node);
    client.sign_in(user_data);
    client
}

#[track_caller]
fn expect_news(client: &mut Client, name: &str, id: &str) {
    let news = data(&client.expect("pusher_internal:watchlist_events"));
    assert_eq!(news, json!({ "events": [{ "name": name, "user_ids": [id] }] }));
}

fn terminate(id: &str) -> Call {
    Call::post(&format!("users/{id}/terminate_connections"), &json!({}))
}

#[test]
fn an_event_for_a_user_reaches_all_connections_of_that_user_on_all_nodes() {
    over(|cluster: Cluster<3>| {
        let [mut anns, mut bens] = ["ann", "ben"].map(|id| {
            let connect = |node| {
                let mut client = user(node, &json!({ "id": id }));
                client.subscribe(&format!("#server-to-user-{id}"));
                client
            };
            cluster.nodes.iter().map(|node| connect(node)).collect::<Vec<_>>()
        });
        publish(&cluster.nodes[0], "#server-to-user-ann", "for-ann", "1");
        publish(&cluster.nodes[0], "#server-to-user-ben", "for-ben", "2");
        anns.iter_mut().for_each(|ann| ann.expect_event("#server-to-user-ann", "for-ann", "1"));
        bens.iter_mut().for_each(|ben| ben.expect_event("#server-to-user-ben", "for-ben", "2"));
    });
}

#[test]
fn watchers_hear_of_the_first_connection_on_any_node_and_of_the_end_of_the_last() {
    over(|cluster: Cluster<3>| {
        let [a, b, c] = &cluster.nodes;
        let watching = json!({ "id": "w", "watchlist": ["ann", "ben"] });
        let ann = user(b, &json!({ "id": "ann" }));
        let mut watchers = [user(a, &watching), user(c, &watching)];
        watchers.iter_mut().for_each(|watcher| expect_news(watcher, "online", "ann"));
        let mut bens = VecDeque::from([a, b, c, b].map(|node| user(node, &json!({ "id": "ben" }))));
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
        let _ann = user(&b, &json!({ "id": "ann" }));
        let mut watcher = user(&a, &json!({ "id": "w", "watchlist": ["ann"] }));
        expect_news(&mut watcher, "online", "ann");
        b.signal(Signal::KILL);
        b.gateway().ended();
        expect_news(&mut watcher, "offline", "ann");
    });
}

#[test]
fn terminating_a_user_closes_the_connections_on_all_nodes_and_no_others() {
    over(|cluster: Cluster<3>| {
        let [a, b, c] = &cluster.nodes;
        let mut anns: Vec<_> =
            [a, b, c, b].map(|node| user(node, &json!({ "id": "ann" }))).into_iter().collect();
        let mut present = Client::connect(c);
        present.join("presence-a", &json!({ "user_id": "ann" }));
        let mut ben = user(b, &json!({ "id": "ben" }));
        assert_eq!(terminate("ann").ok(a), json!({}));
        for client in anns.iter_mut().chain([&mut present]) {
            // It has been sent before the answer, so that nothing is left to wait for.
            client.socket.get_mut().set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            client.expect_refusal(4009, TERMINATED);
        }
        ben.expect_nothing();
        // The user is not banned and may come back.
        user(c, &json!({ "id": "ann" })).expect_nothing();
    });
}

#[test]
fn a_termination_that_a_living_node_does_not_confirm_is_not_answered_with_success() {
    over(|cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut ann = user(b, &json!({ "id": "ann" }));
        b.signal(Signal::STOP);
        let response = terminate("ann").send(a);
        b.signal(Signal::CONT);
        assert_eq!(response.status, 503, "{}", response.text());
        eventually("all nodes confirm", || (terminate("ann").send(a).status == 200).then_some(()));
        ann.expect_refusal(4009, TERMINATED);
    });
}
