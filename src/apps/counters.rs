//! The live counters of an app, which all shards share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::id::AppIndex;
use crate::rate::{Bucket, Rate};
use crate::time::Nanos;

use super::app::App;

/// The open connections and the requests of one app, over all shards and whatever becomes of its
/// settings.
#[derive(Debug)]
pub struct AppCounters {
    app: AppIndex,
    /// Open connections. Written through [`Admission`] only.
    connections: AtomicU32,
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

    /// Counts a request, or tells how long to wait with it.
    pub(super) fn take_request(&self, rate: Rate, now: Nanos) -> Result<(), Duration> {
        self.requests.take(rate, now)
    }
}

/// A place among an app's connections, given back when dropped. Holding one is the proof that the
/// connection was counted against `max_connections`.
#[derive(Debug)]
pub struct Admission(Arc<AppCounters>);

impl Admission {
    /// Takes a place, or none when the app is at its quota: exact over all shards.
    #[must_use]
    pub fn take(app: &App) -> Option<Self> {
        let quota = app.max_connections.unwrap_or(u32::MAX);
        let connections = &app.counters.connections;
        let counted = connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < quota).then_some(open + 1)
        });
        counted.ok().map(|_| Self(Arc::clone(&app.counters)))
    }

    /// The app that admitted the connection.
    #[must_use]
    pub fn app(&self) -> AppIndex {
        self.0.app
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
