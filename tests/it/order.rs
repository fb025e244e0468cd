use std::collections::HashMap;

use serde_json::json;

use crate::client::Client;
use crate::gateway::{Gateway, served};
use crate::http::{Call, Http, publish};
use crate::steps::delivery::{self, subscribers};

const CHANNEL: &str = "private-order";
const END: &str = "end";

/// Takes the data of all events of the channel until the end is published.
fn until_end(client: &mut Client) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let message = client.next();
        if message["channel"] != CHANNEL
            || message["event"] == "pusher_internal:subscription_succeeded"
        {
            continue;
        }
        match message["event"].as_str().unwrap() {
            END => return seen,
            "e" => seen.push(message["data"].as_str().unwrap().to_owned()),
            "client-e" => seen.push(message["data"]["n"].as_str().unwrap().to_owned()),
            other => panic!("{other}"),
        }
    }
}

/// Publishes `name-0`, `name-1`, ... on a connection of its own, each after the answer to the one
/// before, or all at once.
fn publish_run(gateway: &Gateway, name: &str, count: usize, pipelined: bool) {
    let mut http = Http::over(gateway.tcp());
    let event = |number: usize| {
        let data = format!("{name}-{number}");
        let channels = json!([CHANNEL, format!("aside-{}", number % 5)]);
        Call::post("events", &json!({ "name": "e", "channels": channels, "data": data })).bytes()
    };
    if pipelined {
        (0..count).for_each(|number| http.send(&event(number)));
        (0..count).for_each(|_| assert_eq!(http.response().status, 200));
        return;
    }
    for number in 0..count {
        http.send(&event(number));
        assert_eq!(http.response().status, 200);
    }
}

/// Checks that the run of each publisher is complete, in order and without duplicates.
#[track_caller]
fn complete(seen: &[String], publishers: usize, count: usize) {
    let mut next: HashMap<&str, usize> = HashMap::new();
    for data in seen {
        let (name, number) = data.split_once('-').unwrap();
        let expected = next.entry(name).or_default();
        assert_eq!(number, expected.to_string(), "of {name}");
        *expected += 1;
    }
    assert_eq!(next.len(), publishers);
    assert!(next.values().all(|&seen| seen == count), "{next:?}");
}

#[test]
fn all_subscribers_see_what_several_publishers_send_in_one_order() {
    served(|gateway| {
        let mut clients = subscribers(&[gateway], CHANNEL, 12);
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..6)
                .map(|publisher| {
                    let name = publisher.to_string();
                    scope.spawn(move || publish_run(gateway, &name, 100, publisher % 2 == 0))
                })
                .collect();
            let readers: Vec<_> =
                clients.iter_mut().map(|client| scope.spawn(|| until_end(client))).collect();
            runs.into_iter().for_each(|run| run.join().unwrap());
            publish(gateway, CHANNEL, END, "1");
            let seen: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
            complete(&seen[0], 6, 100);
            assert!(seen.iter().all(|other| *other == seen[0]));
        });
    });
}

#[test]
fn client_events_and_published_ones_have_one_order_too() {
    served(|gateway| {
        let mut readers = subscribers(&[gateway], CHANNEL, 6);
        let mut senders = subscribers(&[gateway], CHANNEL, 3);
        std::thread::scope(|scope| {
            let mut runs = Vec::new();
            for (at, sender) in senders.iter_mut().enumerate() {
                runs.push(scope.spawn(move || {
                    for number in 0..100 {
                        sender.whisper(
                            CHANNEL,
                            "client-e",
                            &json!({ "n": format!("w{at}-{number}") }),
                        );
                    }
                    // Events of the others may come first. The pong says that all events were
                    // taken.
                    sender.send_text(r#"{"event":"pusher:ping"}"#);
                    while sender.next()["event"] != "pusher:pong" {}
                }));
            }
            runs.push(scope.spawn(|| publish_run(gateway, "p", 100, false)));
            let readers: Vec<_> =
                readers.iter_mut().map(|client| scope.spawn(|| until_end(client))).collect();
            runs.into_iter().for_each(|run| run.join().unwrap());
            // This event comes behind everything that the senders' shards have passed on by now.
            publish(gateway, CHANNEL, END, "1");
            let seen: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
            complete(&seen[0], 4, 100);
            assert!(seen.iter().all(|other| *other == seen[0]));
        });
    });
}

#[test]
fn a_publish_that_was_answered_comes_before_one_that_starts_then_whatever_their_connections() {
    served(|gateway| {
        let mut clients = subscribers(&[gateway], CHANNEL, 4);
        for number in 0..200 {
            // Each event has a connection of its own, so that the shards take turns.
            publish(gateway, CHANNEL, "e", &format!("p-{number}"));
        }
        publish(gateway, CHANNEL, END, "1");
        for client in &mut clients {
            complete(&until_end(client), 1, 200);
        }
    });
}

#[test]
fn a_subscriber_sees_nothing_before_the_success_and_everything_after_it() {
    served(|gateway| {
        let mut first = subscribers(&[gateway], CHANNEL, 1).remove(0);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| publish_run(gateway, "p", 400, false));
            let joiners: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        (0..10)
                            .map(|_| {
                                let mut client = Client::connect(gateway);
                                client.ask(CHANNEL);
                                // The success has to be the first that it hears of the channel.
                                client.succeeded(CHANNEL);
                                client
                            })
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            let joined: Vec<_> = joiners.into_iter().map(|joiner| joiner.join().unwrap()).collect();
            run.join().unwrap();
            publish(gateway, CHANNEL, END, "1");
            let all = until_end(&mut first);
            complete(&all, 1, 400);
            for mut client in joined.into_iter().flatten() {
                let seen = until_end(&mut client);
                assert!(all.ends_with(&seen), "a gap, or something twice: {seen:?}");
            }
        });
    });
}

#[test]
fn an_event_published_after_the_success_arrives() {
    served(|gateway| delivery::publish_after_the_success(&[gateway]));
}

#[test]
fn the_reaction_of_a_client_to_an_event_is_ordered_behind_it() {
    served(|gateway| delivery::react(&[gateway]));
}

#[test]
fn those_who_leave_and_come_back_miss_nothing_while_they_are_there() {
    served(|gateway| {
        let mut all = subscribers(&[gateway], CHANNEL, 1).remove(0);
        let mut clients: Vec<_> = (0..4).map(|_| Client::connect(gateway)).collect();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| publish_run(gateway, "p", 300, false));
            for client in &mut clients {
                for _ in 0..20 {
                    client.ask(CHANNEL);
                    while client.next()["event"] != "pusher_internal:subscription_succeeded" {}
                    client.unsubscribe(CHANNEL);
                }
                client.ask(CHANNEL);
                // It waits for the success, because the end must not be published before that.
                while client.next()["event"] != "pusher_internal:subscription_succeeded" {}
            }
            run.join().unwrap();
            publish(gateway, CHANNEL, END, "1");
            complete(&until_end(&mut all), 1, 300);
            for client in &mut clients {
                // The numbers never go backwards and never repeat, though there are gaps.
                let seen = until_end(client);
                let numbers = seen.iter().map(|data| data[2..].parse::<usize>().unwrap());
                let numbers: Vec<_> = numbers.collect();
                assert!(numbers.is_sorted_by(|earlier, later| earlier < later), "{seen:?}");
            }
        });
    });
}
