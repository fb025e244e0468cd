//! The rest and the end of a cluster.

use std::time::Duration;

use super::world::Cluster;
use crate::client::Phase;

/// Rounds within which everything must have come to rest at one moment of time.
const ROUNDS_TO_REST: usize = 5000;

/// The step of the clock while everything comes to rest.
const STRIDE: Duration = Duration::from_millis(100);

impl Cluster {
    /// Ends all trouble, and lets time pass until every node that is gone is buried and forgotten,
    /// and departures are told.
    pub(super) fn rest(&mut self) {
        self.heal();
        let settings = &self.plan.settings;
        let end = self.now + settings.lease + settings.retention + Duration::from_secs(8);
        while self.now < end {
            self.come_to_rest();
            self.now = self.now + STRIDE;
        }
        self.come_to_rest();
        for process in self.processes.iter().flatten() {
            assert!(process.node.is_settled(), "commands wait for Redis");
        }
        self.watch_silence();
        for process in self.processes.iter_mut().flatten() {
            process.heard.fill(self.now);
            process.called.fill(self.now);
        }
    }

    pub(super) fn come_to_rest(&mut self) {
        for _ in 0..ROUNDS_TO_REST {
            self.ledger.step += 1;
            if !self.move_all() {
                return;
            }
            let shards = self.processes.iter().flatten().flat_map(|process| &process.loops.shards);
            if shards.into_iter().any(|shard| shard.plane().throttling()) {
                // A throttled connection waits for milliseconds.
                self.now = self.now + Duration::from_millis(1);
            }
        }
        panic!("it does not come to rest");
    }

    /// Lets every process and client do everything that it can. Returns whether there was
    /// something.
    fn move_all(&mut self) -> bool {
        let mut moved = false;
        let mut order: Vec<usize> = (0..self.processes.len()).collect();
        self.dice.shuffle(&mut order);
        for index in order {
            moved |= self.turn_process(index);
        }
        for id in 0..self.clients.len() {
            if self.clients[id].phase != Phase::Gone {
                moved |= self.with_client(id, |client, with| {
                    client.write(usize::MAX, with.net, with.now) | client.read(usize::MAX, with)
                });
            }
        }
        self.ledger.poll_answers();
        moved
    }

    /// Lets a process do everything that it can. Returns whether there was something.
    fn turn_process(&mut self, index: usize) -> bool {
        let Self { processes, redis, now, plan, .. } = self;
        let Some(process) = &mut processes[index] else { return false };
        let mut moved = false;
        for shard in 0..process.loops.shards.len() {
            moved |= process.turn_if_due(shard, *now);
        }
        moved |= process.turn_node_if_due(*now);
        for partition in 0..plan.settings.partitions {
            let node = &mut process.node;
            moved |= node.connect(partition, redis, true, *now);
            moved |= node.send(partition, redis, true, *now);
            moved |= node.hear(partition, *now);
            moved |= node.read(partition, redis, usize::MAX, *now);
        }
        self.after_turns(index);
        moved
    }

    /// Ends all connections, one way or another, and checks that nothing is left.
    pub(super) fn finish(&mut self) {
        for id in 0..self.clients.len() {
            let end = self.dice.below(2);
            self.with_client(id, |client, with| match end {
                _ if !client.is_open() => {}
                0 => client.vanish(with),
                _ => client.leave(with),
            });
        }
        self.rest();
        self.now = self.now + Duration::from_secs(600);
        self.rest();
        self.assert_nothing_left();
    }

    fn assert_nothing_left(&self) {
        for process in self.processes.iter().flatten() {
            for shard in &process.loops.shards {
                let (plane, id) = (shard.plane(), shard.port().id());
                assert!(plane.is_empty(), "{id:?} has connections: {:?}", self.clients);
                assert_eq!(plane.ring().leaks(), None, "{id:?}");
                assert_eq!(shard.channels(), 0, "channels of {id:?}");
                assert_eq!(shard.homes(), 0, "homes of {id:?}");
                assert_eq!(shard.users(), 0, "users of {id:?}");
                assert_eq!(shard.pending_requests(), 0, "requests of {id:?}");
                assert!(!shard.has_work(), "{id:?} has work");
            }
            for app in process.apps.iter() {
                assert_eq!(app.counters.connections(), 0, "connections of {}", app.id);
            }
        }
        assert_eq!(self.redis.leftovers(), Vec::<String>::new());
    }
}
