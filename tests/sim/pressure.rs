//! The requests that a shard refuses when memory is short, and the connections that it closes when
//! memory is nearly spent.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringwave::testing::apps::{Admission, Apps};
use ringwave::testing::bus::{self, Outside};
use ringwave::testing::channels::KeyHash;
use ringwave::testing::id::AppIndex;
use ringwave::testing::memory::Headroom;
use ringwave::testing::plane::BacklogLimits;
use ringwave::testing::shard::{Shard, ShardMessage};
use ringwave::testing::time::Millis;
use ringwave_ring::sim::{Faults, SimNet, SimRing};

use crate::plan::Plan;
use crate::stream::{Heard, Stream, masked};
use crate::world::{app, parts};

/// A tick of the shard.
const TICK_MS: u64 = 100;

struct Scene {
    shard: Shard<SimRing>,
    net: SimNet,
    apps: Arc<Apps>,
    control: Outside<ShardMessage>,
    now: u64,
    /// The messages that each connection got and that were not looked at yet, as text.
    told: BTreeMap<i32, (Stream, String)>,
}

impl Scene {
    fn new() -> Self {
        let plan = Plan::new(1, 1);
        let mut app = app(0, &plan);
        app.rules.limits.max_channels_per_connection = 10_000;
        app.rules.rate_limit = None;
        let apps = Arc::new(Apps::new(vec![app]));
        let net = SimNet::default();
        let port = bus::connect::<ShardMessage>(1, 8).unwrap().remove(0);
        let control = port.outside();
        let parts = parts(
            &apps,
            BacklogLimits { connection: 1 << 20, shard: 1 << 24 },
            KeyHash::seeded(1),
            1,
            port,
        );
        let ring = SimRing::new(net.clone(), 1, Faults::NONE, 16, 64, 4096);
        Self { shard: Shard::new(ring, parts), net, apps, control, now: 0, told: BTreeMap::new() }
    }

    /// Lets so many ticks pass.
    fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks * TICK_MS {
            self.now += 1;
            self.shard.turn(Millis(self.now), &mut Vec::new());
            self.read();
        }
    }

    /// Clients read all the time.
    fn read(&mut self) {
        for (fd, (stream, said)) in &mut self.told {
            for heard in stream.feed(&self.net.read(*fd, usize::MAX), fd) {
                match heard {
                    Heard::Text(text) => said.push_str(&text),
                    other => said.push_str(&format!("{other:?}")),
                }
            }
        }
    }

    fn connect(&mut self) -> i32 {
        let fd = self.net.connect();
        let app = self.apps.get(AppIndex(0)).unwrap();
        self.shard.open(fd, Admission::take(app).unwrap(), Vec::new(), b"");
        self.told.insert(fd, Default::default());
        fd
    }

    /// Subscribes to channels of this name and a number.
    fn subscribe(&mut self, fd: i32, name: &str, count: usize) {
        for number in 0..count {
            let channel = format!("{name}-{number}");
            let text =
                format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
            self.net.write(fd, &masked(1, true, text.as_bytes(), [1, 2, 3, 4]));
        }
        self.pass(10);
    }

    fn see(&mut self, headroom: Headroom) {
        self.control.offer(|| ShardMessage::Memory(headroom));
        self.pass(1);
    }

    /// The messages that a connection got since the last call.
    fn said(&mut self, fd: i32) -> String {
        std::mem::take(&mut self.told.get_mut(&fd).unwrap().1)
    }
}

#[test]
fn while_memory_is_short_nothing_new_is_subscribed_to_and_what_was_stays() {
    let mut scene = Scene::new();
    let client = scene.connect();
    scene.subscribe(client, "a", 2);
    assert_eq!(scene.said(client).matches("subscription_succeeded").count(), 2);
    scene.see(Headroom::Short);
    scene.subscribe(client, "b", 3);
    let said = scene.said(client);
    assert_eq!(said.matches(r#"\"code\":4100"#).count(), 3, "{said}");
    // A repeated subscribe takes no memory.
    scene.subscribe(client, "a", 2);
    assert_eq!(scene.said(client).matches("subscription_succeeded").count(), 2);
    assert_eq!(scene.shard.channels(), 2);
    scene.see(Headroom::Enough);
    scene.subscribe(client, "b", 3);
    assert_eq!(scene.said(client).matches("subscription_succeeded").count(), 3);
}

#[test]
fn when_memory_is_nearly_spent_those_with_the_most_subscriptions_go_a_few_at_a_time() {
    let mut scene = Scene::new();
    let light: Vec<_> = (0..3).map(|_| scene.connect()).collect();
    let heavy: Vec<_> = (0..6).map(|_| scene.connect()).collect();
    light.iter().for_each(|&fd| scene.subscribe(fd, "shared", 20));
    for (number, &fd) in heavy.iter().enumerate() {
        scene.subscribe(fd, &format!("own-{number}"), 300 + 20 * number);
    }
    let open = |scene: &Scene| scene.shard.plane().open_connections();
    // A flood of subscriptions waits for its share.
    let all = 20 + (0..6).map(|number| 300 + 20 * number).sum::<usize>();
    (0..100).for_each(|_| scene.pass(u64::from(scene.shard.channels() < all)));
    assert_eq!((open(&scene), scene.shard.channels()), (9, all));
    scene.see(Headroom::Spent);
    let first = open(&scene);
    assert!((5..9).contains(&first), "{first}");
    scene.pass(5);
    // A connection that holds little stays, however long the shortage lasts.
    assert_eq!((open(&scene), scene.shard.channels()), (3, 20));
    for (number, fd) in heavy.into_iter().enumerate() {
        let said = scene.said(fd);
        assert!(said.ends_with("Close(Some(4100))"), "{number}: {said}");
    }
    light.into_iter().for_each(|fd| assert!(!scene.said(fd).contains("4100")));
}
