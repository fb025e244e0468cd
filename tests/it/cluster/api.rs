use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::http::{Call, connections, publish, until_connected};
use crate::nodes::{Cluster, Node, over};

/// A subscriber of `c` on each node, who is also a member of `presence-a` by the number of the
/// node.
fn subscribers(nodes: &[Node]) -> Vec<Client> {
    let numbered = nodes.iter().enumerate();
    let mut clients: Vec<_> = numbered
        .map(|(number, node)| {
            let mut client = Client::connect(node);
            client.subscribe("c");
            client.join("presence-a", &json!({ "user_id": number }));
            client
        })
        .collect();
    for (earlier, client) in clients.iter_mut().enumerate() {
        (earlier + 1..nodes.len())
            .for_each(|_| drop(client.expect("pusher_internal:member_added")));
    }
    clients
}

/// Checks that every node answers this.
#[track_caller]
fn all_answer(cluster: &Cluster<3>, call: &Call, expected: &Value) {
    for node in &cluster.nodes {
        assert_eq!(call.ok(node), *expected);
    }
}

fn described(name: &str, info: &str) -> Call {
    Call::get(&format!("channels/{name}")).param("info", info)
}

#[test]
fn every_node_lists_the_channels_of_all() {
    over(|cluster: Cluster<3>| {
        all_answer(&cluster, &Call::get("channels"), &json!({ "channels": {} }));
        let mut clients = subscribers(&cluster.nodes);
        for (at, client) in clients.iter_mut().enumerate() {
            client.subscribe(&format!("own-{at}"));
        }
        let listed = json!({ "c": {}, "presence-a": {}, "own-0": {}, "own-1": {}, "own-2": {} });
        all_answer(&cluster, &Call::get("channels"), &json!({ "channels": listed }));
        let own = Call::get("channels").param("filter_by_prefix", "own-");
        let listed = json!({ "own-0": {}, "own-1": {}, "own-2": {} });
        all_answer(&cluster, &own, &json!({ "channels": listed }));
        let present = Call::get("channels").param("filter_by_prefix", "presence-");
        let counted = json!({ "channels": { "presence-a": { "user_count": 3 } } });
        all_answer(&cluster, &present.param("info", "user_count"), &counted);
        let both = Call::get("channels").param("info", "user_count,subscription_count");
        let expected = json!({ "channels": {
            "c": { "subscription_count": 3 },
            "presence-a": { "user_count": 3, "subscription_count": 3 },
            "own-0": { "subscription_count": 1 },
            "own-1": { "subscription_count": 1 },
            "own-2": { "subscription_count": 1 },
        } });
        all_answer(&cluster, &both, &expected);
    });
}

#[test]
fn every_node_describes_a_channel_with_the_subscribers_of_all() {
    over(|cluster: Cluster<3>| {
        all_answer(&cluster, &Call::get("channels/c"), &json!({ "occupied": false }));
        let mut clients = subscribers(&cluster.nodes);
        let expected = json!({ "occupied": true, "subscription_count": 3 });
        all_answer(&cluster, &described("c", "subscription_count"), &expected);
        let expected = json!({ "occupied": true, "user_count": 3 });
        all_answer(&cluster, &described("presence-a", "user_count"), &expected);
        // A second subscriber on one node counts, too.
        let mut second = Client::connect(&cluster.nodes[0]);
        second.subscribe("c");
        let expected = json!({ "occupied": true, "subscription_count": 4 });
        all_answer(&cluster, &described("c", "subscription_count"), &expected);
        clients[2].subscribe("own");
        all_answer(&cluster, &Call::get("channels/own"), &json!({ "occupied": true }));
        publish(&cluster.nodes[0], "cache-a", "e", "kept");
        for node in &cluster.nodes {
            let cached = described("cache-a", "cache").ok(node);
            assert_eq!(
                (&cached["occupied"], &cached["cache"]["data"]),
                (&json!(false), &json!("kept"))
            );
            let ttl = cached["cache"]["ttl"].as_u64().unwrap();
            assert!((1795..=1800).contains(&ttl), "{cached}");
        }
    });
}

#[test]
fn every_node_lists_the_users_of_all_once_each() {
    over(|cluster: Cluster<3>| {
        let [a, ..] = &cluster.nodes;
        let nobody = Call::get("channels/presence-a/users").send(a);
        assert_eq!((nobody.status, nobody.text().as_str()), (404, "{}"));
        let _clients = subscribers(&cluster.nodes);
        let mut again = Client::connect(a);
        again.join("presence-a", &json!({ "user_id": "2" }));
        for node in &cluster.nodes {
            let told = Call::get("channels/presence-a/users").ok(node);
            let mut ids: Vec<_> =
                told["users"].as_array().unwrap().iter().map(|user| &user["id"]).collect();
            ids.sort_unstable_by_key(|id| id.to_string());
            assert_eq!(ids, ["0", "1", "2"]);
        }
    });
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
    over(|cluster: Cluster<3>| {
        let [a, b, _] = &cluster.nodes;
        let _clients = subscribers(&cluster.nodes);
        let body = json!({
            "name": "e", "channels": ["presence-a", "c", "nobody"], "data": "1",
            "info": "subscription_count,user_count",
        });
        let expected = json!({ "channels": {
            "presence-a": { "subscription_count": 3, "user_count": 3 },
            "c": { "subscription_count": 3 },
            "nobody": { "subscription_count": 0 },
        } });
        assert_eq!(Call::post("events", &body).ok(a), expected);
        let event = |channel: &str| {
            let info = "subscription_count";
            json!({ "name": "e", "channel": channel, "data": "1", "info": info })
        };
        let batch = json!({ "batch": [event("c"), event("nobody")] });
        let expected =
            json!({ "batch": [{ "subscription_count": 3 }, { "subscription_count": 0 }] });
        assert_eq!(Call::post("batch_events", &batch).ok(b), expected);
    });
}

#[test]
fn a_node_that_does_not_answer_while_its_lease_runs_makes_counts_unavailable_and_never_partial() {
    over(|cluster: Cluster<3>| {
        let [a, _, c] = &cluster.nodes;
        let _clients = subscribers(&cluster.nodes);
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
