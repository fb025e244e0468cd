//! The bound on the connections that the front of one shard has accepted and not handed over, and
//! the choice of those that make room at the bound.
//!
//! Each connection holds a descriptor and some memory, and an idle one is worth the least: its
//! client reconnects when it has a request. So at the bound, before a listener stops accepting, the
//! connections that have waited longest for a request are closed, as nginx closes "reusable"
//! connections. Requests that are being served are never ended for another one.
//!
//! A connection that has served a request is closed before one whose head is incomplete, which may
//! be a WebSocket's handshake on a slow path. The oldest incomplete ones are closed only if there
//! are no others, because a client that sends no head must not keep others out for as long as a
//! head may take.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::time::Millis;

use super::pace::{Awaited, Pace};

/// The connections of one shard's front that may be closed to make room for others.
pub(super) struct Permits {
    most: u32,
    /// The connections that may be closed for others, in the order in which they were accepted.
    open: RefCell<BTreeMap<u64, Rc<Pace>>>,
    /// The number of the next connection.
    entered: Cell<u64>,
}

/// The registration of a connection that may be closed for another one, until it is dropped.
pub(super) struct Open<'p> {
    permits: &'p Permits,
    number: u64,
}

impl Permits {
    /// Allows `most` connections at a time, but at least one.
    pub(super) fn new(most: u32) -> Self {
        Self { most: most.max(1), open: RefCell::default(), entered: Cell::new(0) }
    }

    /// The number of connections that there may be at a time.
    pub(super) const fn most(&self) -> u32 {
        self.most
    }

    /// Registers a connection that may be closed for another one.
    pub(super) fn enter(&self, pace: &Rc<Pace>) -> Open<'_> {
        let number = self.entered.get();
        self.entered.set(number + 1);
        self.open.borrow_mut().insert(number, Rc::clone(pace));
        Open { permits: self, number }
    }

    /// Tells the connections that have waited longest to close. One would be enough, but the search
    /// for one costs as much as for several. Returns their number.
    pub(super) fn close_idle(&self, now: Millis) -> usize {
        let open = self.open.borrow();
        let waiting = open.values().filter_map(|pace| {
            let (awaited, since) = pace.awaits()?;
            (now.since(since) >= IDLE_MIN).then_some(((awaited, since), pace))
        });
        let mut waiting: Vec<((Awaited, Millis), &Rc<Pace>)> = waiting.collect();
        let count = (open.len() / CLOSED_PART).max(1).min(waiting.len());
        if count < waiting.len() {
            waiting.select_nth_unstable_by_key(count, |&(rank, _)| rank);
        }
        waiting.iter().take(count).for_each(|(_, pace)| pace.yield_place());
        count
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.permits.open.borrow_mut().remove(&self.number);
    }
}

/// The time for which a connection idles before it is worth less than one that waits to be
/// accepted: a publisher between two requests is not cut off, and a head has had time for its
/// second packet.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// The divisor of the part of all connections that is closed at a time. The search among 16,384
/// takes some 100 us, as much as accepting one.
const CLOSED_PART: usize = 64;

/// The interval between attempts while every connection is busy or new.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::deadlines::Deadlines;
    use crate::id::ConnKey;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    /// Whether each of these was told to close.
    fn told(paces: &[Rc<Pace>]) -> Vec<bool> {
        paces.iter().map(|pace| pace.has_to_yield()).collect()
    }

    /// A connection that was accepted at this time.
    fn accepted(at: u64) -> Rc<Pace> {
        let (key, deadlines) = (ConnKey { slot: 0, generation: 0 }, Rc::new(Deadlines::default()));
        deadlines.begin_turn(Millis(at));
        Rc::new(Pace::new(key, &deadlines, HEAD, Millis(at)))
    }

    /// A connection that idles since this time.
    fn idle(at: u64) -> Rc<Pace> {
        let pace = accepted(at);
        pace.serving();
        pace.served(IDLE, HEAD);
        pace
    }

    #[test]
    fn the_longest_idle_goes_first_then_the_oldest_head_and_no_request_that_is_served() {
        let permits = Permits::new(5);
        let busy = accepted(1);
        busy.serving();
        let paces = [accepted(0), busy, idle(2), idle(3), accepted(4)];
        let _open: Vec<_> = paces.iter().map(|pace| permits.enter(pace)).collect();
        assert_eq!(permits.close_idle(Millis(4)), 0, "all have come within the second");
        let later = Millis(4) + IDLE_MIN;
        assert_eq!(permits.close_idle(later), 1);
        assert_eq!(told(&paces), [false, false, true, false, false]);
        // The task of a connection does the same when it has closed.
        let gone = paces[2].clone();
        gone.serving();
        assert_eq!(permits.close_idle(later), 1);
        assert_eq!(told(&paces[3..]), [true, false]);
        paces[3].serving();
        assert_eq!(permits.close_idle(later), 1);
        assert!(paces[0].has_to_yield() && !paces[4].has_to_yield());
        assert!(!paces[1].has_to_yield());
    }

    #[test]
    fn a_request_that_comes_in_time_saves_its_connection() {
        let permits = Permits::new(1);
        let pace = idle(0);
        let _open = permits.enter(&pace);
        assert_eq!(permits.close_idle(Millis(0) + IDLE_MIN), 1);
        assert!(pace.has_to_yield());
        pace.received();
        assert!(!pace.has_to_yield());
    }

    #[test]
    fn a_connection_that_has_left_is_not_looked_at() {
        let permits = Permits::new(1);
        let pace = idle(0);
        drop(permits.enter(&pace));
        assert_eq!(permits.close_idle(Millis(0) + IDLE_MIN), 0);
        assert!(permits.open.borrow().is_empty());
    }
}
