//! The reactions of a shard to the memory that is left ([`Headroom`]). If memory is short, the
//! shard holds less for slow readers and of cached events. If memory is nearly spent, it also
//! closes the connections that hold the most, a few per tick until it is better.

use super::Shard;
use super::client_memory::parts;
use super::subscriber_side::SubscriberSide;
use crate::id::ConnKey;
use crate::memory;
use crate::memory::Headroom;
use crate::plane::{BacklogLimits, Plane};
use crate::protocol::close::ProtocolError;
use crate::refusals::ClosedWebSocket;
use crate::ring::Ring;

/// The most cached events that a tick drops when the bounds have become smaller: a millisecond of
/// work.
const UNCACHED_PER_TICK: usize = 1000;

/// The most connections that a tick closes because memory is nearly spent. By the next tick most of
/// their subscriptions have ended, and the control thread has looked again several times.
const CLOSED_PER_TICK: usize = 4;

/// The bytes of some 150 subscriptions. A connection that holds less is not closed, because its
/// client's return would cost more.
const HEAVY_BYTES: usize = 64 << 10;

impl SubscriberSide {
    /// Closes a connection whose unfinished message has no room beside those of all others.
    pub(super) fn refuse_unfinished<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        self.note_ending(key, ClosedWebSocket::Unfinished { most: self.memory.unfinished() });
        self.end(plane, key, ProtocolError::OverCapacity);
    }

    /// Closes the connections that hold the most, and tells them to come back later.
    fn close_heaviest<R: Ring>(&mut self, plane: &mut Plane<R>) {
        let mut heaviest: Vec<(usize, ConnKey)> = Vec::with_capacity(CLOSED_PER_TICK + 1);
        for key in plane.keys() {
            let bytes = self.local.held(key.slot) + self.users.held(key.slot);
            let lightest = heaviest.last().filter(|_| heaviest.len() == CLOSED_PER_TICK);
            if bytes < HEAVY_BYTES || lightest.is_some_and(|&(lightest, _)| bytes <= lightest) {
                continue;
            }
            let at = heaviest.partition_point(|&(other, _)| other >= bytes);
            heaviest.insert(at, (bytes, key));
            heaviest.truncate(CLOSED_PER_TICK);
        }
        for (bytes, key) in heaviest {
            let subscriptions = self.local.count(key.slot);
            self.note_ending(key, ClosedWebSocket::Memory { subscriptions, bytes });
            self.end(plane, key, ProtocolError::OverCapacity);
        }
    }
}

impl<R: Ring> Shard<R> {
    /// Takes over the control thread's report of how much memory is left.
    pub(super) fn see_headroom(&mut self, headroom: Headroom) {
        self.subscribers.memory.set_headroom(headroom);
        self.homes.bound_cache(self.subscribers.memory.cache());
        self.bound_backlogs();
    }

    /// Sets the plane's bounds on backlogs by the memory that is left. With a smaller bound, the
    /// slowest readers are closed at the end of the turn.
    pub(super) fn bound_backlogs(&mut self) {
        let shard = self.backlog.shard / parts(self.subscribers.memory.headroom());
        self.plane.limit_backlogs(BacklogLimits { shard, ..self.backlog });
    }

    /// Shrinks the memory that was taken on earlier, if memory is short. Called at each tick.
    pub(super) fn relieve(&mut self) {
        let headroom = self.subscribers.memory.headroom();
        if headroom == Headroom::Enough {
            return;
        }
        self.homes.shrink_cache(UNCACHED_PER_TICK);
        if headroom == Headroom::Spent {
            self.subscribers.close_heaviest(&mut self.plane);
            // The memory of the last ones has to be returned to the system before the next look, or
            // more connections would be closed than necessary.
            self.trim();
            memory::give_back();
        }
    }
}
