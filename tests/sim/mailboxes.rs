//! Full mailboxes: messages that wait for room are neither forgotten nor overtaken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringwave::testing::apps::{Admission, Apps};
use ringwave::testing::bus::{self, Port};
use ringwave::testing::channels::{ChannelKey, Event, KeyHash, Topology};
use ringwave::testing::front::gateway::{GatewayCommand, Publication, PublishedStates, Unserved};
use ringwave::testing::id::{AppIndex, ShardId};
use ringwave::testing::plane::BacklogLimits;
use ringwave::testing::protocol::names::ChannelName;
use ringwave::testing::protocol::outbound;
use ringwave::testing::shard::{Drain, Shard, ShardMessage};
use ringwave::testing::time::Millis;
use ringwave_ring::sim::{Faults, SimNet, SimRing};
use tokio::sync::oneshot;

use crate::plan::Plan;
use crate::stream::masked;
use crate::world::{app, parts};

/// The shard of the channels' home.
const HOME: ShardId = ShardId(1);

/// The parts that all shards have in common.
struct Common {
    net: SimNet,
    apps: Arc<Apps>,
    hash: KeyHash,
}

impl Common {
    fn new() -> Self {
        let apps = Arc::new(Apps::new(vec![app(0, &Plan::new(2, 1))]));
        Self { net: SimNet::default(), apps, hash: KeyHash::seeded(1) }
    }

    fn shard(&self, port: Port<ShardMessage>) -> Shard<SimRing> {
        let seed = u64::from(port.id().0);
        let parts = parts(
            &self.apps,
            BacklogLimits { connection: 2000, shard: 1 << 20 },
            self.hash.clone(),
            seed,
            port,
        );
        let ring = SimRing::new(self.net.clone(), seed, Faults::NONE, 4, 4, 4096);
        Shard::new(ring, parts)
    }

    /// Names of channels at home on [`HOME`], of two or more shards.
    fn names(&self, shards: u16) -> impl Iterator<Item = ChannelName> {
        let names = (0..).map(|number| ChannelName::parse(&format!("c{number}"), 200, true));
        let topology = Topology::new(shards);
        let at_home = move |name: &ChannelName| topology.home_of(&self.key(name)) == HOME;
        names.map(Result::unwrap).filter(at_home)
    }

    fn publish(&self, to: impl Iterator<Item = ChannelName>) -> (GatewayCommand, Answer) {
        let event = |channel: ChannelName| {
            let frame = outbound::event("e", "1", &channel);
            let event = Event { key: self.key(&channel), frame, except: None, retain: None };
            Publication { event, wants_state: false }
        };
        let (reply, answer) = oneshot::channel();
        (GatewayCommand::Publish { events: to.map(event).collect(), reply }, answer)
    }

    fn key(&self, name: &ChannelName) -> ChannelKey {
        self.hash.channel(AppIndex(0), name.clone())
    }
}

type Answer = oneshot::Receiver<Result<PublishedStates, Unserved>>;

#[test]
fn a_publish_is_answered_at_once_only_when_its_home_has_it() {
    let common = Common::new();
    let mut ports = bus::connect::<ShardMessage>(3, 1).unwrap();
    let (mut other, mut home) = (ports.remove(2), ports.remove(1));
    let mut shard = common.shard(ports.remove(0));
    let channel = common.names(3).next().unwrap();
    let over = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        // Another shard that fills the mailbox all the time, and a home that empties it.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                other.flush();
                // A thread that has to wait lets the others run, on a machine of any size.
                thread::yield_now();
                if !other.spilling() {
                    other.send(HOME, ShardMessage::RollCall(oneshot::channel().0));
                }
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if home.receive().is_none() {
                    thread::yield_now();
                }
            }
        });
        let mut answered = 0;
        let mut overtaken = false;
        for turn in 0..200_000 {
            let (publish, mut answer) = common.publish([channel.clone()].into_iter());
            shard.turn(Millis(turn / 100), &mut vec![publish]);
            let told = matches!(answer.try_recv(), Ok(Ok(_)));
            answered += usize::from(told);
            overtaken |= told && shard.port().spilling();
            while shard.port().spilling() {
                thread::yield_now();
                shard.turn(Millis(turn / 100), &mut Vec::new());
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(!overtaken, "answered, and still on its way to its home");
        answered
    });
    assert!(answered > 0);
}

#[test]
fn a_shard_has_not_drained_while_leaves_of_its_connections_wait_for_room() {
    let common = Common::new();
    let mut ports = bus::connect::<ShardMessage>(2, 1).unwrap();
    let mut home = common.shard(ports.remove(1));
    let mut shard = common.shard(ports.remove(0));
    let subscribe = |name: ChannelName| {
        let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{name}"}}}}"#);
        masked(1, true, text.as_bytes(), [1, 2, 3, 4])
    };
    let asked: Vec<u8> = common.names(2).take(5).flat_map(subscribe).collect();
    let fd = common.net.connect();
    let app = common.apps.get(AppIndex(0)).unwrap();
    shard.open(fd, Admission::take(app).unwrap(), Vec::new(), &asked);
    let turn = |shard: &mut Shard<SimRing>, now| shard.turn(Millis(now), &mut Vec::new());
    while shard.channels() < 5 || home.homes() < 5 || shard.port().spilling() {
        turn(&mut shard, 0);
        turn(&mut home, 0);
    }
    shard.drain(Drain { window: Duration::ZERO, successor: false });
    common.net.close(fd);
    let mut now = 0;
    while !shard.plane().is_empty() {
        now += 100;
        turn(&mut shard, now);
    }
    assert!(shard.port().spilling() && !shard.drained(), "its leaves have not left");
    while !shard.drained() {
        turn(&mut home, now);
        turn(&mut shard, now);
    }
    turn(&mut home, now);
    assert_eq!(home.homes(), 0);
}

#[test]
fn memory_for_waiting_messages_is_given_back_without_any_connection() {
    let common = Common::new();
    let mut ports = bus::connect::<ShardMessage>(2, 1).unwrap();
    let mut home = common.shard(ports.remove(1));
    let mut shard = common.shard(ports.remove(0));
    let channel = common.names(2).next().unwrap();
    let (publish, mut answer) = common.publish(std::iter::repeat_n(channel, 5000));
    shard.turn(Millis(0), &mut vec![publish]);
    let most = shard.room();
    while answer.try_recv().is_err() {
        home.turn(Millis(0), &mut Vec::new());
        shard.turn(Millis(0), &mut Vec::new());
    }
    for second in 0..20 {
        shard.turn(Millis(second * 1000), &mut Vec::new());
    }
    assert!(shard.room() < most / 4, "{} of {most} bytes", shard.room());
}
