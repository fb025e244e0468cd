//! The live counters of an app, which all shards share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::id::AppIndex;
use crate::rate::{Bucket, Rate};
use crate::time::Nanos;

/// The open connections and the requests of one app, over all shards. A reload keeps them.
#[derive(Debug)]
pub struct AppCounters {
    pub(super) app: AppIndex,
    /// Open connections. Written through [`Admission`](super::Admission) only.
    pub(super) connections: AtomicU32,
    /// The requests that are left of
    /// [`max_requests_per_second`](crate::protocol::Limits::max_requests_per_second).
    requests: Bucket,
}

impl AppCounters {
    /// The counters of the app with this index, which has no connections yet.
    #[must_use]
    pub fn of(app: AppIndex) -> Arc<Self> {
        Arc::new(Self { app, connections: AtomicU32::new(0), requests: Bucket::default() })
    }

    /// The number of open connections.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a request. The error is the time to wait.
    pub(super) fn take_request(&self, rate: Rate, now: Nanos) -> Result<(), Duration> {
        self.requests.take(rate, now)
    }
}
