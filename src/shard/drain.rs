//! The drain of a shard: when a stop closes each connection, with which code, and how connections
//! that are opened meanwhile are treated.
//!
//! pusher-js returns at once after 4200, and one second after 4100 to 4199, never later. If it
//! finds the port closed then, it waits for 15 seconds. So a process without an immediate successor
//! sends 4102, and times its closes so that no client comes back while no process listens: the last
//! closes share less than half a second, and clients that were closed before them are back before
//! the end. The shard holds these without a session, and closes them with the last ones.

use std::time::Duration;

use super::Shard;
use super::closes::{CLOSES_TICK, evenly};
use crate::counters::CloseCause;
use crate::front::gateway::Newcomers;
use crate::plane::Ended;
use crate::protocol::close::{self, ProtocolError};
use crate::ring::Ring;
use crate::time::Millis;

/// The time after which pusher-js reconnects if it was closed with 4100 to 4199.
pub(crate) const RETURN: Duration = Duration::from_secs(1);

/// The time in which the last connections are closed if there is no successor. The rest of
/// [`RETURN`] is for the rest of the stop and for the start of the next process.
const LAST_CLOSES: Duration = Duration::from_millis(250);

/// The pause before the last closes, in which all other clients come back and are held: the rest of
/// [`RETURN`], and a round trip.
const PAUSE: Duration = Duration::from_millis(900);

/// The time that clients have to answer their Close frames if there is no successor, because the
/// port is closed meanwhile: a mobile client's round trip. The kernel sends the bytes that the
/// others are still owed after the process has ended, unless they are more than the last messages.
const ANSWERS: Duration = Duration::from_millis(250);

/// The longest time for which clients are held: the longest automatic window with its pause.
/// pusher-js gives an attempt up after 15 s. In a longer drain, clients are refused until only this
/// time is left.
const HOLD_MAX: Duration = Duration::from_secs(6);

/// The way in which a stop ends connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The time over which the closes are spread evenly.
    pub window: Duration,
    /// Whether another process takes the clients at once. They are then told to return at once, and
    /// the other process keeps the listening sockets open when this one closes them.
    pub successor: bool,
}

impl Drain {
    /// The time from the start of the drain to the last close.
    #[must_use]
    pub(crate) fn lasts(self) -> Duration {
        self.window + self.pause()
    }

    /// The time without closes, which begins [`LAST_CLOSES`] before the end of the window.
    fn pause(self) -> Duration {
        let pauses = !self.successor && self.window > LAST_CLOSES;
        if pauses { PAUSE } else { Duration::ZERO }
    }

    /// The number of connections, out of `connections`, that have to be closed after `elapsed`.
    fn due(self, connections: usize, elapsed: Duration) -> usize {
        let before_pause = self.window.saturating_sub(LAST_CLOSES);
        let paused = elapsed.saturating_sub(before_pause).min(self.pause());
        evenly(connections, elapsed - paused, self.window)
    }

    const fn error(self) -> ProtocolError {
        if self.successor { ProtocolError::ShuttingDown } else { ProtocolError::Restarting }
    }

    fn newcomers(self, elapsed: Duration) -> Newcomers {
        let left = self.lasts().saturating_sub(elapsed);
        if self.successor || left > HOLD_MAX {
            Newcomers::Refused(self.error())
        } else {
            Newcomers::Held
        }
    }
}

/// A drain that has begun.
#[derive(Debug)]
pub(super) struct Draining {
    drain: Drain,
    started: Millis,
    /// The time at which the drain last looked for connections to close. `None` before the first
    /// look.
    looked: Option<Millis>,
    /// The time of the last close. `None` before the first one.
    closed_at: Option<Millis>,
    /// The number of connections at the start.
    connections: usize,
    /// The number of connections closed so far.
    closed: usize,
    /// The next slot to close.
    cursor: u32,
    /// Whether the front has to stop accepting: with a successor from the start, otherwise from the
    /// control thread's message on.
    closes_listeners: bool,
}

impl Draining {
    pub(super) const fn new(drain: Drain, now: Millis, connections: usize) -> Self {
        Self {
            drain,
            started: now,
            looked: None,
            closed_at: None,
            connections,
            closed: 0,
            cursor: 0,
            closes_listeners: drain.successor,
        }
    }

    pub(super) const fn close_listeners(&mut self) {
        self.closes_listeners = true;
    }
}

impl<R: Ring> Shard<R> {
    /// Begins to end all connections. Only the first drain counts.
    pub fn drain(&mut self, drain: Drain) {
        let connections = self.plane.open_connections();
        self.timers.start_drain(Draining::new(drain, self.subscribers.now, connections));
        self.subscribers.stopping = true;
    }

    /// Whether a drain has begun.
    #[must_use]
    pub(crate) const fn draining(&self) -> bool {
        self.timers.draining().is_some()
    }

    /// Whether the front has to stop accepting connections.
    #[must_use]
    pub(crate) fn closes_listeners(&self) -> bool {
        self.timers.draining().is_some_and(|draining| draining.closes_listeners)
    }

    /// The treatment of WebSockets that are opened now. `None` without a drain.
    #[must_use]
    pub(crate) fn newcomers(&self) -> Option<Newcomers> {
        let draining = self.timers.draining()?;
        Some(draining.drain.newcomers(self.subscribers.now.since(draining.started)))
    }

    /// Whether a drain has closed all connections, and every message to a home is in the home's
    /// mailbox, so that a stop cannot overtake one.
    #[must_use]
    pub fn drained(&self) -> bool {
        let Some(draining) = self.timers.draining() else { return false };
        let waited = |at| self.subscribers.now.since(at) >= ANSWERS;
        let answered = self.plane.has_no_websockets()
            || !draining.drain.successor
                && self.all_told()
                && draining.closed_at.is_some_and(waited);
        answered && !self.subscribers.link.port.spilling()
    }

    /// Whether every connection has been sent its Close frame, answered or not.
    #[must_use]
    pub(crate) fn all_told(&self) -> bool {
        self.draining() && self.plane.open_connections() == 0 && !self.has_work()
    }

    /// The time at which the drain last closed a connection.
    #[must_use]
    pub(crate) fn last_close(&self) -> Option<Millis> {
        self.timers.draining()?.closed_at
    }

    /// Closes as many connections as are due by now.
    pub(super) fn close_some(&mut self) {
        let Self { plane, subscribers, timers, .. } = self;
        let now = subscribers.now;
        let Some(draining) = timers.draining_mut() else { return };
        if draining.looked.is_some_and(|looked| now.since(looked) < CLOSES_TICK) {
            return;
        }
        draining.looked = Some(now);
        let elapsed = now.since(draining.started);
        let over = elapsed >= draining.drain.lasts();
        let due = draining.drain.due(draining.connections, elapsed + CLOSES_TICK);
        let slots = plane.slots_used();
        // Connections that were opened during the drain are closed at its end.
        if over && plane.open_connections() > 0 {
            draining.cursor = 0;
        }
        let last = close::refusal_frames(draining.drain.error());
        while draining.cursor < slots && (over || draining.closed < due) {
            let slot = draining.cursor;
            draining.cursor += 1;
            let held = subscribers.sessions.get(slot).is_none();
            if let Some(key) = plane.key_of(slot).filter(|_| over || !held) {
                subscribers.count_close(slot, CloseCause::Stop);
                plane.close(key, &last, Ended::Ours);
                draining.closed += 1;
                draining.closed_at = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn with_a_successor_the_closes_are_spread_evenly_over_the_window() {
        let drain = Drain { window: ms(5000), successor: true };
        assert_eq!(drain.lasts(), ms(5000));
        let due = [0, 500, 2500, 5000, 9000].map(|elapsed| drain.due(100, ms(elapsed)));
        assert_eq!(due, [0, 10, 50, 100, 100]);
    }

    #[test]
    fn without_one_whoever_is_closed_before_the_last_ones_is_back_before_the_end() {
        for window in [251, 500, 1000, 5000, 300_000] {
            let drain = Drain { window: ms(window), successor: false };
            let last = drain.lasts() - LAST_CLOSES;
            let count = 1_000_000;
            let before = drain.due(count, ms(window) - LAST_CLOSES);
            assert_eq!(before, drain.due(count, last), "of {window} ms: nobody in the pause");
            let back = ms(window) - LAST_CLOSES + RETURN;
            assert!(back < drain.lasts(), "of {window} ms: back at {back:?}");
            assert_eq!(drain.due(count, drain.lasts()), count);
        }
    }

    #[test]
    fn a_short_window_has_no_pause() {
        let drain = Drain { window: ms(200), successor: false };
        assert_eq!((drain.lasts(), drain.due(100, ms(100))), (ms(200), 50));
        let at_once = Drain { window: Duration::ZERO, successor: false };
        assert_eq!((at_once.lasts(), at_once.due(7, CLOSES_TICK)), (Duration::ZERO, 7));
    }

    #[test]
    fn newcomers_are_held_for_no_longer_than_client_libraries_wait() {
        let drain = Drain { window: ms(60_000), successor: false };
        assert_eq!(drain.newcomers(ms(0)), Newcomers::Refused(ProtocolError::Restarting));
        assert_eq!(drain.newcomers(ms(56_000)), Newcomers::Held);
        assert_eq!(drain.newcomers(ms(70_000)), Newcomers::Held);
        let longest_of_auto = Drain { window: ms(5000), successor: false };
        assert_eq!(longest_of_auto.newcomers(ms(0)), Newcomers::Held);
        let followed = Drain { window: ms(5000), successor: true };
        assert_eq!(followed.newcomers(ms(0)), Newcomers::Refused(ProtocolError::ShuttingDown));
    }
}
