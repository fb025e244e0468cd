//! Histograms of latencies: over the whole storm, and by second for the plots.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

/// The range of latencies in microseconds. Longer ones count as 10 minutes.
const LATENCY_US_MIN: u64 = 1;
const LATENCY_US_MAX: u64 = 600_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// An empty histogram. All histograms of a storm are made here, so that they have the same bounds.
pub(crate) fn new_histogram() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(LATENCY_US_MIN, LATENCY_US_MAX, DIGITS);
    histogram.unwrap_or_else(|_| unreachable!("the bounds are constants, and a test makes one"))
}

/// Adds one histogram to another.
pub(crate) fn merge(into: &mut Histogram<u64>, part: &Histogram<u64>) {
    let merged = into.add(part);
    debug_assert!(merged.is_ok(), "two histograms of a storm have different bounds");
}

/// Records a latency in nanoseconds, and at least one microsecond.
pub(crate) fn record_ns(histogram: &mut Histogram<u64>, latency_ns: u64) {
    histogram.saturating_record((latency_ns / 1000).max(LATENCY_US_MIN));
}

/// Latencies of one second, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct LatencyPoint {
    /// Seconds since the storm began.
    pub second: u64,
    /// The number of latencies.
    pub count: u64,
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The longest latency.
    pub max: u64,
}

impl LatencyPoint {
    fn new(second: u64, histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            second,
            count: histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

/// Latency percentiles by second. All threads add to it.
#[derive(Debug, Default)]
pub(crate) struct LatencyTimeline {
    /// Seconds that threads may still add to.
    open: BTreeMap<u64, Histogram<u64>>,
    /// The first second that is not settled. Earlier ones do not change any more.
    settled: u64,
    points: Vec<LatencyPoint>,
}

impl LatencyTimeline {
    /// Adds the latencies that a thread has measured in a second. If that second is settled, they
    /// count for the first one that is not.
    pub(crate) fn add(&mut self, second: u64, part: &Histogram<u64>) {
        let second = second.max(self.settled);
        merge(self.open.entry(second).or_insert_with(new_histogram), part);
    }

    /// Reduces the seconds before this one to their percentiles.
    pub(crate) fn settle(&mut self, before: u64) {
        while let Some(entry) = self.open.first_entry() {
            if *entry.key() >= before {
                break;
            }
            let (second, histogram) = entry.remove_entry();
            self.points.push(LatencyPoint::new(second, &histogram));
        }
        self.settled = self.settled.max(before);
    }

    /// The points of the seconds that are settled.
    pub(crate) fn points(&self) -> &[LatencyPoint] {
        &self.points
    }
}

/// Measures latencies on one thread, in total and by second.
#[derive(Debug)]
pub(crate) struct LatencyMeter {
    total: Histogram<u64>,
    /// The latencies of `second`, which are not in `total` yet.
    current: Histogram<u64>,
    second: u64,
}

impl LatencyMeter {
    pub(crate) fn new() -> Self {
        Self { total: new_histogram(), current: new_histogram(), second: 0 }
    }

    /// Records a latency in nanoseconds.
    pub(crate) fn record(&mut self, latency_ns: u64) {
        record_ns(&mut self.current, latency_ns);
    }

    /// Tells the second of the storm that it is now, once per turn. When a new one has begun, the
    /// latencies of the last one go to `timeline`.
    pub(crate) fn turn(&mut self, second: u64, timeline: &Mutex<LatencyTimeline>) {
        if second != self.second {
            self.flush(timeline);
            self.second = second;
        }
    }

    /// Hands on the last second. Returns all latencies.
    pub(crate) fn finish(mut self, timeline: &Mutex<LatencyTimeline>) -> Histogram<u64> {
        self.flush(timeline);
        self.total
    }

    fn flush(&mut self, timeline: &Mutex<LatencyTimeline>) {
        if self.current.is_empty() {
            return;
        }
        merge(&mut self.total, &self.current);
        let mut timeline = timeline.lock().unwrap_or_else(PoisonError::into_inner);
        timeline.add(self.second, &self.current);
        self.current.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_several_threads_become_one_point_each() {
        let timeline = Mutex::new(LatencyTimeline::default());
        let mut all = new_histogram();
        for thread in 1..=2 {
            let mut meter = LatencyMeter::new();
            for second in 0..3u64 {
                meter.turn(second, &timeline);
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
        let mut timeline = LatencyTimeline::default();
        timeline.settle(5);
        let mut part = new_histogram();
        part.record(10).unwrap();
        timeline.add(3, &part);
        timeline.settle(9);
        assert_eq!(timeline.points()[0].count, 1);
        assert_eq!(timeline.points()[0].second, 5);
    }

    #[test]
    fn a_latency_past_the_range_counts_as_the_longest() {
        let mut histogram = new_histogram();
        record_ns(&mut histogram, 0);
        record_ns(&mut histogram, u64::MAX);
        assert_eq!((histogram.len(), histogram.min()), (2, LATENCY_US_MIN));
        assert!(histogram.max() >= LATENCY_US_MAX);
    }
}
