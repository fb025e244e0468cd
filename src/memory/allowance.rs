//! The bound on the memory that shards take on for clients between two measurements.
//!
//! Measurements at intervals come too late: within a millisecond clients can ask for more than the
//! reserve has, and a control thread on a busy machine waits longer than that for its turn. So a
//! shard charges the memory that it takes on for a client, by an estimate that is rather too high.
//! An [`Allowance`] is the memory that the last measurement found to be free. A shard that finds it
//! used up measures again on its own thread (some 50 us), and refuses the client if none is free.
//!
//! Use: the control thread sets the gauge ([`Allowance::measure_by`]) and measures from time to
//! time ([`Allowance::look`]). Each shard holds a [`Lease`], which takes from the allowance in
//! large parts, so that a charge costs an addition.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use super::headroom::Reading;

/// The bytes that shards may take on after a measurement: the free memory and an eighth of the
/// reserve. So when the first client is refused, the control thread finds the reserve touched as
/// well, and tells all shards.
fn allowed(reading: Reading) -> u64 {
    reading.left().saturating_sub(reading.reserve() / 8 * 7)
}

/// A function that measures the memory. It returns `None` if the memory cannot be read at the
/// moment.
pub(crate) type Gauge = Arc<dyn Fn() -> Option<Reading> + Send + Sync>;

/// The memory that all shards of the process may take on for clients before the next look. The
/// module says how to use it.
pub(crate) struct Allowance {
    /// The bytes that were ever charged. Written by all shards.
    taken: AtomicU64,
    /// The value of `taken` at which the memory has to be measured again.
    until: AtomicU64,
    /// Written by the control thread when the limit changes. `None` when memory is not limited.
    gauge: RwLock<Option<Gauge>>,
    /// Notified when a shard has found nothing free, so that the control thread tells all shards.
    used_up: Notify,
}

impl Allowance {
    /// Sets the gauge. Without one, everything is allowed.
    pub(crate) fn measure_by(&self, gauge: Option<Gauge>) {
        let unlimited = gauge.is_none();
        *self.gauge.write().unwrap_or_else(PoisonError::into_inner) = gauge;
        match unlimited {
            true => self.until.store(u64::MAX, Ordering::Relaxed),
            false => drop(self.look()),
        }
    }

    /// Measures the memory, and allows the free part. Returns `None` if memory is not limited or
    /// cannot be read; then the allowance stays as it is.
    pub(crate) fn look(&self) -> Option<Reading> {
        let gauge = self.gauge.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        // This is read before the measurement: bytes that are charged meanwhile may be in use
        // already and count twice, which errs on the safe side.
        let taken = self.taken.load(Ordering::Relaxed);
        let reading = gauge()?;
        self.until.store(taken.saturating_add(allowed(reading)), Ordering::Relaxed);
        Some(reading)
    }

    /// Resolves when a shard has found the allowance used up since this was last awaited.
    pub(crate) async fn used_up(&self) {
        self.used_up.notified().await;
    }

    fn take(&self, bytes: u64) -> bool {
        if self.try_take(bytes) {
            return true;
        }
        self.look();
        self.try_take(bytes)
    }

    fn try_take(&self, bytes: u64) -> bool {
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let fits = taken.saturating_add(bytes) <= self.until.load(Ordering::Relaxed);
        if !fits {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Default for Allowance {
    /// An allowance without a limit.
    fn default() -> Self {
        Self {
            taken: AtomicU64::new(0),
            until: AtomicU64::new(u64::MAX),
            gauge: RwLock::new(None),
            used_up: Notify::new(),
        }
    }
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [taken, until] = [&self.taken, &self.until].map(|of| of.load(Ordering::Relaxed));
        f.debug_struct("Allowance").field("taken", &taken).field("until", &until).finish()
    }
}

/// One shard's part of the allowance.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    of: Arc<Allowance>,
    /// Bytes that were taken from the allowance and are not charged yet.
    left: u64,
    /// The last time at which nothing was free, in milliseconds of its owner's clock.
    refused_ms: Option<u64>,
}

impl Lease {
    /// A lease that has taken nothing yet.
    #[must_use]
    pub(crate) const fn new(of: Arc<Allowance>) -> Self {
        Self { of, left: 0, refused_ms: None }
    }

    /// Another lease of the same allowance.
    #[must_use]
    pub(crate) fn sibling(&self) -> Self {
        Self::new(Arc::clone(&self.of))
    }

    /// Charges this many bytes. Returns `false`, and charges nothing, if no memory is free for
    /// them. `now_ms` is the time in milliseconds, on any clock that its owner keeps to.
    pub(crate) fn charge(&mut self, bytes: usize, now_ms: u64) -> bool {
        let bytes = bytes as u64;
        if self.left < bytes && !self.extend(bytes, now_ms) {
            return false;
        }
        self.left -= bytes;
        true
    }

    fn extend(&mut self, bytes: u64, now_ms: u64) -> bool {
        // In a flood of refused messages the memory must not be measured for each of them.
        if self.refused_ms.is_some_and(|at| now_ms.saturating_sub(at) < LOOK_PAUSE_MS) {
            return false;
        }
        for part in [PART.max(bytes), bytes] {
            if self.of.take(part) {
                (self.left, self.refused_ms) = (self.left + part, None);
                return true;
            }
        }
        self.refused_ms = Some(now_ms);
        self.of.used_up.notify_one();
        false
    }
}

/// The bytes that a lease takes at a time: small against the reserve, and enough for some hundred
/// subscriptions.
const PART: u64 = 64 << 10;

/// The time after a refusal in which a lease does not measure again.
const LOOK_PAUSE_MS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A gauge that returns the values that the test sets.
    fn measured(allowance: &Allowance) -> Arc<AtomicU64> {
        let used = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&used);
        let gauge = move || Some(Reading { used: read.load(Ordering::Relaxed), limit: 100 * MIB });
        allowance.measure_by(Some(Arc::new(gauge)));
        used
    }

    #[test]
    fn no_more_is_charged_than_was_free_however_many_charge() {
        let allowance = Arc::new(Allowance::default());
        let used = measured(&allowance);
        used.store(90 * MIB, Ordering::Relaxed);
        allowance.look();
        let mut leases = [0; 3].map(|_| Lease::new(Arc::clone(&allowance)));
        // Charged bytes are in use at once.
        let mut charged = 0;
        while leases.iter_mut().any(|lease| lease.charge(1000, 0)) {
            charged += 1000;
            used.store(90 * MIB + charged, Ordering::Relaxed);
        }
        // This is the memory that is left beside 7 of the 8 MiB of the reserve.
        let free = 3 * MIB;
        assert!(charged <= free && charged > free - 4 * PART, "{charged} of {free}");
    }

    #[test]
    fn it_looks_again_when_it_is_used_up_and_after_a_refusal_not_before_a_pause() {
        let allowance = Arc::new(Allowance::default());
        let used = measured(&allowance);
        let mut lease = Lease::new(Arc::clone(&allowance));
        let mib = usize::try_from(MIB).unwrap();
        // The first look found 93 MiB to be allowed; nothing that was charged is in use later on.
        for _ in 0..1000 {
            assert!(lease.charge(mib, 0));
        }
        used.store(93 * MIB, Ordering::Relaxed);
        while lease.charge(mib, 0) {}
        used.store(0, Ordering::Relaxed);
        assert!(!lease.charge(mib, 9));
        assert!(lease.charge(mib, 10));
    }

    #[test]
    fn without_a_limit_everything_is_allowed() {
        let allowance = Arc::new(Allowance::default());
        let used = measured(&allowance);
        used.store(100 * MIB, Ordering::Relaxed);
        allowance.look();
        let mut lease = Lease::new(Arc::clone(&allowance));
        assert!(!lease.charge(1, 0));
        allowance.measure_by(None);
        assert!(lease.charge(usize::MAX / 2, 10));
    }

    #[tokio::test]
    async fn whoever_finds_it_used_up_tells_the_control_thread() {
        let allowance = Arc::new(Allowance::default());
        measured(&allowance).store(100 * MIB, Ordering::Relaxed);
        allowance.look();
        assert!(!Lease::new(Arc::clone(&allowance)).charge(1, 0));
        allowance.used_up().await;
    }
}
