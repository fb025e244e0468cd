//! The tasks of partitions with connections to the model, which a test can break.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::LocalSet;

use super::*;
use crate::apps::{Apps, test_app};
use crate::channels::{Answer, Event, FromHome, KeyHash, ReplyTo, ToCluster};
use crate::cluster::model::Model;
use crate::cluster::node::{Names, NodeParts, SEED_BYTES};
use crate::cluster::settings::{
    ClusterSettings, RedisAddress, RedisLogin, RedisPlace, TlsFiles, WhenAway,
};
use crate::cluster::store::CallHead;
use crate::cluster::wire::{CallKind, Entered, Entrance, NodeId};
use crate::frame::Frame;
use crate::id::{AppIndex, ShardId};
use crate::protocol::names::ChannelName;
use crate::shard::ShardMessage;

/// The server of the tests.
#[derive(Debug, Default)]
struct Server {
    model: RefCell<Model>,
    /// Whether it refuses connections.
    away: Cell<bool>,
    /// Batches that are executed without an answer.
    unanswered: Cell<u32>,
    connections: Cell<u32>,
    calls: Cell<u32>,
    /// The times of the attempts to connect.
    attempts: RefCell<Vec<tokio::time::Instant>>,
    clock: Cell<u64>,
}

#[derive(Debug, thiserror::Error)]
#[error("the server is away")]
struct Away;

struct FakeConnector(Rc<Server>);

struct Fake {
    server: Rc<Server>,
    number: u32,
}

impl Fake {
    fn server(&self) -> Result<&Server, Away> {
        let current = self.server.connections.get() == self.number && !self.server.away.get();
        if current { Ok(&self.server) } else { Err(Away) }
    }

    fn now(&self) -> u64 {
        self.server.clock.set(self.server.clock.get() + 1);
        self.server.clock.get()
    }
}

impl Connector for FakeConnector {
    type Writer = Fake;
    type Reader = Fake;
    type Error = Away;

    async fn connect(&self, _: u16) -> Result<Connection<Fake, Fake>, Away> {
        self.0.attempts.borrow_mut().push(tokio::time::Instant::now());
        if self.0.away.get() {
            return Err(Away);
        }
        let number = self.0.connections.get() + 1;
        self.0.connections.set(number);
        let half = || Fake { server: Rc::clone(&self.0), number };
        Ok(Connection { writer: half(), reader: half(), run_id: "run".into() })
    }
}

impl Writer for Fake {
    type Error = Away;

    async fn enter(&mut self, node: NodeId, entrance: &Entrance) -> Result<Entered, Away> {
        let server = self.server()?;
        server.model.borrow_mut().enter(self.now(), node, entrance).map_err(|_| Away)
    }

    async fn call(&mut self, head: &CallHead, args: &[Bytes]) -> Result<Executed, Away> {
        yield_now().await;
        let server = self.server()?;
        server.calls.set(server.calls.get() + 1);
        let executed = server.model.borrow_mut().call(self.now(), head, args);
        let unanswered = server.unanswered.get();
        if head.kind == CallKind::Batch && unanswered > 0 {
            server.unanswered.set(unanswered - 1);
            return Err(Away);
        }
        Ok(executed)
    }
}

impl Reader for Fake {
    type Error = Away;

    async fn read(&mut self, node: NodeId, after: &str) -> Result<Vec<(Box<str>, Bytes)>, Away> {
        sleep(Duration::from_millis(1)).await;
        Ok(self.server()?.model.borrow().read(node, after))
    }
}

/// A node with one partition, whose task runs.
struct World {
    server: Rc<Server>,
    shared: Rc<Shared>,
    hash: KeyHash,
}

impl World {
    fn start() -> Self {
        let settings = ClusterSettings {
            name: "test".into(),
            place: RedisPlace::Standalone(RedisAddress::Unix("redis.sock".into())),
            login: RedisLogin::default(),
            database: 0,
            tls: TlsFiles::default(),
            partitions: 1,
            lease: Duration::from_secs(5),
            retention: Duration::from_secs(60),
            patience: Duration::from_secs(8),
            when_away: WhenAway::Hold,
            backlog: 1 << 20,
            inbox: 1 << 20,
        };
        let hash = KeyHash::random();
        let parts = NodeParts {
            settings: Arc::new(settings),
            names: Names::new([7; SEED_BYTES]),
            address: "node".into(),
            apps: Arc::new(Apps::new(vec![test_app()])),
            hash: hash.clone(),
            shards: 1,
        };
        let clock = Clock::start();
        let shared = Rc::new(Shared::new(Node::new(parts, clock.now()), clock));
        let server = Rc::new(Server::default());
        let connector = Rc::new(FakeConnector(Rc::clone(&server)));
        let driver = Driver::new(Rc::clone(&shared), connector, 0);
        drop(tokio::task::spawn_local(driver.run()));
        Self { server, shared, hash }
    }

    fn tell(&self, message: ToCluster) {
        self.shared.node.borrow_mut().handle(message, self.shared.now());
        self.shared.wake_all();
    }

    fn event(&self, text: &str) -> Event {
        let name = ChannelName::parse("news", 200, true).unwrap();
        let key = self.hash.channel(AppIndex(0), name);
        let frame = Frame::text(text.len(), |out| out.extend(text.as_bytes()));
        Event { key, frame, except: None, retain: None }
    }

    fn publish(&self, text: &str, request: u32) {
        let reply_to = ReplyTo { shard: ShardId(0), request, index: 0 };
        self.tell(ToCluster::PublishAndConfirm(Box::new(self.event(text)), reply_to));
    }

    /// Waits until a publish is confirmed. Returns the texts of the events that came before.
    async fn confirmed(&self, request: u32) -> Vec<String> {
        let mut texts = Vec::new();
        let mut confirmed = false;
        // Events may come a moment later than the confirmation.
        let mut rounds = 0;
        while !confirmed || rounds < 5 {
            let messages = std::mem::take(&mut self.shared.node.borrow_mut().effects().messages);
            for (_, message) in messages {
                match message {
                    ShardMessage::FromHome(FromHome::Answer(to, answer)) => {
                        assert!(matches!(*answer, Answer::Barrier));
                        confirmed |= to.request == request;
                    }
                    ShardMessage::FromCluster(crate::channels::FromCluster::Event(event)) => {
                        let text = event.frame.payload().to_vec();
                        texts.push(String::from_utf8(text).unwrap());
                    }
                    _ => {}
                }
            }
            rounds += u32::from(confirmed);
            sleep(Duration::from_millis(1)).await;
        }
        texts
    }
}

/// Runs with a paused clock: time passes as soon as nothing else can happen.
fn run(test: impl AsyncFnOnce(World)) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async { test(World::start()).await }));
}

#[test]
fn attempts_to_connect_get_rarer_up_to_one_per_second() {
    let pauses = [0, 1, 2, 3, 4, 5, 6, 1000].map(|attempts| retry_pause(attempts, 1.0));
    let expected = [0, 100, 200, 400, 800, 1000, 1000, 1000].map(Duration::from_millis);
    assert_eq!(pauses, expected);
    assert_eq!(retry_pause(5, 0.0), Duration::from_millis(500));
}

#[test]
fn a_call_whose_answer_is_lost_takes_effect_once() {
    run(async |world: World| {
        world.tell(ToCluster::Join(world.event("").key, 1));
        world.publish("a", 1);
        assert_eq!(world.confirmed(1).await, ["a"]);
        world.server.unanswered.set(2);
        world.publish("b", 2);
        world.publish("c", 3);
        assert_eq!(world.confirmed(3).await, ["b", "c"]);
        assert_eq!(world.server.connections.get(), 2, "the entrance tells what was executed");
        world.publish("d", 4);
        assert_eq!(world.confirmed(4).await, ["d"]);
    });
}

#[test]
fn what_waits_is_sent_when_the_server_is_back() {
    run(async |world: World| {
        world.tell(ToCluster::Join(world.event("").key, 1));
        world.publish("a", 1);
        world.confirmed(1).await;
        world.server.away.set(true);
        world.publish("b", 2);
        sleep(Duration::from_secs(30)).await;
        let attempts = world.server.attempts.borrow().len();
        assert!((30..80).contains(&attempts), "{attempts} attempts in 30 seconds");
        world.server.away.set(false);
        assert_eq!(world.confirmed(2).await, ["b"]);
    });
}

#[test]
fn nothing_is_read_while_shards_have_no_room() {
    run(async |world: World| {
        world.tell(ToCluster::Join(world.event("").key, 1));
        world.publish("a", 1);
        assert_eq!(world.confirmed(1).await, ["a"]);
        world.shared.set_room(false);
        // A read that has begun ends.
        sleep(Duration::from_millis(10)).await;
        world.publish("b", 2);
        assert_eq!(world.confirmed(2).await, [""; 0]);
        world.shared.set_room(true);
        world.publish("c", 3);
        assert_eq!(world.confirmed(3).await, ["b", "c"]);
    });
}
