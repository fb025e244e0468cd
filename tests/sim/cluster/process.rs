//! A process of the cluster: its shards, its node and its apps.

use std::sync::Arc;
use std::time::Duration;

use ringwave::testing::apps::webhook::{EventKind, Url, Webhook, Webhooks};
use ringwave::testing::apps::{App, Apps};
use ringwave::testing::bus::connect_beside;
use ringwave::testing::channels::{KeyHash, Notice};
use ringwave::testing::cluster::{SimNode, SimNodeParts};
use ringwave::testing::front::gateway::GatewayCommand;
use ringwave::testing::shard::{Shard, ShardMessage, ShardParts};
use ringwave::testing::time::Millis;
use ringwave::testing::webhooks::{NoticeReceiver, notice_queue};
use ringwave_ring::sim::{Faults, SimNet, SimRing};

use super::plan::ClusterPlan;
use crate::world::{app, parts, took_edge};

/// The interval at which shards have timed work, and nodes.
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Process {
    pub apps: Arc<Apps>,
    pub hash: KeyHash,
    pub shards: Vec<Shard<SimRing>>,
    /// By shard: the commands of its front.
    pub commands: Vec<Vec<GatewayCommand>>,
    /// By shard: whether it must not sleep.
    awake: Vec<bool>,
    /// By shard: the time of its last turn.
    turned: Vec<Millis>,
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
    /// Whether the cluster may have lost messages for it, so that it closes connections.
    pub may_lose: bool,
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
            commands: shards.iter().map(|_| Vec::new()).collect(),
            awake: vec![true; shards.len()],
            turned: vec![now; shards.len()],
            shards,
            node,
            node_awake: true,
            node_turned: now,
            notices,
            still_until: Millis(0),
            heard: vec![now; usize::from(plan.settings.partitions)],
            called: vec![now; usize::from(plan.settings.partitions)],
            may_lose: false,
            apps,
            hash,
        }
    }

    /// Turns a shard if it has something to do. Returns whether it had.
    pub(super) fn turn_if_due(&mut self, shard: usize, now: Millis) -> bool {
        self.awake[shard] |= took_edge(self.shards[shard].port());
        let due = self.awake[shard]
            || !self.commands[shard].is_empty()
            || self.shards[shard].plane().ring().ready()
            || self.shards[shard].plane().throttling()
            || now.since(self.turned[shard]) >= TICK;
        if due {
            self.turn(shard, now);
        }
        due
    }

    pub(super) fn turn(&mut self, index: usize, now: Millis) {
        let shard = &mut self.shards[index];
        took_edge(shard.port());
        shard.port().awake();
        shard.turn(now, &mut self.commands[index]);
        self.awake[index] = shard.has_work() || !shard.port().sleep();
        self.turned[index] = now;
    }

    /// Does what the node's thread does, if it would wake.
    pub(super) fn turn_node_if_due(&mut self, now: Millis) -> bool {
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

    /// Has a shard look at a connection that was just opened.
    pub(super) fn wake(&mut self, shard: usize) {
        self.awake[shard] = true;
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
