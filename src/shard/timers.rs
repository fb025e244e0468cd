//! What happens by time: pings, their deadlines, cached events that expire, the closes of a drain.
//!
//! Connections are not kept in timer lists: a sweep looks at each once per second, a tenth of them
//! per tick, which spreads pings and costs no memory.

use std::time::Duration;

use tracing::debug;

use super::{Core, Shard};
use crate::id::ConnKey;
use crate::plane::{Ended, Plane};
use crate::protocol::close::{self, ProtocolError};
use crate::protocol::outbound;
use crate::ring::Ring;
use crate::time::Millis;
use crate::websocket::encode;

/// How often a shard looks at its clock.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Ticks in which the sweep sees every connection once.
const SWEEP_TICKS: u32 = 10;

/// The timers of one shard.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// When the last tick was.
    ticked: Millis,
    /// The next slot of the sweep.
    cursor: u32,
    drain: Option<Drain>,
    /// The shard is to end.
    stop: bool,
}

#[derive(Debug)]
struct Drain {
    started: Millis,
    window: Duration,
    /// Connections at the start.
    connections: usize,
    /// Connections that were closed since.
    closed: usize,
    /// The next slot to close.
    cursor: u32,
}

impl Timers {
    pub(super) fn start_drain(&mut self, now: Millis, window: Duration, connections: usize) {
        let drain = Drain { started: now, window, connections, closed: 0, cursor: 0 };
        self.drain.get_or_insert(drain);
    }

    pub(super) const fn stop(&mut self) {
        self.stop = true;
    }

    pub(super) const fn stopped(&self) -> bool {
        self.stop
    }

    pub(super) const fn draining(&self) -> bool {
        self.drain.is_some()
    }
}

impl<R: Ring> Shard<R> {
    /// Does what is due, if a tick has passed.
    pub(super) fn tick(&mut self) {
        let now = self.core.now;
        if now.since(self.core.timers.ticked) < TICK {
            return;
        }
        self.core.timers.ticked = now;
        self.core.homes.expire(now);
        self.core.sweep(&mut self.plane);
        self.core.close_some(&mut self.plane);
    }
}

impl Core {
    fn sweep<R: Ring>(&mut self, plane: &mut Plane<R>) {
        let slots = plane.slots_used();
        for _ in 0..slots.div_ceil(SWEEP_TICKS) {
            let slot = self.timers.cursor;
            self.timers.cursor = if slot + 1 < slots { slot + 1 } else { 0 };
            if let Some(key) = plane.key_of(slot) {
                self.check_liveness(plane, key);
            }
        }
    }

    /// Pings a connection that has been silent for its app's ping interval, and closes one that did
    /// not answer (4201). Every connection, subscribed or not.
    fn check_liveness<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        let (now, idle) = (self.now, plane.idle(key));
        let Some(occupant) = self.occupant(key) else { return };
        let app = occupant.session.app();
        let (interval, timeout) = (app.ping_interval, app.pong_timeout);
        match occupant.pinged {
            // The time of the last bytes is known to a tick: those of the ping's own tick count.
            Some(pinged) if idle < now.since(pinged) + TICK => occupant.pinged = None,
            Some(pinged) if now.since(pinged) >= timeout => {
                let last = close::refusal_frames(ProtocolError::PongTimeout);
                plane.close(key, &last, Ended::Ours);
            }
            Some(_) => {}
            None if idle >= interval => {
                occupant.pinged = Some(now);
                let socket_id = occupant.session.socket_id();
                debug!(%socket_id, "ping");
                if plane.uses_control_frames(key) {
                    plane.owe(key, &encode::ping(b""));
                } else {
                    plane.owe(key, &outbound::ping());
                }
            }
            None => {}
        }
    }

    /// Closes as many connections as the drain's window says are due by now.
    fn close_some<R: Ring>(&mut self, plane: &mut Plane<R>) {
        let Some(drain) = &mut self.timers.drain else { return };
        let elapsed = (self.now.since(drain.started) + TICK).as_millis();
        let window = drain.window.as_millis().max(1);
        let due = drain.connections as u128 * elapsed.min(window) / window;
        let over = elapsed >= window;
        let last = close::refusal_frames(ProtocolError::ShuttingDown);
        let slots = plane.slots_used();
        // One who connects while the drain runs is closed in its last tick.
        if over {
            drain.cursor = 0;
        }
        while drain.cursor < slots && (over || (drain.closed as u128) < due) {
            if let Some(key) = plane.key_of(drain.cursor) {
                plane.close(key, &last, Ended::Ours);
                drain.closed += 1;
            }
            drain.cursor += 1;
        }
    }
}
