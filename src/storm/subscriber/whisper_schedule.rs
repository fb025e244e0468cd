//! The times at which the whisperers of a ring send their client events.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;

use crate::clock::NS_PER_S;
use crate::plan::StormPlan;
use crate::scenario::Scenario;
use crate::schedule::Schedule;

/// The wait before a client event is tried again whose whisperer is away.
const POSTPONE_NS: u64 = NS_PER_S / 20;

/// The schedules of the whisperers of a ring.
#[derive(Debug, Default)]
pub(super) struct WhisperSchedules {
    /// The numbers of the whisperers on this ring; whisperer `i` is connection `i`.
    whisperers: Range<u32>,
    /// Their schedules, once the scenario runs.
    schedules: Vec<Schedule>,
    /// The times at which client events are due, with the numbers of their whisperers.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    /// Client events whose whisperers are away: when each is tried again, when it was due, and the
    /// number of its whisperer.
    postponed: VecDeque<(u64, u64, u32)>,
    /// Client events per second of all whisperers together.
    rate: f64,
    /// The number of whisperers of the storm.
    of: u32,
}

impl WhisperSchedules {
    pub(super) fn new(plan: &StormPlan, share: Range<u32>) -> Self {
        if plan.scenario != Scenario::Whisper {
            return Self::default();
        }
        let whisperers = share.start.min(plan.publishers)..share.end.min(plan.publishers);
        Self { whisperers, rate: plan.rate, of: plan.publishers, ..Self::default() }
    }

    /// Starts all schedules at this time.
    pub(super) fn start(&mut self, from_ns: u64) {
        let schedule = |index| Schedule::new(from_ns, self.rate, index, self.of);
        self.schedules = self.whisperers.clone().map(schedule).collect();
        let due = self.whisperers.clone().zip(&self.schedules);
        self.due = due.map(|(index, schedule)| Reverse((schedule.due_ns(), index))).collect();
    }

    /// The time of the next client event.
    pub(super) fn next_ns(&self) -> u64 {
        let next_ns = self.due.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns);
        self.postponed.front().map_or(next_ns, |(again_ns, ..)| next_ns.min(*again_ns))
    }

    /// Has a client event tried again a little later.
    pub(super) fn postpone(&mut self, now_ns: u64, due_ns: u64, index: u32) {
        self.postponed.push_back((now_ns + POSTPONE_NS, due_ns, index));
    }

    /// The number of client events before this time that were not taken yet.
    pub(super) fn left_before(&self, until_ns: u64) -> u64 {
        let left = self.schedules.iter().map(|schedule| schedule.left_before(until_ns));
        left.sum::<u64>() + self.postponed.len() as u64
    }

    /// Takes the next client event that is due at this time: when it was due, and the number of its
    /// whisperer. A schedule ends at `until_ns`.
    pub(super) fn pop_due(&mut self, now_ns: u64, until_ns: u64) -> Option<(u64, u32)> {
        if self.postponed.front().is_some_and(|(again_ns, ..)| *again_ns <= now_ns) {
            return self.postponed.pop_front().map(|(_, due_ns, index)| (due_ns, index));
        }
        while self.next_ns() <= now_ns {
            let Reverse((due_ns, index)) = self.due.pop()?;
            if due_ns >= until_ns {
                continue;
            }
            let schedule = &mut self.schedules[(index - self.whisperers.start) as usize];
            schedule.advance();
            self.due.push(Reverse((schedule.due_ns(), index)));
            return Some((due_ns, index));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;

    #[test]
    fn the_whisperers_of_a_ring_send_their_share_of_the_rate_until_the_end() {
        let plan = StormPlan { scenario: Scenario::Whisper, publishers: 4, rate: 4.0, ..plan() };
        let mut schedules = WhisperSchedules::new(&plan, 1..1000);
        assert_eq!(schedules.next_ns(), u64::MAX);
        schedules.start(0);
        let mut sent = Vec::new();
        while let Some((due_ns, index)) = schedules.pop_due(10_000_000_000, 2_000_000_000) {
            sent.push((due_ns / 250_000_000, index));
        }
        assert_eq!(sent, [(1, 1), (2, 2), (3, 3), (5, 1), (6, 2), (7, 3)]);
        assert_eq!(schedules.next_ns(), u64::MAX);
    }

    #[test]
    fn a_postponed_client_event_is_taken_later_and_is_left_until_then() {
        let plan = StormPlan { scenario: Scenario::Whisper, publishers: 1, rate: 1.0, ..plan() };
        let mut schedules = WhisperSchedules::new(&plan, 0..1);
        let until_ns = 2 * NS_PER_S;
        schedules.start(0);
        assert_eq!(schedules.left_before(until_ns), 2);
        assert_eq!(schedules.pop_due(0, until_ns), Some((0, 0)));
        schedules.postpone(0, 0, 0);
        assert_eq!((schedules.pop_due(0, until_ns), schedules.left_before(until_ns)), (None, 2));
        assert_eq!(schedules.next_ns(), POSTPONE_NS);
        assert_eq!(schedules.pop_due(POSTPONE_NS, until_ns), Some((0, 0)));
        assert_eq!(schedules.left_before(until_ns), 1);
    }
}
