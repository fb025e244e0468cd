//! Floor 1. Limits on how often something may happen.
//!
//! A token bucket that is kept as one number, the time at which it is full again (the generic cell
//! rate algorithm). So no timer has to fill it, and a full bucket needs no memory of its past.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Nanos;

/// A rate per second, and the burst that may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Tokens that come to the bucket in a second; at least 1.
    pub(crate) per_second: u32,
    /// Tokens that the bucket holds; at least 1.
    pub(crate) burst: u32,
}

impl Rate {
    /// A rate whose bucket holds the tokens of `burst_seconds` seconds.
    #[must_use]
    pub(crate) const fn of(per_second: u32, burst_seconds: u32) -> Self {
        Self { per_second, burst: per_second.saturating_mul(burst_seconds) }
    }

    /// Takes a token from a bucket that is full again at `full`. Returns the time at which the
    /// bucket is full again afterwards.
    ///
    /// # Errors
    /// The bucket is empty; the error is the time until it has a token.
    pub(crate) fn take(self, full: Nanos, now: Nanos) -> Result<Nanos, Duration> {
        let each = NANOS_PER_SECOND / u64::from(self.per_second.max(1));
        let holds = each.saturating_mul(u64::from(self.burst.max(1)));
        let then = full.max(now).0.saturating_add(each);
        let missing = then - now.0;
        if missing <= holds { Ok(Nanos(then)) } else { Err(Duration::from_nanos(missing - holds)) }
    }
}

/// A bucket that all shards take from. Exact: each token is taken once.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// The time at which it is full again, as [`Nanos`].
    full: AtomicU64,
}

impl Bucket {
    /// Takes a token.
    ///
    /// # Errors
    /// The bucket is empty; the error is the time until it has a token.
    pub(crate) fn take(&self, rate: Rate, now: Nanos) -> Result<(), Duration> {
        let mut wait = Duration::ZERO;
        let taken = self.full.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            rate.take(Nanos(full), now).map(|full| full.0).map_err(|until| wait = until).ok()
        });
        taken.map(drop).map_err(|_| wait)
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    #[test]
    fn a_full_bucket_gives_its_burst_at_once_and_then_one_at_a_time() {
        let (bucket, rate) = (Bucket::default(), Rate::of(10, 2));
        let start = 5_000;
        assert_eq!((0..30).filter(|_| bucket.take(rate, at(start)).is_ok()).count(), 20);
        assert_eq!(bucket.take(rate, at(start)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(rate, at(start + 60)), Err(Duration::from_millis(40)));
        assert_eq!(bucket.take(rate, at(start + 100)), Ok(()));
        assert_eq!(bucket.take(rate, at(start + 100)), Err(Duration::from_millis(100)));
        let later = at(start + 60_000);
        assert_eq!((0..30).filter(|_| bucket.take(rate, later).is_ok()).count(), 20, "no more");
    }

    #[test]
    fn threads_that_take_at_once_get_no_more_than_there_is() {
        let (bucket, rate) = (Arc::new(Bucket::default()), Rate::of(1000, 1));
        let taking: Vec<_> = (0..4)
            .map(|_| {
                let bucket = Arc::clone(&bucket);
                let take = move || (0..1000).filter(|_| bucket.take(rate, at(1)).is_ok()).count();
                thread::spawn(take)
            })
            .collect();
        let taken: usize = taking.into_iter().map(|taking| taking.join().unwrap()).sum();
        assert_eq!(taken, 1000);
    }

    #[test]
    fn a_rate_that_becomes_lower_locks_nobody_out_for_longer_than_its_own_burst() {
        let bucket = Bucket::default();
        while bucket.take(Rate::of(1_000_000, 1), at(0)).is_ok() {}
        let wait = bucket.take(Rate::of(1, 1), at(0)).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
    }

    proptest! {
        #[test]
        fn whenever_it_is_asked_it_gives_the_rate_to_within_one_burst(
            per_second in 1..2000_u32,
            burst_seconds in 1..5_u32,
            pauses in prop::collection::vec(0..50_000_000_u64, 1..500),
        ) {
            let (bucket, rate) = (Bucket::default(), Rate::of(per_second, burst_seconds));
            let mut now = 0;
            let mut taken = 0;
            for pause in pauses {
                now += pause;
                taken += u64::from(bucket.take(rate, Nanos(now)).is_ok());
            }
            // The rate admits `now / each` requests in the meantime, rounded up, because a second
            // is not a multiple of every `each`.
            let each = NANOS_PER_SECOND / u64::from(per_second);
            prop_assert!(taken <= u64::from(rate.burst) + now / each + 1);
        }
    }
}
