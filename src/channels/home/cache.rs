//! The memory that the cached last events of a home shard take, and the choice of the events to
//! drop when that is too much.
//!
//! The bounds hold for all apps together and are shared fairly: if one is exceeded, the app that
//! holds the most gives way. So an app that holds less than its equal part of the bound loses
//! nothing, whatever other apps publish, and an app that is alone has all of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::AppIndex;
use crate::time::Millis;

use super::super::ChannelKey;

/// Bounds on the cached last events of one home shard. Past them, events of the app with the most
/// are dropped, the next ones to expire first. With one time to live for all, these are the oldest.
#[derive(Clone, Copy, Debug)]
pub struct CacheBounds {
    /// The number of events.
    pub events: usize,
    /// Bytes of frames and `data`.
    pub bytes: usize,
}

impl CacheBounds {
    /// A part of these bounds.
    #[must_use]
    pub(crate) const fn divided_by(self, parts: usize) -> Self {
        Self { events: self.events / parts, bytes: self.bytes / parts }
    }
}

/// The time at which a cached event expires, and its number. The number distinguishes events that
/// expire in the same millisecond: the older of two comes first.
pub(super) type Expiry = (Millis, u64);

/// The index of the channels with a cached event, and the totals of these events.
///
/// The owner keeps the events, and reports each one to [`add`](Self::add) and
/// [`remove`](Self::remove). After [`add`](Self::add) and [`bound`](Self::bound) it drops the
/// events of the channels that [`excess`](Self::excess) returns.
#[derive(Debug)]
pub(super) struct Cache {
    bounds: CacheBounds,
    /// Channels in the order in which their events expire.
    expiring: BTreeMap<Expiry, ChannelKey>,
    /// The expiries by app, in the same order.
    by_app: BTreeSet<(AppIndex, Expiry)>,
    /// The totals of each app that has cached events.
    shares: BTreeMap<AppIndex, Share>,
    total: Share,
    /// The number of events that were cached so far.
    cachings: u64,
}

/// The totals of the cached events of one app, or of all apps.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    events: usize,
    bytes: usize,
}

impl Cache {
    pub(super) const fn new(bounds: CacheBounds) -> Self {
        Self {
            bounds,
            expiring: BTreeMap::new(),
            by_app: BTreeSet::new(),
            shares: BTreeMap::new(),
            total: Share { events: 0, bytes: 0 },
            cachings: 0,
        }
    }

    /// Sets other bounds. [`excess`](Self::excess) has to follow.
    pub(super) const fn bound(&mut self, bounds: CacheBounds) {
        self.bounds = bounds;
    }

    /// Whether an event of this size can be kept at all.
    pub(super) const fn takes(&self, bytes: usize) -> bool {
        bytes <= self.bounds.bytes
    }

    /// Adds the event of a channel that has none. [`excess`](Self::excess) has to follow.
    pub(super) fn add(&mut self, key: &ChannelKey, bytes: usize, expires: Millis) -> Expiry {
        self.cachings += 1;
        let expiry = (expires, self.cachings);
        self.expiring.insert(expiry, key.clone());
        self.by_app.insert((key.app(), expiry));
        for share in [&mut self.total, self.shares.entry(key.app()).or_default()] {
            share.events += 1;
            share.bytes += bytes;
        }
        expiry
    }

    /// Removes the event of a channel of the app.
    pub(super) fn remove(&mut self, app: AppIndex, bytes: usize, expiry: Expiry) {
        self.expiring.remove(&expiry);
        self.by_app.remove(&(app, expiry));
        let Some(of_app) = self.shares.get_mut(&app) else { return };
        for share in [&mut self.total, of_app] {
            share.events -= 1;
            share.bytes -= bytes;
        }
        if self.shares.get(&app).is_some_and(|share| share.events == 0) {
            self.shares.remove(&app);
        }
    }

    /// The channel whose event has to be dropped next. `None` if no bound is exceeded, and only
    /// otherwise it costs a look at each app that has cached events.
    pub(super) fn excess(&self) -> Option<&ChannelKey> {
        let measure: fn(&Share) -> usize = if self.total.events > self.bounds.events {
            |share| share.events
        } else if self.total.bytes > self.bounds.bytes {
            |share| share.bytes
        } else {
            return None;
        };
        let (&app, _) = self.shares.iter().max_by_key(|&(_, share)| measure(share))?;
        self.first_of(app)
    }

    /// A channel whose event has expired, if there is one. It costs nothing for the others.
    pub(super) fn expired(&self, now: Millis) -> Option<&ChannelKey> {
        let (expiry, key) = self.expiring.first_key_value()?;
        (expiry.0 <= now).then_some(key)
    }

    /// The apps that have cached events.
    pub(super) fn apps(&self) -> impl Iterator<Item = AppIndex> {
        self.shares.keys().copied()
    }

    /// The channel of the app whose event expires first. `None` if the app has no cached events.
    pub(super) fn first_of(&self, app: AppIndex) -> Option<&ChannelKey> {
        let &(of, first) = self.by_app.range((app, Expiry::default())..).next()?;
        self.expiring.get(&first).filter(|_| of == app)
    }

    /// The number of cached events, and their bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let sums = |sum: Share, of: &Share| Share {
            events: sum.events + of.events,
            bytes: sum.bytes + of.bytes,
        };
        let sum = self.shares.values().fold(Share::default(), sums);
        let events = [self.expiring.len(), self.by_app.len(), self.total.events];
        assert_eq!((events, self.total.bytes), ([sum.events; 3], sum.bytes));
        (sum.events, sum.bytes)
    }

    #[cfg(test)]
    pub(super) const fn bounds(&self) -> CacheBounds {
        self.bounds
    }
}
