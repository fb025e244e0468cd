//! The end of many connections when their app is removed.

use std::sync::Arc;

use ringwave::testing::apps::{Admission, App, Apps};
use ringwave::testing::bus;
use ringwave::testing::channels::KeyHash;
use ringwave::testing::id::AppIndex;
use ringwave::testing::plane::BacklogLimits;
use ringwave::testing::shard::{InForce, Shard, ShardMessage};
use ringwave::testing::time::Millis;
use ringwave_ring::sim::{Faults, SimNet, SimRing};
use tokio::sync::oneshot;

use crate::plan::Plan;
use crate::stream::{Heard, Stream};
use crate::world::{app, parts};

/// More than a sweep may close, so that it takes several.
const LEAVING: usize = 12_000;
const STAYING: usize = 50;

/// A tick of the shard.
const TICK_MS: u64 = 100;

#[test]
fn connections_of_an_app_that_goes_close_in_portions_and_all_others_stay() {
    let plan = Plan::new(1, 1);
    let before = Arc::new(Apps::new(vec![app(0, &plan), app(1, &plan)]));
    let net = SimNet::default();
    let port = bus::connect::<ShardMessage>(1, 8).unwrap().remove(0);
    let control = port.outside();
    let parts = parts(
        &before,
        BacklogLimits { connection: 2000, shard: 1 << 20 },
        KeyHash::seeded(1),
        1,
        port,
    );
    let slots = u32::try_from(LEAVING + STAYING).unwrap();
    let ring = SimRing::new(net.clone(), 1, Faults::NONE, slots, 4096, 4096);
    let mut shard = Shard::new(ring, parts);
    let mut connect = |index: usize| {
        let of = before.iter().nth(index).unwrap();
        let fd = net.connect();
        shard.open(fd, Admission::take(of).unwrap(), Vec::new(), b"");
        fd
    };
    let leaving: Vec<_> = (0..LEAVING).map(|_| connect(0)).collect();
    let staying: Vec<_> = (0..STAYING).map(|_| connect(1)).collect();

    // The configuration is read again, without the first app. The second one is now the first in
    // the file.
    let after = before.followed_by(&Apps::new(vec![app_alone(&plan)])).unwrap();
    let after = Arc::new(after);
    let (taken, mut told) = oneshot::channel();
    let mut taken = Some(taken);
    let in_force = Arc::new(InForce {
        apps: Arc::clone(&after),
        backlog: BacklogLimits { connection: 2000, shard: 1 << 20 },
        front: Arc::default(),
        shutdown_window: None,
    });
    control.offer(|| ShardMessage::InForce(Arc::clone(&in_force), taken.take().unwrap()));

    let mut open = vec![shard.plane().open_connections()];
    while open.last() != Some(&STAYING) {
        let now = Millis(open.len() as u64 * TICK_MS);
        shard.turn(now, &mut Vec::new());
        open.push(shard.plane().open_connections());
        assert!(open.len() < 200, "{open:?}");
    }
    assert_eq!(told.try_recv(), Ok(()));
    let portions: Vec<_> = open.windows(2).map(|pair| pair[0] - pair[1]).collect();
    assert!(portions.iter().all(|&closed| closed <= 1000), "{portions:?}");
    for fd in leaving {
        let said = said(&net, fd);
        assert!(said.contains(r#"\"code\":4003"#) && said.ends_with("Close(Some(4003))"), "{said}");
    }
    for fd in staying {
        assert!(!said(&net, fd).contains("Application"));
    }
    assert_eq!(after.by_id("app-1").unwrap().counters.connections() as usize, STAYING);
}

/// The second app of the world as the only one.
fn app_alone(plan: &Plan) -> App {
    App { index: AppIndex(0), ..app(1, plan) }
}

/// The messages that a connection was sent, as text; other frames as in debug output.
fn said(net: &SimNet, fd: i32) -> String {
    let bytes = net.read(fd, usize::MAX);
    let heard = Stream::default().feed(&bytes, &fd).into_iter();
    let text = |heard| match heard {
        Heard::Text(text) => text,
        other => format!("{other:?}"),
    };
    heard.map(text).collect::<Vec<_>>().join("\n")
}
