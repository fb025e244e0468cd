use serde_json::json;

use crate::client::Client;
use crate::gateway::{eventually, served, served_with};
use crate::http::publish;
use crate::steps::delivery;

#[test]
fn the_last_event_follows_the_success() {
    served(|gateway| delivery::follow_the_success(&[gateway]));
}

#[test]
fn presence_channels_have_a_last_event_too() {
    served(|gateway| {
        let mut client = Client::joined(gateway, "presence-cache-a", &json!({ "user_id": "1" }));
        client.expect("pusher:cache_miss");
        publish(gateway, "presence-cache-a", "e", "1");
        client.expect_event("presence-cache-a", "e", "1");
        let mut second = Client::joined(gateway, "presence-cache-a", &json!({ "user_id": "2" }));
        second.expect_event("presence-cache-a", "e", "1");
    });
}

#[test]
fn an_event_with_an_exception_and_one_for_an_empty_channel_are_kept() {
    served(|gateway| {
        drop(delivery::keep_without_subscribers(&[gateway]));
        publish(gateway, "cache-empty", "e", "1");
        Client::subscribed(gateway, "cache-empty").expect_event("cache-empty", "e", "1");
    });
}

#[test]
fn client_events_are_not_kept() {
    served(|gateway| {
        let mut clients = [Client::connect(gateway), Client::connect(gateway)];
        for client in &mut clients {
            client.subscribe("private-cache-a");
            client.expect("pusher:cache_miss");
        }
        clients[0].whisper("private-cache-a", "client-e", &json!({}));
        clients[1].expect("client-e");
        let mut later = Client::subscribed(gateway, "private-cache-a");
        later.expect("pusher:cache_miss");
    });
}

#[test]
fn the_last_event_is_forgotten_when_its_time_is_over() {
    served_with(
        |setup| setup.env("RINGWAVE_APP_CACHE_TTL", "1"),
        |gateway| {
            publish(gateway, "cache-a", "e", "1");
            let mut client = Client::subscribed(gateway, "cache-a");
            let first = client.next();
            assert!(first["event"] == "e" || first["event"] == "pusher:cache_miss", "{first}");
            eventually("it is forgotten", || {
                client.unsubscribe("cache-a");
                client.subscribe("cache-a");
                (client.next()["event"] == "pusher:cache_miss").then_some(())
            });
        },
    );
}

#[test]
fn names_that_only_look_like_a_kind_are_public_and_keep_nothing() {
    served(|gateway| {
        publish(gateway, "cachefoo", "e", "1");
        let mut client = Client::subscribed(gateway, "cachefoo");
        client.subscribe("presencefoo");
        client.expect_nothing();
    });
}
