//! The clocks of the front.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::time::Nanos;

/// The time of the host's monotonic clock, by which rates are counted on all shards.
pub(super) fn now() -> Nanos {
    let since_boot = Duration::try_from(clock_gettime(ClockId::Monotonic));
    debug_assert!(since_boot.is_ok(), "the monotonic clock starts at 0");
    let nanos = u64::try_from(since_boot.unwrap_or_default().as_nanos());
    debug_assert!(nanos.is_ok(), "2^64 ns are 584 years");
    Nanos(nanos.unwrap_or(u64::MAX))
}

/// The time of the host's wall clock in seconds since 1970, by which signatures are judged.
pub(super) fn now_unix_s() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |since_epoch| since_epoch.as_secs())
}
