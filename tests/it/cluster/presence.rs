use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use crate::client::{Client, data};
use crate::gateway::{Setup, eventually};
use crate::http::{publish, until_connected};
use crate::nodes::{Cluster, over, over_with};
use crate::steps::delivery;
use crate::steps::presence::{self, ROOM, added, members_until, users};

#[test]
fn members_see_who_is_here_who_joins_and_who_leaves_on_all_nodes() {
    over(|cluster: Cluster<3>| presence::come_and_go(&cluster.gateways()));
}

#[test]
fn members_of_other_nodes_are_told_byte_by_byte_as_their_app_signed_them() {
    over(|cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut first =
            Client::joined(a, ROOM, &json!({ "user_id": 1, "user_info": { "name": "ü\"\\/" } }));
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
    over(|cluster: Cluster<3>| presence::open_and_close_tabs(&cluster.gateways()));
}

#[test]
fn a_whisper_names_its_sender_on_every_node() {
    over(|cluster: Cluster<2>| delivery::whisper_as_members(&cluster.gateways()));
}

#[test]
fn a_full_channel_is_full_on_every_node() {
    over_with(presence::two_members_at_most, |cluster: Cluster<2>| {
        presence::fill(&cluster.gateways());
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
            .map(|node| Client::joined(node, ROOM, &json!({ "user_id": "w" })))
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
