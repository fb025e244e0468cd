//! The memory that clients make the process hold, and how much of it is left.
//!
//! Contract: code that makes the process hold more for a client asks [`ClientMemory::takes_on`]
//! first, and refuses the client with 4100 if that says no. It says no while the control thread
//! reports that memory is short, and between two reports as soon as the free memory is used up.

use crate::channels::{CacheBounds, ChannelKey, subscription_bytes};
use crate::memory::{Headroom, Lease};
use crate::protocol::auth::{Authorised, Member};
use crate::time::Millis;

/// The memory that clients may still make the process hold.
#[derive(Debug)]
pub(super) struct ClientMemory {
    /// The shard's part of the memory, set at the start.
    part: Memory,
    /// The memory that is left, as the control thread last reported it.
    headroom: Headroom,
}

impl ClientMemory {
    pub(super) const fn new(part: Memory) -> Self {
        Self { part, headroom: Headroom::Enough }
    }

    /// Charges `bytes` that are to be held for a client. Returns `false`, and charges nothing, if
    /// there is no room for them.
    pub(super) fn takes_on(&mut self, bytes: usize, now: Millis) -> bool {
        self.headroom == Headroom::Enough && self.part.lease.charge(bytes, now.0)
    }

    pub(super) const fn headroom(&self) -> Headroom {
        self.headroom
    }

    /// Sets the memory that is left.
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

/// Bytes that a subscribe takes besides the subscription until it is answered: its messages between
/// two shards, and the answer with the kernel's copy of it. Each holds the channel's name as well.
const ANSWER_BYTES: usize = 512;

/// Bytes of a user that is signed in or watched: its records on this shard and at its home, with
/// the keys.
const USER_BYTES: usize = 256;

/// Bytes that a new subscription is charged with.
pub(super) fn subscription_charge(channel: &ChannelKey, authorised: &Authorised) -> usize {
    let name = channel.name().len();
    let member = authorised.member().map(|member| &**member);
    // A single frame tells the other members of a presence channel about a new one.
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
    /// The lease that is charged for the memory that clients make the process hold.
    pub(crate) lease: Lease,
    /// Bounds on cached events while there is enough memory.
    pub(crate) cache: CacheBounds,
    /// The most bytes of unfinished messages, over all connections.
    pub(crate) unfinished: usize,
}

impl Default for Memory {
    /// Bounds without a limit of memory.
    fn default() -> Self {
        Self { lease: Lease::default(), cache: CACHE_BOUNDS, unfinished: UNFINISHED_BYTES_MAX }
    }
}

/// The bytes of unfinished messages per shard if memory allows: as much as for slow readers.
pub(crate) const UNFINISHED_BYTES_MAX: usize = 64 << 20;

/// Cached last events per home shard: enough for every channel of a large app, and a bound on what
/// publishing to ever new names can hold. Apps share it fairly.
pub(crate) const CACHE_BOUNDS: CacheBounds = CacheBounds { events: 100_000, bytes: 64 << 20 };
