//! Access to a node without its thread and without Redis, for simulations that drive it step by
//! step: the connections of each partition lead to models of the scripts, and each of their steps
//! happens when the simulation says so, or is lost.

#![allow(clippy::expect_used, clippy::panic, reason = "a simulation is a test")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::model::Model;
use super::node::{Names, Node, NodeParts, Report};
use super::settings::{ClusterSettings, RedisAddress, RedisLogin, RedisPlace, TlsFiles, WhenAway};
use super::store::{CallHead, Executed};
use super::wire::Entry;
use crate::apps::Apps;
use crate::bus::Port;
use crate::channels::{FromHome, KeyHash};
use crate::shard::ShardMessage;
use crate::time::Millis;
use crate::webhooks::NoticeSender;

/// The time of Redis when the simulation's clock shows 0: the clocks differ.
const REDIS_START_MS: u64 = 1_700_000_000_000;

/// The Redis of a cluster. A clone is a snapshot.
#[derive(Clone, Debug)]
pub struct SimRedis {
    /// The name of the server's run, another one after each restart.
    run: Box<str>,
    partitions: Vec<Model>,
}

impl SimRedis {
    /// An empty Redis.
    #[must_use]
    pub fn new(partitions: u16, run: &str) -> Self {
        Self { run: run.into(), partitions: (0..partitions).map(|_| Model::default()).collect() }
    }

    /// Goes on under another name, as a replica does that takes over.
    pub fn rename(&mut self, run: &str) {
        self.run = run.into();
    }

    /// Loses all data and goes on (`FLUSHALL`).
    pub fn empty(&mut self) {
        self.partitions.iter_mut().for_each(|model| *model = Model::default());
    }

    /// Evicts the inbox of a node.
    pub fn evict(&mut self, node: &SimNode, partition: u16) {
        if let Some((id, _)) = node.node.position(partition)
            && let Some(model) = self.partitions.get_mut(usize::from(partition))
        {
            model.evict_inbox(id);
        }
    }

    /// Everything that is kept beside the records of nodes: nothing once all clients have left.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        self.partitions.iter().flat_map(Model::leftovers).collect()
    }

    fn partition(&mut self, partition: u16) -> &mut Model {
        &mut self.partitions[usize::from(partition)]
    }
}

/// The settings of a cluster that a simulation varies.
#[derive(Clone, Debug)]
pub struct SimSettings {
    /// The number of partitions.
    pub partitions: u16,
    /// The silence of a node after which its members leave.
    pub lease: Duration,
    /// The time for which the inbox of a silent node is kept behind its lease.
    pub retention: Duration,
    /// The time for which requests wait for a Redis that is away.
    pub patience: Duration,
    /// Whether a node serves its clients alone when Redis is away for longer.
    pub alone: bool,
    /// The bytes of commands that wait for Redis at most.
    pub backlog: usize,
    /// The bytes of unread records of a node that Redis keeps at most.
    pub inbox: u64,
}

impl SimSettings {
    fn settings(&self) -> ClusterSettings {
        let host = "redis".to_owned();
        ClusterSettings {
            name: "sim".to_owned(),
            place: RedisPlace::Standalone(RedisAddress::Tcp { host, port: 6379, tls: false }),
            login: RedisLogin::default(),
            database: 0,
            tls: TlsFiles::default(),
            partitions: self.partitions,
            lease: self.lease,
            retention: self.retention,
            patience: self.patience,
            when_away: if self.alone { WhenAway::Local } else { WhenAway::Hold },
            backlog: self.backlog,
            inbox: self.inbox,
        }
    }
}

/// The parts that a node is made of.
#[derive(Debug)]
pub struct SimNodeParts<'a> {
    /// The settings.
    pub settings: &'a SimSettings,
    /// A number that no other node of the run has.
    pub number: u64,
    /// The apps that are served.
    pub apps: Arc<Apps>,
    /// The hash by which shards find homes.
    pub hash: KeyHash,
    /// The port behind those of the shards.
    pub port: Port<ShardMessage>,
    /// The way to the webhooks.
    pub notices: NoticeSender,
    /// The time.
    pub now: Millis,
}

/// A node, its port of the bus and its connections.
///
/// The owner calls [`turn`](Self::turn) as the thread does. For each partition it calls, in any
/// order, [`connect`](Self::connect), [`send`](Self::send), [`hear`](Self::hear),
/// [`read`](Self::read) and [`disconnect`](Self::disconnect), which do nothing and return `false`
/// where nothing is to be done.
#[derive(Debug)]
pub struct SimNode {
    node: Node,
    port: Port<ShardMessage>,
    notices: NoticeSender,
    links: Vec<Link>,
    /// The reports that clients notice.
    losses: Losses,
}

/// The connections of a partition.
#[derive(Debug, Default)]
enum Link {
    #[default]
    Down,
    Idle,
    /// The answer to a call is on its way.
    Answered(Executed),
    /// A call was lost on its way, and no answer will come.
    Unheard,
}

/// The number of times that a node had to give something up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Messages of a partition were lost, and subscribers were closed.
    pub cut_off: u64,
    /// The node served its clients alone.
    pub alone: u64,
    /// Too much waited, and was dropped.
    pub overflowed: u64,
    /// Client events that found no room.
    pub dropped: u64,
}

impl SimNode {
    /// A node that is not connected.
    #[must_use]
    pub fn new(parts: SimNodeParts<'_>) -> Self {
        let SimNodeParts { settings, number, apps, hash, port, notices, now } = parts;
        let node = NodeParts {
            settings: Arc::new(settings.settings()),
            names: Names::new(std::array::from_fn(|at| number.to_be_bytes()[at % 8])),
            address: format!("node-{number}").into(),
            apps,
            hash,
            shards: port.shards(),
        };
        let links = (0..settings.partitions).map(|_| Link::Down).collect();
        let losses = Losses::default();
        Self { node: Node::new(node, now), port, notices, links, losses }
    }

    /// The node's end of the bus, which wakes a sleeping owner.
    #[must_use]
    pub const fn port(&self) -> &Port<ShardMessage> {
        &self.port
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.node.partitions()
    }

    /// The things that the node had to give up so far.
    #[must_use]
    pub const fn losses(&self) -> Losses {
        self.losses
    }

    /// Whether a partition is connected.
    #[must_use]
    pub fn is_connected(&self, partition: u16) -> bool {
        !matches!(self.links[usize::from(partition)], Link::Down)
    }

    /// Takes other apps.
    pub fn adopt(&mut self, apps: &Arc<Apps>, now: Millis) {
        self.node.adopt(Arc::clone(apps), now);
    }

    /// Leaves it to other nodes to tell webhooks of departures.
    pub fn leave_departures(&mut self) {
        self.node.leave_departures();
    }

    /// Leaves the cluster behind everything that it was told.
    pub fn quit(&mut self) {
        self.node.quit();
    }

    /// Whether Redis has executed everything.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.node.is_settled() && !self.port.spilling()
    }

    /// Takes the messages of shards, does what is due, and carries the effects out.
    pub fn turn(&mut self, now: Millis) {
        while let Some(message) = self.port.receive() {
            match message {
                ShardMessage::ToCluster(message) => self.node.handle(message, now),
                ShardMessage::FromHome(FromHome::Answer(to, answer)) => {
                    self.node.answered(to, *answer, now);
                }
                ShardMessage::Terminated(to) => self.node.terminated(to, now),
                other => panic!("the cluster gets {other:?}"),
            }
        }
        self.node.tick(now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        let effects = self.node.effects();
        for (shard, message) in effects.messages.drain(..) {
            self.port.send(shard, message);
        }
        effects.notices.drain(..).for_each(|notice| self.notices.push(notice));
        for report in effects.reports.drain(..) {
            report.log();
            self.losses.count(&report);
        }
        self.notices.send();
        self.port.flush();
    }

    /// Connects and introduces the node. With `answered` it hears the answer; otherwise the
    /// connection is lost before.
    pub fn connect(
        &mut self,
        partition: u16,
        redis: &mut SimRedis,
        answered: bool,
        now: Millis,
    ) -> bool {
        if !matches!(self.links[usize::from(partition)], Link::Down)
            || self.node.has_quit(partition)
        {
            return false;
        }
        loop {
            let introduction = self.node.introduction(partition, &redis.run);
            let (id, entrance) = introduction.expect("a partition of the node");
            let entered = redis.partition(partition).enter(redis_ms(now), id, &entrance);
            if !answered {
                return true;
            }
            let entered = entered.expect("the number of partitions is the same");
            debug!(partition, "{id} with {entrance:?} is answered {entered:?}");
            if self.node.entered(partition, entered, now) {
                break;
            }
        }
        self.links[usize::from(partition)] = Link::Idle;
        self.carry_out();
        true
    }

    /// Sends the next call. With `executed` Redis executes it, and the answer is on its way;
    /// otherwise it is lost.
    pub fn send(
        &mut self,
        partition: u16,
        redis: &mut SimRedis,
        executed: bool,
        now: Millis,
    ) -> bool {
        if !matches!(self.links[usize::from(partition)], Link::Idle) {
            return false;
        }
        let call = self.node.next_call(partition, now);
        let Some((head, args)): Option<(CallHead, Arc<[Bytes]>)> = call else { return false };
        let text = |arg: &Bytes| arg.escape_ascii().to_string();
        let words = || args.iter().map(text).collect::<Vec<_>>().join(" ");
        debug!(
            partition,
            executed,
            "{} calls {:?} {}: {}",
            head.node,
            head.kind,
            head.number,
            words()
        );
        self.links[usize::from(partition)] = if executed {
            Link::Answered(redis.partition(partition).call(redis_ms(now), &head, &args))
        } else {
            Link::Unheard
        };
        true
    }

    /// Hears the answer to a call. If Redis wants the node to enter anew, the connection ends.
    pub fn hear(&mut self, partition: u16, now: Millis) -> bool {
        let link = &mut self.links[usize::from(partition)];
        match link {
            Link::Answered(Executed::Done) => {
                *link = Link::Idle;
                self.node.executed(partition, now);
            }
            Link::Answered(Executed::Enter) | Link::Unheard => {
                *link = Link::Down;
                self.node.lost(partition, now);
            }
            Link::Down | Link::Idle => return false,
        }
        self.carry_out();
        true
    }

    /// Reads at most so many entries of the inbox.
    pub fn read(&mut self, partition: u16, redis: &mut SimRedis, most: usize, now: Millis) -> bool {
        if matches!(self.links[usize::from(partition)], Link::Down) {
            return false;
        }
        let position = self.node.position(partition);
        let (id, after) = position.expect("a partition of the node");
        let mut entries = redis.partition(partition).read(id, &after);
        entries.truncate(most);
        if entries.is_empty() {
            return false;
        }
        for (at, field) in &entries {
            let entry = Entry::decode(field.clone());
            let records = || entry.iter().flat_map(Entry::records).collect::<Vec<_>>();
            let from = entry.as_ref().ok().map(|of| (of.origin, of.kind, of.number));
            debug!(partition, "{id} reads {at}, {from:?}: {:?}", records());
        }
        self.node.read(partition, entries, now);
        self.carry_out();
        true
    }

    /// Ends the connections of a partition.
    pub fn disconnect(&mut self, partition: u16, now: Millis) {
        let link = std::mem::take(&mut self.links[usize::from(partition)]);
        if !matches!(link, Link::Down) {
            self.node.lost(partition, now);
        }
    }
}

impl Losses {
    fn count(&mut self, report: &Report) {
        match report {
            Report::CutOff { .. } => self.cut_off += 1,
            Report::Alone { .. } => self.alone += 1,
            Report::Overflowed { .. } => self.overflowed += 1,
            Report::Dropped(count) => self.dropped += count,
            _ => {}
        }
    }
}

const fn redis_ms(now: Millis) -> u64 {
    REDIS_START_MS + now.0
}
