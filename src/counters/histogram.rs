//! A histogram of durations.

use std::time::Duration;

/// The buckets with an upper bound; one without follows them.
const BOUNDED: usize = 17;

/// Durations from 16 microseconds to a second, as of the turns of a shard.
pub(crate) type ShortDurations = DurationHistogram<14>;

/// Durations from 4 milliseconds to 275 seconds, as of webhooks, which are tried for five minutes.
pub(crate) type LongDurations = DurationHistogram<22>;

/// The durations so far, by bucket. The lowest upper bound is 2 to the power of `LOWEST`, in
/// nanoseconds, and each further one is twice the one before, so that a bucket is found by counting
/// zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DurationHistogram<const LOWEST: u32> {
    /// The durations up to each bound and over the one before, then those over all bounds.
    buckets: [u64; BOUNDED + 1],
    /// The sum of all durations in nanoseconds.
    pub(crate) sum_ns: u64,
}

impl<const LOWEST: u32> DurationHistogram<LOWEST> {
    /// The upper bound of each bucket in nanoseconds, `None` for the last one, with the number of
    /// durations in the bucket.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = (LOWEST..).map(|power| 1_u64.checked_shl(power));
        bounds.take(BOUNDED).chain([None]).zip(self.buckets)
    }

    /// Adds a duration.
    pub(crate) fn add(&mut self, duration: Duration) {
        // 64 bits of nanoseconds last for 584 years.
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bits = u64::BITS - ns.saturating_sub(1).leading_zeros();
        let bucket = bits.saturating_sub(LOWEST) as usize;
        self.buckets[bucket.min(BOUNDED)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_below_the_first_bound_that_it_does_not_exceed() {
        for (bucket, (bound, _)) in ShortDurations::default().buckets().take(BOUNDED).enumerate() {
            let bound = bound.unwrap();
            let mut histogram = ShortDurations::default();
            histogram.add(Duration::from_nanos(bound));
            histogram.add(Duration::from_nanos(bound + 1));
            assert_eq!((histogram.buckets[bucket], histogram.buckets[bucket + 1]), (1, 1));
            assert_eq!(histogram.sum_ns, 2 * bound + 1);
        }
        let mut histogram = LongDurations::default();
        histogram.add(Duration::ZERO);
        histogram.add(Duration::from_secs(3600));
        assert_eq!((histogram.buckets[0], histogram.buckets[BOUNDED]), (1, 1));
        let bounds: Vec<_> = histogram.buckets().filter_map(|(bound, _)| bound).collect();
        assert_eq!((bounds[0], bounds[BOUNDED - 1]), (1 << 22, 1 << 38));
    }
}
