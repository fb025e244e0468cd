use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, data};
use crate::gateway::{Gateway, Setup, served, served_with};
use crate::http::{Call, Http, publish};
use crate::reload::reload;
use crate::steps::delivery::{self, expect_count};

const COUNT: &str = "pusher_internal:subscription_count";

fn counted(test: impl Fn(&Gateway)) {
    served_with(delivery::counted, test);
}

/// A subscriber that has heard of itself.
fn subscriber(gateway: &Gateway, channel: &str, count: usize) -> Client {
    let mut client = Client::subscribed(gateway, channel);
    expect_count(&mut client, channel, count);
    client
}

#[test]
fn the_message_has_exactly_the_form_of_pusher_and_follows_the_success() {
    counted(|gateway| {
        let mut client = Client::connect(gateway);
        client.ask("c");
        client.succeeded("c");
        let expected = concat!(
            r#"{"event":"pusher_internal:subscription_count","#,
            r#""data":"{\"subscription_count\":1}","channel":"c"}"#,
        );
        assert_eq!(client.next_text(), expected);
        // The count comes behind the last event of a cache channel, too.
        client.ask("cache-c");
        client.succeeded("cache-c");
        client.expect("pusher:cache_miss");
        expect_count(&mut client, "cache-c", 1);
    });
}

#[test]
fn every_subscriber_hears_of_each_who_comes_and_goes() {
    counted(|gateway| {
        for channel in ["room", "private-room", "private-encrypted-room"] {
            delivery::count_subscribers(&[gateway], channel);
        }
    });
}

#[test]
fn a_repeated_subscribe_changes_no_number() {
    counted(|gateway| {
        let mut client = subscriber(gateway, "room", 1);
        client.subscribe("room");
        client.unsubscribe("elsewhere");
        client.expect_nothing();
        publish(gateway, "room", "after", "1");
        client.expect_event("room", "after", "1");
        client.unsubscribe("room");
        client.expect_nothing();
    });
}

#[test]
fn presence_channels_tell_of_members_instead() {
    counted(|gateway| {
        let mut ann = Client::joined(gateway, "presence-a", &json!({ "user_id": "ann" }));
        let ben = Client::joined(gateway, "presence-a", &json!({ "user_id": "ben" }));
        ann.expect("pusher_internal:member_added");
        drop(ben);
        ann.expect("pusher_internal:member_removed");
        ann.expect_nothing();
    });
}

#[test]
fn without_the_switch_nobody_hears_of_it() {
    served(|gateway| {
        let mut clients: Vec<_> = (0..5).map(|_| Client::connect(gateway)).collect();
        clients.iter_mut().for_each(|client| client.subscribe("room"));
        clients.pop();
        publish(gateway, "room", "after", "1");
        clients.iter_mut().for_each(|client| client.expect_event("room", "after", "1"));
    });
}

#[test]
fn each_app_has_its_own_switch_and_a_reload_turns_it() {
    let other = |counts: bool| {
        format!(
            "[[apps]]\napp_id = \"2\"\nkey = \"other\"\nsecret = \"other-secret-x\"\n\
             subscription_counts = {counts}\n"
        )
    };
    served_with(
        |setup: Setup| setup.toml(&other(true)),
        |gateway| {
            let of_other = || {
                let mut client = Client::open(gateway, "/app/other?protocol=7", &[]);
                client.established();
                client.subscribe("room");
                client
            };
            let mut mute = Client::subscribed(gateway, "room");
            let mut told = of_other();
            expect_count(&mut told, "room", 1);
            mute.expect_nothing();

            std::fs::write(gateway.path("ringwave.toml"), other(false)).unwrap();
            assert!(reload(gateway).status.success());
            let second = of_other();
            told.expect_nothing();

            std::fs::write(gateway.path("ringwave.toml"), other(true)).unwrap();
            assert!(reload(gateway).status.success());
            drop(second);
            expect_count(&mut told, "room", 1);
        },
    );
}

#[test]
fn numbers_have_their_place_among_the_messages_of_the_channel() {
    counted(|gateway| {
        let mut witnesses: Vec<_> = (0..4).map(|_| Client::connect(gateway)).collect();
        for witness in &mut witnesses {
            witness.subscribe("room");
        }
        publish(gateway, "room", "begin", "1");
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut http = Http::over(gateway.tcp());
                for number in 0..200 {
                    let event =
                        json!({ "name": "e", "channel": "room", "data": number.to_string() });
                    http.send(&Call::post("events", &event).bytes());
                    assert_eq!(http.response().status, 200);
                }
            });
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let mut client = Client::connect(gateway);
                        client.ask("room");
                        client.expect("pusher_internal:subscription_succeeded");
                    }
                });
            }
        });
        let mut seen: Vec<_> = witnesses.iter_mut().map(until_four_are_left).collect();
        let first = seen.remove(0);
        assert!(seen.iter().all(|other| *other == first), "{first:?}\n{seen:?}");
        let numbers = first.iter().filter(|message| message["event"] == COUNT).count();
        assert_eq!((numbers, first.len()), (120, 320), "60 came, 60 went, 200 were published");
    });
}

/// All messages behind `begin`, up to the last of the 120 numbers.
fn until_four_are_left(client: &mut Client) -> Vec<Value> {
    while client.next()["event"] != "begin" {}
    (0..320).map(|_| client.next()).collect()
}

#[test]
fn the_number_of_a_large_channel_comes_every_five_seconds_and_the_last_one_always() {
    const MOST: usize = 140;
    const LEFT: usize = 90;
    counted(|gateway| {
        let mut witness = subscriber(gateway, "room", 1);
        let add = |count| {
            let mut client = Client::subscribed(gateway, "room");
            if count <= 101 {
                expect_count(&mut client, "room", count);
            }
            client
        };
        let mut others: Vec<_> = (2..=100).map(add).collect();
        for count in 2..=100 {
            expect_count(&mut witness, "room", count);
        }

        let started = Instant::now();
        others.extend((101..=MOST).map(add));
        let numbers = until_count(&mut witness, MOST);
        assert_eq!(numbers[0], 101, "the first one at once");
        let pauses = u32::try_from(numbers.len() - 1).unwrap();
        assert!(pauses > 0 && started.elapsed() >= Duration::from_secs(5) * pauses, "{numbers:?}");

        drop(others.split_off(LEFT - 1));
        let numbers = until_count(&mut witness, LEFT);
        let small: Vec<_> = numbers.into_iter().filter(|&count| count <= 100).collect();
        assert_eq!(small, (LEFT..=100).rev().collect::<Vec<_>>(), "a small one hears every number");
        // The others have got the same numbers.
        until_count(&mut others[0], MOST);
        until_count(&mut others[0], LEFT);
        witness.expect_nothing();
    });
}

/// The numbers up to this one.
fn until_count(client: &mut Client, last: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let told = data(&client.expect(COUNT));
        numbers.push(usize::try_from(told["subscription_count"].as_u64().unwrap()).unwrap());
    }
    numbers
}
