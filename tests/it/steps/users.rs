use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::in_turn;
use crate::client::{Client, data};
use crate::gateway::Gateway;
use crate::http::{Call, publish, until_connected};

pub const TERMINATED: &str = "Connection terminated by the application";

/// Takes news of watched users up to the point where exactly these are online.
#[track_caller]
pub fn until_online(client: &mut Client, online: &mut BTreeSet<String>, expected: &[&str]) {
    let expected: BTreeSet<_> = expected.iter().map(|&id| id.to_owned()).collect();
    while *online != expected {
        let message = client.expect("pusher_internal:watchlist_events");
        assert_eq!(message.get("channel"), None);
        for event in data(&message)["events"].as_array().unwrap() {
            for id in event["user_ids"].as_array().unwrap() {
                let id = id.as_str().unwrap().to_owned();
                let new = match event["name"].as_str().unwrap() {
                    "online" => online.insert(id),
                    "offline" => online.remove(&id),
                    other => panic!("{other}"),
                };
                assert!(new, "{message} tells nothing new of one whom it names");
            }
        }
    }
}

pub fn terminate(user_id: &str) -> Call {
    Call::post(&format!("users/{user_id}/terminate_connections"), &json!({}))
}

/// An event for a user reaches all connections of that user and nobody else. Returns those of
/// `ann`.
pub fn reach_users(nodes: &[&Gateway]) -> Vec<Client> {
    let [mut anns, mut bens] = ["ann", "ben"].map(|id| {
        let connect = |number| {
            let mut client = Client::signed_in(in_turn(nodes, number), &json!({ "id": id }));
            client.subscribe(&format!("#server-to-user-{id}"));
            client
        };
        (0..4).map(connect).collect::<Vec<_>>()
    });
    publish(nodes[0], "#server-to-user-ann", "for-ann", "1");
    publish(nodes[0], "#server-to-user-ben", "for-ben", "2");
    anns.iter_mut().for_each(|ann| ann.expect_event("#server-to-user-ann", "for-ann", "1"));
    bens.iter_mut().for_each(|ben| ben.expect_event("#server-to-user-ben", "for-ben", "2"));
    anns
}

/// A termination closes the connections of its user and no others, and its watchers are told.
pub fn terminate_a_user(nodes: &[&Gateway]) {
    let ann = json!({ "id": "ann" });
    let mut anns: Vec<_> =
        (0..5).map(|number| Client::signed_in(in_turn(nodes, number), &ann)).collect();
    anns[0].subscribe("#server-to-user-ann");
    let last = nodes[nodes.len() - 1];
    let mut present = Client::joined(last, "presence-a", &json!({ "user_id": "ann" }));
    let watching = json!({ "id": "ben", "watchlist": ["ann"] });
    let mut ben = Client::signed_in(in_turn(nodes, 1), &watching);
    let mut known = BTreeSet::new();
    until_online(&mut ben, &mut known, &["ann"]);
    assert_eq!(terminate("ann").ok(nodes[0]), json!({}));
    for client in anns.iter_mut().chain([&mut present]) {
        // It has been sent before the answer, so that nothing is left to wait for.
        client.socket.get_mut().set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        client.expect_refusal(4009, TERMINATED);
    }
    until_online(&mut ben, &mut known, &[]);
    until_connected(nodes[0], 1);
    ben.expect_nothing();
    // The user is not banned and may come back.
    let mut returned = Client::signed_in(last, &ann);
    until_online(&mut ben, &mut known, &["ann"]);
    returned.expect_nothing();
}
