use serde_json::Value;

use crate::apps::test_app;
use crate::apps::webhook::{EventKind, Webhooks, test_webhook};

use super::*;
use crate::channels::{ChannelEvent, Notice};

const BOUNDS: QueueBounds = QueueBounds { queue_bytes: 1 << 20, spooled: false };

fn apps(webhooks: Vec<Webhook>) -> Apps {
    Apps::new(vec![App { webhooks: Webhooks::new(webhooks), ..test_app() }])
}

fn dispatch(webhooks: Vec<Webhook>) -> Dispatch {
    Dispatch::new(&apps(webhooks), BOUNDS, 0, true)
}

/// The deliveries that would be sent now: the URL, and the names and channels of the events.
fn sent(dispatch: &mut Dispatch, now: u64) -> Vec<(String, Vec<String>)> {
    dispatch.tick(Millis(now));
    let mut all = Vec::new();
    while let Some(delivery) = dispatch.next(Millis(now)) {
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        let name = |event: &Value| {
            format!("{} {}", event["name"].as_str().unwrap(), event["channel"].as_str().unwrap())
        };
        let events = body["events"].as_array().unwrap().iter().map(name).collect();
        all.push((delivery.webhook.url.to_string(), events));
        dispatch.delivered(delivery.queue);
    }
    all
}

fn take(dispatch: &mut Dispatch, channel: &str, event: ChannelEvent, now: u64) {
    dispatch.take(Notice::of(channel, event), Millis(now));
}

#[test]
fn each_endpoint_gets_what_it_wants_and_in_order() {
    let only_misses = [EventKind::CacheMiss].into_iter().collect();
    let mut dispatch = dispatch(vec![
        test_webhook("http://all/"),
        Webhook { events: only_misses, ..test_webhook("http://misses/") },
        Webhook { channel_prefix: "cache-b".into(), ..test_webhook("http://b/") },
    ]);
    take(&mut dispatch, "cache-a", ChannelEvent::Occupied, 0);
    take(&mut dispatch, "cache-a", ChannelEvent::CacheMiss, 0);
    take(&mut dispatch, "cache-b", ChannelEvent::CacheMiss, 10);
    assert!(sent(&mut dispatch, 49).is_empty());
    let all = ["channel_occupied cache-a", "cache_miss cache-a", "cache_miss cache-b"];
    let expected = [
        ("http://all/".to_owned(), all.map(str::to_owned).to_vec()),
        ("http://misses/".to_owned(), all[1..].iter().map(|&of| of.to_owned()).collect()),
    ];
    assert_eq!(sent(&mut dispatch, 50), expected);
    assert_eq!(sent(&mut dispatch, 60), [("http://b/".to_owned(), vec![all[2].to_owned()])]);
    assert!(dispatch.is_empty() && dispatch.next_due().is_none());
}

#[test]
fn a_departure_is_told_after_its_three_seconds_and_its_window() {
    let mut dispatch = dispatch(vec![test_webhook("http://a/")]);
    take(&mut dispatch, "a", ChannelEvent::Vacated, 0);
    assert_eq!(dispatch.next_due(), Some(Millis(3000)));
    assert!(sent(&mut dispatch, 3000).is_empty());
    assert_eq!(dispatch.next_due(), Some(Millis(3050)));
    assert_eq!(sent(&mut dispatch, 3050).len(), 1);
}

#[test]
fn at_the_end_everything_goes_at_once() {
    let mut dispatch = dispatch(vec![test_webhook("http://a/")]);
    take(&mut dispatch, "a", ChannelEvent::Vacated, 0);
    take(&mut dispatch, "b", ChannelEvent::SubscriptionCount(101), 0);
    take(&mut dispatch, "b", ChannelEvent::SubscriptionCount(102), 0);
    dispatch.flush(Millis(0));
    let (_, events) = &sent(&mut dispatch, 0)[0];
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(dispatch.is_empty());
}

#[test]
fn one_endpoint_that_fails_does_not_hold_up_another() {
    let mut dispatch = dispatch(vec![test_webhook("http://a/"), test_webhook("http://b/")]);
    take(&mut dispatch, "x", ChannelEvent::CacheMiss, 0);
    let first = dispatch.next(Millis(50)).unwrap();
    assert_eq!(dispatch.failed(first.queue, Millis(50), 1.0), 1);
    let expected = vec![("http://b/".to_owned(), vec!["cache_miss x".to_owned()])];
    assert_eq!(sent(&mut dispatch, 50), expected);
    take(&mut dispatch, "y", ChannelEvent::CacheMiss, 60);
    assert_eq!(sent(&mut dispatch, 110)[0].0, "http://b/");
    let late = sent(&mut dispatch, 1050);
    assert_eq!(late.iter().map(|(_, events)| events.len()).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_new_configuration_keeps_the_queues_of_endpoints_that_stay() {
    let stays = test_webhook("http://stays/");
    let mut dispatch = dispatch(vec![stays.clone(), test_webhook("http://goes/")]);
    take(&mut dispatch, "x", ChannelEvent::CacheMiss, 0);
    dispatch.configure(&apps(vec![test_webhook("http://new/"), stays]));
    take(&mut dispatch, "y", ChannelEvent::CacheMiss, 0);
    let mut all = sent(&mut dispatch, 50);
    all.sort();
    let texts = |events: &[&str]| events.iter().map(|&of| format!("cache_miss {of}")).collect();
    let expected: [(String, Vec<String>); 3] = [
        ("http://goes/".into(), texts(&["x"])),
        ("http://new/".into(), texts(&["y"])),
        ("http://stays/".into(), texts(&["x", "y"])),
    ];
    assert_eq!(all, expected);
    assert_eq!(dispatch.queues.len(), 2, "the one that goes has gone when it was empty");
    dispatch.configure(&Apps::new(Vec::new()));
    assert!(dispatch.queues.is_empty());
    take(&mut dispatch, "z", ChannelEvent::CacheMiss, 100);
    assert!(dispatch.next_due().is_none());
}

#[test]
fn losses_are_told_of_each_endpoint_once_in_ten_seconds() {
    let bounds = QueueBounds { queue_bytes: 1000, ..BOUNDS };
    let mut dispatch = Dispatch::new(&apps(vec![test_webhook("http://a/")]), bounds, 0, true);
    let lost = |dispatch: &mut Dispatch, now| {
        (0..100).for_each(|_| take(dispatch, "x", ChannelEvent::CacheMiss, now));
        let losses = dispatch.losses(Millis(now));
        losses.into_iter().map(|(_, _, lost)| lost.overflowed).sum::<u64>()
    };
    let first = lost(&mut dispatch, 0);
    assert!(first > 50, "{first}");
    assert_eq!(lost(&mut dispatch, 9_999), 0);
    assert_eq!(lost(&mut dispatch, 10_000), 200);
}

#[test]
fn on_a_node_of_a_cluster_departures_are_not_held_back_here() {
    let bounds = QueueBounds { queue_bytes: 1 << 20, spooled: false };
    let mut dispatch = Dispatch::new(&apps(vec![test_webhook("http://a/")]), bounds, 0, false);
    dispatch.take(Notice::of("a", ChannelEvent::Vacated), Millis(0));
    assert_eq!(dispatch.waiting(), 1);
}
