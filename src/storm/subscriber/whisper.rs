//! Subscribers that say something to the others of their channel.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::{Phase, Subscribers};
use crate::plan::{Plan, Scenario};
use crate::schedule::Schedule;
use crate::shared::{Count, Stage};
use crate::stamp::Stamp;
use crate::target;

/// The whisperers among the subscribers of a ring.
#[derive(Debug, Default)]
pub(super) struct Whispers {
    /// The numbers of those on this ring; whisperer `i` is connection `i`.
    whisperers: Range<u32>,
    /// Their schedules, once the scenario runs.
    schedules: Vec<Schedule>,
    /// The times at which whispers are due, with the numbers of their whisperers.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    rate: f64,
    of: u32,
}

impl Whispers {
    pub(super) fn new(plan: &Plan, share: Range<u32>) -> Self {
        if plan.scenario != Scenario::Whisper {
            return Self::default();
        }
        let whisperers = share.start.min(plan.publishers)..share.end.min(plan.publishers);
        Self { whisperers, rate: plan.rate, of: plan.publishers, ..Self::default() }
    }

    /// The scenario runs from this moment on.
    pub(super) fn start(&mut self, from_ns: u64) {
        let schedule = |index| Schedule::new(from_ns, self.rate, index, self.of);
        self.schedules = self.whisperers.clone().map(schedule).collect();
        let due = self.whisperers.clone().zip(&self.schedules);
        self.due = due.map(|(index, schedule)| Reverse((schedule.due_ns(), index))).collect();
    }
}

impl Subscribers<'_> {
    /// Says what is due.
    pub(super) fn whisper_due(&mut self) {
        if self.stage != Stage::Run {
            return;
        }
        let until_ns = self.shared.run_until_ns.load(Ordering::Acquire);
        while let Some(Reverse((due_ns, index))) = self.whispers.due.peek().copied() {
            if due_ns > self.now_ns {
                return;
            }
            self.whispers.due.pop();
            if due_ns >= until_ns {
                continue;
            }
            let local = (index - self.whispers.whisperers.start) as usize;
            let schedule = &mut self.whispers.schedules[local];
            schedule.advance();
            self.whispers.due.push(Reverse((schedule.due_ns(), index)));
            self.whisper(index, due_ns);
        }
    }

    /// The time at which the next whisper is due.
    pub(super) fn next_whisper(&self) -> u64 {
        self.whispers.due.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns)
    }

    fn whisper(&mut self, index: u32, intended_ns: u64) {
        let slot = index - self.first;
        if self.conns[slot as usize].phase != Phase::Subscribed {
            return;
        }
        let (channel, lane) = self.plan.sender(index);
        let sent = &self.shared.sent[self.plan.lane_index(channel, lane)];
        let sequence = sent.fetch_add(1, Ordering::SeqCst);
        let stamp = Stamp { run: self.plan.run, channel, lane, sequence, intended_ns };
        let name = self.plan.channel(channel);
        self.tally.add(Count::Whispered, 1);
        self.send(slot, target::whisper(&name, &stamp, self.plan.size as usize));
    }
}
