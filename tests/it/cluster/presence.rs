use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use crate::client::{Client, data};
use crate::gateway::{Gateway, Setup, eventually};
use crate::http::{Call, publish, until_connected};
use crate::nodes::{Cluster, over, over_with};

const ROOM: &str = "presence-room";

fn member(node: &Gateway, member: &Value) -> Client {
    let mut client = Client::connect(node);
    client.join(ROOM, member);
    client
}

#[track_caller]
fn added(client: &mut Client) -> Value {
    data(&client.expect("pusher_internal:member_added"))
}

#[track_caller]
fn removed(client: &mut Client) -> Value {
    data(&client.expect("pusher_internal:member_removed"))
}

/// The ids of the members, as any node tells them.
pub(super) fn users(node: &Gateway) -> BTreeSet<String> {
    let response = Call::get(&format!("channels/{ROOM}/users")).send(node);
    if response.status == 404 {
        return BTreeSet::new();
    }
    assert_eq!(response.status, 200, "{}", response.text());
    let ids = response.json()["users"].take();
    let ids = ids.as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_owned());
    ids.collect()
}

#[test]
fn members_see_who_is_here_who_joins_and_who_leaves_on_all_nodes() {
    over(|cluster: Cluster<3>| {
        let mut clients: Vec<Client> = Vec::new();
        for number in 0..6 {
            let member = json!({ "user_id": number.to_string(), "user_info": { "n": number } });
            let mut client = Client::connect(&cluster.nodes[number % 3]);
            let here = client.join(ROOM, &member);
            assert_eq!(here["count"], number + 1);
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
    });
}

#[test]
fn members_of_other_nodes_are_told_byte_by_byte_as_their_app_signed_them() {
    over(|cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut first = member(a, &json!({ "user_id": 1, "user_info": { "name": "ü\"\\/" } }));
        let mut second = Client::connect(b);
        second.ask_as(ROOM, &json!({ "user_id": 2 }));
        let succeeded = concat!(
            r#"{"event":"pusher_internal:subscription_succeeded","data":"#,
            r#""{\"presence\":{\"count\":2,\"ids\":[\"1\",\"2\"],"#,
            r#"\"hash\":{\"1\":{\"name\":\"ü\\\"\\\\/\"},\"2\":{}}}}","#,
            r#""channel":"presence-room"}"#,
        );
        let told: Value = serde_json::from_str(&second.next_text()).unwrap();
        let expected: Value = serde_json::from_str(succeeded).unwrap();
        let presence = |message: &Value| data(message)["presence"].take();
        assert_eq!(presence(&told)["hash"], presence(&expected)["hash"]);
        let added = concat!(
            r#"{"event":"pusher_internal:member_added","data":"#,
            r#""{\"user_id\":2}","channel":"presence-room"}"#,
        );
        assert_eq!(first.next_text(), added);
        second.unsubscribe(ROOM);
        let removed = concat!(
            r#"{"event":"pusher_internal:member_removed","data":"#,
            r#""{\"user_id\":2}","channel":"presence-room"}"#,
        );
        assert_eq!(first.next_text(), removed);
    });
}

#[test]
fn a_user_with_tabs_on_several_nodes_joins_with_the_first_and_leaves_with_the_last() {
    over(|cluster: Cluster<3>| {
        let [a, b, c] = &cluster.nodes;
        let mut witness = member(c, &json!({ "user_id": "w" }));
        // A number and the same digits as text are the same user.
        let mut tabs = Vec::new();
        for (node, id) in [(a, json!(5)), (b, json!("5")), (a, json!(5)), (c, json!("5"))] {
            let mut tab = Client::connect(node);
            assert_eq!(tab.join(ROOM, &json!({ "user_id": id }))["count"], 2);
            tabs.push(tab);
        }
        assert_eq!(added(&mut witness)["user_id"], 5);
        while tabs.len() > 1 {
            let mut tab = tabs.remove(0);
            tab.unsubscribe(ROOM);
            tab.expect_nothing();
        }
        publish(b, ROOM, "still", "here");
        witness.expect_event(ROOM, "still", "here");
        for node in [a, b, c] {
            assert_eq!(users(node), BTreeSet::from(["5", "w"].map(str::to_owned)));
        }
        drop(tabs);
        assert_eq!(removed(&mut witness)["user_id"], 5);
    });
}

#[test]
fn a_whisper_names_its_sender_on_every_node() {
    over(|cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut sender = member(a, &json!({ "user_id": 7 }));
        let mut other = member(b, &json!({ "user_id": "8" }));
        added(&mut sender);
        sender.whisper(ROOM, "client-e", &json!({}));
        let expected = json!({ "event": "client-e", "channel": ROOM, "data": {}, "user_id": 7 });
        assert_eq!(other.next(), expected);
        other.whisper(ROOM, "client-e", &json!([]));
        assert_eq!(sender.next()["user_id"], "8");
    });
}

#[test]
fn a_full_channel_is_full_on_every_node() {
    let limited = |setup: Setup| setup.env("RINGWAVE_APP_MAX_PRESENCE_MEMBERS", "2");
    over_with(limited, |cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut first = member(a, &json!({ "user_id": "1" }));
        let mut second = member(b, &json!({ "user_id": "2" }));
        let _tab = member(a, &json!({ "user_id": "2" }));
        added(&mut first);
        for node in [a, b] {
            let mut third = Client::connect(node);
            third.ask_as(ROOM, &json!({ "user_id": "3" }));
            third.expect_error(4300, "The channel has as many members as it may.");
        }
        first.unsubscribe(ROOM);
        removed(&mut second);
        let mut third = Client::connect(b);
        assert_eq!(third.join(ROOM, &json!({ "user_id": "3" }))["count"], 2);
    });
}

#[test]
fn members_who_hurry_into_a_channel_on_all_nodes_are_as_many_as_there_may_be() {
    let limited = |setup: Setup| setup.env("RINGWAVE_APP_MAX_PRESENCE_MEMBERS", "5");
    over_with(limited, |cluster: Cluster<3>| {
        let hurried = |number: usize| {
            let mut client = Client::connect(&cluster.nodes[number % 3]);
            client.ask_as(ROOM, &json!({ "user_id": number }));
            // Members who come later are told behind the success.
            let first = client.next()["event"].take();
            (first == "pusher_internal:subscription_succeeded").then_some(client)
        };
        let let_in: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..24).map(|number| scope.spawn(move || hurried(number))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(let_in.len(), 5);
        assert_eq!(users(&cluster.nodes[0]).len(), 5);
    });
}

#[test]
fn members_who_come_and_go_on_all_nodes_are_seen_in_turn_and_counted_right_in_the_end() {
    over(|cluster: Cluster<3>| {
        let mut witnesses: Vec<_> = cluster.nodes[..2]
            .iter()
            .map(|node| member(node, &json!({ "user_id": "w" })))
            .collect();
        thread::scope(|scope| {
            for user in 0..6 {
                let node = &cluster.nodes[user % 3];
                scope.spawn(move || {
                    for _ in 0..10 {
                        let mut client = Client::connect(node);
                        client.ask_as(ROOM, &json!({ "user_id": user % 2 }));
                    }
                });
            }
        });
        let [a, ..] = &cluster.nodes;
        until_connected(a, 2);
        eventually("only the witnesses are left", || {
            (users(a) == BTreeSet::from(["w".to_owned()])).then_some(())
        });
        // A client that left at once may still come and go behind that.
        let mut present = vec![BTreeSet::new(); witnesses.len()];
        eventually("all are told that nobody is left", || {
            publish(a, ROOM, "end", "1");
            for (witness, present) in witnesses.iter_mut().zip(&mut present) {
                members_until(witness, "end", present);
            }
            present.iter().all(BTreeSet::is_empty).then_some(())
        });
    });
}

/// Takes news of members up to this event. Nobody may come or go twice in a row.
#[track_caller]
pub(super) fn members_until(client: &mut Client, event: &str, present: &mut BTreeSet<String>) {
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

#[test]
fn every_joiner_knows_everybody_though_others_join_on_other_nodes_at_once() {
    const USERS: usize = 30;
    over(|cluster: Cluster<3>| {
        thread::scope(|scope| {
            let joining: Vec<_> = (0..USERS)
                .map(|user| {
                    let node = &cluster.nodes[user % 3];
                    scope.spawn(move || {
                        let mut client = Client::connect(node);
                        let mut here = client.join(ROOM, &json!({ "user_id": user }));
                        let Value::Object(known) = here["hash"].take() else { panic!("{here}") };
                        (client, known.len())
                    })
                })
                .collect();
            let mut joined: Vec<_> = joining.into_iter().map(|one| one.join().unwrap()).collect();
            for (client, known) in &mut joined {
                let mut news = BTreeSet::new();
                while *known + news.len() < USERS {
                    assert!(news.insert(added(client)["user_id"].to_string()), "told twice");
                }
                client.expect_nothing();
            }
        });
    });
}
