use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::in_turn;
use crate::client::{Client, data};
use crate::gateway::{Gateway, Setup};
use crate::http::{Call, publish};

pub const ROOM: &str = "presence-room";

#[track_caller]
pub fn added(client: &mut Client) -> Value {
    data(&client.expect("pusher_internal:member_added"))
}

#[track_caller]
pub fn removed(client: &mut Client) -> Value {
    let message = client.expect("pusher_internal:member_removed");
    assert_eq!(message["channel"], ROOM);
    data(&message)
}

/// The ids of the members, as a node tells them.
pub fn users(node: &Gateway) -> BTreeSet<String> {
    let response = Call::get(&format!("channels/{ROOM}/users")).send(node);
    if response.status == 404 {
        return BTreeSet::new();
    }
    assert_eq!(response.status, 200, "{}", response.text());
    let told = response.json()["users"].take();
    let told = told.as_array().unwrap();
    let ids: BTreeSet<_> =
        told.iter().map(|user| user["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), told.len(), "a user is told twice");
    ids
}

/// Takes news of members up to this event. Nobody may come or go twice in a row.
#[track_caller]
pub fn members_until(client: &mut Client, event: &str, present: &mut BTreeSet<String>) {
    loop {
        let message = client.next();
        let user = || data(&message)["user_id"].to_string();
        match message["event"].as_str().unwrap() {
            "pusher_internal:member_added" => assert!(present.insert(user()), "came twice"),
            "pusher_internal:member_removed" => assert!(present.remove(&user()), "left twice"),
            other => {
                assert_eq!(other, event);
                return;
            }
        }
    }
}

/// Members see who is here, who joins and who leaves.
pub fn come_and_go(nodes: &[&Gateway]) {
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..8 {
        let member = json!({ "user_id": number.to_string(), "user_info": { "n": number } });
        let mut client = Client::connect(in_turn(nodes, number));
        let here = client.join(ROOM, &member);
        assert_eq!(here["count"], number + 1);
        assert_eq!(here["ids"].as_array().unwrap().len(), number + 1);
        for earlier in 0..=number {
            assert_eq!(here["hash"][earlier.to_string()], json!({ "n": earlier }));
        }
        clients.iter_mut().for_each(|other| assert_eq!(added(other), member));
        clients.push(client);
    }
    // They leave by an unsubscribe, by a Close frame and by a lost connection.
    let mut left = clients.remove(0);
    left.unsubscribe(ROOM);
    clients.iter_mut().for_each(|other| assert_eq!(removed(other), json!({ "user_id": "0" })));
    let mut closed = clients.remove(0);
    closed.socket.close(None).unwrap();
    clients.iter_mut().for_each(|other| assert_eq!(removed(other), json!({ "user_id": "1" })));
    drop(clients.remove(0));
    clients.iter_mut().for_each(|other| assert_eq!(removed(other), json!({ "user_id": "2" })));
    left.expect_nothing();
}

/// A user with several tabs joins with the first one and leaves with the last.
pub fn open_and_close_tabs(nodes: &[&Gateway]) {
    let both = || BTreeSet::from(["5", "w"].map(str::to_owned));
    let mut witness = Client::joined(nodes[nodes.len() - 1], ROOM, &json!({ "user_id": "w" }));
    // A number and the same digits as text are the same user.
    let mut tabs: Vec<_> = (0..6).map(|number| Client::connect(in_turn(nodes, number))).collect();
    for (at, tab) in tabs.iter_mut().enumerate() {
        let id = if at % 2 == 0 { json!(5) } else { json!("5") };
        assert_eq!(tab.join(ROOM, &json!({ "user_id": id }))["count"], 2);
    }
    assert_eq!(added(&mut witness)["user_id"], 5);
    nodes.iter().for_each(|node| assert_eq!(users(node), both()));
    while tabs.len() > 1 {
        let mut tab = tabs.remove(0);
        tab.unsubscribe(ROOM);
        tab.expect_nothing();
    }
    publish(in_turn(nodes, 1), ROOM, "still", "here");
    witness.expect_event(ROOM, "still", "here");
    nodes.iter().for_each(|node| assert_eq!(users(node), both()));
    drop(tabs);
    assert_eq!(removed(&mut witness), json!({ "user_id": 5 }));
}

/// The settings for [`fill`].
pub fn two_members_at_most(setup: Setup) -> Setup {
    let setup = setup.env("RINGWAVE_APP_MAX_PRESENCE_MEMBERS", "2");
    setup.env("RINGWAVE_APP_SUBSCRIPTION_ERRORS", "true")
}

/// A full channel takes another connection of a member, but no new member.
pub fn fill(nodes: &[&Gateway]) {
    let last = nodes[nodes.len() - 1];
    let mut first = Client::joined(nodes[0], ROOM, &json!({ "user_id": "1" }));
    let mut second = Client::joined(last, ROOM, &json!({ "user_id": "2" }));
    let _tab = Client::joined(nodes[0], ROOM, &json!({ "user_id": "2" }));
    added(&mut first);
    for node in nodes {
        let mut third = Client::connect(node);
        third.ask_as(ROOM, &json!({ "user_id": "3" }));
        third.expect_error(4300, "The channel has as many members as it may.");
        assert_eq!(third.expect("pusher:subscription_error")["data"]["type"], "LimitReached");
    }
    first.unsubscribe(ROOM);
    removed(&mut second);
    let here = Client::connect(last).join(ROOM, &json!({ "user_id": "3" }));
    let ids: BTreeSet<_> = here["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(ids, BTreeSet::from([r#""2""#, r#""3""#].map(str::to_owned)));
}
