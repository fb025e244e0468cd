//! The clock of schedules and stamps. All threads and processes of a host read the same time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the host's monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64) * NS_PER_S + now.tv_nsec as u64
}

/// A duration in nanoseconds. One of more than 584 years counts as that long.
pub(crate) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds of a second.
pub(crate) const NS_PER_S: u64 = 1_000_000_000;
