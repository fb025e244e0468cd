//! The record of one connection.

use std::collections::VecDeque;

use bytes::Bytes;
use ringwave_ring::ConnKey;

/// The phases of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not open.
    #[default]
    Free,
    /// The answer to the upgrade is to come.
    Upgrading,
    /// `connection_established` is to come.
    Greeting,
    /// `subscription_succeeded` is to come.
    Subscribing,
    /// Everything that is published has to come.
    Subscribed,
    /// It goes because the scenario says so, and may come back.
    Leaving,
    /// It was subscribed, and the server or the network ended it.
    Cut,
    /// It never got as far as subscribed.
    Failed,
}

impl Phase {
    /// Whether the handshake is under way.
    pub(super) const fn is_opening(self) -> bool {
        matches!(self, Self::Upgrading | Self::Greeting | Self::Subscribing)
    }
}

/// One connection, in all its generations.
#[derive(Debug, Default)]
pub(super) struct Conn {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// It stops reading while the scenario runs.
    pub(super) slow: bool,
    /// A receive is pending.
    pub(super) receiving: bool,
    /// Its slot was freed.
    pub(super) released: bool,
    /// A send is pending.
    pub(super) sending: bool,
    /// Bytes came last at this tick, or a ping went.
    pub(super) heard: u32,
    /// The time at which it was meant to be opened, then the time at which it left.
    pub(super) since_ns: u64,
    /// The beginning of a frame, or of the answer to the upgrade, that was cut.
    pub(super) partial: Vec<u8>,
    /// The bytes to send after the pending send. Rarely any.
    pub(super) unsent: VecDeque<Bytes>,
}

impl Conn {
    /// The key that names this generation of a slot.
    pub(super) const fn key(&self, slot: u32) -> ConnKey {
        ConnKey { slot, generation: self.generation }
    }
}
