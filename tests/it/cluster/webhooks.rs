use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, Setup};
use crate::http::publish;
use crate::nodes::{Cluster, brief, over_with};
use crate::receiver::Receiver;
use crate::steps::webhooks::{EVERYTHING, app, member, occupied, vacated};

const ROOM: &str = "presence-room";

/// An event on this channel is told when everything before it has been.
const LAST: &str = "last";

/// The settings of an app whose webhooks tell everything.
fn told_to(receiver: &Receiver) -> impl Fn(Setup) -> Setup {
    let app = app(&format!("url = \"{}\"\nevents = [{EVERYTHING}]", receiver.url()));
    move |setup| setup.toml(&app)
}

fn joined(node: &Gateway, user: &str) -> Client {
    Client::joined(node, ROOM, &json!({ "user_id": user }))
}

/// The events of a channel that have been told, without those of other channels.
fn events(receiver: &Receiver, channel: &str) -> Vec<Value> {
    let mut events = receiver.events();
    events.retain(|event| event["channel"] == channel);
    events
}

/// Waits until departures have been told that are younger than all others: by then, the others have
/// been told, too.
fn settled(receiver: &Receiver, node: &Gateway) {
    drop(Client::subscribed(node, LAST));
    receiver.expect_event(&vacated(LAST));
}

fn killed<const N: usize>(cluster: &mut Cluster<N>, at: usize) {
    cluster.nodes[at].signal(Signal::KILL);
    cluster.nodes[at].gateway().ended();
}

#[test]
fn every_event_is_told_once_though_several_nodes_have_to_do_with_it() {
    let receiver = Receiver::start();
    over_with(told_to(&receiver), |cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let (mut ann, mut ben) = (joined(a, "ann"), joined(b, "ben"));
        ann.expect("pusher_internal:member_added");
        ben.whisper(ROOM, "client-typing", &json!({ "at": 1 }));
        ann.expect("client-typing");
        ann.subscribe("cache-news");
        ann.expect("pusher:cache_miss");
        publish(b, "cache-news", "first", "1");
        ann.expect_event("cache-news", "first", "1");
        ben.subscribe("cache-news");
        ben.expect_event("cache-news", "first", "1");
        let whisper = json!({
            "name": "client_event", "channel": ROOM, "event": "client-typing",
            "data": "{\"at\":1}", "socket_id": ben.socket_id, "user_id": "ben",
        });
        let left = Instant::now();
        drop(ben);
        receiver.expect_event(&member("member_removed", ROOM, "ben"));
        assert!(left.elapsed() > Duration::from_millis(2500), "{:?}", left.elapsed());
        drop(ann);
        for channel in [ROOM, "cache-news"] {
            receiver.expect_event(&vacated(channel));
        }
        settled(&receiver, a);
        let room = events(&receiver, ROOM);
        let of_room = [
            occupied(ROOM),
            member("member_added", ROOM, "ann"),
            member("member_added", ROOM, "ben"),
            whisper,
            member("member_removed", ROOM, "ben"),
            member("member_removed", ROOM, "ann"),
            vacated(ROOM),
        ];
        assert!(of_room.iter().all(|event| room.contains(event)), "{room:#?}");
        assert_eq!(room.len(), of_room.len(), "{room:#?}");
        let count = |count: usize| {
            let name = "subscription_count";
            json!({ "name": name, "channel": "cache-news", "subscription_count": count })
        };
        let miss = json!({ "name": "cache_miss", "channel": "cache-news" });
        let mut news = events(&receiver, "cache-news");
        news.retain(|event| *event != count(0));
        let of_news =
            [occupied("cache-news"), count(1), miss, count(2), count(1), vacated("cache-news")];
        assert!(of_news.iter().all(|event| news.contains(event)), "{news:#?}");
        assert_eq!(news.len(), of_news.len(), "{news:#?}");
    });
}

#[test]
fn a_client_that_moves_to_another_node_within_three_seconds_was_never_away() {
    let receiver = Receiver::start();
    over_with(told_to(&receiver), |cluster: Cluster<3>| {
        let mut left = Instant::now();
        for node in cluster.nodes.iter().chain(&cluster.nodes) {
            drop(joined(node, "1"));
            left = Instant::now();
        }
        receiver.expect_event(&vacated(ROOM));
        assert!(left.elapsed() > Duration::from_millis(2500));
        settled(&receiver, &cluster.nodes[0]);
        let mut told = events(&receiver, ROOM);
        told.retain(|event| event["name"] != "subscription_count");
        let expected = [
            occupied(ROOM),
            member("member_added", ROOM, "1"),
            member("member_removed", ROOM, "1"),
            vacated(ROOM),
        ];
        assert!(expected.iter().all(|event| told.contains(event)), "{told:#?}");
        assert_eq!(told.len(), expected.len(), "{told:#?}");
    });
}

#[test]
fn the_end_of_a_node_is_told_as_departures_of_its_clients_once() {
    let receiver = Receiver::start();
    let settings = |setup| told_to(&receiver)(brief(setup));
    over_with(settings, |mut cluster: Cluster<3>| {
        let _lost = joined(&cluster.nodes[0], "lost");
        let _too = joined(&cluster.nodes[1], "too");
        let _news = Client::subscribed(&cluster.nodes[0], "news");
        receiver.expect_event(&occupied("news"));
        killed(&mut cluster, 0);
        receiver.expect_event(&member("member_removed", ROOM, "lost"));
        receiver.expect_event(&vacated("news"));
        killed(&mut cluster, 1);
        receiver.expect_event(&vacated(ROOM));
        settled(&receiver, &cluster.nodes[2]);
        for once in [vacated("news"), vacated(ROOM), member("member_removed", ROOM, "lost")] {
            let told = receiver.events().iter().filter(|event| **event == once).count();
            assert_eq!(told, 1, "{once}");
        }
    });
}

#[test]
fn a_client_whose_node_dies_and_who_returns_on_another_was_never_away() {
    let receiver = Receiver::start();
    let settings = |setup| told_to(&receiver)(brief(setup));
    over_with(settings, |mut cluster: Cluster<2>| {
        drop(joined(&cluster.nodes[0], "1"));
        let _tab = joined(&cluster.nodes[0], "1");
        // A notice that has not been sent dies with its node.
        receiver.expect_event(&member("member_added", ROOM, "1"));
        killed(&mut cluster, 0);
        let _returned = joined(&cluster.nodes[1], "1");
        cluster.until_joined(1);
        settled(&receiver, &cluster.nodes[1]);
        let mut told = events(&receiver, ROOM);
        told.retain(|event| event["name"] != "subscription_count");
        assert_eq!(told, [occupied(ROOM), member("member_added", ROOM, "1")]);
    });
}
