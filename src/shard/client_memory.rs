//! The memory that clients make the process hold, and how much of it is left.
//!
//! Contract: code that makes the process hold more for a client asks [`ClientMemory::takes_on`]
//! first, and refuses the client with 4100 if that says no. It says no while the control thread
//! says that memory is short, and between two of its looks as soon as the free memory is used up.

use crate::channels::{CacheBounds, ChannelKey, subscription_bytes};
use crate::memory::{Headroom, Lease};
use crate::protocol::auth::{Authorised, Member};
use crate::time::Millis;

/// The memory that clients may still make the process hold.
#[derive(Debug)]
pub(super) struct ClientMemory {
    /// The shard's part, as it was given at the start.
    part: Memory,
    /// How much is left, as the control thread has said.
    headroom: Headroom,
}

impl ClientMemory {
    pub(super) const fn new(part: Memory) -> Self {
        Self { part, headroom: Headroom::Enough }
    }

    /// Whether so many more bytes may be held for a client. If so, they are charged.
    pub(super) fn takes_on(&mut self, bytes: usize, now: Millis) -> bool {
        self.headroom == Headroom::Enough && self.part.lease.charge(bytes, now.0)
    }

    pub(super) const fn headroom(&self) -> Headroom {
        self.headroom
    }

    /// Takes note of how much is left.
    pub(super) const fn set_headroom(&mut self, headroom: Headroom) {
        self.headroom = headroom;
    }

    /// The bounds on cached events as they are now.
    pub(super) const fn cache(&self) -> CacheBounds {
        self.part.cache.divided_by(parts(self.headroom))
    }

    /// The bound on unfinished messages.
    pub(super) const fn unfinished(&self) -> usize {
        self.part.unfinished
    }
}

/// Memory that a subscribe takes beside the subscription until it is answered: its messages between
/// two shards, and the answer, of which the kernel has a copy, each with the channel's name.
const ANSWER_BYTES: usize = 512;

/// Memory of a user that is signed in or watched: its records on this shard and at its home, with
/// the keys.
const USER_BYTES: usize = 256;

/// Bytes that a new subscription is charged with.
pub(super) fn subscription_charge(channel: &ChannelKey, authorised: &Authorised) -> usize {
    let name = channel.name().len();
    let member = authorised.member().map(|member| &**member);
    // The other members of a presence channel are told of a new one by a single frame.
    let told = member.map_or(0, Member::text_bytes);
    subscription_bytes(name, member) + ANSWER_BYTES + 2 * name + told
}

/// Bytes that a sign-in is charged with.
pub(super) fn sign_in_charge<'a>(user: &Member, watched: impl Iterator<Item = &'a str>) -> usize {
    let watched = watched.map(|id| USER_BYTES + id.len());
    ANSWER_BYTES + USER_BYTES + 2 * user.text_bytes() + watched.sum::<usize>()
}

/// The divisor of the bounds on slow readers and cached events.
pub(super) const fn parts(headroom: Headroom) -> usize {
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
    pub(crate) lease: Lease,
    /// Bounds on cached events while there is enough memory.
    pub(crate) cache: CacheBounds,
    /// Most bytes of messages of which not all has come, over all connections.
    pub(crate) unfinished: usize,
}

impl Default for Memory {
    /// Bounds without a limit of memory.
    fn default() -> Self {
        Self { lease: Lease::default(), cache: CACHE_BOUNDS, unfinished: UNFINISHED_BYTES_MAX }
    }
}

/// Bytes of unfinished messages per shard, where memory allows it: as much as for slow readers.
pub(crate) const UNFINISHED_BYTES_MAX: usize = 64 << 20;

/// Cached last events per home shard: enough for every channel of a large app, and a bound on what
/// publishing to ever new names can hold. Apps share it fairly.
pub(crate) const CACHE_BOUNDS: CacheBounds = CacheBounds { events: 100_000, bytes: 64 << 20 };
