//! A process of the cluster: its shards, its node and its apps.

use std::sync::Arc;
use std::time::Duration;

use ringwave::testing::apps::webhook::{EventKind, Url, Webhook, Webhooks};
use ringwave::testing::apps::{App, Apps};
use ringwave::testing::bus::{Outside, connect_beside};
use ringwave::testing::channels::{KeyHash, Notice};
use ringwave::testing::cluster::{SimNode, SimNodeParts};
use ringwave::testing::shard::{Drain, InForce, Shard, ShardMessage, ShardParts};
use ringwave::testing::time::Millis;
use ringwave::testing::webhooks::{NoticeReceiver, notice_queue};
use ringwave_ring::sim::{Faults, SimNet, SimRing};
use tokio::sync::oneshot;

use super::plan::ClusterPlan;
use crate::loops::{Loops, TICK, took_edge};
use crate::world::{app, parts};

pub(super) struct Process {
    pub apps: Arc<Apps>,
    pub hash: KeyHash,
    pub loops: Loops,
    pub node: SimNode,
    node_awake: bool,
    node_turned: Millis,
    notices: NoticeReceiver,
    /// The time until which it stands still.
    pub still_until: Millis,
    /// By partition: the time of the last call whose answer was heard.
    pub heard: Vec<Millis>,
    /// By partition: the time of the last call.
    pub called: Vec<Millis>,
    /// The control thread's way to the shards.
    control: Outside<ShardMessage>,
    stopping: Stopping,
    /// The times that the node went alone, as far as they were noticed.
    alone: u64,
    /// Whether the cluster may have lost messages for it, so that it closes connections.
    pub may_lose: bool,
}

/// The end of a process that stops in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// It serves.
    No,
    /// Its connections are closed.
    Draining,
    /// Its shards have ended, and its node leaves the cluster.
    Leaving,
}

impl Process {
    pub(super) fn new(
        plan: &ClusterPlan,
        net: &SimNet,
        number: u64,
        seed: u64,
        now: Millis,
    ) -> Self {
        let apps = Arc::new(Apps::new((0..2).map(|index| app_of(index, plan)).collect()));
        let seed = seed.wrapping_mul(1 << 24).wrapping_add(number << 8);
        let hash = KeyHash::seeded(seed);
        let shards = u16::try_from(plan.node.shards).unwrap();
        let mut ports = connect_beside::<ShardMessage>(shards, 1, plan.node.mailbox).unwrap();
        let port = ports.pop().unwrap();
        let control = ports[0].outside();
        let (sender, notices) = notice_queue(usize::MAX);
        let node = SimNode::new(SimNodeParts {
            settings: &plan.settings,
            number: seed | 1,
            apps: Arc::clone(&apps),
            hash: hash.clone(),
            port,
            notices: sender.clone(),
            now,
        });
        let shard = |port: ringwave::testing::bus::Port<ShardMessage>| {
            let of = &plan.node;
            let ring_seed = seed + u64::from(port.id().0);
            let ring =
                SimRing::new(net.clone(), ring_seed, Faults::NONE, of.slots, of.buffers, of.buffer);
            let parts = parts(&apps, of.backlog, hash.clone(), seed, port);
            let parts = ShardParts { clustered: true, notices: sender.clone(), ..parts };
            Shard::new(ring.with_queue(of.queue), parts)
        };
        let shards: Vec<_> = ports.into_iter().map(shard).collect();
        Self {
            loops: Loops::new(shards, now),
            node,
            node_awake: true,
            node_turned: now,
            notices,
            still_until: Millis(0),
            heard: vec![now; usize::from(plan.settings.partitions)],
            called: vec![now; usize::from(plan.settings.partitions)],
            control,
            stopping: Stopping::No,
            alone: 0,
            may_lose: false,
            apps,
            hash,
        }
    }

    /// Turns a shard if it has something to do. Returns whether it had.
    pub(super) fn turn_if_due(&mut self, shard: usize, now: Millis) -> bool {
        let due = self.loops.wants_a_turn(shard) || self.loops.is_due(shard, now);
        if due {
            self.loops.turn(shard, now);
        }
        due
    }

    /// Does what the node's thread does, if it would wake.
    pub(super) fn turn_node_if_due(&mut self, now: Millis) -> bool {
        self.control.flush();
        self.node_awake |= took_edge(self.node.port());
        let due = self.node_awake || now.since(self.node_turned) >= TICK;
        if due {
            took_edge(self.node.port());
            self.node.port().awake();
            self.node.turn(now);
            self.node_awake = self.node.port().spilling() || !self.node.port().sleep();
            self.node_turned = now;
        }
        due
    }

    /// Gives it apps that differ from those of the others, or are the same again.
    pub(super) fn reload(&mut self, plan: &ClusterPlan, now: Millis) {
        let other = self.apps.iter().all(|app| app.cache_ttl == app_of(0, plan).cache_ttl);
        let read = |index| {
            let app = app_of(index, plan);
            App { cache_ttl: app.cache_ttl + Duration::from_secs(u64::from(other)), ..app }
        };
        let read = Apps::new((0..2).map(read).collect());
        self.apps = Arc::new(self.apps.followed_by(&read).expect("few apps"));
        self.node.adopt(&self.apps, now);
        let (apps, backlog) = (Arc::clone(&self.apps), plan.node.backlog);
        let in_force =
            Arc::new(InForce { apps, backlog, front: Arc::default(), shutdown_window: None });
        self.control
            .broadcast(|| ShardMessage::InForce(Arc::clone(&in_force), oneshot::channel().0));
    }

    /// Closes all connections, and then leaves the cluster.
    pub(super) fn drain(&mut self) {
        self.stopping = Stopping::Draining;
        let drain = Drain { window: Duration::from_millis(500), successor: false };
        self.loops.shards.iter_mut().for_each(|shard| shard.drain(drain));
        self.loops.wake_all();
        self.node.leave_departures();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping != Stopping::No
    }

    /// Goes on with its end. Returns whether it has come.
    pub(super) fn has_stopped(&mut self) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Draining => {
                let ended = |shard: &Shard<SimRing>| {
                    shard.drained() && shard.homes() == 0 && shard.users() == 0
                };
                if self.loops.shards.iter().all(ended) {
                    self.node.quit();
                    self.stopping = Stopping::Leaving;
                }
                false
            }
            Stopping::Leaving => self.node.is_settled(),
        }
    }

    /// Whether its node was alone since this was last asked.
    pub(super) fn went_alone(&mut self) -> bool {
        let alone = self.node.losses().alone;
        std::mem::replace(&mut self.alone, alone) != alone
    }

    pub(super) fn notices(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.notices.try_next()).flatten().collect()
    }
}

fn app_of(index: u16, plan: &ClusterPlan) -> App {
    let webhook = Webhook {
        url: Url::parse("http://webhooks/").expect("a URL"),
        events: EventKind::ALL.into_iter().collect(),
        channel_prefix: String::new(),
        channel_suffix: String::new(),
        headers: Vec::new(),
        batch_window: Duration::from_millis(50),
        batch_max: 100,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
    };
    App {
        webhooks: Webhooks::new(vec![webhook]),
        max_connections: (index == 1).then_some(plan.quota),
        ..app(index, &plan.node)
    }
}
