//! The shard without its thread, its front and the kernel: simulations call it turn by turn, and
//! look into it.

use super::drain::Draining;
use super::{Core, Drain, Shard};
use crate::front::Command;
use crate::plane::Plane;
use crate::protocol::app::Admission;
use crate::ring::Ring;
use crate::time::Millis;

impl<R: Ring> Shard<R> {
    /// One turn. Takes at most the given commands; the rest stays.
    pub fn turn(&mut self, now: Millis, commands: &mut Vec<Command>) {
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

    /// Ends all connections.
    pub fn drain(&mut self, drain: Drain) {
        let connections = self.plane.open_connections();
        self.core.timers.start_drain(Draining::new(drain, self.core.now, connections));
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
        self.core.local.channels()
    }

    /// Users that are signed in on this shard, watched from it, or at home on it and either.
    #[must_use]
    pub fn users(&self) -> usize {
        self.core.users.len() + self.core.user_homes.len()
    }

    /// Questions of the front that wait for an answer.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.core.gathers.len()
    }

    /// Bytes that lists and tables hold, in use or not. What is as long as what was sent (names,
    /// backlogs, cached events) is not in it.
    #[must_use]
    pub fn room(&self) -> usize {
        let Core { sessions, local, homes, port, .. } = &self.core;
        self.plane.room() + sessions.room() + local.room() + homes.room() + port.room()
    }
}
