//! Where the threads of a storm meet: the stage that the conductor sets, what was sent so far, and
//! what each thread has counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

use crate::clock::NS_PER_S;
use crate::plan::Plan;

/// The stage that all threads are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Stage {
    /// Connections are opened.
    Open,
    /// The scenario runs.
    Run,
    /// Nothing new is sent; what is owed arrives.
    Drain,
    /// Threads end.
    Stop,
}

/// The counts that a thread keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Count {
    /// Connections that are subscribed now.
    Held,
    /// Handshakes that led to a subscription.
    Subscribed,
    /// Handshakes that did not.
    Failed,
    /// Subscribed connections that the server closed or lost.
    Cut,
    /// Connections that stopped reading and were closed by the server.
    SlowClosed,
    /// Connections that stopped reading.
    Slow,
    /// Messages that arrived, each once.
    Delivered,
    /// Bytes that arrived.
    Bytes,
    /// Numbers that were skipped and have not come since.
    Missing,
    /// Messages that came again.
    Duplicated,
    /// Messages that were overtaken.
    Reordered,
    /// Stamped messages that are not of this storm.
    Foreign,
    /// Messages that the server took.
    Published,
    /// API requests that it answered.
    Requests,
    /// API requests that it refused as overloaded; they were sent again.
    Refused,
    /// Messages that it did not take at all.
    Unpublished,
    /// API requests without an answer so far.
    Outstanding,
    /// Client events that were sent.
    Whispered,
    /// Pings that were sent.
    Pings,
    /// Messages that are still to come, as of up to 100 ms ago; one until [`Stage::Drain`].
    Owed,
}

/// How many there are.
const COUNTS: usize = Count::Owed as usize + 1;

/// The counts of one thread, or their sum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally([u64; COUNTS]);

impl Tally {
    pub(super) const fn add(&mut self, count: Count, n: u64) {
        self.0[count as usize] += n;
    }

    pub(super) const fn take(&mut self, count: Count, n: u64) {
        self.0[count as usize] = self.0[count as usize].saturating_sub(n);
    }

    pub(super) const fn set(&mut self, count: Count, n: u64) {
        self.0[count as usize] = n;
    }

    pub(super) const fn of(&self, count: Count) -> u64 {
        self.0[count as usize]
    }
}

/// A thread's tally for others to read: a cache line of its own at each end.
#[derive(Debug)]
#[repr(align(128))]
struct Board([AtomicU64; COUNTS]);

/// Shared by all threads of a storm.
#[derive(Debug)]
pub(super) struct Shared {
    stage: AtomicU8,
    /// The time at which the storm began.
    pub(super) began_ns: u64,
    /// The times from which and until which the scenario runs.
    pub(super) run_from_ns: AtomicU64,
    pub(super) run_until_ns: AtomicU64,
    /// How often all have been told to drop, and when last.
    pub(super) round: AtomicU32,
    pub(super) round_at_ns: AtomicU64,
    /// By [`Plan::lane_index`]: messages that were handed to the kernel or are about to be.
    pub(super) sent: Box<[AtomicU32]>,
    boards: Box<[Board]>,
    /// Latency of deliveries, by second.
    pub(super) deliveries: Mutex<Timeline>,
    /// Time from the intended connect to the subscription, by second.
    pub(super) handshakes: Mutex<Timeline>,
    /// The problems in words, each with the number of its occurrences.
    problems: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    pub(super) fn new(plan: &Plan, threads: usize, began_ns: u64) -> Self {
        let lanes = plan.channels as usize * plan.lanes() as usize;
        Self {
            stage: AtomicU8::new(Stage::Open as u8),
            began_ns,
            run_from_ns: AtomicU64::new(u64::MAX),
            run_until_ns: AtomicU64::new(u64::MAX),
            round: AtomicU32::new(0),
            round_at_ns: AtomicU64::new(0),
            sent: (0..lanes).map(|_| AtomicU32::new(0)).collect(),
            boards: (0..threads).map(|_| Board(std::array::from_fn(|_| 0.into()))).collect(),
            deliveries: Mutex::default(),
            handshakes: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Open,
            1 => Stage::Run,
            2 => Stage::Drain,
            _ => Stage::Stop,
        }
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Makes a thread's tally known.
    pub(super) fn post(&self, thread: usize, tally: &Tally) {
        for (slot, count) in self.boards[thread].0.iter().zip(tally.0) {
            slot.store(count, Ordering::Relaxed);
        }
    }

    /// The sum of what all threads posted.
    pub(super) fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        for board in &self.boards {
            for (total, count) in sum.0.iter_mut().zip(&board.0) {
                *total += count.load(Ordering::Relaxed);
            }
        }
        sum
    }

    /// Notes what went wrong. Texts are few: they come from a server's answers, not its data.
    pub(super) fn problem(&self, text: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < PROBLEMS_MAX || problems.contains_key(&text) {
            *problems.entry(text).or_default() += 1;
        }
    }

    pub(super) fn problems(&self) -> BTreeMap<String, u64> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Different texts that are kept.
const PROBLEMS_MAX: usize = 20;

/// Latency percentiles by second.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Seconds that threads may still add to.
    open: BTreeMap<u64, Histogram<u64>>,
    /// Before this second, nothing changes any more.
    settled: u64,
    points: Vec<Point>,
}

/// Latencies of one second, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Point {
    /// Seconds since the storm began.
    pub second: u64,
    /// How many.
    pub count: u64,
    /// Half took at most this.
    pub p50: u64,
    /// 99 % took at most this.
    pub p99: u64,
    /// 99.9 % took at most this.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Timeline {
    /// Adds what a thread has measured in a second.
    pub(super) fn add(&mut self, second: u64, part: &Histogram<u64>) {
        let second = second.max(self.settled);
        let whole = self.open.entry(second).or_insert_with(latencies);
        // Both were made by `latencies`, and both hold what they can hold.
        let _same_bounds = whole.add(part);
    }

    /// Reduces the seconds before this one to their percentiles.
    pub(super) fn settle(&mut self, before: u64) {
        while let Some(entry) = self.open.first_entry() {
            if *entry.key() >= before {
                break;
            }
            let (second, histogram) = entry.remove_entry();
            let at = |quantile| histogram.value_at_quantile(quantile);
            self.points.push(Point {
                second,
                count: histogram.len(),
                p50: at(0.5),
                p99: at(0.99),
                p999: at(0.999),
                max: histogram.max(),
            });
        }
        self.settled = self.settled.max(before);
    }

    /// The points of the seconds that are settled.
    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }
}

/// Measures latencies on one thread: all of them, and by second.
#[derive(Debug)]
pub(super) struct Meter {
    total: Histogram<u64>,
    /// The latencies of `second`, which are not in `total` yet.
    current: Histogram<u64>,
    second: u64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { total: latencies(), current: latencies(), second: 0 }
    }

    /// Records what took so many nanoseconds.
    pub(super) fn record(&mut self, took_ns: u64) {
        self.current.saturating_record((took_ns / 1000).max(1));
    }

    /// Once per turn: what was measured in a second that is over goes to `timeline`.
    pub(super) fn turn(&mut self, shared: &Shared, now_ns: u64, timeline: &Mutex<Timeline>) {
        let second = now_ns.saturating_sub(shared.began_ns) / NS_PER_S;
        if second != self.second {
            self.flush(timeline);
            self.second = second;
        }
    }

    /// Hands on what is left. Answers all that was measured.
    pub(super) fn finish(mut self, timeline: &Mutex<Timeline>) -> Histogram<u64> {
        self.flush(timeline);
        self.total
    }

    fn flush(&mut self, timeline: &Mutex<Timeline>) {
        if self.current.is_empty() {
            return;
        }
        let _same_bounds = self.total.add(&self.current);
        let mut timeline = timeline.lock().unwrap_or_else(PoisonError::into_inner);
        timeline.add(self.second, &self.current);
        self.current.reset();
    }
}

/// An empty histogram: 1 us to 10 minutes in 3 digits. Longer ones count as 10 minutes.
pub(super) fn latencies() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 600_000_000, 3)
        .or_else(|_| Histogram::new(3))
        .unwrap_or_else(|_| unreachable!("the bounds are constants"));
    histogram.auto(false);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_several_threads_become_one_point_each() {
        let timeline = Mutex::new(Timeline::default());
        let plan = crate::plan::tests::plan();
        let shared = Shared::new(&plan, 2, 0);
        let mut all = latencies();
        for thread in 1..=2 {
            let mut meter = Meter::new();
            for second in 0..3u64 {
                meter.turn(&shared, second * NS_PER_S, &timeline);
                meter.record(thread * 1_000_000 * (second + 1));
            }
            all.add(meter.finish(&timeline)).unwrap();
        }
        let mut timeline = timeline.into_inner().unwrap();
        timeline.settle(2);
        let points = timeline.points();
        assert_eq!(
            points.iter().map(|p| (p.second, p.count)).collect::<Vec<_>>(),
            [(0, 2), (1, 2)]
        );
        assert!(points[1].max.abs_diff(4000) <= 4, "{points:?}");
        timeline.settle(9);
        assert_eq!(timeline.points().iter().map(|p| p.count).sum::<u64>(), 6);
        assert_eq!(all.len(), 6, "the merge has them all");
    }

    #[test]
    fn a_part_that_comes_late_is_not_lost() {
        let mut timeline = Timeline::default();
        timeline.settle(5);
        let mut part = latencies();
        part.record(10).unwrap();
        timeline.add(3, &part);
        timeline.settle(9);
        assert_eq!(timeline.points()[0].count, 1);
        assert_eq!(timeline.points()[0].second, 5);
    }

    #[test]
    fn tallies_of_all_threads_add_up() {
        let plan = crate::plan::tests::plan();
        let shared = Shared::new(&plan, 3, 0);
        for thread in 0..3 {
            let mut tally = Tally::default();
            tally.add(Count::Delivered, 5);
            tally.set(Count::Owed, thread as u64);
            shared.post(thread, &tally);
        }
        assert_eq!(shared.sum().of(Count::Delivered), 15);
        assert_eq!(shared.sum().of(Count::Owed), 3);
    }
}
