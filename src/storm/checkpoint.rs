//! Readings of the counters, of CPU times and of memory at the moments between which a storm is
//! measured.

use crate::clock::{NS_PER_S, now_ns};
use crate::counters::{Counter, Tally};
use crate::plan::StormPlan;
use crate::procfs::{HostMemory, ProcessUsage, private_memory};
use crate::shared::SharedState;

/// The memory of the server, of this process and of the host at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemorySnapshot {
    /// The own memory of each process of the server in bytes; zero for one that is gone.
    pub(crate) servers: Vec<u64>,
    /// This process's own memory in bytes.
    pub(crate) storm: u64,
    pub(crate) host: HostMemory,
}

impl MemorySnapshot {
    pub(crate) fn now(plan: &StormPlan) -> Self {
        Self {
            servers: plan.pids.iter().map(|pid| private_memory(*pid).unwrap_or_default()).collect(),
            storm: private_memory(std::process::id()).unwrap_or_default(),
            host: HostMemory::now(),
        }
    }

    /// The own memory of all processes of the server.
    pub(crate) fn server(&self) -> u64 {
        self.servers.iter().sum()
    }

    /// The own memory of one process of the server.
    pub(crate) fn of(&self, process: usize) -> u64 {
        self.servers.get(process).copied().unwrap_or_default()
    }
}

/// The counters and the resource usage up to a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) at_ns: u64,
    pub(crate) tally: Tally,
    /// The usage of each process of the server.
    pub(crate) servers: Vec<ProcessUsage>,
    pub(crate) storm: ProcessUsage,
}

impl Checkpoint {
    /// The CPU time of a process that is gone is the one of `last`.
    pub(crate) fn now(plan: &StormPlan, shared: &SharedState, last: &[ProcessUsage]) -> Self {
        let usage = |(process, pid): (usize, &u32)| {
            ProcessUsage::of(*pid).unwrap_or_else(|| {
                let last = last.get(process).copied().unwrap_or_default();
                ProcessUsage { resident: 0, ..last }
            })
        };
        Self {
            at_ns: now_ns(),
            tally: shared.sum(),
            servers: plan.pids.iter().enumerate().map(usage).collect(),
            storm: ProcessUsage::of(std::process::id()).unwrap_or_default(),
        }
    }

    /// Resident memory of all processes of the server in bytes.
    pub(crate) fn server_resident(&self) -> u64 {
        self.servers.iter().map(|server| server.resident).sum()
    }
}

/// Two checkpoints, and what happened between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval<'a> {
    pub(crate) from: &'a Checkpoint,
    pub(crate) to: &'a Checkpoint,
}

impl Interval<'_> {
    /// The length in seconds. It is never zero, because rates are divided by it.
    pub(crate) fn seconds(self) -> f64 {
        let ns = self.to.at_ns.saturating_sub(self.from.at_ns);
        (ns as f64 / NS_PER_S as f64).max(0.001)
    }

    /// The number of events that these counters counted. A counter that fell counts as zero.
    pub(crate) fn events(self, counters: &[Counter]) -> u64 {
        let Self { from, to } = self;
        let grown = |counter| to.tally.of(counter).saturating_sub(from.tally.of(counter));
        counters.iter().copied().map(grown).sum()
    }

    /// The number of events per second.
    pub(crate) fn rate(self, counters: &[Counter]) -> f64 {
        self.events(counters) as f64 / self.seconds()
    }

    /// CPU seconds (user, system) of all processes of the server.
    pub(crate) fn server_cpu_s(self) -> (f64, f64) {
        let pairs = self.from.servers.iter().zip(&self.to.servers);
        pairs.fold((0.0, 0.0), |(user_s, system_s), (from, to)| {
            let user_more_s = risen(from.user_s, to.user_s);
            (user_s + user_more_s, system_s + risen(from.system_s, to.system_s))
        })
    }

    /// Cores that all processes of the server used.
    pub(crate) fn server_cores(self) -> f64 {
        (0..self.to.servers.len()).map(|process| self.cores_of(process)).sum()
    }

    /// Cores that one process of the server used.
    pub(crate) fn cores_of(self, process: usize) -> f64 {
        let cpu_s = |point: &Checkpoint| {
            point.servers.get(process).map_or(0.0, ProcessUsage::cpu_s)
        };
        risen(cpu_s(self.from), cpu_s(self.to)) / self.seconds()
    }

    /// CPU seconds of this process.
    pub(crate) fn storm_cpu_s(self) -> f64 {
        risen(self.from.storm.cpu_s(), self.to.storm.cpu_s())
    }

    /// CPU microseconds (user, system) of the server per event; none without events.
    pub(crate) fn server_cpu_us_per(self, counters: &[Counter]) -> Option<(f64, f64)> {
        let events = self.events(counters) as f64;
        let (user_s, system_s) = self.server_cpu_s();
        (events > 0.0).then(|| (user_s * 1e6 / events, system_s * 1e6 / events))
    }
}

/// The rise of a CPU time. The kernel revises its split into user and system with every tick, and a
/// process that ends takes its exact figure along, but no CPU time is ever given back.
fn risen(from_s: f64, to_s: f64) -> f64 {
    (to_s - from_s).max(0.0)
}

/// The moments between which a storm is measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpoints {
    /// Memory before the first connection.
    pub(crate) memory_before: MemorySnapshot,
    /// Memory with all connections, before the scenario.
    pub(crate) memory_held: MemorySnapshot,
    /// Memory at the end.
    pub(crate) memory_end: MemorySnapshot,
    /// The moment before the first connection.
    pub(crate) start: Checkpoint,
    /// The end of the ramp.
    pub(crate) opened: Checkpoint,
    /// The beginning of the scenario.
    pub(crate) run: Checkpoint,
    /// The moment at which nothing was owed any more, or the grace period was over.
    pub(crate) end: Checkpoint,
}

impl Checkpoints {
    /// The interval in which connections were opened.
    pub(crate) const fn ramp(&self) -> Interval<'_> {
        Interval { from: &self.start, to: &self.opened }
    }

    /// The interval in which the scenario ran.
    pub(crate) const fn scenario(&self) -> Interval<'_> {
        Interval { from: &self.run, to: &self.end }
    }
}
