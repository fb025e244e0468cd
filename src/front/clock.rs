//! The wall clock, by which the signatures of requests are judged.

use std::time::SystemTime;

/// The Unix time in seconds.
pub(super) fn now_unix_s() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |since_epoch| since_epoch.as_secs())
}
