//! The cached last events of a home shard, the memory that they take, and the choice of the events
//! to drop when that is too much.
//!
//! The bounds hold for all apps together and are shared fairly: if one is exceeded, the app that
//! holds the most gives way. So an app that holds less than its equal part of the bound loses
//! nothing, whatever other apps publish, and an app that is alone has all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::frame::Frame;
use crate::id::AppIndex;
use crate::memory::{Keyed, KeyedSlab, Trim};
use crate::time::Millis;

use super::{CachedEvent, ChannelKey, Event, Retain};

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
type Expiry = (Millis, u64);

/// The last events of the cache channels of a home shard, one per channel.
///
/// An event leaves when it is [forgotten](Self::forget), when [`expire`](Self::expire) finds that
/// its time is over, and when the bounds are exceeded: by a new event, or after
/// [`bound`](Self::bound), which [`shrink`](Self::shrink) has to follow.
#[derive(Debug)]
pub(crate) struct Cache {
    bounds: CacheBounds,
    events: KeyedSlab<LastEvent>,
    /// The numbers of events in the order in which they expire.
    expiring: BTreeMap<Expiry, u32>,
    /// The expiries by app, in the same order.
    by_app: BTreeSet<(AppIndex, Expiry)>,
    /// The totals of each app that has cached events.
    shares: BTreeMap<AppIndex, Share>,
    total: Share,
    /// The number of events that were cached so far.
    cachings: u64,
}

/// The last event of a channel.
#[derive(Debug)]
pub(super) struct LastEvent {
    key: ChannelKey,
    /// The event as subscribers get it.
    pub(super) frame: Frame,
    /// The event's `data`, for the API.
    data: Arc<str>,
    expiry: Expiry,
}

/// The totals of the cached events of one app, or of all apps.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    events: usize,
    bytes: usize,
}

/// The most cached events that are dropped for a new one. A large event can take the room of many
/// small ones, and one publish may cost some ten microseconds.
const EVICTED_PER_EVENT: usize = 1024;

impl Keyed for LastEvent {
    fn key_hash(&self) -> u64 {
        self.key.hash()
    }
}

impl LastEvent {
    /// The bytes that count against the bound.
    fn bytes(&self) -> usize {
        self.frame.len() + self.data.len()
    }

    /// The event with the time for which it is still kept, for another cache.
    pub(super) fn copied(&self, now: Millis) -> Event {
        let retain = Retain { data: Arc::clone(&self.data), ttl: self.expiry.0.since(now) };
        let (key, frame) = (self.key.clone(), self.frame.clone());
        Event { key, frame, except: None, retain: Some(Box::new(retain)) }
    }

    /// The event as the API reports it.
    pub(super) fn reported(&self, now: Millis) -> CachedEvent {
        let ttl_s = whole_seconds(self.expiry.0.since(now));
        CachedEvent { data: Arc::clone(&self.data), ttl_s }
    }
}

impl Cache {
    pub(super) const fn new(bounds: CacheBounds) -> Self {
        Self {
            bounds,
            events: KeyedSlab::new(),
            expiring: BTreeMap::new(),
            by_app: BTreeSet::new(),
            shares: BTreeMap::new(),
            total: Share { events: 0, bytes: 0 },
            cachings: 0,
        }
    }

    /// The number of cached events.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The last event of a channel, if it has not expired.
    pub(super) fn get(&self, key: &ChannelKey, now: Millis) -> Option<&LastEvent> {
        let event = self.events.get(self.find(key)?)?;
        (event.expiry.0 > now).then_some(event)
    }

    /// Keeps the last event of a channel, which replaces an earlier one. An event that exceeds the
    /// bound alone is not kept.
    pub(super) fn put(&mut self, key: &ChannelKey, frame: Frame, retain: Retain, now: Millis) {
        self.forget(key);
        let Retain { data, ttl } = retain;
        self.cachings += 1;
        let expiry = (now + ttl, self.cachings);
        let event = LastEvent { key: key.clone(), frame, data, expiry };
        let bytes = event.bytes();
        if bytes > self.bounds.bytes {
            return;
        }
        let number = self.events.insert(event);
        self.expiring.insert(expiry, number);
        self.by_app.insert((key.app(), expiry));
        for share in [&mut self.total, self.shares.entry(key.app()).or_default()] {
            share.events += 1;
            share.bytes += bytes;
        }
        // The excess may be more than one event makes room for, because smaller bounds are reached
        // step by step.
        self.shrink(EVICTED_PER_EVENT);
    }

    /// Forgets the last event of a channel, if it has one.
    pub(super) fn forget(&mut self, key: &ChannelKey) {
        if let Some(number) = self.find(key) {
            self.remove(number);
        }
    }

    /// Drops the events whose time is over. It costs nothing for the others.
    pub(super) fn expire(&mut self, now: Millis) {
        while let Some((expiry, &number)) = self.expiring.first_key_value()
            && expiry.0 <= now
        {
            self.remove(number);
        }
    }

    /// Drops the events of those apps for which `gone` returns `true`, `most` of them at a time.
    /// Returns whether there may be more.
    pub(crate) fn forget_apps(&mut self, gone: impl Fn(AppIndex) -> bool, most: usize) -> bool {
        let apps: Vec<_> = self.shares.keys().copied().filter(|&app| gone(app)).collect();
        let mut left = most;
        for app in apps {
            while let Some(number) = self.first_of(app) {
                if left == 0 {
                    return true;
                }
                left -= 1;
                self.remove(number);
            }
        }
        false
    }

    /// Sets other bounds.
    pub(crate) const fn bound(&mut self, bounds: CacheBounds) {
        self.bounds = bounds;
    }

    /// Drops at most `most` events that exceed the bounds.
    pub(crate) fn shrink(&mut self, most: usize) {
        for _ in 0..most {
            let Some(number) = self.excess() else { return };
            self.remove(number);
        }
    }

    /// Gives memory back that a burst has left.
    pub(super) fn trim(&mut self) {
        self.events.trim();
    }

    /// The event that has to be dropped next. `None` if no bound is exceeded, and only otherwise it
    /// costs a look at each app that has cached events.
    fn excess(&self) -> Option<u32> {
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

    /// The event of the app that expires first. `None` if the app has none.
    fn first_of(&self, app: AppIndex) -> Option<u32> {
        let &(of, first) = self.by_app.range((app, Expiry::default())..).next()?;
        self.expiring.get(&first).copied().filter(|_| of == app)
    }

    fn find(&self, key: &ChannelKey) -> Option<u32> {
        self.events.find(key.hash(), |event| event.key == *key)
    }

    fn remove(&mut self, number: u32) {
        let Some(event) = self.events.remove(number) else { return };
        let (app, bytes) = (event.key.app(), event.bytes());
        self.expiring.remove(&event.expiry);
        self.by_app.remove(&(app, event.expiry));
        let Some(of_app) = self.shares.get_mut(&app) else { return };
        for share in [&mut self.total, of_app] {
            share.events -= 1;
            share.bytes -= bytes;
        }
        if self.shares.get(&app).is_some_and(|share| share.events == 0) {
            self.shares.remove(&app);
        }
    }

    /// The apps that have cached events.
    #[cfg(test)]
    pub(super) fn apps(&self) -> impl Iterator<Item = AppIndex> {
        self.shares.keys().copied()
    }

    /// The number of cached events, and their bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let sums = |sum: Share, of: &Share| Share {
            events: sum.events + of.events,
            bytes: sum.bytes + of.bytes,
        };
        let sum = self.shares.values().fold(Share::default(), sums);
        let events = [self.events.len(), self.expiring.len(), self.by_app.len(), self.total.events];
        assert_eq!((events, self.total.bytes), ([sum.events; 4], sum.bytes));
        (sum.events, sum.bytes)
    }

    #[cfg(test)]
    pub(super) const fn bounds(&self) -> CacheBounds {
        self.bounds
    }
}

/// The duration in seconds, rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
