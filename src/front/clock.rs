//! The clock that rates are counted by: one for the fronts of all shards.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::time::Nanos;

/// The time of the host's monotonic clock.
pub(super) fn now() -> Nanos {
    let since_boot = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    // Lasts for 584 years.
    Nanos(u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX))
}

/// The time by which signatures are judged.
pub(super) fn now_unix_s() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |since_epoch| since_epoch.as_secs())
}
