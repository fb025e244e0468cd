//! Fairness between connections: the work that one connection may cause in a turn, and the
//! connections that cause more.
//!
//! Work is counted in units of about a microsecond of one core, for everything that a message
//! causes, here and on other shards. A connection has [`FREE_PAIRS`] in each turn, far more than
//! clients need. One that causes more is throttled: what it has sent already is held here, and
//! nothing is received from it before that is read, so that the rest waits in its socket. Held
//! bytes are read at the cost of a pool of units that all throttled connections share, [`QUANTUM`]
//! at a time. The pool fills with time, so that a connection which floods an idle shard has nearly
//! all of it, and takes from a busy one at most [`TURN_UNITS`] between any two turns of the others.
//! A cost that becomes known later (the answer of a home, its size) is a debt, which is paid from
//! the same pool before anything else is read.

use std::collections::{HashMap, VecDeque};

use bytes::{Buf, BytesMut};

use crate::id::ConnKey;
use crate::time::Millis;

/// Pairs of units that a connection may use in a turn before it is throttled: some forty
/// subscribes. They are counted in pairs, which fit into a byte of the connection's record.
pub(super) const FREE_PAIRS: u8 = 128;

/// Units that throttled connections may use in a turn, all together: half a millisecond, by which
/// they delay all other connections.
const TURN_UNITS: i64 = 500;

/// Units that the pool gains per millisecond: all the time of a core.
const UNITS_PER_MS: i64 = 1000;

/// Units that the pool holds at most, so that a pause is not followed by a long burst.
const POOL_MAX: i64 = 2 * UNITS_PER_MS;

/// Units that a connection gets in each round.
const QUANTUM: i64 = 64;

/// The most answers of unknown size that a connection may wait for. They may all come at once, and
/// the bytes that it is owed then have to be bounded ([`BacklogLimits`](super::BacklogLimits)).
const AWAITED_MAX: u16 = 4;

/// Bytes of input that are held for all throttled connections of a shard. A connection holds no
/// more than one receive has brought, or than came with its handshake. Past the bound, connections
/// that do not read their answers are closed, because their input would wait for as long as they
/// like. While the rest is worked off, nothing is received.
pub(crate) const HELD_MAX: usize = 2 << 20;

/// The throttled connections of a shard.
///
/// The plane [`add`](Self::add)s a connection that exceeds its share, and gives its input to
/// [`hold`](Self::hold). In each turn it calls [`begin`](Self::begin), then [`next`](Self::next)
/// and [`due`](Self::due) for one connection after the other, until `next` returns `None` or a
/// whole round had nothing to do.
#[derive(Debug)]
pub(super) struct Throttle {
    /// The bound on `held`: [`HELD_MAX`].
    pub(super) most: usize,
    /// The state of each throttled connection, by slot.
    conns: HashMap<u32, Throttled>,
    /// The round in which connections take turns: their slots, with the value of `Throttled::time`.
    /// An entry is stale if the connection has another value or is not throttled.
    order: VecDeque<(u32, u32)>,
    /// The number of times that any connection was throttled.
    times: u32,
    /// Connections that wait for answers of unknown size and the number of those answers, by slot.
    awaited: HashMap<u32, (ConnKey, u16)>,
    /// Bytes that are held for all throttled connections.
    held: usize,
    /// Units in the pool, which no connection has used yet.
    pool: i64,
    /// Units that throttled connections may still use in this turn.
    turn: i64,
    /// The time up to which the pool has been filled.
    filled: Millis,
    /// Whether a connection has more input than there were units for.
    hungry: bool,
    /// Whether a throttled connection is idle now. A later turn decides whether that lasts.
    calming: bool,
}

#[derive(Debug)]
struct Throttled {
    key: ConnKey,
    /// The number of this time that the connection is throttled, different from earlier ones.
    time: u32,
    /// Units that the connection may use. A negative number is a debt.
    credit: i64,
    /// Bytes that have come and have not been read.
    held: BytesMut,
    /// The time since which the connection has been idle. `None` if it is not idle.
    calm: Option<Millis>,
}

/// The work that is due for a connection that has its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The caller reads these bytes, and has to put the rest back.
    Read(BytesMut),
    /// Everything was read, and more may be received.
    Receive,
    /// The connection is no longer throttled.
    Free,
    /// The connection has paid a part of its debt.
    Paid,
    /// The connection has to wait.
    Nothing,
}

impl Default for Throttle {
    /// No connection is throttled.
    fn default() -> Self {
        Self {
            most: HELD_MAX,
            conns: HashMap::new(),
            order: VecDeque::new(),
            times: 0,
            awaited: HashMap::new(),
            held: 0,
            pool: 0,
            turn: 0,
            filled: Millis(0),
            hungry: false,
            calming: false,
        }
    }
}

impl Throttle {
    fn get(&self, key: ConnKey) -> Option<&Throttled> {
        self.conns.get(&key.slot).filter(|of| of.key == key)
    }

    fn get_mut(&mut self, key: ConnKey) -> Option<&mut Throttled> {
        self.conns.get_mut(&key.slot).filter(|of| of.key == key)
    }

    /// Whether this connection is throttled.
    pub(super) fn has(&self, key: ConnKey) -> bool {
        self.get(key).is_some()
    }

    /// Whether bytes are held for this connection, which come before all others.
    pub(super) fn holds(&self, key: ConnKey) -> bool {
        self.get(key).is_some_and(|of| !of.held.is_empty())
    }

    /// The number of bytes that are held for all connections.
    #[cfg(feature = "testing")]
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Whether more is held than the bound allows.
    pub(super) const fn is_full(&self) -> bool {
        self.held > self.most
    }

    /// The connection with the most held bytes among those for which `blocked` returns `true`.
    pub(super) fn fullest(&self, blocked: impl Fn(ConnKey) -> bool) -> Option<ConnKey> {
        let holding = self.conns.values().filter(|of| !of.held.is_empty() && blocked(of.key));
        Some(holding.max_by_key(|of| of.held.len())?.key)
    }

    /// Whether a turn is due a millisecond from now.
    pub(super) const fn waits(&self) -> bool {
        self.hungry || self.calming
    }

    /// Whether an immediate further turn has units for the connections that want them.
    pub(super) const fn has_work(&self) -> bool {
        self.hungry && self.pool >= QUANTUM
    }

    /// Throttles a connection, which begins with a debt of this many units.
    pub(super) fn add(&mut self, key: ConnKey, debt: i64) {
        self.times = self.times.wrapping_add(1);
        let throttled =
            Throttled { key, time: self.times, credit: -debt, held: BytesMut::new(), calm: None };
        if let Some(before) = self.conns.insert(key.slot, throttled) {
            self.held -= before.held.len();
        }
        self.order.push_back((key.slot, self.times));
        self.hungry = true;
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, key: ConnKey) {
        if !self.awaited.is_empty() {
            self.awaited.remove(&key.slot);
        }
        if self.has(key)
            && let Some(removed) = self.conns.remove(&key.slot)
        {
            self.held -= removed.held.len();
        }
    }

    /// Holds bytes that a throttled connection has sent, behind those already held.
    pub(super) fn hold(&mut self, key: ConnKey, bytes: &[u8]) {
        let Some(of) = self.get_mut(key) else { return };
        of.held.extend_from_slice(bytes);
        of.calm = None;
        self.held += bytes.len();
        self.hungry = true;
    }

    /// Puts the bytes back that [`Due::Read`] lent, `taken` of which were read.
    pub(super) fn put_back(&mut self, key: ConnKey, mut held: BytesMut, taken: usize) {
        if let Some(of) = self.get_mut(key) {
            held.advance(taken);
            let left = held.len();
            of.held = held;
            self.held += left;
        }
    }

    /// Charges a throttled connection with work.
    pub(super) fn charge(&mut self, key: ConnKey, units: u32) {
        if let Some(of) = self.get_mut(key) {
            of.credit -= i64::from(units);
            let in_debt = of.credit <= 0;
            self.hungry |= in_debt;
        }
    }

    /// Whether a connection has used up its units, or waits for answers. Nothing more is read from
    /// it then.
    pub(super) fn pauses(&self, key: ConnKey) -> bool {
        self.get(key).is_some_and(|of| of.credit <= 0 || self.awaits_most(key))
    }

    /// Records that a connection waits for one more answer of unknown size. Returns whether nothing
    /// may be read from it before an answer comes.
    pub(super) fn expect(&mut self, key: ConnKey) -> bool {
        let awaited = self.awaited.entry(key.slot).or_insert((key, 0));
        if awaited.0 != key {
            *awaited = (key, 0);
        }
        awaited.1 = awaited.1.saturating_add(1);
        awaited.1 >= AWAITED_MAX
    }

    /// Records that an answer has come.
    pub(super) fn answered(&mut self, key: ConnKey) {
        let Some(awaited) = self.awaited.get_mut(&key.slot).filter(|of| of.0 == key) else {
            return;
        };
        awaited.1 -= 1;
        if awaited.1 == 0 {
            self.awaited.remove(&key.slot);
        }
        self.hungry |= self.holds(key);
    }

    /// Whether a connection waits for as many answers as it may.
    pub(super) fn awaits_most(&self, key: ConnKey) -> bool {
        let awaited = self.awaited.get(&key.slot).filter(|of| of.0 == key);
        awaited.is_some_and(|&(_, count)| count >= AWAITED_MAX)
    }

    /// Begins the part of a turn for throttled connections. Returns `false` if there are none.
    pub(super) fn begin(&mut self, now: Millis) -> bool {
        let elapsed = now.since(self.filled).as_millis();
        self.filled = now;
        if self.conns.is_empty() {
            self.order.clear();
            (self.hungry, self.calming) = (false, false);
            self.pool = TURN_UNITS;
            return false;
        }
        // Saturates: the pool is cut to its bound.
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        self.pool = elapsed.saturating_mul(UNITS_PER_MS).saturating_add(self.pool).min(POOL_MAX);
        self.turn = TURN_UNITS;
        (self.hungry, self.calming) = (false, false);
        true
    }

    /// The number of connections in a round.
    pub(super) fn circle(&self) -> usize {
        self.conns.len()
    }

    /// The next connection, if there are units left. It moves to the end of the round.
    pub(super) fn next(&mut self) -> Option<ConnKey> {
        if self.pool.min(self.turn) < QUANTUM {
            self.hungry = true;
            return None;
        }
        while let Some((slot, time)) = self.order.pop_front() {
            if let Some(of) = self.conns.get(&slot).filter(|of| of.time == time) {
                self.order.push_back((slot, time));
                return Some(of.key);
            }
        }
        None
    }

    /// The work that is due for a connection, which gets a quantum for it. `blocked` means that it
    /// waits for answers or does not read what it is owed, so nothing is read from it.
    pub(super) fn due(&mut self, key: ConnKey, blocked: bool, now: Millis) -> Due {
        let Some(of) = self.conns.get_mut(&key.slot).filter(|of| of.key == key) else {
            return Due::Nothing;
        };
        if of.credit <= 0 {
            of.credit += QUANTUM;
            self.pool -= QUANTUM;
            self.turn -= QUANTUM;
            return Due::Paid;
        }
        if blocked && !of.held.is_empty() {
            return Due::Nothing;
        }
        if !of.held.is_empty() {
            let held = std::mem::take(&mut of.held);
            self.held -= held.len();
            return Due::Read(held);
        }
        if of.calm.get_or_insert(now).0 < now.0 {
            self.conns.remove(&key.slot);
            return Due::Free;
        }
        self.calming = true;
        Due::Receive
    }

    /// Gives memory back that a burst has left.
    pub(super) fn trim(&mut self) {
        if self.conns.is_empty() {
            self.conns = HashMap::new();
            self.order = VecDeque::new();
        }
        if self.awaited.is_empty() {
            self.awaited = HashMap::new();
        }
    }
}
