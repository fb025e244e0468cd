use std::thread;
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;

use crate::bystander::for_a_while;
use crate::gateway::{Gateway, Setup, eventually};
use crate::http::Call;
use crate::raw::{Raw, text};

/// Connections, and the channels of each, all of which are different.
const CONNECTIONS: usize = 20;
const CHANNELS: usize = 10_000;

fn subscribed(gateway: &Gateway, number: usize) -> Raw {
    let mut raw = Raw::connect(gateway);
    for part in (0..CHANNELS).collect::<Vec<_>>().chunks(1000) {
        let subscribe = |n: &usize| {
            let data = json!({ "channel": format!("channel-{number}-{n}") });
            text(&json!({ "event": "pusher:subscribe", "data": data }).to_string())
        };
        raw.send(&part.iter().flat_map(subscribe).collect::<Vec<u8>>());
        for _ in part {
            assert!(raw.message().contains("subscription_succeeded"));
        }
    }
    raw
}

#[test]
fn ends_of_many_subscriptions_and_a_list_of_all_channels_delay_nobody() {
    let _alone = crate::alone();
    for shards in [1, 2] {
        let gateway = &Setup::new(shards).start();
        let connections = thread::scope(|scope| {
            let open = |n| scope.spawn(move || subscribed(gateway, n));
            let opening: Vec<_> = (0..CONNECTIONS).map(open).collect();
            opening.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let calm = for_a_while(gateway, Duration::from_millis(500));

        let listing = thread::scope(|scope| {
            let list = || Call::get("channels").ok(gateway)["channels"].as_object().unwrap().len();
            let listing = scope.spawn(list);
            let fared = for_a_while(gateway, Duration::from_millis(500));
            // The bystanders' subscriber is there too.
            assert!(listing.join().unwrap() >= CONNECTIONS * CHANNELS);
            fared
        });
        for raw in connections {
            SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        let leaving = for_a_while(gateway, Duration::from_millis(500));
        eventually("all channels are vacated", || {
            let channels = Call::get("channels").ok(gateway);
            (channels == json!({ "channels": {} })).then_some(())
        });
        let worst = |fared: &crate::bystander::Fared| fared.percentile(100);
        eprintln!(
            "{shards} shards: longest {:?}, beside a list {:?}, beside their end {:?}",
            worst(&calm),
            worst(&listing),
            worst(&leaving),
        );
        assert_eq!(listing.refused + leaving.refused, 0);
        let allowed = 2 * worst(&calm) + Duration::from_millis(100);
        assert!(worst(&listing) < allowed, "a list: {:?}", worst(&listing));
        assert!(worst(&leaving) < allowed, "their end: {:?}", worst(&leaving));
    }
}
