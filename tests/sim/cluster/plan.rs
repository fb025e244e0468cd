//! The parameters of a run, by its seed.

use std::time::Duration;

use ringwave::testing::cluster::SimSettings;
use ringwave::testing::plane::BacklogLimits;
use ringwave_ring::sim::{Dice, Faults};

use crate::plan::Plan;

/// The parameters of a cluster's run. Chances are out of 1,000 steps.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPlan {
    pub nodes: usize,
    /// The sizes of each node. Its rings work without faults, which other simulations have.
    pub node: Plan,
    pub settings: SimSettings,
    /// The most connections of the second app, over all nodes.
    pub quota: u32,
    pub epochs: usize,
    pub steps: usize,
    /// The most milliseconds that a step of the clock takes.
    pub stride_ms: usize,
    /// The most entries that are read at a time.
    pub bite: usize,
    /// The chance that a message to or from Redis is lost with its connection.
    pub lost: u32,
    /// The chance that a process stands still, and the longest time for which it does.
    pub standstill: u32,
    pub standstill_ms: usize,
    /// The chance that a process dies, and another one is started.
    pub death: u32,
    /// The chance that a process stops in order, and another one is started.
    pub drain: u32,
    /// The chance that a process gets other apps.
    pub reload: u32,
    /// The chance that Redis stands still or is away, and the longest time for which it is.
    pub absence: u32,
    pub absence_ms: usize,
    /// The chance that Redis fails over to a replica that lacks the last changes.
    pub failover: u32,
    /// The chance that Redis comes back empty.
    pub emptied: u32,
    /// The chance that Redis evicts an inbox.
    pub eviction: u32,
}

impl ClusterPlan {
    pub(crate) fn new(nodes: usize, seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xc1u64.rotate_left(32));
        let lease = Duration::from_millis(dice.one_of(&[2500, 5000]));
        let settings = SimSettings {
            partitions: dice.one_of(&[1, 1, 3]),
            lease,
            retention: Duration::from_millis(dice.one_of(&[3000, 20_000])),
            patience: Duration::from_millis(dice.one_of(&[1000, 8000])),
            alone: dice.one_of(&[false, false, false, true]),
            backlog: 64 << 20,
            inbox: dice.one_of(&[64 << 20, 64 << 20, 64 << 20, 20_000]),
        };
        let few = nodes <= 8;
        Self {
            nodes,
            node: node(nodes, &mut dice),
            settings,
            quota: dice.one_of(&[3, 10, 1000]),
            epochs: if few { 3 } else { 2 },
            steps: if few { 2500 } else { 40 * nodes },
            stride_ms: dice.one_of(&[10, 60, 400]),
            bite: dice.one_of(&[1, 5, 100]),
            lost: dice.one_of(&[0, 5, 50]),
            standstill: dice.one_of(&[0, 1, 3]),
            standstill_ms: dice.one_of(&[500, 6000, 40_000]),
            death: dice.one_of(&[0, 0, 1]),
            drain: dice.one_of(&[0, 0, 1]),
            reload: dice.one_of(&[0, 0, 2]),
            absence: dice.one_of(&[0, 1, 2]),
            absence_ms: dice.one_of(&[500, 4000, 20_000]),
            failover: dice.one_of(&[0, 0, 1]),
            emptied: dice.one_of(&[0, 0, 1]),
            eviction: dice.one_of(&[0, 0, 0, 1]),
        }
    }
}

fn node(nodes: usize, dice: &mut Dice) -> Plan {
    let few = nodes <= 8;
    Plan {
        shards: if few { dice.one_of(&[1, 2]) } else { 1 },
        slots: 12,
        queue: 64,
        buffers: 4,
        buffer: 1024,
        mailbox: dice.one_of(&[2, 64, 1024]),
        socket: 1 << 16,
        backlog: BacklogLimits { connection: 1 << 20, shard: 64 << 20 },
        faults: Faults::NONE,
        channels: 1 + dice.below(6),
        clients: if few { 20 } else { 2 * nodes },
        epochs: 0,
        steps: 0,
        filler: dice.one_of(&[10, 200, 200, 2000]),
        bite: 1 << 20,
        members_max: dice.one_of(&[3, 100, 100]),
        ping_interval: Duration::from_secs(3600),
        pong_timeout: Duration::from_secs(60),
    }
}
