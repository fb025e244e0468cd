//! The state that the threads of a storm share: the stage that the conductor sets, the numbers of
//! the messages that were sent so far, and the counters that each thread posts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::clock::NS_PER_S;
use crate::counters::{COUNTERS, Tally};
use crate::exempt::ExemptMessages;
use crate::latency::LatencyTimeline;
use crate::plan::StormPlan;

/// The stage that all threads are in. A storm goes through them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum StormStage {
    /// Connections are opened.
    Open,
    /// The scenario runs.
    Run,
    /// What was due is sent, and what is owed arrives.
    Drain,
    /// Publishers give up what has no response, so that subscribers know what they are owed.
    Settle,
    /// Threads end.
    Stop,
}

/// The counters of one thread for others to read. It fills cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct PostedTally([AtomicU64; COUNTERS]);

/// The state that all threads of a storm share.
#[derive(Debug)]
pub(crate) struct SharedState {
    /// Set by the conductor alone.
    stage: AtomicU8,
    /// The time at which the storm began.
    pub(crate) began_ns: u64,
    /// The time from which the scenario runs. `u64::MAX` until the conductor sets it.
    pub(crate) run_from_ns: AtomicU64,
    /// The time until which the scenario runs. `u64::MAX` until the conductor sets it.
    pub(crate) run_until_ns: AtomicU64,
    /// The number of times that all connections have been told to drop.
    pub(crate) round: AtomicU32,
    /// The time at which they were told so last.
    pub(crate) round_at_ns: AtomicU64,
    /// The numbers of messages that were handed to the kernel or are about to be, each at its
    /// [`StormPlan::sender_index`]. Each is written by the thread of its sender alone.
    pub(crate) sent: Box<[AtomicU32]>,
    /// By sender, the first of these numbers in the request that is under way; `u32::MAX` if there
    /// is none. A publisher ends a request here only when it has exempted what is not owed.
    pub(crate) open_from: Box<[AtomicU32]>,
    /// The messages among them that no subscriber is owed.
    pub(crate) exempt: ExemptMessages,
    /// The members of presence channels, by connection: 0 for one that is not subscribed, otherwise
    /// one more than the number of its cuts. Empty unless they are compared at the end.
    members: Box<[AtomicU32]>,
    tallies: Box<[PostedTally]>,
    /// Latency of deliveries, by second.
    pub(crate) deliveries: Mutex<LatencyTimeline>,
    /// Time from the intended connect to the subscription, by second.
    pub(crate) handshakes: Mutex<LatencyTimeline>,
    /// The problems in words, each with the number of its occurrences.
    problems: Mutex<BTreeMap<String, u64>>,
}

impl SharedState {
    pub(crate) fn new(plan: &StormPlan, threads: usize, began_ns: u64) -> Self {
        let senders = plan.channels as usize * plan.senders_per_channel() as usize;
        let members = if plan.ghosts.is_some() { plan.connections } else { 0 };
        Self {
            stage: AtomicU8::new(StormStage::Open as u8),
            began_ns,
            run_from_ns: AtomicU64::new(u64::MAX),
            run_until_ns: AtomicU64::new(u64::MAX),
            round: AtomicU32::new(0),
            round_at_ns: AtomicU64::new(0),
            sent: (0..senders).map(|_| AtomicU32::new(0)).collect(),
            open_from: (0..senders).map(|_| AtomicU32::new(u32::MAX)).collect(),
            exempt: ExemptMessages::default(),
            members: (0..members).map(|_| AtomicU32::new(0)).collect(),
            tallies: (0..threads).map(|_| PostedTally(std::array::from_fn(|_| 0.into()))).collect(),
            deliveries: Mutex::default(),
            handshakes: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    pub(crate) fn stage(&self) -> StormStage {
        match self.stage.load(Ordering::Acquire) {
            0 => StormStage::Open,
            1 => StormStage::Run,
            2 => StormStage::Drain,
            3 => StormStage::Settle,
            _ => StormStage::Stop,
        }
    }

    pub(crate) fn set_stage(&self, stage: StormStage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// The second of the storm at this time.
    pub(crate) const fn second(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.began_ns) / NS_PER_S
    }

    /// Notes that a connection is subscribed after so many cuts, or not subscribed.
    pub(crate) fn set_member(&self, index: u32, cuts: Option<u32>) {
        if let Some(member) = self.members.get(index as usize) {
            member.store(cuts.map_or(0, |cuts| cuts + 1), Ordering::Release);
        }
    }

    /// The number of cuts of a connection that is subscribed.
    pub(crate) fn cuts_of(&self, index: u32) -> Option<u32> {
        self.members.get(index as usize)?.load(Ordering::Acquire).checked_sub(1)
    }

    /// Posts the counters of a thread.
    pub(crate) fn post(&self, thread: usize, tally: &Tally) {
        for (posted, count) in self.tallies[thread].0.iter().zip(tally.0) {
            posted.store(count, Ordering::Relaxed);
        }
    }

    /// The sums of the counters that all threads have posted.
    pub(crate) fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in &self.tallies {
            for (total, count) in sum.0.iter_mut().zip(&tally.0) {
                *total += count.load(Ordering::Relaxed);
            }
        }
        sum
    }

    /// Notes a problem. There are few different texts, because they come from a server's answers
    /// and not from its data.
    pub(crate) fn problem(&self, text: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < PROBLEMS_MAX || problems.contains_key(&text) {
            *problems.entry(text).or_default() += 1;
        }
    }

    pub(crate) fn problems(&self) -> BTreeMap<String, u64> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Different texts that are kept.
const PROBLEMS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Counter;

    #[test]
    fn tallies_of_all_threads_add_up() {
        let shared = SharedState::new(&crate::plan::tests::plan(), 3, 0);
        for thread in 0..3 {
            let mut tally = Tally::default();
            tally.add(Counter::Delivered, 5);
            tally.set(Counter::Owed, thread as u64);
            shared.post(thread, &tally);
        }
        assert_eq!(shared.sum().of(Counter::Delivered), 15);
        assert_eq!(shared.sum().of(Counter::Owed), 3);
    }
}
