//! How many connections a client's address has over all shards, and how fast it asks: one table for
//! all fronts.
//!
//! It is met once per connection and once per request, never per message, and only where a limit is
//! set: short locks, each over a part of the table, cost less than asking another shard would.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::protocol::rate::Rate;
use crate::time::Nanos;

use super::address::Source;
use super::clock;

/// The limits of one address. IPv6 addresses of one /64 count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    /// Connections that are open at a time, over all shards; `None`: any number.
    pub(crate) connections: Option<u32>,
    /// Handshakes and requests of the API per second; `None`: any number.
    pub(crate) requests_per_second: Option<u32>,
}

impl AddressLimits {
    /// Whether anything is counted.
    #[must_use]
    pub(crate) const fn count_anything(&self) -> bool {
        self.connections.is_some() || self.requests_per_second.is_some()
    }
}

/// The table of what each address has, shared by the fronts of all shards. The limits come with
/// each call: a reload changes them, and what was counted by then still counts. See the module.
#[derive(Debug)]
pub struct Door {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: RandomState,
    /// Addresses that found no room since it was asked last.
    unknown: AtomicU64,
}

type Stripe = HashMap<Source, Counts>;

/// The counts of one address.
#[derive(Debug, Default)]
struct Counts {
    /// Connections within the limit.
    open: u32,
    /// Connections that are still to hear that they are too many.
    turned_away: u32,
    /// When its bucket of requests is full again.
    full: Nanos,
}

/// Why a connection or a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// The address has as many connections as it may.
    Connections,
    /// It asks too fast; after this much time it may again.
    Requests(Duration),
}

impl Default for Door {
    /// A door for all shards of a process, which knows nobody.
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            unknown: AtomicU64::new(0),
        }
    }
}

impl Door {
    /// Forgets addresses that have nothing open and a full bucket. To be called about once a
    /// second. Returns how many addresses found no room since the last time, and were let in
    /// uncounted.
    pub(crate) fn forget_idle(&self) -> u64 {
        let now = clock::now();
        for stripe in &self.stripes {
            let mut stripe = locked(stripe);
            stripe.retain(|_, counts| !counts.is_idle(now));
            let room = (2 * stripe.len()).max(STRIPE_KEPT);
            stripe.shrink_to(room);
        }
        self.unknown.swap(0, Ordering::Relaxed)
    }

    /// Counts a request against the rate.
    pub(super) fn take_request(
        &self,
        source: Source,
        limits: AddressLimits,
    ) -> Result<(), TurnedAway> {
        let Some(per_second) = limits.requests_per_second else { return Ok(()) };
        let rate = Rate::of(per_second, BURST_SECONDS);
        let now = clock::now();
        let taken =
            self.with(source, |counts| rate.take(counts.full, now).map(|full| counts.full = full));
        taken.unwrap_or(Ok(())).map_err(TurnedAway::Requests)
    }

    /// Counts a connection. None when nothing counts them, and when the table has no room.
    pub(super) fn take_place(
        self: &Arc<Self>,
        source: Source,
        limits: AddressLimits,
    ) -> Result<Option<Place>, TurnedAway> {
        let Some(most) = limits.connections else { return Ok(None) };
        let Some(taken) = self.with(source, |counts| counts.open_one(most)) else {
            return Ok(None);
        };
        match taken {
            true => Ok(Some(Place { door: Arc::clone(self), source, open: true })),
            false => Err(TurnedAway::Connections),
        }
    }

    /// Counts a connection that is over the limit, and only waits to be told. None when there are
    /// too many of these as well.
    pub(super) fn take_waiting_place(self: &Arc<Self>, source: Source) -> Option<Place> {
        let waits = self.with(source, |counts| {
            let waits = counts.turned_away < TURNED_AWAY_MAX;
            counts.turned_away += u32::from(waits);
            waits
        });
        (waits == Some(true)).then(|| Place { door: Arc::clone(self), source, open: false })
    }

    /// Looks at what an address has; none when the table has no room for it.
    fn with<R>(&self, source: Source, look: impl FnOnce(&mut Counts) -> R) -> Option<R> {
        let mut stripe = self.stripe(source);
        if stripe.len() >= STRIPE_MAX && !stripe.contains_key(&source) {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(look(stripe.entry(source).or_default()))
    }

    fn stripe(&self, source: Source) -> MutexGuard<'_, Stripe> {
        locked(&self.stripes[self.index(source)])
    }

    fn index(&self, source: Source) -> usize {
        // The index is less than `STRIPES`, so it fits.
        (self.hasher.hash_one(source) % STRIPES as u64) as usize
    }
}

impl Counts {
    fn open_one(&mut self, most: u32) -> bool {
        let free = self.open < most;
        self.open += u32::from(free);
        free
    }

    fn is_idle(&self, now: Nanos) -> bool {
        self.open == 0 && self.turned_away == 0 && self.full <= now
    }
}

/// A connection as its address' limit counts it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    door: Arc<Door>,
    source: Source,
    /// Within the limit; otherwise it waits to be turned away.
    open: bool,
}

impl Place {
    /// Whether it is within the limit, by now: other connections may have ended, or the limit may
    /// have been raised.
    pub(super) fn is_within(&mut self, limits: AddressLimits) -> bool {
        if !self.open {
            let most = limits.connections.unwrap_or(u32::MAX);
            let mut stripe = self.door.stripe(self.source);
            if let Some(counts) = stripe.get_mut(&self.source)
                && counts.open_one(most)
            {
                counts.turned_away -= 1;
                self.open = true;
            }
        }
        self.open
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut stripe = self.door.stripe(self.source);
        let Some(counts) = stripe.get_mut(&self.source) else { return };
        match self.open {
            true => counts.open -= 1,
            false => counts.turned_away -= 1,
        }
        // A bucket that was ever taken from is looked at once a second.
        if counts.is_idle(Nanos(0)) {
            stripe.remove(&self.source);
        }
    }
}

/// Nothing panics while it holds the lock; if something did, counts are counts.
fn locked(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// More than shards that meet at the door at a time.
const STRIPES: usize = 64;

/// Addresses that the table holds, 262,144 in all: some 20 MB. One that finds no room is let in
/// uncounted: whoever has so many addresses is not held by a limit for one, and keeping strangers
/// out for it would be what the attacker wants. What bounds all connections together still holds.
const STRIPE_MAX: usize = 4096;

/// Addresses that a stripe keeps room for.
const STRIPE_KEPT: usize = 16;

/// Requests that may come at once, as seconds of the rate: the people of an office share an
/// address, and their browsers return together.
const BURST_SECONDS: u32 = 5;

/// Connections of one address that wait to be told that they are too many. Further ones close at
/// once: an answer is not worth holding what so many would.
const TURNED_AWAY_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::thread;

    use super::*;

    fn source(number: u32) -> Source {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    const NONE: AddressLimits = AddressLimits { connections: None, requests_per_second: None };

    fn connections(most: u32) -> AddressLimits {
        AddressLimits { connections: Some(most), ..NONE }
    }

    fn known(door: &Door) -> usize {
        door.stripes.iter().map(|stripe| locked(stripe).len()).sum()
    }

    #[test]
    fn an_address_has_as_many_places_as_it_may_and_others_have_their_own() {
        let (door, limits) = (Arc::<Door>::default(), connections(2));
        let first = door.take_place(source(1), limits).unwrap().unwrap();
        let second = door.take_place(source(1), limits).unwrap();
        assert_eq!(door.take_place(source(1), limits).unwrap_err(), TurnedAway::Connections);
        let other = door.take_place(source(2), limits).unwrap();
        drop(first);
        let third = door.take_place(source(1), limits).unwrap();
        assert!(door.take_place(source(1), limits).is_err());
        drop((second, third, other));
        assert_eq!(known(&door), 0, "who has nothing is forgotten at once");
    }

    #[test]
    fn a_waiting_connection_moves_up_when_a_place_is_free_and_they_are_bounded_too() {
        let (door, limits) = (Arc::<Door>::default(), connections(1));
        let first = door.take_place(source(1), limits).unwrap();
        let mut waiting = door.take_waiting_place(source(1)).unwrap();
        assert!(!waiting.is_within(limits));
        drop(first);
        assert!(waiting.is_within(limits));
        assert!(door.take_place(source(1), limits).is_err());
        let more: Vec<_> =
            (0..TURNED_AWAY_MAX + 5).filter_map(|_| door.take_waiting_place(source(1))).collect();
        assert_eq!(more.len(), TURNED_AWAY_MAX as usize);
        drop((waiting, more));
        assert_eq!(known(&door), 0);
    }

    #[test]
    fn places_taken_from_many_threads_are_never_too_many_and_all_come_back() {
        let (door, limits) = (Arc::<Door>::default(), connections(7));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let door = Arc::clone(&door);
                thread::spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..5000_u32 {
                        held.extend(door.take_place(source(round % 3), limits).ok().flatten());
                        assert!(held.len() <= 21);
                        if round % 5 == 0 {
                            held.clear();
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(known(&door), 0);
        let all: Vec<_> = (0..20).filter_map(|_| door.take_place(source(1), limits).ok()).collect();
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn requests_are_held_to_the_rate_and_addresses_with_full_buckets_are_forgotten() {
        let (door, limits) =
            (Arc::<Door>::default(), AddressLimits { requests_per_second: Some(1), ..NONE });
        let taken = (0..100).filter(|_| door.take_request(source(1), limits).is_ok()).count();
        assert!((5..100).contains(&taken), "{taken}");
        assert!(matches!(door.take_request(source(1), limits), Err(TurnedAway::Requests(_))));
        assert!(door.take_request(source(2), limits).is_ok());
        assert_eq!(known(&door), 2);
        let begun = clock::now();
        while known(&door) > 1 {
            assert!(clock::now().0 - begun.0 < 20_000_000_000, "the second was full long ago");
            door.forget_idle();
        }
        assert!(locked(&door.stripes[door.index(source(1))]).contains_key(&source(1)));
    }

    #[test]
    fn the_table_is_bounded_and_who_finds_no_room_is_let_in_uncounted() {
        let (door, limits) = (Arc::<Door>::default(), connections(1));
        let mut held = Vec::new();
        let mut next = 0;
        while held.len() < STRIPES * STRIPE_MAX {
            let address = IpAddr::from(Ipv6Addr::from_bits(next << 64));
            match door.take_place(address.into(), limits) {
                Ok(Some(place)) => held.push(place),
                Ok(None) => {}
                Err(turned_away) => panic!("{turned_away:?}"),
            }
            next += 1;
        }
        let before = known(&door);
        let late = || door.take_place(source(1), limits);
        assert!(matches!((late(), late()), (Ok(None), Ok(None))));
        assert!(door.take_waiting_place(source(1)).is_none());
        assert_eq!(known(&door), before);
        assert!(door.forget_idle() >= 3);
        drop(held);
        assert_eq!(known(&door), 0);
        assert!(matches!(late(), Ok(Some(_))));
    }

    #[test]
    fn a_limit_that_changes_holds_at_once_and_what_was_counted_counts_on() {
        let door = Arc::<Door>::default();
        let mut held: Vec<_> =
            (0..3).map(|_| door.take_place(source(1), connections(3)).unwrap()).collect();
        let mut waiting = door.take_waiting_place(source(1)).unwrap();
        assert!(!waiting.is_within(connections(3)));
        assert!(door.take_place(source(1), connections(2)).is_err());
        held.push(door.take_place(source(1), connections(4)).unwrap());
        assert!(waiting.is_within(connections(5)));
        // Without a limit nobody is counted, and the places from before come back all the same.
        assert!(matches!(door.take_place(source(1), NONE), Ok(None)));
        drop((held, waiting));
        assert_eq!(known(&door), 0);
        let rate = |most| AddressLimits { requests_per_second: Some(most), ..NONE };
        while door.take_request(source(1), rate(1)).is_ok() {}
        // A second is a microsecond now, which may have passed or not.
        let waits = match door.take_request(source(1), rate(1_000_000)) {
            Err(TurnedAway::Requests(waits)) => waits,
            taken => taken.map(|()| Duration::ZERO).unwrap(),
        };
        assert!(waits <= Duration::from_micros(1), "{waits:?}");
    }

    #[test]
    fn without_limits_nothing_is_known_of_anybody() {
        let (door, limits) = (Arc::<Door>::default(), NONE);
        assert!(matches!(door.take_place(source(1), limits), Ok(None)));
        assert_eq!(door.take_request(source(1), limits), Ok(()));
        assert_eq!((known(&door), limits.count_anything()), (0, false));
    }
}
