//! The live counters of an app, which all shards share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::id::AppIndex;
use crate::rate::{Bucket, Rate};
use crate::time::Nanos;

/// The open connections and the requests of one app, over all shards. A reload keeps them.
#[derive(Debug)]
pub struct AppCounters {
    pub(super) app: AppIndex,
    /// The permits (upper half) and the open connections (lower half). They share a word, so that
    /// no connection is admitted on a permit that is given back at the same moment.
    places: AtomicU64,
    /// The requests that are left of
    /// [`max_requests_per_second`](crate::protocol::Limits::max_requests_per_second).
    requests: Bucket,
}

impl AppCounters {
    /// The counters of the app with this index, which has no connections yet.
    #[must_use]
    pub fn of(app: AppIndex) -> Arc<Self> {
        let places = AtomicU64::new(Places { permits: u32::MAX, connections: 0 }.word());
        Arc::new(Self { app, places, requests: Bucket::default() })
    }

    /// The number of open connections.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.places().connections
    }

    /// The most connections that a cluster lets the app have on this node. Alone, a node may take
    /// all.
    #[must_use]
    pub(crate) fn permits(&self) -> u32 {
        self.places().permits
    }

    /// Sets the most connections on this node. Those that are open already stay, even if they are
    /// more.
    pub(crate) fn permit(&self, permits: u32) {
        self.change(|places| Some(Places { permits, ..places }));
    }

    /// Lets no connection in beyond those that are open at this moment.
    pub(crate) fn permit_open_ones(&self) {
        self.change(|places| Some(Places { permits: places.connections, ..places }));
    }

    /// Gives up permits that no connection uses, except for `spare` of them. Returns their number.
    pub(crate) fn give_up(&self, spare: u32) -> u32 {
        let used = |places: Places| places.connections.saturating_add(spare).min(places.permits);
        let before = self.change(|places| Some(Places { permits: used(places), ..places }));
        before.map_or(0, |before| before.permits - used(before))
    }

    /// Counts one more connection. Returns `false` if there are `quota` of them, or one for each
    /// permit.
    pub(super) fn enter(&self, quota: u32) -> bool {
        let entered = self.change(|places| {
            let free = places.connections < quota.min(places.permits);
            free.then(|| Places { connections: places.connections + 1, ..places })
        });
        entered.is_some()
    }

    /// Counts one connection less.
    pub(super) fn leave(&self) {
        self.change(|places| {
            Some(Places { connections: places.connections.saturating_sub(1), ..places })
        });
    }

    fn places(&self) -> Places {
        Places::of(self.places.load(Ordering::Relaxed))
    }

    /// Changes the places, unless `next` returns `None`. Returns those before.
    fn change(&self, next: impl Fn(Places) -> Option<Places>) -> Option<Places> {
        let next = |word| next(Places::of(word)).map(Places::word);
        self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(Places::of)
    }

    /// Counts a request. The error is the time to wait.
    pub(super) fn take_request(&self, rate: Rate, now: Nanos) -> Result<(), Duration> {
        self.requests.take(rate, now)
    }
}

/// The places for connections of one app on this node.
#[derive(Clone, Copy)]
struct Places {
    /// The most connections.
    permits: u32,
    /// The open ones.
    connections: u32,
}

impl Places {
    #[allow(clippy::cast_possible_truncation, reason = "the lower half")]
    const fn of(word: u64) -> Self {
        Self { permits: (word >> 32) as u32, connections: word as u32 }
    }

    const fn word(self) -> u64 {
        (self.permits as u64) << 32 | self.connections as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_needs_a_place_in_the_quota_and_a_permit() {
        let counters = AppCounters::of(AppIndex(0));
        assert!(counters.enter(2) && counters.enter(2) && !counters.enter(2));
        counters.permit(3);
        assert!(counters.enter(u32::MAX) && !counters.enter(u32::MAX));
        counters.leave();
        assert_eq!((counters.connections(), counters.permits()), (2, 3));
        assert!(counters.enter(u32::MAX));
    }

    #[test]
    fn only_permits_that_nobody_uses_are_given_up() {
        let counters = AppCounters::of(AppIndex(0));
        counters.permit(5);
        assert!(counters.enter(9) && counters.enter(9));
        assert_eq!((counters.give_up(1), counters.permits()), (2, 3));
        assert_eq!((counters.give_up(0), counters.permits()), (1, 2));
        assert!(!counters.enter(9));
        counters.permit(1);
        assert_eq!((counters.give_up(0), counters.permits(), counters.connections()), (0, 1, 2));
    }
}
