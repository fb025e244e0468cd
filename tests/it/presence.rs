use std::collections::BTreeSet;
use std::net::TcpStream;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::client::{Client, target};
use crate::gateway::{DEADLINE, Setup, eventually, served, served_with};
use crate::http::{Call, publish, until_connected};
use crate::sign::channel_auth;
use crate::steps::presence::{self, ROOM, added, members_until, removed, users};

#[test]
fn members_see_who_is_here_who_joins_and_who_leaves() {
    served(|gateway| presence::come_and_go(&[gateway]));
}

#[test]
fn the_messages_have_exactly_the_form_of_reverb() {
    served(|gateway| {
        let mut first = Client::connect(gateway);
        first.ask_as(ROOM, &json!({ "user_id": "1", "user_info": { "name": "A" } }));
        let succeeded = concat!(
            r#"{"event":"pusher_internal:subscription_succeeded","data":"#,
            r#""{\"presence\":{\"count\":1,\"ids\":[\"1\"],\"hash\":{\"1\":{\"name\":\"A\"}}}}","#,
            r#""channel":"presence-room"}"#,
        );
        assert_eq!(first.next_text(), succeeded);
        let mut second =
            Client::joined(gateway, ROOM, &json!({ "user_id": 2, "user_info": { "name": "B" } }));
        let added = concat!(
            r#"{"event":"pusher_internal:member_added","data":"#,
            r#""{\"user_id\":2,\"user_info\":{\"name\":\"B\"}}","channel":"presence-room"}"#,
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
fn a_user_joins_with_the_first_connection_and_leaves_with_the_last() {
    served(|gateway| presence::open_and_close_tabs(&[gateway]));
}

#[test]
fn user_zero_is_a_user_like_any_other() {
    served(|gateway| {
        let mut witness = Client::joined(gateway, ROOM, &json!({ "user_id": 1 }));
        let zero = json!({ "user_id": 0, "user_info": {} });
        let (mut first, mut second) = (Client::connect(gateway), Client::connect(gateway));
        let here = first.join(ROOM, &zero);
        // PHP would make a list of the ids 0 to n-1; here they stay keys.
        assert_eq!(here["hash"], json!({ "0": {}, "1": {} }));
        assert_eq!(here["ids"].as_array().unwrap().len(), 2);
        second.join(ROOM, &zero);
        assert_eq!(added(&mut witness), zero);
        first.unsubscribe(ROOM);
        first.expect_nothing();
        second.unsubscribe(ROOM);
        assert_eq!(removed(&mut witness), json!({ "user_id": 0 }));
    });
}

#[test]
fn user_info_passes_through_and_may_be_missing() {
    served(|gateway| {
        let mut witness = Client::joined(gateway, ROOM, &json!({ "user_id": "w" }));
        let infos = [json!(true), json!("text"), json!([1, "ü"]), json!({ "deep": { "a": [{}] } })];
        for (at, info) in infos.iter().enumerate() {
            let member = json!({ "user_id": at, "user_info": info });
            let here = Client::connect(gateway).join(ROOM, &member);
            assert_eq!(here["hash"][at.to_string()], *info);
            assert_eq!(added(&mut witness), member);
            removed(&mut witness);
        }
        let mut without = Client::connect(gateway);
        let here = without.join(ROOM, &json!({ "user_id": "n" }));
        assert_eq!(here["hash"], json!({ "w": {}, "n": {} }));
        assert_eq!(added(&mut witness), json!({ "user_id": "n" }));
        let here = Client::connect(gateway).join(ROOM, &json!({ "user_id": "later" }));
        assert_eq!(here["count"], 3);
    });
}

#[test]
fn a_member_without_a_signed_id_is_refused() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        let table = ["{}", "[]", "1", r#"{"user_id":null}"#, r#"{"user_id":""}"#];
        let rest = [r#"{"user_id":true}"#, r#"{"user_id":{}}"#, r#"{"user_info":{}}"#];
        for channel_data in table.into_iter().chain(rest) {
            let auth = channel_auth(&client.socket_id, ROOM, Some(channel_data));
            let data = json!({ "auth": auth, "channel": ROOM, "channel_data": channel_data });
            client.send(&json!({ "event": "pusher:subscribe", "data": data }));
            client.expect_error(4009, "Connection is unauthorized");
        }
        let unsigned = json!({
            "auth": channel_auth(&client.socket_id, ROOM, Some(r#"{"user_id":"1"}"#)),
            "channel": ROOM,
            "channel_data": r#"{"user_id":"2"}"#,
        });
        client.send(&json!({ "event": "pusher:subscribe", "data": unsigned }));
        client.expect_error(4009, "Connection is unauthorized");
        let without = json!({
            "auth": channel_auth(&client.socket_id, ROOM, None), "channel": ROOM,
        });
        client.send(&json!({ "event": "pusher:subscribe", "data": without }));
        client.expect_error(4009, "Connection is unauthorized");
        assert_eq!(Call::get("channels").ok(gateway), json!({ "channels": {} }));
    });
}

#[test]
fn a_member_who_joins_again_is_told_who_is_here_and_counted_once() {
    served(|gateway| {
        let mut witness = Client::joined(gateway, ROOM, &json!({ "user_id": "w" }));
        let mut client = Client::connect(gateway);
        for _ in 0..3 {
            assert_eq!(client.join(ROOM, &json!({ "user_id": "c" }))["count"], 2);
        }
        added(&mut witness);
        client.unsubscribe(ROOM);
        assert_eq!(removed(&mut witness), json!({ "user_id": "c" }));
    });
}

#[test]
fn members_who_come_and_go_at_once_are_counted_right_in_the_end() {
    served(|gateway| {
        let mut witness = Client::joined(gateway, ROOM, &json!({ "user_id": "w" }));
        std::thread::scope(|scope| {
            for user in 0..4 {
                scope.spawn(move || {
                    for _ in 0..10 {
                        let mut client = Client::connect(gateway);
                        client.ask_as(ROOM, &json!({ "user_id": user % 2 }));
                    }
                });
            }
        });
        // Wait until all have ended, because the subscribe of the last one may still be on its way
        // before that.
        until_connected(gateway, 1);
        eventually("only the witness is left", || {
            (users(gateway) == BTreeSet::from(["w".to_owned()])).then_some(())
        });
        publish(gateway, ROOM, "end", "1");
        // A member that stays sees each user come and go in turn.
        let mut present = BTreeSet::new();
        members_until(&mut witness, "end", &mut present);
        assert_eq!(present, BTreeSet::new());
    });
}

#[test]
fn a_full_channel_takes_another_connection_of_a_member_but_no_new_member() {
    served_with(presence::two_members_at_most, |gateway| presence::fill(&[gateway]));
}

#[test]
fn a_channel_with_more_members_than_a_backlog_holds_is_joined_by_who_reads() {
    const BACKLOG: usize = 65_536;
    const MEMBERS: usize = 60;
    let info = "x".repeat(9000);
    let toml = format!("[server]\nbacklog_per_connection = {BACKLOG}\n");
    let gateway = Setup::new(2).toml(&toml).start();
    let mut members: Vec<Client> = Vec::new();
    for number in 0..MEMBERS {
        let member =
            Client::joined(&gateway, ROOM, &json!({ "user_id": number, "user_info": info }));
        members.iter_mut().for_each(|earlier| assert_eq!(added(earlier)["user_id"], number));
        members.push(member);
    }
    // This client is like one that is far away: the kernel takes little for it at a time, and it
    // goes on reading.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut far = Client::over(stream, &gateway, &target(), &[]);
    far.established();
    let here = far.join(ROOM, &json!({ "user_id": "far" }));
    assert_eq!(here["count"], MEMBERS + 1);
    assert!(here.to_string().len() > 8 * BACKLOG);
    publish(&gateway, ROOM, "still", "here");
    far.expect_event(ROOM, "still", "here");
}
