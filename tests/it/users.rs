use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, data};
use crate::gateway::{Setup, eventually, served, served_with};
use crate::http::{publish, until_connected};
use crate::sign::{channel_auth, user_auth};
use crate::steps::users::{reach_users, terminate, terminate_a_user, until_online};

const UNAUTHORISED: &str = "Connection is unauthorized";

#[test]
fn a_sign_in_is_answered_in_exactly_the_form_of_pusher() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        client.ask_sign_in(r#"{"id":"1"}"#);
        let expected = concat!(
            r#"{"event":"pusher:signin_success","#,
            r#""data":"{\"user_data\":\"{\\\"id\\\":\\\"1\\\"}\"}"}"#,
        );
        assert_eq!(client.next_text(), expected);
        // Some client libraries send `data` as a string.
        let user_data = r#"{"id":"1","user_info":{"name":"ü/"}}"#;
        let auth = user_auth(&client.socket_id, user_data);
        let request = json!({ "auth": auth, "user_data": user_data }).to_string();
        client.send(&json!({ "event": "pusher:signin", "data": request }));
        assert_eq!(data(&client.expect("pusher:signin_success"))["user_data"], user_data);
    });
}

#[test]
fn a_client_without_a_signature_for_a_user_is_not_signed_in() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        let mut refused = |auth: &str, user_data: &str| {
            let data = json!({ "auth": auth, "user_data": user_data });
            client.send(&json!({ "event": "pusher:signin", "data": data }));
            client.expect_error(4009, UNAUTHORISED);
            client.ask("#server-to-user-1");
            client.expect_error(4009, UNAUTHORISED);
        };
        let (ann, id) = (r#"{"id":"1"}"#, Client::connect(gateway).socket_id);
        refused("", ann);
        refused(&user_auth(&id, ann), ann);
        for user_data in ["", "1", "{}", r#"{"id":1}"#, r#"{"id":""}"#, r#"{"id":["1"]}"#] {
            refused("x:y", user_data);
        }
        let socket_id = client.socket_id.clone();
        let mut signed_but = |user_data: &str| {
            client.ask_sign_in(user_data);
            client.expect_error(4009, UNAUTHORISED);
        };
        for user_data in ["", "1", "{}", r#"{"id":1}"#, r#"{"id":""}"#, r#"{"id":["1"]}"#] {
            signed_but(user_data);
        }
        signed_but(r#"{"id":"1","watchlist":{"0":"2"}}"#);
        signed_but(&json!({ "id": "1".repeat(201) }).to_string());
        // A signature for a channel does not sign a user in.
        let data = json!({
            "auth": channel_auth(&socket_id, "private-user", Some(ann)), "user_data": ann,
        });
        client.send(&json!({ "event": "pusher:signin", "data": data }));
        client.expect_error(4009, UNAUTHORISED);
        client.expect_nothing();
    });
}

#[test]
fn a_connection_is_one_user_for_all_its_life() {
    served(|gateway| {
        let mut client = Client::signed_in(gateway, &json!({ "id": "ann" }));
        client.subscribe("#server-to-user-ann");
        client.ask_sign_in(r#"{"id":"ben"}"#);
        client.expect_error(4009, UNAUTHORISED);
        client.sign_in(&json!({ "id": "ann" }));
        client.ask("#server-to-user-ben");
        client.expect_error(4009, UNAUTHORISED);
        publish(gateway, "#server-to-user-ann", "still", "ann");
        client.expect_event("#server-to-user-ann", "still", "ann");
    });
}

#[test]
fn an_event_for_a_user_reaches_all_connections_of_that_user_and_nobody_else() {
    served(|gateway| {
        let mut anns = reach_users(&[gateway]);
        // Client events on it are refused.
        anns[0].whisper("#server-to-user-ann", "client-x", &json!({}));
        anns[0].expect("pusher:error");
        publish(gateway, "#server-to-user-ann", "last", "3");
        anns[1].expect_event("#server-to-user-ann", "last", "3");
    });
}

#[test]
fn a_signed_in_client_joins_presence_channels_without_channel_data() {
    served(|gateway| {
        let info = json!({ "name": "Ann" });
        let mut ann = Client::signed_in(gateway, &json!({ "id": "ann", "user_info": info }));
        let ask = |client: &mut Client| {
            let auth = channel_auth(&client.socket_id, "presence-a", None);
            let data = json!({ "auth": auth, "channel": "presence-a" });
            client.send(&json!({ "event": "pusher:subscribe", "data": data }));
        };
        ask(&mut ann);
        let here = ann.succeeded("presence-a");
        assert_eq!(
            here,
            json!({ "presence": { "count": 1, "ids": ["ann"], "hash": { "ann": info } } })
        );
        let mut ben = Client::connect(gateway);
        ask(&mut ben);
        ben.expect_error(4009, UNAUTHORISED);
        ben.sign_in(&json!({ "id": "ben" }));
        ask(&mut ben);
        assert_eq!(ben.succeeded("presence-a")["presence"]["hash"]["ann"], info);
        let added = ann.expect("pusher_internal:member_added");
        assert_eq!(data(&added), json!({ "user_id": "ben" }));
        ben.whisper("presence-a", "client-hi", &json!({}));
        assert_eq!(ann.expect("client-hi")["user_id"], "ben");
        drop(ben);
        let removed = ann.expect("pusher_internal:member_removed");
        assert_eq!(data(&removed), json!({ "user_id": "ben" }));
    });
}

#[test]
fn watchers_hear_who_is_online_who_comes_and_who_goes() {
    served(|gateway| {
        let ann = Client::signed_in(gateway, &json!({ "id": "ann" }));
        let watchlist = json!(["ann", "ben", "cleo"]);
        let mut watchers: Vec<_> = (0..5)
            .map(|number| {
                let id = format!("watcher-{number}");
                let client =
                    Client::signed_in(gateway, &json!({ "id": id, "watchlist": watchlist }));
                (client, BTreeSet::new())
            })
            .collect();
        let mut expect = |online: &[&str]| {
            for (client, known) in &mut watchers {
                until_online(client, known, online);
            }
        };
        expect(&["ann"]);
        // Only the first connection and the end of the last are news.
        let mut bens: Vec<_> =
            (0..4).map(|_| Client::signed_in(gateway, &json!({ "id": "ben" }))).collect();
        expect(&["ann", "ben"]);
        let cleo = Client::signed_in(gateway, &json!({ "id": "cleo" }));
        expect(&["ann", "ben", "cleo"]);
        drop(ann);
        expect(&["ben", "cleo"]);
        let mut last = bens.pop().unwrap();
        drop(bens);
        let _stranger = Client::signed_in(gateway, &json!({ "id": "dan" }));
        drop(cleo);
        expect(&["ben"]);
        last.socket.close(None).unwrap();
        expect(&[]);
        watchers.iter_mut().for_each(|(client, _)| client.expect_nothing());
    });
}

#[test]
fn users_of_different_apps_do_not_see_each_other() {
    let two_apps = |setup: Setup| {
        setup.toml("[[apps]]\napp_id = \"2\"\nkey = \"other\"\nsecret = \"other-secret-x\"\n")
    };
    served_with(two_apps, |gateway| {
        let mut watcher =
            Client::signed_in(gateway, &json!({ "id": "w", "watchlist": ["ann", "ben"] }));
        let mut other = Client::open(gateway, "/app/other?protocol=7", &[]);
        other.established();
        let user_data = r#"{"id":"ann"}"#;
        let text = format!("{}::user::{user_data}", other.socket_id);
        let signature = crate::sign::hmac_sha256("other-secret-x", &text);
        let request = json!({ "auth": format!("other:{signature}"), "user_data": user_data });
        other.send(&json!({ "event": "pusher:signin", "data": request }));
        other.expect("pusher:signin_success");
        let _ben = Client::signed_in(gateway, &json!({ "id": "ben" }));
        until_online(&mut watcher, &mut BTreeSet::new(), &["ben"]);
        terminate("ann").ok(gateway);
        other.expect_nothing();
    });
}

#[test]
fn the_first_users_of_a_watchlist_that_is_too_long_are_watched() {
    let limited = |setup: Setup| setup.env("RINGWAVE_APP_MAX_WATCHLIST", "2");
    served_with(limited, |gateway| {
        let _all: Vec<_> = ["a", "b", "c"]
            .map(|id| Client::signed_in(gateway, &json!({ "id": id })))
            .into_iter()
            .collect();
        let mut watcher = Client::signed_in(
            gateway,
            &json!({ "id": "w", "watchlist": ["a", "a", "b", "c", "d"] }),
        );
        let text = "The watchlist is too long. The first of its users are watched.";
        watcher.expect_error(4302, text);
        until_online(&mut watcher, &mut BTreeSet::new(), &["a", "b"]);
        let _d = Client::signed_in(gateway, &json!({ "id": "d" }));
        watcher.expect_nothing();
    });
}

#[test]
fn by_default_a_hundred_users_are_watched() {
    served(|gateway| {
        let ids: Vec<_> = (0..101).map(|number| format!("u{number}")).collect();
        let [last, beyond] =
            ["u99", "u100"].map(|id| Client::signed_in(gateway, &json!({ "id": id })));
        let mut content =
            Client::signed_in(gateway, &json!({ "id": "w", "watchlist": ids[..100] }));
        until_online(&mut content, &mut BTreeSet::new(), &["u99"]);
        let mut greedy = Client::signed_in(gateway, &json!({ "id": "w", "watchlist": ids }));
        greedy.expect_error(4302, "The watchlist is too long. The first of its users are watched.");
        until_online(&mut greedy, &mut BTreeSet::new(), &["u99"]);
        drop((last, beyond));
        let offline = data(&greedy.expect("pusher_internal:watchlist_events"));
        assert_eq!(offline, json!({ "events": [{ "name": "offline", "user_ids": ["u99"] }] }));
        greedy.expect_nothing();
    });
}

#[test]
fn watchers_know_the_truth_after_many_have_come_and_gone_at_once() {
    served(|gateway| {
        let ids: Vec<_> = (0..5).map(|number| format!("user-{number}")).collect();
        let watching = json!({ "id": "w", "watchlist": ids });
        let mut watcher = Client::signed_in(gateway, &watching);
        let stay: Vec<_> = std::thread::scope(|scope| {
            let ids = &ids;
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut last = None;
                        for number in 0..10 {
                            let id = &ids[(thread + number) % ids.len()];
                            let watchlist = json!({ "id": id, "watchlist": ids });
                            last = Some(Client::signed_in(gateway, &watchlist));
                        }
                        last
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        // These are the last ones of each thread: users 4, 0, 1 and 2.
        assert_eq!(stay.len(), 4);
        let online = ["user-0", "user-1", "user-2", "user-4"];
        let mut later = Client::signed_in(gateway, &watching);
        let (mut seen, mut seen_later) = (BTreeSet::new(), BTreeSet::new());
        until_online(&mut watcher, &mut seen, &online);
        until_online(&mut later, &mut seen_later, &online);
        // Watchers may pass through this state on the way to the next one.
        drop(stay);
        until_online(&mut watcher, &mut seen, &[]);
        until_online(&mut later, &mut seen_later, &[]);
    });
}

#[test]
fn terminating_a_user_closes_the_connections_that_are_signed_in_and_no_others() {
    served(|gateway| terminate_a_user(&[gateway]));
}

#[test]
fn a_client_that_shows_no_signature_in_time_is_closed_with_4009() {
    let strict = |setup: Setup| setup.env("RINGWAVE_APP_USER_AUTHENTICATION_TIMEOUT", "8");
    served_with(strict, |gateway| {
        let started = Instant::now();
        let mut silent = Client::connect(gateway);
        let mut both = Client::subscribed(gateway, "public");
        both.subscribe("private-b");
        both.unsubscribe("private-b");
        let mut open = Client::subscribed(gateway, "open");
        let data = json!({ "auth": "a:b", "user_data": r#"{"id":"1"}"# });
        open.send(&json!({ "event": "pusher:signin", "data": data }));
        open.expect_error(4009, UNAUTHORISED);
        let mut private = Client::subscribed(gateway, "private-a");
        let mut present = Client::joined(gateway, "presence-a", &json!({ "user_id": "1" }));
        let mut signed_in = Client::signed_in(gateway, &json!({ "id": "1" }));
        for client in [&mut silent, &mut open] {
            client.expect_refusal(4009, "Connection not authorized within timeout");
        }
        assert!(started.elapsed() > Duration::from_millis(7900), "{:?}", started.elapsed());
        // The other connections were checked as often by then, or will be within a second.
        eventually("nobody else is closed", || {
            (started.elapsed() > Duration::from_millis(9500)).then_some(())
        });
        for client in [&mut both, &mut private, &mut present, &mut signed_in] {
            client.expect_nothing();
        }
        until_connected(gateway, 4);
    });
}
