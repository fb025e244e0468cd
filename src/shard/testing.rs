//! The shard without its thread, its front and the kernel: simulations call it turn by turn, and
//! look into it.

use super::Shard;
use super::subscriber_side::SubscriberSide;
use crate::apps::Admission;
use crate::front::GatewayCommand;
use crate::plane::Plane;
use crate::ring::Ring;
use crate::time::Millis;

impl<R: Ring> Shard<R> {
    /// One turn. Takes at most the given commands; the rest stays.
    pub fn turn(&mut self, now: Millis, commands: &mut Vec<GatewayCommand>) {
        if self.take_in(now, commands) {
            self.send_out();
        }
    }

    /// Starts a session on a socket: what adopting comes to once the front is out of it.
    pub fn open<'a>(
        &mut self,
        socket: impl Into<R::Socket<'a>>,
        admission: Admission,
        opening: Vec<u8>,
        leftover: &[u8],
    ) {
        self.open_for(None, socket, Some(admission), opening, leftover);
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

    /// Channels with a subscriber on this shard.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.subscribers.local.channels()
    }

    /// Users that are signed in on this shard, watched from it, or at home on it and either.
    #[must_use]
    pub fn users(&self) -> usize {
        self.subscribers.users.len() + self.homes.users()
    }

    /// Requests of the front that wait for an answer.
    #[must_use]
    pub fn pending_requests(&self) -> usize {
        self.requests.len()
    }

    /// Bytes that lists and tables hold, in use or not. What is as long as what was sent (names,
    /// backlogs, cached events) is not in it.
    #[must_use]
    pub fn room(&self) -> usize {
        let SubscriberSide { sessions, local, link, .. } = &self.subscribers;
        self.plane.room() + sessions.room() + local.room() + self.homes.room() + link.port.room()
    }

    /// Channels whose home is this shard.
    #[must_use]
    pub fn homes(&self) -> usize {
        self.homes.channels()
    }
}
