//! The limits of a client's address on connections and requests, over all shards.
//!
//! The fronts of all shards share one table. It is used once per connection and once per request,
//! never per message, and only if a limit is set. Short locks, each over a part of the table, cost
//! less than a question to another shard would.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::rate::Rate;
use crate::time::Nanos;

use super::address::ClientNetwork;

/// The limits of one address. The IPv6 addresses of one /64 count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    /// The most open connections at a time, over all shards; `None`: any number.
    pub(crate) connections: Option<u32>,
    /// The most handshakes and requests of the API per second; `None`: any number.
    pub(crate) requests_per_second: Option<u32>,
}

impl AddressLimits {
    /// Whether any limit is set, so that clients have to be counted.
    #[must_use]
    pub(crate) const fn count_anything(&self) -> bool {
        self.connections.is_some() || self.requests_per_second.is_some()
    }
}

/// The counts of all addresses, shared by the fronts of all shards. The limits come with each call,
/// so a reload changes them, and earlier connections still count.
///
/// Order of calls: `take_connection` at the accept and `take_request` at each request; the permit
/// is dropped with the connection. [`forget_idle`](Self::forget_idle) is called about once a
/// second.
#[derive(Debug)]
pub(crate) struct AddressTable {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: RandomState,
    /// The number of addresses that found no room since the last call of `forget_idle`.
    unknown: AtomicU64,
}

type Stripe = HashMap<ClientNetwork, AddressCounts>;

/// The counts of one address.
#[derive(Debug, Default)]
struct AddressCounts {
    /// Connections within the limit.
    open: u32,
    /// Connections beyond the limit that wait for their refusal.
    waiting: u32,
    /// The time at which the bucket of requests is full again.
    full: Nanos,
}

/// The limit that a connection or a request exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverLimit {
    /// The address has as many connections as it may.
    Connections,
    /// The address sends requests too fast; the next one is admitted after this much time.
    Requests(Duration),
}

impl Default for AddressTable {
    /// An empty table.
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            unknown: AtomicU64::new(0),
        }
    }
}

impl AddressTable {
    /// Forgets addresses that have no connection and a full bucket. To be called about once a
    /// second. Returns how many addresses found no room since the last call, and were admitted
    /// uncounted.
    pub(crate) fn forget_idle(&self, now: Nanos) -> u64 {
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
        network: ClientNetwork,
        limits: AddressLimits,
        now: Nanos,
    ) -> Result<(), OverLimit> {
        let Some(per_second) = limits.requests_per_second else { return Ok(()) };
        let rate = Rate::of(per_second, BURST_SECONDS);
        let taken =
            self.with(network, |counts| rate.take(counts.full, now).map(|full| counts.full = full));
        taken.unwrap_or(Ok(())).map_err(OverLimit::Requests)
    }

    /// Counts a connection. The permit is `None` if connections are not limited, and if the table
    /// has no room.
    pub(super) fn take_connection(
        self: &Arc<Self>,
        network: ClientNetwork,
        limits: AddressLimits,
    ) -> Result<Option<ConnectionPermit>, OverLimit> {
        let Some(most) = limits.connections else { return Ok(None) };
        let Some(taken) = self.with(network, |counts| counts.open_one(most)) else {
            return Ok(None);
        };
        match taken {
            true => Ok(Some(ConnectionPermit { table: Arc::clone(self), network, open: true })),
            false => Err(OverLimit::Connections),
        }
    }

    /// Counts a connection that is over the limit and waits for its refusal. Returns `None` if
    /// there are too many of these as well.
    pub(super) fn take_waiting_connection(
        self: &Arc<Self>,
        network: ClientNetwork,
    ) -> Option<ConnectionPermit> {
        let waits = self.with(network, |counts| {
            let waits = counts.waiting < WAITING_MAX;
            counts.waiting += u32::from(waits);
            waits
        });
        (waits == Some(true)).then(|| ConnectionPermit {
            table: Arc::clone(self),
            network,
            open: false,
        })
    }

    /// Calls `look` with the counts of an address. Returns `None` if the table has no room for it.
    fn with<R>(
        &self,
        network: ClientNetwork,
        look: impl FnOnce(&mut AddressCounts) -> R,
    ) -> Option<R> {
        let mut stripe = self.stripe(network);
        if stripe.len() >= STRIPE_MAX && !stripe.contains_key(&network) {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(look(stripe.entry(network).or_default()))
    }

    fn stripe(&self, network: ClientNetwork) -> MutexGuard<'_, Stripe> {
        locked(&self.stripes[self.index(network)])
    }

    fn index(&self, network: ClientNetwork) -> usize {
        // The index is less than `STRIPES`, so it fits.
        (self.hasher.hash_one(network) % STRIPES as u64) as usize
    }
}

impl AddressCounts {
    fn open_one(&mut self, most: u32) -> bool {
        let free = self.open < most;
        self.open += u32::from(free);
        free
    }

    fn is_idle(&self, now: Nanos) -> bool {
        self.open == 0 && self.waiting == 0 && self.full <= now
    }
}

/// The permit of a connection by the limit of its address. The connection is counted until the
/// permit is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    table: Arc<AddressTable>,
    network: ClientNetwork,
    /// Whether the connection is within the limit; otherwise it waits for its refusal.
    open: bool,
}

impl ConnectionPermit {
    /// Whether the connection is within the limit now: other connections may have ended since, or
    /// the limit may have been raised.
    pub(super) fn is_within(&mut self, limits: AddressLimits) -> bool {
        if !self.open {
            let most = limits.connections.unwrap_or(u32::MAX);
            let mut stripe = self.table.stripe(self.network);
            if let Some(counts) = stripe.get_mut(&self.network)
                && counts.open_one(most)
            {
                counts.waiting -= 1;
                self.open = true;
            }
        }
        self.open
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut stripe = self.table.stripe(self.network);
        let Some(counts) = stripe.get_mut(&self.network) else { return };
        match self.open {
            true => counts.open -= 1,
            false => counts.waiting -= 1,
        }
        // `forget_idle` removes the addresses whose buckets are still filling.
        if counts.is_idle(Nanos(0)) {
            stripe.remove(&self.network);
        }
    }
}

/// Locks a stripe. A poisoned lock is taken all the same, because counts have no state that a panic
/// could leave inconsistent.
fn locked(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of locks: more than there are shards that use the table at the same moment.
const STRIPES: usize = 64;

/// The most addresses of a stripe; 262,144 in all, which take some 20 MB. An address that finds no
/// room is admitted uncounted: an attacker with so many addresses is not bound by a limit for one,
/// and refusing others would be what the attacker wants. The bounds on all connections together
/// still hold.
const STRIPE_MAX: usize = 4096;

/// The number of addresses for which an idle stripe keeps memory.
const STRIPE_KEPT: usize = 16;

/// The burst of requests that is admitted, in seconds of the rate: the people of an office share an
/// address, and their browsers reconnect together.
const BURST_SECONDS: u32 = 5;

/// The most connections of one address that wait for their refusal. Further ones close at once,
/// because an answer is not worth the memory that so many would hold.
const WAITING_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::thread;

    use super::*;

    fn network(number: u32) -> ClientNetwork {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    const NONE: AddressLimits = AddressLimits { connections: None, requests_per_second: None };

    fn connections(most: u32) -> AddressLimits {
        AddressLimits { connections: Some(most), ..NONE }
    }

    fn known(table: &AddressTable) -> usize {
        table.stripes.iter().map(|stripe| locked(stripe).len()).sum()
    }

    #[test]
    fn an_address_has_as_many_places_as_it_may_and_others_have_their_own() {
        let (table, limits) = (Arc::<AddressTable>::default(), connections(2));
        let first = table.take_connection(network(1), limits).unwrap().unwrap();
        let second = table.take_connection(network(1), limits).unwrap();
        assert_eq!(table.take_connection(network(1), limits).unwrap_err(), OverLimit::Connections);
        let other = table.take_connection(network(2), limits).unwrap();
        drop(first);
        let third = table.take_connection(network(1), limits).unwrap();
        assert!(table.take_connection(network(1), limits).is_err());
        drop((second, third, other));
        assert_eq!(known(&table), 0, "who has nothing is forgotten at once");
    }

    #[test]
    fn a_waiting_connection_moves_up_when_a_place_is_free_and_they_are_bounded_too() {
        let (table, limits) = (Arc::<AddressTable>::default(), connections(1));
        let first = table.take_connection(network(1), limits).unwrap();
        let mut waiting = table.take_waiting_connection(network(1)).unwrap();
        assert!(!waiting.is_within(limits));
        drop(first);
        assert!(waiting.is_within(limits));
        assert!(table.take_connection(network(1), limits).is_err());
        let more: Vec<_> = (0..WAITING_MAX + 5)
            .filter_map(|_| table.take_waiting_connection(network(1)))
            .collect();
        assert_eq!(more.len(), WAITING_MAX as usize);
        drop((waiting, more));
        assert_eq!(known(&table), 0);
    }

    #[test]
    fn places_taken_from_many_threads_are_never_too_many_and_all_come_back() {
        let (table, limits) = (Arc::<AddressTable>::default(), connections(7));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..5000_u32 {
                        held.extend(
                            table.take_connection(network(round % 3), limits).ok().flatten(),
                        );
                        assert!(held.len() <= 21);
                        if round % 5 == 0 {
                            held.clear();
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(known(&table), 0);
        let all: Vec<_> =
            (0..20).filter_map(|_| table.take_connection(network(1), limits).ok()).collect();
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn requests_are_held_to_the_rate_and_addresses_with_full_buckets_are_forgotten() {
        let (table, limits) = (
            Arc::<AddressTable>::default(),
            AddressLimits { requests_per_second: Some(1), ..NONE },
        );
        let at = |seconds: u64| Nanos(seconds * 1_000_000_000);
        let burst = u64::from(BURST_SECONDS);
        let taken = (0..100).filter(|_| table.take_request(network(1), limits, at(0)).is_ok());
        assert_eq!(taken.count() as u64, burst);
        let late = table.take_request(network(1), limits, at(0));
        assert_eq!(late, Err(OverLimit::Requests(Duration::from_secs(1))));
        assert!(table.take_request(network(2), limits, at(0)).is_ok());
        assert_eq!(known(&table), 2);
        // The bucket of the second address is full again after a second.
        table.forget_idle(at(1));
        assert_eq!(known(&table), 1);
        assert!(locked(&table.stripes[table.index(network(1))]).contains_key(&network(1)));
        table.forget_idle(at(burst));
        assert_eq!(known(&table), 0);
    }

    #[test]
    fn the_table_is_bounded_and_who_finds_no_room_is_let_in_uncounted() {
        let (table, limits) = (Arc::<AddressTable>::default(), connections(1));
        let mut held = Vec::new();
        let mut next = 0;
        while held.len() < STRIPES * STRIPE_MAX {
            let address = IpAddr::from(Ipv6Addr::from_bits(next << 64));
            match table.take_connection(address.into(), limits) {
                Ok(Some(place)) => held.push(place),
                Ok(None) => {}
                Err(over_limit) => panic!("{over_limit:?}"),
            }
            next += 1;
        }
        let before = known(&table);
        let late = || table.take_connection(network(1), limits);
        assert!(matches!((late(), late()), (Ok(None), Ok(None))));
        assert!(table.take_waiting_connection(network(1)).is_none());
        assert_eq!(known(&table), before);
        assert!(table.forget_idle(Nanos(0)) >= 3);
        drop(held);
        assert_eq!(known(&table), 0);
        assert!(matches!(late(), Ok(Some(_))));
    }

    #[test]
    fn a_limit_that_changes_holds_at_once_and_what_was_counted_counts_on() {
        let table = Arc::<AddressTable>::default();
        let mut held: Vec<_> =
            (0..3).map(|_| table.take_connection(network(1), connections(3)).unwrap()).collect();
        let mut waiting = table.take_waiting_connection(network(1)).unwrap();
        assert!(!waiting.is_within(connections(3)));
        assert!(table.take_connection(network(1), connections(2)).is_err());
        held.push(table.take_connection(network(1), connections(4)).unwrap());
        assert!(waiting.is_within(connections(5)));
        // Without a limit nobody is counted, and the places from before come back all the same.
        assert!(matches!(table.take_connection(network(1), NONE), Ok(None)));
        drop((held, waiting));
        assert_eq!(known(&table), 0);
        let rate = |most| AddressLimits { requests_per_second: Some(most), ..NONE };
        let now = Nanos(0);
        while table.take_request(network(1), rate(1), now).is_ok() {}
        // A rate of a million refills in a microsecond.
        let late = table.take_request(network(1), rate(1_000_000), now);
        assert_eq!(late, Err(OverLimit::Requests(Duration::from_micros(1))));
    }

    #[test]
    fn without_limits_nothing_is_known_of_anybody() {
        let (table, limits) = (Arc::<AddressTable>::default(), NONE);
        assert!(matches!(table.take_connection(network(1), limits), Ok(None)));
        assert_eq!(table.take_request(network(1), limits, Nanos(0)), Ok(()));
        assert_eq!((known(&table), limits.count_anything()), (0, false));
    }
}
