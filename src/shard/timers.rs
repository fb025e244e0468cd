//! The events that time causes: pings, their deadlines, connections that never show a signature,
//! cached events that expire, numbers of subscribers that pause.
//!
//! Connections are not kept in timer lists: a sweep looks at each once per second, which spreads
//! pings and costs no memory. A shard with many of them looks at a tenth per tick; one with few
//! wakes for it once per second only.

use std::time::Duration;

use tracing::debug;

use super::Shard;
use super::drain::{DRAIN_TICK, Draining};
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

/// How often a shard looks at its clock at most.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The interval of turns for throttled connections: as fine as the shard's clock.
const UNITS_TICK: Duration = Duration::from_millis(1);

/// Time in which the sweep sees every connection once.
const SWEEP: Duration = Duration::from_secs(1);

/// Connections that one tick may look at (tens of microseconds). With no more than these, a shard
/// ticks once per sweep.
const SWEEP_AT_ONCE: u32 = 1024;

/// Connections that a tick closes because their app is gone: work of a few milliseconds, which the
/// connections of other apps wait for. The clients do not return, so there is no hurry.
const CLOSINGS_PER_TICK: u32 = 1000;

/// The timers of one shard.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// The time of the last tick.
    ticked: Millis,
    /// The next slot of the sweep.
    cursor: u32,
    trims: TrimSchedule,
    draining: Option<Draining>,
    /// The shard is to end.
    stop: bool,
}

/// Tells when the memory that a burst left is to be given back: a shard that does nothing more
/// would hold it for good.
#[derive(Debug, Default)]
struct TrimSchedule {
    /// The time of the last one.
    done: Millis,
    /// The figures of the shard at that time.
    held: Held,
    /// How many more are to follow although nothing changes.
    again: u32,
}

/// The figures that change with a burst, on whichever shard it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// Connections that ever came.
    opened: u64,
    /// Those that are open.
    open: usize,
    /// Bytes that wait for slow readers.
    backlog: usize,
    /// Channels at home here, whose subscribers may all be on other shards.
    homes: usize,
    /// Messages that ever waited for room in a mailbox.
    spillings: u64,
}

/// How often a shard looks whether there is something to give back. Longer than the allocator keeps
/// what was freed.
const TRIM_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Once for what the lists held, once more for what the allocator has kept of it meanwhile.
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
    /// How often a turn is needed by time alone.
    pub(super) fn tick_period(&self) -> Duration {
        if self.plane.throttling() {
            UNITS_TICK
        } else if self.draining() {
            DRAIN_TICK
        } else if self.plane.slots_used() > SWEEP_AT_ONCE || self.headroom() != Headroom::Enough {
            TICK
        } else {
            SWEEP
        }
    }

    /// Does what is due, if a tick has passed.
    pub(super) fn tick(&mut self) {
        self.close_some();
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

    /// Looks at the part of the connections that is due after this time.
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
    /// Closes a connection whose app is switched off or gone (4003). Whether it was one.
    fn evict<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) -> bool {
        let evicted = self.session(key).is_some_and(|(_, app)| !app.rules.is_enabled());
        if evicted {
            self.note_ending(key, ClosedWebSocket::Disabled);
            self.end(plane, key, ProtocolError::AppDisabled);
        }
        evicted
    }

    /// Pings a connection that has been silent for its app's ping interval, and closes one that did
    /// not answer (4201). Every connection, subscribed or not. Any bytes are an answer: a pong of
    /// either kind, or a message.
    fn check_liveness<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        let (now, idle) = (self.now, plane.idle(key));
        let Some((open, app)) = self.session(key) else { return };
        let (interval, timeout) = (app.ping_interval, app.pong_timeout);
        match open.pinged.map(Millis::from) {
            // The time of the last bytes is known to a tick: those of the ping's own tick count.
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
