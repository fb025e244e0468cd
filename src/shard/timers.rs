//! The events that time causes: pings, their deadlines, connections that never show a signature,
//! cached events that expire, and delayed subscriber counts.
//!
//! Connections are not kept in timer lists: a sweep looks at each once per second, which spreads
//! pings and costs no memory. A shard with many of them looks at a tenth per tick; one with few
//! wakes for it once per second only.

use std::time::Duration;

use tracing::debug;

use super::Shard;
use super::closes::CLOSES_TICK;
use super::drain::Draining;
use super::subscriber_side::SubscriberSide;
use crate::id::ConnKey;
use crate::memory;
use crate::memory::Headroom;
use crate::plane::Plane;
use crate::protocol::close::ProtocolError;
use crate::protocol::outbound;
use crate::refusals::ClosedWebSocket;
use crate::ring::Ring;
use crate::time::Millis;

/// The shortest time between two ticks.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The interval of turns for throttled connections: as fine as the shard's clock.
const UNITS_TICK: Duration = Duration::from_millis(1);

/// The time in which the sweep sees every connection once.
const SWEEP: Duration = Duration::from_secs(1);

/// The connections that one tick may look at (tens of microseconds of work). A shard with no more
/// of them ticks once per sweep.
const SWEEP_AT_ONCE: u32 = 1024;

/// The most connections that a tick closes because their app is gone: a few milliseconds of work,
/// which the connections of other apps wait for. The clients do not return, so there is no hurry.
const CLOSINGS_PER_TICK: u32 = 1000;

/// The timers of one shard.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// The time of the last tick.
    ticked: Millis,
    /// The next slot of the sweep.
    cursor: u32,
    /// The times at which spare memory is given back.
    trims: TrimSchedule,
    /// The drain. `None` until it begins.
    draining: Option<Draining>,
    /// Whether the control thread has told the shard to end.
    stop: bool,
}

/// Decides when to give back the memory that a burst has left, because a shard that becomes idle
/// would otherwise hold it for good.
#[derive(Debug, Default)]
struct TrimSchedule {
    /// The time of the last check.
    done: Millis,
    /// The figures of the shard at that time.
    held: Held,
    /// The number of further trims that are due even if nothing changes.
    again: u32,
}

/// The figures that change with a burst, on whichever shard it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// Connections opened so far.
    opened: u64,
    /// Open connections.
    open: usize,
    /// Bytes that wait for slow readers.
    backlog: usize,
    /// Channels at home here, whose subscribers may all be on other shards.
    homes: usize,
    /// Messages that have waited for room in a mailbox so far.
    spillings: u64,
}

/// The time between two checks. It is longer than the allocator keeps freed memory.
const TRIM_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The trims after a change: one for the memory of the lists, and one for the part of it that the
/// allocator has kept meanwhile.
const TRIMS_AFTER_CHANGE: u32 = 2;

impl TrimSchedule {
    fn is_due(&mut self, now: Millis, held: Held) -> bool {
        if now.since(self.done) < TRIM_CHECK_INTERVAL {
            return false;
        }
        self.done = now;
        if std::mem::replace(&mut self.held, held) != held {
            self.again = TRIMS_AFTER_CHANGE;
        }
        let due = self.again > 0;
        self.again = self.again.saturating_sub(1);
        due
    }
}

impl Timers {
    pub(super) fn start_drain(&mut self, draining: Draining) {
        self.draining.get_or_insert(draining);
    }

    pub(super) const fn stop(&mut self) {
        self.stop = true;
    }

    pub(super) const fn stopped(&self) -> bool {
        self.stop
    }

    pub(super) const fn draining(&self) -> Option<&Draining> {
        self.draining.as_ref()
    }

    pub(super) const fn draining_mut(&mut self) -> Option<&mut Draining> {
        self.draining.as_mut()
    }
}

impl<R: Ring> Shard<R> {
    /// The interval at which turns are needed even if nothing arrives.
    pub(super) fn tick_period(&self) -> Duration {
        if self.plane.throttling() {
            UNITS_TICK
        } else if self.draining() || !self.subscribers.cut_off.is_empty() {
            CLOSES_TICK
        } else if self.plane.slots_used() > SWEEP_AT_ONCE || self.headroom() != Headroom::Enough {
            TICK
        } else {
            SWEEP
        }
    }

    /// Does the timed work that is due, if a tick has passed.
    pub(super) fn tick(&mut self) {
        self.close_some();
        self.subscribers.close_cut_off(&mut self.plane);
        let now = self.subscribers.now;
        let elapsed = now.since(self.timers.ticked);
        if elapsed < TICK {
            return;
        }
        self.timers.ticked = now;
        self.homes.tick(&self.subscribers.apps, now, &mut self.subscribers.link);
        self.relieve();
        self.sweep(elapsed);
        self.trim_after_burst();
    }

    /// Looks at the part of the connections that is due after `elapsed`.
    fn sweep(&mut self, elapsed: Duration) {
        let Self { plane, subscribers, timers, .. } = self;
        let slots = plane.slots_used();
        let due = u128::from(slots) * elapsed.min(SWEEP).as_millis() / SWEEP.as_millis();
        let due = u32::try_from(due).map_or(slots, |due| (due + 1).min(slots));
        let mut closings = 0;
        for _ in 0..due {
            let slot = timers.cursor;
            timers.cursor = if slot + 1 < slots { slot + 1 } else { 0 };
            if let Some(key) = plane.key_of(slot) {
                if closings < CLOSINGS_PER_TICK && subscribers.evict(plane, key) {
                    closings += 1;
                } else {
                    subscribers.check_liveness(plane, key);
                    subscribers.check_authentication(plane, key);
                }
            }
        }
    }

    fn trim_after_burst(&mut self) {
        let (plane, now) = (&self.plane, self.subscribers.now);
        let held = Held {
            opened: plane.counters().opened,
            open: plane.open_connections(),
            backlog: plane.backlog_bytes(),
            homes: self.homes.channels(),
            spillings: self.subscribers.link.port.spillings(),
        };
        if self.timers.trims.is_due(now, held) {
            self.trim();
            memory::give_back();
        }
    }
}

impl SubscriberSide {
    /// Closes a connection whose app is switched off or gone (4003). Returns whether it did.
    fn evict<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) -> bool {
        let evicted = self.session(key).is_some_and(|(_, app)| !app.rules.is_enabled());
        if evicted {
            self.note_ending(key, ClosedWebSocket::Disabled);
            self.end(plane, key, ProtocolError::AppDisabled);
        }
        evicted
    }

    /// Pings a connection that has been silent for its app's ping interval, and closes one that did
    /// not answer (4201). This holds for every connection, subscribed or not. Any bytes count as an
    /// answer: a pong of either kind, or a message.
    fn check_liveness<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        let (now, idle) = (self.now, plane.idle(key));
        let Some((open, app)) = self.session(key) else { return };
        let (interval, timeout) = (app.ping_interval, app.pong_timeout);
        match open.pinged.map(Millis::from) {
            // The time of the last bytes is exact to a tick only, so bytes of the ping's own tick
            // count as an answer.
            Some(pinged) if idle < now.since(pinged) + TICK => open.pinged = None,
            Some(pinged) if now.since(pinged) >= timeout => {
                self.end(plane, key, ProtocolError::PongTimeout);
            }
            Some(_) => {}
            None if idle >= interval => {
                open.pinged = Some(now.into());
                let socket_id = open.session.socket_id();
                debug!(%socket_id, "ping");
                plane.owe(key, &outbound::ping());
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_burst_left_is_given_back_twice_and_then_no_more() {
        let mut trims = TrimSchedule::default();
        let due: Vec<u64> = (0..200)
            .map(|tick| tick * 100)
            .filter(|&ms| {
                let connections = if ms < 5000 { ms / 1000 } else { 5 };
                trims.is_due(Millis(ms), Held { opened: connections, ..Held::default() })
            })
            .collect();
        assert_eq!(due, [2000, 4000, 6000, 8000]);
    }
}
