//! The loops of a process's shards.

use std::time::Duration;

use ringwave::testing::apps::Admission;
use ringwave::testing::bus::Port;
use ringwave::testing::front::gateway::GatewayCommand;
use ringwave::testing::shard::{Shard, ShardMessage};
use ringwave::testing::time::Millis;
use ringwave_ring::sim::{SimNet, SimRing};

use crate::client::{Client, Phase};

/// The interval at which shards have timed work.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Shards that sleep as the real ones do: a shard is turned when it has work, when its ring, its
/// mailbox or a command wakes it, or when its tick is due.
pub(crate) struct Loops {
    pub shards: Vec<Shard<SimRing>>,
    /// By shard: the commands of its front.
    pub commands: Vec<Vec<GatewayCommand>>,
    /// By shard: whether it must not sleep.
    awake: Vec<bool>,
    /// By shard: the time of its last turn.
    turned: Vec<Millis>,
}

impl Loops {
    pub(crate) fn new(shards: Vec<Shard<SimRing>>, now: Millis) -> Self {
        Self {
            commands: shards.iter().map(|_| Vec::new()).collect(),
            awake: vec![true; shards.len()],
            turned: vec![now; shards.len()],
            shards,
        }
    }

    /// Whether something wakes a shard.
    pub(crate) fn wants_a_turn(&mut self, index: usize) -> bool {
        self.awake[index] |= took_edge(self.shards[index].port());
        self.awake[index]
            || !self.commands[index].is_empty()
            || self.shards[index].plane().ring().ready()
            // The next tick of the shard is a millisecond away.
            || self.shards[index].plane().throttling()
    }

    /// Whether the tick of a shard is due.
    pub(crate) fn is_due(&self, index: usize, now: Millis) -> bool {
        now.since(self.turned[index]) >= TICK
    }

    pub(crate) fn turn(&mut self, index: usize, now: Millis) {
        let shard = &mut self.shards[index];
        // An edge is taken before the turn that looks, as the real loop does.
        took_edge(shard.port());
        shard.port().awake();
        shard.turn(now, &mut self.commands[index]);
        self.awake[index] = shard.has_work() || !shard.port().sleep();
        self.turned[index] = now;
    }

    /// Has all shards look at something that did not wake them.
    pub(crate) fn wake_all(&mut self) {
        self.awake.fill(true);
    }

    /// Hands a client's socket to its shard.
    pub(crate) fn open(&mut self, client: &mut Client, admission: Admission, leftover: &[u8]) {
        let shard = &mut self.shards[client.shard];
        let keys: Vec<_> = shard.plane().keys().collect();
        shard.open(client.fd, admission, Vec::new(), leftover);
        client.conn = shard.plane().keys().find(|key| !keys.contains(key));
        self.awake[client.shard] = true;
    }

    /// Keeps the times at which the server closes a client's connection.
    pub(crate) fn watch_close(&self, client: &mut Client, net: &SimNet, now: Millis) {
        if client.phase == Phase::Gone {
            return;
        }
        let plane = self.shards[client.shard].plane();
        if client.closing.is_none() && !client.conn.is_some_and(|key| plane.is_open(key)) {
            client.closing = Some(now);
        }
        if client.released.is_none() && net.released(client.fd) {
            client.released = Some(now);
        }
    }
}

/// Whether the eventfd of a port was written since the last look.
pub(crate) fn took_edge(port: &Port<ShardMessage>) -> bool {
    rustix::io::read(port.wake_fd(), &mut [0; 8]).is_ok()
}
