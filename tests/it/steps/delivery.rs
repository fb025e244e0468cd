use serde_json::{Value, json};

use super::in_turn;
use crate::client::{Client, data};
use crate::gateway::{Gateway, Setup};
use crate::http::{Call, publish, until_vacated};

/// Subscribers of a channel.
pub fn subscribers(nodes: &[&Gateway], channel: &str, count: usize) -> Vec<Client> {
    (0..count).map(|number| Client::subscribed(in_turn(nodes, number), channel)).collect()
}

/// An event that is published after the success arrives.
pub fn publish_after_the_success(nodes: &[&Gateway]) {
    for round in 0..60 {
        let mut client = Client::subscribed(in_turn(nodes, round), "room");
        publish(in_turn(nodes, round + 1), "room", "e", &round.to_string());
        client.expect_event("room", "e", &round.to_string());
    }
}

/// The reaction of a client to an event is ordered behind it.
pub fn react(nodes: &[&Gateway]) {
    let mut clients = subscribers(nodes, "private-room", 3);
    for round in 0..50 {
        publish(nodes[nodes.len() - 1], "private-room", "e", &round.to_string());
        clients[0].expect_event("private-room", "e", &round.to_string());
        clients[0].whisper("private-room", "client-e", &json!({}));
        for witness in &mut clients[1..] {
            let seen: Vec<Value> = (0..2).map(|_| witness.next()["event"].take()).collect();
            assert_eq!(seen, ["e", "client-e"]);
        }
    }
}

/// The others get a client event, and its sender does not.
pub fn whisper(nodes: &[&Gateway], channel: &str) {
    let mut clients = subscribers(nodes, channel, 4);
    for sender in 0..clients.len() {
        clients[sender].whisper(channel, "client-typing", &json!({ "by": sender }));
        let expected = format!(
            r#"{{"event":"client-typing","channel":"{channel}","data":{{"by":{sender}}}}}"#
        );
        for at in (0..clients.len()).filter(|&at| at != sender) {
            assert_eq!(clients[at].next_text(), expected);
        }
        clients[sender].expect_nothing();
    }
    publish(nodes[0], channel, "after", "1");
    clients.iter_mut().for_each(|client| client.expect_event(channel, "after", "1"));
}

/// On a presence channel the server names the sender of a client event.
pub fn whisper_as_members(nodes: &[&Gateway]) {
    let mut sender = Client::joined(nodes[0], "presence-a", &json!({ "user_id": 7 }));
    let mut other = Client::joined(in_turn(nodes, 1), "presence-a", &json!({ "user_id": "8" }));
    sender.expect("pusher_internal:member_added");
    sender.send(&json!({
        "event": "client-e", "channel": "presence-a", "data": {}, "user_id": "1", "admin": true,
    }));
    let expected =
        json!({ "event": "client-e", "channel": "presence-a", "data": {}, "user_id": 7 });
    assert_eq!(other.next(), expected);
    other.whisper("presence-a", "client-e", &json!([]));
    assert_eq!(sender.next()["user_id"], "8");
}

/// The last event of a cache channel follows the success.
pub fn follow_the_success(nodes: &[&Gateway]) {
    for channel in ["cache-a", "private-cache-a", "private-encrypted-cache-a"] {
        let mut first = Client::subscribed(nodes[0], channel);
        first.expect("pusher:cache_miss");
        publish(in_turn(nodes, 1), channel, "first", "1");
        publish(in_turn(nodes, 1), channel, "second", "2");
        first.expect_event(channel, "first", "1");
        first.expect_event(channel, "second", "2");
        for node in nodes {
            Client::subscribed(node, channel).expect_event(channel, "second", "2");
        }
    }
}

/// A cache channel keeps an event that was withheld from its only subscriber, who is gone. Returns
/// a subscriber that has got it.
pub fn keep_without_subscribers(nodes: &[&Gateway]) -> Client {
    let mut client = Client::subscribed(nodes[0], "cache-a");
    client.expect("pusher:cache_miss");
    let body = json!({
        "name": "e", "data": "1", "channel": "cache-a", "socket_id": client.socket_id,
    });
    let other = in_turn(nodes, 1);
    Call::post("events", &body).ok(other);
    client.expect_nothing();
    drop(client);
    until_vacated(other);
    let mut later = Client::subscribed(other, "cache-a");
    later.expect_event("cache-a", "e", "1");
    later
}

/// The settings of an app whose subscribers hear of their number.
pub fn counted(setup: Setup) -> Setup {
    setup.env("RINGWAVE_APP_SUBSCRIPTION_COUNTS", "true")
}

#[track_caller]
pub fn expect_count(client: &mut Client, channel: &str, count: usize) {
    let message = client.expect("pusher_internal:subscription_count");
    assert_eq!(message["channel"], channel);
    assert_eq!(data(&message), json!({ "subscription_count": count }));
}

/// Every subscriber hears of each who comes and goes.
pub fn count_subscribers(nodes: &[&Gateway], channel: &str) {
    let mut clients: Vec<Client> = Vec::new();
    for number in 1..=8 {
        clients.push(Client::subscribed(in_turn(nodes, number), channel));
        clients.iter_mut().for_each(|client| expect_count(client, channel, number));
    }
    // One unsubscribes, the next closes, and the next is just gone.
    for (left, way) in (1..8).rev().zip([0, 1, 2].into_iter().cycle()) {
        let mut leaver = clients.remove(clients.len() / 2);
        match way {
            0 => leaver.unsubscribe(channel),
            1 => leaver.socket.close(None).unwrap(),
            _ => drop(leaver),
        }
        clients.iter_mut().for_each(|client| expect_count(client, channel, left));
    }
    clients.iter_mut().for_each(Client::expect_nothing);
}
