//! A histogram of durations.

use std::time::Duration;

/// The lowest upper bound is 2 to this power, in nanoseconds: 16 us.
const LOWEST: u32 = 14;

/// The buckets with an upper bound; one without follows them. The highest bound is a second.
const BOUNDED: usize = 17;

/// The upper bounds of the buckets in nanoseconds, each twice the one before, so that a bucket is
/// found by counting zeros.
pub(crate) const UPPER_BOUNDS_NS: [u64; BOUNDED] = {
    let mut bounds = [0; BOUNDED];
    let mut bucket = 0;
    while bucket < BOUNDED {
        bounds[bucket] = 1 << (LOWEST as usize + bucket);
        bucket += 1;
    }
    bounds
};

/// The durations so far, by bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DurationHistogram {
    /// The durations up to each bound of [`UPPER_BOUNDS_NS`] and over the one before, then those
    /// over all bounds.
    pub(crate) buckets: [u64; BOUNDED + 1],
    /// The sum of all durations in nanoseconds.
    pub(crate) sum_ns: u64,
}

impl DurationHistogram {
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
        for (bucket, bound) in UPPER_BOUNDS_NS.iter().enumerate() {
            let mut histogram = DurationHistogram::default();
            histogram.add(Duration::from_nanos(*bound));
            histogram.add(Duration::from_nanos(*bound + 1));
            assert_eq!((histogram.buckets[bucket], histogram.buckets[bucket + 1]), (1, 1));
            assert_eq!(histogram.sum_ns, 2 * bound + 1);
        }
        let mut histogram = DurationHistogram::default();
        histogram.add(Duration::ZERO);
        histogram.add(Duration::from_secs(3600));
        assert_eq!((histogram.buckets[0], histogram.buckets[BOUNDED]), (1, 1));
    }
}
