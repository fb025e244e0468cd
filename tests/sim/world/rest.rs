//! The rest and the end of a world, and the facts that must hold then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringwave::testing::front::gateway::GatewayCommand;
use ringwave::testing::id::AppIndex;
use ringwave::testing::shard::Drain;
use ringwave_ring::sim::Faults;
use tokio::sync::oneshot;

use super::{CACHE_TTL, World};
use crate::client::{Mood, Phase};
use crate::facts::Facts;
use crate::loops::TICK;

/// Turns and client steps within which everything must have come to rest.
const ROUNDS_TO_REST: usize = 20_000;

/// Bytes that a shard may hold when all have left: a chunk of each table by slot, and lists of 256
/// entries.
const ROOM_LEFT: usize = 512 * (40 + 40 + 24) + 256 * 400;

impl World {
    /// Lets everything come to rest, without faults and at one moment of time, except for the
    /// milliseconds that throttled connections have to wait.
    pub(super) fn rest(&mut self) {
        self.set_faults(Faults::NONE);
        for _ in 0..ROUNDS_TO_REST {
            self.ledger.step += 1;
            let mut moved = false;
            let mut shards: Vec<usize> = (0..self.loops.shards.len()).collect();
            self.dice.shuffle(&mut shards);
            for shard in shards {
                if self.loops.wants_a_turn(shard) {
                    self.turn(shard);
                    moved = true;
                }
            }
            for id in 0..self.clients.len() {
                if self.clients[id].phase != Phase::Gone {
                    moved |= self.with_client(id, |client, _, with| {
                        client.write(usize::MAX, with.net, with.now) | client.read(usize::MAX, with)
                    });
                }
            }
            if self.loops.shards.iter().any(|shard| shard.plane().throttling()) {
                self.now = self.now + Duration::from_millis(1);
            }
            if !moved {
                for shard in &self.loops.shards {
                    let id = shard.port().id();
                    assert!(shard.port().is_quiet(), "a message is slept over: {id:?}");
                }
                return;
            }
        }
        for shard in &self.loops.shards {
            let (plane, port) = (shard.plane(), shard.port());
            eprintln!(
                "{:?}: work {}, ring ready {}, spilling {}, stalled {}, {:?}",
                port.id(),
                shard.has_work(),
                plane.ring().ready(),
                port.spilling(),
                plane.stalled(),
                plane.counters(),
            );
        }
        panic!("it does not come to rest");
    }

    /// Ends an epoch: everything comes to rest, and then all must agree.
    pub(super) fn judge(&mut self) {
        // At first the slow clients are still slow.
        self.rest();
        self.everywhere_on();
        for id in 0..self.clients.len() {
            self.with_client(id, |client, _, with| match client.mood {
                Mood::Mute if client.phase != Phase::Gone => client.vanish(with),
                Mood::Stalls => client.mood = Mood::Reads,
                _ => {}
            });
        }
        self.rest();
        let answers = self.terminations.drain(..);
        assert!(answers.into_iter().all(|mut answer| matches!(answer.try_recv(), Ok(Ok(())))));
        self.terminated.clear();
        self.switched_off = false;
        let members_max = self.plan.members_max;
        self.clients.iter().for_each(|client| client.assert_at_rest(members_max, &self.ledger));
        let clients = &self.clients;
        let heard = |client: usize| clients[client].is_open() || clients[client].heard_out;
        self.ledger.settle_whispers(heard);
        self.ledger.judge();
        self.facts().judge();
        self.judge_answers();
        for (app, index) in self.apps.iter().zip(0..) {
            let open = self.clients.iter().filter(|of| of.is_open() && of.app == index).count();
            assert_eq!(app.counters.connections() as usize, open, "connections");
        }
        let open =
            self.loops.shards.iter().map(|shard| shard.plane().open_connections()).sum::<usize>();
        assert_eq!(open, self.clients.iter().filter(|client| client.is_open()).count());
        self.note(self.ledger.delivered);
    }

    /// Lets time pass, in which nothing happens but pings, which are answered at once.
    pub(super) fn idle(&mut self) {
        self.quiet = true;
        let open = self.clients.iter().filter(|client| client.is_open()).count();
        for _ in 0..self.dice.below(80) {
            self.tick();
        }
        let still_open = self.clients.iter().filter(|client| client.is_open()).count();
        assert_eq!(open, still_open, "clients that answer are not closed");
        self.quiet = false;
    }

    fn tick(&mut self) {
        self.now = self.now + TICK;
        (0..self.loops.shards.len()).for_each(|shard| self.turn(shard));
        self.rest();
    }

    fn facts(&self) -> Facts<'_> {
        Facts { clients: &self.clients, channels: &self.channels }
    }

    /// Checks that the answers of the API agree with the actual state.
    fn judge_answers(&mut self) {
        for index in 0..2 {
            let shard = self.dice.below(self.loops.shards.len());
            let app = Arc::clone(self.apps.get(AppIndex(index as u16)).unwrap());
            let (reply, mut answer) = oneshot::channel();
            self.loops.commands[shard].push(GatewayCommand::Channels {
                app,
                prefix: "".into(),
                reply,
            });
            self.rest();
            let list = answer.try_recv().expect("an answer").expect("the list of channels");
            let occupied: BTreeSet<_> = list
                .into_iter()
                .map(|(name, of)| (name.to_string(), of.subscription_count, of.user_count))
                .collect();
            assert_eq!(
                occupied,
                self.facts().occupied(index),
                "what the API is told of app {index}"
            );
        }
    }

    /// Ends all connections, one way or another, and checks that nothing is left.
    pub(super) fn finish(&mut self) {
        self.draining = self.dice.chance(400);
        if self.draining {
            let successor = self.dice.chance(500);
            let drain = Drain { window: Duration::from_millis(500), successor };
            self.loops.shards.iter_mut().for_each(|shard| shard.drain(drain));
        }
        for id in 0..self.clients.len() {
            let (end, draining) = (self.dice.below(5), self.draining);
            self.with_client(id, |client, _, with| match end {
                _ if !client.is_open() => {}
                0 => client.mood = Mood::Mute,
                1 => client.vanish(with),
                2 => client.mood = Mood::Stalls,
                _ if draining => {}
                _ => client.leave(with),
            });
        }
        let longest = self.plan.ping_interval + self.plan.pong_timeout + Duration::from_secs(8);
        for _ in 0..longest.as_millis() / TICK.as_millis() {
            self.tick();
        }
        self.now = self.now + CACHE_TTL;
        (0..self.loops.shards.len()).for_each(|shard| self.turn(shard));
        self.rest();
        self.assert_nothing_left();
    }

    fn assert_nothing_left(&self) {
        for shard in &self.loops.shards {
            let (plane, id) = (shard.plane(), shard.port().id());
            assert!(plane.is_empty(), "{id:?} has connections: {:?}", self.clients);
            assert_eq!(plane.ring().leaks(), None, "{id:?}");
            assert_eq!(plane.backlog_bytes(), 0, "backlog of {id:?}");
            assert_eq!(shard.channels(), 0, "channels of {id:?}");
            assert_eq!(shard.homes(), 0, "homes of {id:?}");
            assert_eq!(shard.users(), 0, "users of {id:?}");
            assert_eq!(shard.pending_requests(), 0, "requests of {id:?}");
            assert!(!shard.has_work(), "{id:?} has work");
            assert!(shard.room() <= ROOM_LEFT, "{id:?} holds {} bytes", shard.room());
        }
        for app in self.apps.iter() {
            assert_eq!(app.counters.connections(), 0, "connections of {}", app.id);
        }
    }
}
