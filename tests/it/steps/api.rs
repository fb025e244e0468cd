use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::in_turn;
use crate::client::Client;
use crate::gateway::Gateway;
use crate::http::{Call, publish};

/// Subscribers of `c`, and as users `0`, `1`, ... of `presence-a`.
pub fn subscribers(nodes: &[&Gateway], count: usize) -> Vec<Client> {
    let subscriber = |number: usize| {
        let mut client = Client::subscribed(in_turn(nodes, number), "c");
        client.join("presence-a", &json!({ "user_id": number }));
        client
    };
    let mut clients: Vec<_> = (0..count).map(subscriber).collect();
    for (earlier, client) in clients.iter_mut().enumerate() {
        (earlier + 1..count).for_each(|_| drop(client.expect("pusher_internal:member_added")));
    }
    clients
}

/// A question about a channel.
pub fn described(name: &str, info: &str) -> Call {
    Call::get(&format!("channels/{name}")).param("info", info)
}

/// Checks that every node answers this.
#[track_caller]
fn all_answer(nodes: &[&Gateway], call: &Call, expected: &Value) {
    nodes.iter().for_each(|node| assert_eq!(call.ok(node), *expected));
}

/// Every node lists all channels.
pub fn list_channels(nodes: &[&Gateway]) {
    let all = Call::get("channels");
    nodes.iter().for_each(|node| assert_eq!(all.send(node).text(), r#"{"channels":{}}"#));
    let mut clients = subscribers(nodes, 3);
    for (at, client) in clients.iter_mut().enumerate() {
        client.subscribe(&format!("own-{at}"));
    }
    let listed = json!({ "c": {}, "presence-a": {}, "own-0": {}, "own-1": {}, "own-2": {} });
    all_answer(nodes, &all, &json!({ "channels": listed }));
    let own = Call::get("channels").param("filter_by_prefix", "own-");
    let listed = json!({ "own-0": {}, "own-1": {}, "own-2": {} });
    all_answer(nodes, &own, &json!({ "channels": listed }));
    let present = Call::get("channels").param("filter_by_prefix", "presence-");
    let counted = json!({ "channels": { "presence-a": { "user_count": 3 } } });
    all_answer(nodes, &present.param("info", "user_count"), &counted);
    // The API leaves out a count that does not apply to a channel.
    let both = Call::get("channels").param("info", "user_count,subscription_count");
    let expected = json!({ "channels": {
        "c": { "subscription_count": 3 },
        "presence-a": { "user_count": 3, "subscription_count": 3 },
        "own-0": { "subscription_count": 1 },
        "own-1": { "subscription_count": 1 },
        "own-2": { "subscription_count": 1 },
    } });
    all_answer(nodes, &both, &expected);
}

/// Every node describes a channel by what is asked of it.
pub fn describe_channels(nodes: &[&Gateway]) {
    let answered = |name: &str, info: &str, expected: Value| {
        all_answer(nodes, &described(name, info), &expected);
    };
    all_answer(nodes, &Call::get("channels/c"), &json!({ "occupied": false }));
    let mut clients = subscribers(nodes, 3);
    all_answer(nodes, &Call::get("channels/c"), &json!({ "occupied": true }));
    answered("c", "subscription_count", json!({ "occupied": true, "subscription_count": 3 }));
    answered("presence-a", "user_count", json!({ "occupied": true, "user_count": 3 }));
    answered("c", "user_count", json!({ "occupied": true }));
    answered("nobody", "user_count", json!({ "occupied": false }));
    // A second subscriber on one node counts, too.
    let _second = Client::subscribed(nodes[0], "c");
    let four = json!({ "occupied": true, "subscription_count": 4 });
    answered("c", "user_count,subscription_count,cache", four);
    clients[2].subscribe("own");
    all_answer(nodes, &Call::get("channels/own"), &json!({ "occupied": true }));
    publish(nodes[0], "cache-a", "e", "kept");
    for node in nodes {
        let cached = described("cache-a", "cache").ok(node);
        assert_eq!(cached["cache"]["data"], "kept");
        assert!((1795..=1800).contains(&cached["cache"]["ttl"].as_u64().unwrap()), "{cached}");
        assert_eq!(cached["occupied"], false);
    }
    answered("c", "cache", json!({ "occupied": true }));
}

/// Every node lists the users of a presence channel once each.
pub fn list_users(nodes: &[&Gateway]) {
    let users = Call::get("channels/presence-a/users");
    let nobody = users.send(nodes[0]);
    assert_eq!((nobody.status, nobody.text().as_str()), (404, "{}"));
    let _clients = subscribers(nodes, 4);
    let _again = Client::joined(nodes[0], "presence-a", &json!({ "user_id": "2" }));
    for node in nodes {
        let users = users.ok(node)["users"].take();
        let users = users.as_array().unwrap();
        let ids: BTreeSet<_> = users.iter().map(|user| user["id"].as_str().unwrap()).collect();
        assert_eq!((users.len(), ids), (4, BTreeSet::from(["0", "1", "2", "3"])));
    }
}

/// The answer to a publish counts the subscribers of all shards and nodes.
pub fn count_at_publishes(nodes: &[&Gateway]) {
    let _clients = subscribers(nodes, 7);
    let body = json!({
        "name": "e", "channels": ["presence-a", "c", "nobody"], "data": "1",
        "info": "subscription_count,user_count",
    });
    let expected = json!({ "channels": {
        "presence-a": { "subscription_count": 7, "user_count": 7 },
        "c": { "subscription_count": 7 },
        "nobody": { "subscription_count": 0 },
    } });
    all_answer(nodes, &Call::post("events", &body), &expected);
    let info = "subscription_count";
    let event = |name: &str| json!({ "name": "e", "channel": name, "data": "1", "info": info });
    let batch = json!({ "batch": [event("c"), event("nobody")] });
    let expected = json!({ "batch": [{ "subscription_count": 7 }, { "subscription_count": 0 }] });
    all_answer(nodes, &Call::post("batch_events", &batch), &expected);
}

/// A batch keeps its order. Returns its subscribers.
pub fn publish_a_batch(nodes: &[&Gateway]) -> Vec<Client> {
    let mut clients: Vec<_> = nodes.iter().map(|node| Client::subscribed(node, "c")).collect();
    let event = |data: usize| json!({ "name": "e", "channel": "c", "data": data.to_string() });
    let batch: Vec<_> = (0..10).map(event).collect();
    assert_eq!(Call::post("batch_events", &json!({ "batch": batch })).ok(nodes[0]), json!({}));
    for client in &mut clients {
        (0..10).for_each(|data| client.expect_event("c", "e", &data.to_string()));
    }
    clients
}
