//! The faults of a run, and what an operator does.

use std::time::Duration;

use tracing::debug;

use super::process::Process;
use super::world::Cluster;
use crate::client::Phase;
use crate::ledger::Source;

/// A fault that a plan gives a rate.
type Fault = fn(&mut Cluster);

impl Cluster {
    pub(super) fn some_fault(&mut self) {
        let chance = |rate| rate * 10;
        let faults: [(u32, Fault); 7] = [
            (self.plan.standstill, Self::stand_still),
            (self.plan.death, Self::die),
            (self.plan.drain, Self::drain),
            (self.plan.reload, Self::reload),
            (self.plan.absence, Self::leave_redis),
            (self.plan.emptied, Self::empty_redis),
            (self.plan.eviction, Self::evict),
        ];
        for (rate, fault) in faults {
            if self.dice.chance(chance(rate)) {
                fault(self);
            }
        }
        // A replica lags by less than a lease.
        if self.dice.chance(300) || self.now.since(self.copied) > self.plan.settings.lease / 2 {
            self.replica = self.redis.clone();
            self.copied = self.now;
        } else if self.dice.chance(chance(self.plan.failover)) {
            self.fail_over();
        }
    }

    fn stand_still(&mut self) {
        let Some(index) = self.some_process() else { return };
        self.totals.standstills += 1;
        let time = Duration::from_millis(self.dice.below(self.plan.standstill_ms) as u64);
        let until = self.now + time;
        debug!("{:?}: process {index} stands still until {until:?}", self.now);
        self.process(index).still_until = until;
    }

    /// A process is killed, and another one is started.
    fn die(&mut self) {
        let index = self.dice.below(self.processes.len());
        let Some(process) = self.processes[index].take() else { return };
        if process.may_lose {
            let here = (0..self.places.len()).filter(|&client| self.places[client].0 == index);
            self.excused.extend(here);
        }
        if self.ledger.disordered {
            let (places, shards) = (&self.places, self.plan.node.shards);
            self.ledger.doubt(|source| match source {
                Source::Shard(shard) => shard / shards == index,
                Source::Client(client) => places[client].0 == index,
            });
        }
        self.totals.deaths += 1;
        debug!("{:?}: process {index} dies", self.now);
        self.notices_lost = true;
        for id in 0..self.clients.len() {
            if self.places[id].0 == index && self.clients[id].phase != Phase::Gone {
                self.with_client(id, |client, with| client.vanish(with));
            }
        }
        self.start();
    }

    /// Another process is started.
    fn start(&mut self) {
        let number = self.processes.len() as u64;
        let process = Process::new(&self.plan, &self.net, number, self.seed, self.now);
        self.processes.push(Some(process));
    }

    /// A process stops in order, and another one is started.
    fn drain(&mut self) {
        let Some(index) = self.some_server() else { return };
        self.totals.drains += 1;
        debug!("{:?}: process {index} drains", self.now);
        self.process(index).drain();
        self.start();
    }

    /// Takes a process away that has stopped in order.
    pub(super) fn end_if_stopped(&mut self, index: usize) {
        let mut here = self.clients.iter().zip(&self.places).filter(|(_, place)| place.0 == index);
        if here.all(|(client, _)| client.phase == Phase::Gone)
            && self.processes[index].as_mut().is_some_and(Process::has_stopped)
        {
            debug!("{:?}: process {index} has stopped", self.now);
            self.processes[index] = None;
        }
    }

    /// A process gets other apps, of which the others hear.
    fn reload(&mut self) {
        let Some(index) = self.some_server() else { return };
        self.totals.reloads += 1;
        let Self { processes, plan, now, .. } = self;
        if let Some(process) = &mut processes[index] {
            process.reload(plan, *now);
        }
    }

    fn leave_redis(&mut self) {
        self.totals.absences += 1;
        let time = Duration::from_millis(self.dice.below(self.plan.absence_ms) as u64);
        debug!("{:?}: Redis is away for {time:?}", self.now);
        self.away_until = Some((self.now, self.now + time));
        if self.dice.chance(500) {
            self.disconnect_all();
        }
    }

    fn disconnect_all(&mut self) {
        let now = self.now;
        for process in self.processes.iter_mut().flatten() {
            (0..self.plan.settings.partitions).for_each(|of| process.node.disconnect(of, now));
        }
    }

    fn fail_over(&mut self) {
        self.totals.failovers += 1;
        debug!("{:?}: Redis fails over to the data of {:?}", self.now, self.copied);
        self.ledger.disordered = true;
        self.notices_lost = true;
        self.redis = self.replica.clone();
        self.redis.rename(&format!("run-{}", self.ledger.step));
        self.disconnect_all();
    }

    fn empty_redis(&mut self) {
        self.totals.emptied += 1;
        debug!("{:?}: Redis is emptied", self.now);
        self.ledger.disordered = true;
        self.notices_lost = true;
        self.ledger.forget_kept();
        self.redis.empty();
        if self.dice.chance(500) {
            self.redis.rename(&format!("run-{}", self.ledger.step));
            self.disconnect_all();
        }
        (self.replica, self.copied) = (self.redis.clone(), self.now);
    }

    fn evict(&mut self) {
        let Some(index) = self.some_process() else { return };
        self.totals.evictions += 1;
        let partition = self.dice.below(usize::from(self.plan.settings.partitions)) as u16;
        let Self { processes, redis, now, .. } = self;
        if let Some(process) = &mut processes[index] {
            debug!("{now:?}: the inbox of process {index} is evicted");
            process.may_lose = true;
            redis.evict(&process.node, partition);
        }
    }
}
