//! Access to a shard without its thread, its front and the kernel, for simulations that drive it
//! turn by turn and inspect it.

use super::Shard;
use super::served::Served;
use super::subscriber_side::SubscriberSide;
use crate::apps::Admission;
use crate::front::{Door, GatewayCommand, Opening};
use crate::plane::Plane;
use crate::ring::Ring;
use crate::time::Millis;

impl<R: Ring> Served<R> {
    /// Accepts connections that speak HTTP from this listener.
    pub fn accept_from(&mut self, listener: R::Listener) {
        self.reception.accept_from(&mut self.shard.plane, listener, Opening::Http, Door::default());
    }

    /// Has the front stop.
    pub fn stop_front(&mut self) {
        self.reception.stop();
    }

    /// The ring.
    #[must_use]
    pub const fn ring(&self) -> &R {
        self.shard.plane.ring()
    }

    /// The ring, for a simulation to change its behaviour.
    pub const fn ring_mut(&mut self) -> &mut R {
        self.shard.plane.ring_mut()
    }
}

impl<R: Ring> Shard<R> {
    /// Runs one turn, with at most the given commands; the rest stays.
    pub fn turn(&mut self, now: Millis, commands: &mut Vec<GatewayCommand>) {
        if self.begin(now) {
            self.obey(commands);
            self.end_turn();
            self.flush(Some(self.tick_period()));
        }
    }

    /// Begins a session on a socket, as behind a handshake.
    pub fn open<'a>(
        &mut self,
        socket: impl Into<R::Socket<'a>>,
        admission: Admission,
        opening: Vec<u8>,
        leftover: &[u8],
    ) {
        if let Ok(key) = self.plane.open_stream(socket) {
            self.begin_session(None, key, Some(admission), opening, leftover);
        }
    }

    /// The plane, for its counters.
    #[must_use]
    pub const fn plane(&self) -> &Plane<R> {
        &self.plane
    }

    /// The plane, for a simulation to change its ring.
    pub const fn plane_mut(&mut self) -> &mut Plane<R> {
        &mut self.plane
    }

    /// The number of channels with a subscriber on this shard.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.subscribers.local.channels()
    }

    /// The number of users that are signed in on this shard or watched from it, plus the number of
    /// users whose home it is.
    #[must_use]
    pub fn users(&self) -> usize {
        self.subscribers.users.len() + self.homes.users()
    }

    /// The number of requests of the front that wait for an answer.
    #[must_use]
    pub fn pending_requests(&self) -> usize {
        self.requests.len()
    }

    /// Bytes that lists and tables hold, in use or not. Names, backlogs and cached events are not
    /// counted, because their size depends on what was sent.
    #[must_use]
    pub fn room(&self) -> usize {
        let SubscriberSide { sessions, local, link, .. } = &self.subscribers;
        self.plane.room() + sessions.room() + local.room() + self.homes.room() + link.port.room()
    }

    /// The number of channels whose home is this shard.
    #[must_use]
    pub fn homes(&self) -> usize {
        self.homes.channels()
    }
}
