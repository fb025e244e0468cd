use std::collections::BTreeSet;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::client::{Client, data};
use crate::gateway::{APP_ID, Gateway, Setup, eventually};
use crate::http::{Call, publish};
use crate::receiver::Receiver;
use crate::sign::{channel_auth, user_auth};

const CHANNEL: &str = "private-a";
const ROOM: &str = "presence-room";
const NOT_MEMBER: (u16, &str) = (4009, "The client is not a member of the specified channel.");
const FULL: (u16, &str) = (4300, "The channel has as many members as it may.");

/// Runs a test with one shard, which is the home of every channel, to five, where the home is
/// mostly another shard.
fn served_with(settings: impl Fn(Setup) -> Setup, test: impl Fn(&Gateway)) {
    for shards in 1..=5 {
        test(&settings(Setup::new(shards)).start());
    }
}

fn served(test: impl Fn(&Gateway)) {
    served_with(|setup| setup, test);
}

fn one_member(setup: Setup) -> Setup {
    setup.env("RINGWAVE_APP_MAX_PRESENCE_MEMBERS", "1")
}

/// Sends messages in one packet.
#[track_caller]
fn send_together(client: &mut Client, messages: &[Value]) {
    for message in messages {
        client.socket.write(Message::text(message.to_string())).unwrap();
    }
    client.socket.flush().unwrap();
}

/// Sends each in a packet of its own.
#[track_caller]
fn send_apart(client: &mut Client, messages: &[Value]) {
    messages.iter().for_each(|message| client.send(message));
}

fn subscribe(client: &Client, channel: &str) -> Value {
    let auth = channel_auth(&client.socket_id, channel, None);
    json!({ "event": "pusher:subscribe", "data": { "auth": auth, "channel": channel } })
}

fn join(client: &Client, user: &str) -> Value {
    let member = json!({ "user_id": user }).to_string();
    let auth = channel_auth(&client.socket_id, ROOM, Some(&member));
    let data = json!({ "auth": auth, "channel": ROOM, "channel_data": member });
    json!({ "event": "pusher:subscribe", "data": data })
}

fn unsubscribe(channel: &str) -> Value {
    json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })
}

fn word(channel: &str, number: usize) -> Value {
    json!({ "event": "client-word", "channel": channel, "data": { "n": number } })
}

fn subscription_count(gateway: &Gateway, channel: &str) -> Value {
    let call = Call::get(&format!("channels/{channel}")).param("info", "subscription_count");
    call.ok(gateway)["subscription_count"].take()
}

/// A client that is subscribed and sees the events of the others.
fn witness(gateway: &Gateway) -> Client {
    Client::subscribed(gateway, CHANNEL)
}

#[track_caller]
fn all_arrive(gateway: &Gateway, send: fn(&mut Client, &[Value])) {
    let mut witness = witness(gateway);
    for number in 0..50 {
        let mut sender = Client::connect(gateway);
        let messages = [subscribe(&sender, CHANNEL), word(CHANNEL, number)];
        send(&mut sender, &messages);
        assert_eq!(witness.next(), word(CHANNEL, number), "{} shards", gateway.shards());
        sender.succeeded(CHANNEL);
        sender.expect_nothing();
    }
}

#[test]
fn all_of_fifty_client_events_arrive_that_are_in_one_packet_with_their_subscribe() {
    served(|gateway| all_arrive(gateway, send_together));
}

#[test]
fn all_of_fifty_client_events_arrive_that_are_in_the_packet_behind_their_subscribe() {
    served(|gateway| all_arrive(gateway, send_apart));
}

#[test]
fn a_client_event_counts_as_the_subscribe_or_unsubscribe_before_it_says() {
    for send in [send_together, send_apart] {
        served(|gateway| {
            let mut witness = witness(gateway);
            for round in 0..20 {
                let mut sender = Client::connect(gateway);
                let messages = [
                    word(CHANNEL, 0),
                    subscribe(&sender, CHANNEL),
                    word(CHANNEL, 100 + round),
                    unsubscribe(CHANNEL),
                    word(CHANNEL, 1),
                    subscribe(&sender, CHANNEL),
                    word(CHANNEL, 200 + round),
                    unsubscribe(CHANNEL),
                    word(CHANNEL, 2),
                ];
                send(&mut sender, &messages);
                assert_eq!(witness.next(), word(CHANNEL, 100 + round));
                assert_eq!(witness.next(), word(CHANNEL, 200 + round));
                // A subscribe is answered unless it has ended by then.
                let mut refused = 0;
                while refused < 3 {
                    let message = sender.next();
                    if message["event"] != "pusher_internal:subscription_succeeded" {
                        assert_eq!(data(&message)["code"], NOT_MEMBER.0, "{message}");
                        refused += 1;
                    }
                }
            }
            publish(gateway, CHANNEL, "after", "1");
            witness.expect_event(CHANNEL, "after", "1");
            assert_eq!(subscription_count(gateway, CHANNEL), 1);
        });
    }
}

#[test]
fn a_client_event_before_a_close_frame_is_relayed() {
    served(|gateway| {
        let mut witness = witness(gateway);
        for number in 0..20 {
            let mut sender = Client::connect(gateway);
            let messages = [subscribe(&sender, CHANNEL), word(CHANNEL, number)];
            for message in messages {
                sender.socket.write(Message::text(message.to_string())).unwrap();
            }
            sender.socket.write(Message::Close(None)).unwrap();
            sender.socket.flush().unwrap();
            assert_eq!(witness.next(), word(CHANNEL, number));
        }
        let left = || (subscription_count(gateway, CHANNEL) == 1).then_some(());
        eventually("only the witness is subscribed", left);
    });
}

#[test]
fn a_publish_comes_behind_a_client_event_that_its_senders_shard_has_taken() {
    served(|gateway| {
        let mut witness = witness(gateway);
        for number in 0..20 {
            let mut sender = Client::connect(gateway);
            let messages = [
                subscribe(&sender, CHANNEL),
                word(CHANNEL, number),
                json!({ "event": "pusher:ping", "data": {} }),
            ];
            send_together(&mut sender, &messages);
            while sender.next()["event"] != "pusher:pong" {}
            publish(gateway, CHANNEL, "after", "1");
            assert_eq!(witness.next(), word(CHANNEL, number));
            witness.expect_event(CHANNEL, "after", "1");
        }
    });
}

#[test]
fn a_client_event_behind_a_join_names_its_member() {
    served(|gateway| {
        let mut witness = Client::joined(gateway, ROOM, &json!({ "user_id": "witness" }));
        for number in 0..20 {
            let mut sender = Client::connect(gateway);
            let messages = [join(&sender, "ann"), word(ROOM, number), unsubscribe(ROOM)];
            send_together(&mut sender, &messages);
            let added = witness.expect("pusher_internal:member_added");
            assert_eq!(data(&added)["user_id"], "ann");
            let mut expected = word(ROOM, number);
            expected["user_id"] = json!("ann");
            assert_eq!(witness.next(), expected);
            witness.expect("pusher_internal:member_removed");
        }
    });
}

#[test]
fn a_client_event_behind_a_join_that_is_refused_is_refused_too() {
    served_with(one_member, |gateway| {
        let mut member = Client::joined(gateway, ROOM, &json!({ "user_id": "member" }));
        for number in 0..20 {
            let mut sender = Client::connect(gateway);
            // A client that asks twice is answered twice.
            let messages = [join(&sender, "late"), join(&sender, "late"), word(ROOM, number)];
            send_together(&mut sender, &messages);
            sender.expect_error(FULL.0, FULL.1);
            sender.expect_error(FULL.0, FULL.1);
            sender.expect_error(NOT_MEMBER.0, NOT_MEMBER.1);
            // The refusal is known, so the client's shard refuses the next one by itself.
            send_together(&mut sender, &[word(ROOM, number)]);
            sender.expect_error(NOT_MEMBER.0, NOT_MEMBER.1);
            let messages = [join(&sender, "late"), unsubscribe(ROOM), word(ROOM, number)];
            send_together(&mut sender, &messages);
            sender.expect_error(NOT_MEMBER.0, NOT_MEMBER.1);
        }
        publish(gateway, ROOM, "after", "1");
        member.expect_event(ROOM, "after", "1");
        assert_eq!(subscription_count(gateway, ROOM), 1);
    });
}

#[test]
fn no_webhook_is_told_of_a_client_event_that_its_home_refused() {
    for shards in [1, 2, 5] {
        let receiver = Receiver::start();
        let toml = format!(
            "[[apps]]\napp_id = \"{APP_ID}\"\n\
             [[apps.webhooks]]\nurl = \"{}\"\nevents = [\"client_event\"]\n",
            receiver.url()
        );
        let gateway = one_member(Setup::new(shards)).toml(&toml).start();
        let mut member = Client::joined(&gateway, ROOM, &json!({ "user_id": "member" }));
        let mut sender = Client::connect(&gateway);
        let messages = [join(&sender, "late"), word(ROOM, 1)];
        send_together(&mut sender, &messages);
        sender.expect_error(FULL.0, FULL.1);
        sender.expect_error(NOT_MEMBER.0, NOT_MEMBER.1);
        send_together(&mut member, &[word(ROOM, 2)]);
        assert_eq!(receiver.expect(1)[0]["data"], r#"{"n":2}"#);
    }
}

#[test]
fn an_unsubscribe_from_a_full_channel_makes_room_for_the_join_behind_it() {
    served_with(one_member, |gateway| {
        for _ in 0..20 {
            let mut client = Client::connect(gateway);
            let messages = [join(&client, "ann"), unsubscribe(ROOM), join(&client, "ben")];
            send_together(&mut client, &messages);
            assert_eq!(client.succeeded(ROOM)["presence"]["ids"], json!(["ben"]));
            client.unsubscribe(ROOM);
            client.expect_nothing();
        }
    });
}

#[test]
fn a_sign_in_counts_for_everything_behind_it() {
    served(|gateway| {
        let mut witness = Client::joined(gateway, ROOM, &json!({ "user_id": "witness" }));
        for number in 0..20 {
            let mut client = Client::connect(gateway);
            let user_data = r#"{"id":"ann"}"#;
            let auth = user_auth(&client.socket_id, user_data);
            let sign_in = json!({ "auth": auth, "user_data": user_data });
            let own = "#server-to-user-ann";
            // Without `channel_data` the member is the signed-in user.
            let messages = [
                json!({ "event": "pusher:signin", "data": sign_in }),
                json!({ "event": "pusher:subscribe", "data": { "auth": "", "channel": own } }),
                subscribe(&client, ROOM),
                word(ROOM, number),
            ];
            send_together(&mut client, &messages);
            witness.expect("pusher_internal:member_added");
            let event = witness.next();
            assert_eq!((&event["data"]["n"], &event["user_id"]), (&json!(number), &json!("ann")));
            client.expect("pusher:signin_success");
            // The two channels have a home each, and either may answer first.
            let succeeded: BTreeSet<String> = (0..2)
                .map(|_| client.expect("pusher_internal:subscription_succeeded"))
                .map(|message| message["channel"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(succeeded, BTreeSet::from([own.to_owned(), ROOM.to_owned()]));
            publish(gateway, own, "e", "1");
            client.expect_event(own, "e", "1");
            drop(client);
            witness.expect("pusher_internal:member_removed");
        }
    });
}

#[test]
fn two_subscribes_in_one_packet_are_answered_twice_and_count_once() {
    let limited = |setup: Setup| setup.env("RINGWAVE_APP_MAX_CHANNELS_PER_CONNECTION", "1");
    served_with(limited, |gateway| {
        for _ in 0..20 {
            let mut client = Client::connect(gateway);
            let messages = [subscribe(&client, CHANNEL), subscribe(&client, CHANNEL)];
            send_together(&mut client, &messages);
            client.succeeded(CHANNEL);
            client.succeeded(CHANNEL);
            assert_eq!(subscription_count(gateway, CHANNEL), 1);
            publish(gateway, CHANNEL, "e", "1");
            client.expect_event(CHANNEL, "e", "1");
            client.unsubscribe(CHANNEL);
            client.expect_nothing();
            publish(gateway, CHANNEL, "e", "2");
            client.expect_nothing();
        }
    });
}
