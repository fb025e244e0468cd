//! The reactions of a shard to the memory that is left ([`Headroom`]), for everything that clients
//! make it hold.
//!
//! Contract: code that makes the process hold more for a client asks [`Core::takes_on`] first, and
//! refuses the client with 4100 if that says no. It says no while the control thread says that
//! memory is short, and between two of its looks as soon as the free memory is used up. Memory that
//! was taken earlier shrinks: less is held for slow readers and of cached events, and when memory
//! is nearly spent, the connections that hold the most are closed, a few per tick until it is
//! better.

use super::{Core, Shard};
use crate::channels::{CacheBounds, ChannelKey, subscription_bytes};
use crate::front::gateway::Headroom;
use crate::id::ConnKey;
use crate::memory;
use crate::plane::{BacklogLimits, Plane};
use crate::protocol::auth::Member;
use crate::protocol::close::{ProtocolError, error_frame, subscribe_refusal};
use crate::refusals::{About, Ending};
use crate::ring::Ring;

/// Cached events that a tick drops when the bounds have become smaller: work of a millisecond.
const UNCACHED_PER_TICK: usize = 1000;

/// Connections that a tick closes because memory is nearly spent: most of their subscriptions have
/// ended by the next tick, and the control thread has looked again several times.
const CLOSED_PER_TICK: usize = 4;

/// The bytes of some 150 subscriptions. A connection that holds less is not closed, because its
/// client's return would cost more.
const HEAVY_BYTES: usize = 64 << 10;

/// Memory that a subscribe takes beside the subscription until it is answered: its messages between
/// two shards, and the answer, of which the kernel has a copy, each with the channel's name.
const ANSWER_BYTES: usize = 512;

/// Memory of a user that is signed in or watched: its records on this shard and at its home, with
/// the keys.
const USER_BYTES: usize = 256;

/// Bytes that a new subscription is charged with.
pub(super) fn subscription_charge(channel: &ChannelKey, member: Option<&Member>) -> usize {
    let name = channel.name().len();
    // The other members of a presence channel are told of a new one by a single frame.
    let told = member.map_or(0, Member::text_bytes);
    subscription_bytes(name, member) + ANSWER_BYTES + 2 * name + told
}

/// Bytes that a sign-in is charged with.
pub(super) fn sign_in_charge<'a>(user: &Member, watched: impl Iterator<Item = &'a str>) -> usize {
    let watched = watched.map(|id| USER_BYTES + id.len());
    ANSWER_BYTES + USER_BYTES + 2 * user.text_bytes() + watched.sum::<usize>()
}

impl Core {
    /// Whether so many more bytes may be held for a client. If so, they are charged.
    pub(super) fn takes_on(&mut self, bytes: usize) -> bool {
        self.headroom == Headroom::Enough && self.memory.lease.charge(bytes, self.now.0)
    }

    /// Tells a connection that memory is too short for its subscription.
    pub(super) fn refuse_subscription<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        key: ConnKey,
        channel: &ChannelKey,
    ) {
        let also_on_channel = self.occupant(key).is_some_and(|(_, app)| app.subscription_errors);
        let error = ProtocolError::MemoryShort;
        self.note_message(key, error, About::Channel(channel.name()));
        plane.owe(key, &subscribe_refusal(error, channel.name(), also_on_channel));
    }

    /// Tells a connection that memory is too short for its sign-in. Its signature was good, so it
    /// has shown that the app knows it.
    pub(super) fn refuse_sign_in<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        self.authenticated(key.slot);
        self.note_message(key, ProtocolError::MemoryShort, About::SignIn);
        plane.owe(key, &error_frame(ProtocolError::MemoryShort));
    }

    /// Closes a connection whose unfinished message has no room beside those of all others.
    pub(super) fn refuse_unfinished<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        self.note_ending(key, Ending::Unfinished { most: self.memory.unfinished });
        self.end(plane, key, ProtocolError::OverCapacity);
    }

    /// Takes note of how much memory is left.
    pub(super) fn see_headroom<R: Ring>(&mut self, plane: &mut Plane<R>, headroom: Headroom) {
        self.headroom = headroom;
        self.homes.bound_cache(self.memory.cache.divided_by(parts(headroom)));
        self.bound_backlogs(plane);
    }

    /// With less memory, less is held for slow readers: the slowest are closed at the end of the
    /// turn.
    pub(super) fn bound_backlogs<R: Ring>(&self, plane: &mut Plane<R>) {
        let shard = self.backlog.shard / parts(self.headroom);
        plane.limit_backlogs(BacklogLimits { shard, ..self.backlog });
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
            self.note_ending(key, Ending::Memory { subscriptions, bytes });
            self.end(plane, key, ProtocolError::OverCapacity);
        }
    }
}

impl<R: Ring> Shard<R> {
    /// At each tick: shrinks what was taken on earlier, as far as memory asks for it.
    pub(super) fn relieve(&mut self) {
        if self.core.headroom == Headroom::Enough {
            return;
        }
        self.core.homes.shrink_cache(UNCACHED_PER_TICK);
        if self.core.headroom == Headroom::Spent {
            self.core.close_heaviest(&mut self.plane);
            // The memory of the last ones has to be returned to the system before the next look, or
            // more connections would be closed than necessary.
            self.trim();
            memory::give_back();
        }
    }
}

/// The divisor of the bounds on slow readers and cached events.
const fn parts(headroom: Headroom) -> usize {
    match headroom {
        Headroom::Enough => 1,
        Headroom::Short => 4,
        Headroom::Spent => 16,
    }
}

/// A shard's part of the memory that the process may take.
#[derive(Debug)]
pub struct Memory {
    /// The lease that is charged with what is taken on for clients.
    pub(crate) lease: memory::Lease,
    /// Bounds on cached events while there is enough memory.
    pub(crate) cache: CacheBounds,
    /// Most bytes of messages of which not all has come, over all connections.
    pub(crate) unfinished: usize,
}

impl Default for Memory {
    /// Bounds without a limit of memory.
    fn default() -> Self {
        Self {
            lease: memory::Lease::default(),
            cache: CACHE_BOUNDS,
            unfinished: UNFINISHED_BYTES_MAX,
        }
    }
}

/// Bytes of unfinished messages per shard, where memory allows it: as much as for slow readers.
pub(crate) const UNFINISHED_BYTES_MAX: usize = 64 << 20;

/// Cached last events per home shard: enough for every channel of a large app, and a bound on what
/// publishing to ever new names can hold. Apps share it fairly.
pub(crate) const CACHE_BOUNDS: CacheBounds = CacheBounds { events: 100_000, bytes: 64 << 20 };
