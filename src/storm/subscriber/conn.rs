//! The record of one connection.

use std::collections::VecDeque;

use bytes::Bytes;
use ringwave_ring::ConnKey;

use crate::clock::NS_PER_S;

/// The phase of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is not open.
    #[default]
    Free,
    /// The response to the upgrade has not come.
    Upgrading,
    /// `connection_established` has not come.
    Greeting,
    /// `subscription_succeeded` has not come.
    Subscribing,
    /// It is subscribed, so everything that is published has to arrive.
    Subscribed,
    /// It leaves because the scenario says so, and may come back.
    Leaving,
    /// It was subscribed, and the server or the network ended it.
    Cut,
    /// It was cut, or its handshake failed, and it connects to the next address.
    MovingOn,
    /// Its handshake did not lead to a subscription.
    Failed,
}

impl Phase {
    /// Whether its handshake is under way.
    pub(super) const fn is_opening(self) -> bool {
        matches!(self, Self::Upgrading | Self::Greeting | Self::Subscribing)
    }

    /// Whether it ends or has ended, so that its messages do not count any more.
    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::Leaving | Self::Cut | Self::MovingOn | Self::Failed)
    }
}

/// The record of one connection. One that returns is a new generation of the same record.
#[derive(Debug, Default)]
pub(super) struct SubscriberConn {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// Its turn on the addresses of the server, counted from the first one that it had.
    pub(super) turn: u32,
    /// The handshakes that have failed since the last subscription.
    pub(super) failures: u32,
    /// The number of times that it was cut.
    pub(super) cuts: u32,
    /// It was cut, and is not subscribed again yet.
    pub(super) away: bool,
    /// It stops reading while the scenario runs.
    pub(super) slow: bool,
    /// A receive is pending.
    pub(super) receiving: bool,
    /// Its socket has left its slot.
    pub(super) released: bool,
    /// A send is pending.
    pub(super) sending: bool,
    /// The tick at which bytes arrived last or a ping was sent.
    pub(super) heard: u32,
    /// The time at which it was meant to be opened; once it leaves, the time at which it left.
    pub(super) since_ns: u64,
    /// The beginning of a frame, or of the response to the upgrade, whose rest has not arrived.
    pub(super) partial: Vec<u8>,
    /// The bytes to send after the pending send. There are rarely any.
    pub(super) unsent: VecDeque<Bytes>,
}

impl SubscriberConn {
    /// The key of this generation of a slot.
    pub(super) const fn key(&self, slot: u32) -> ConnKey {
        ConnKey { slot, generation: self.generation }
    }
}

/// A tick of [`SubscriberConn::heard`].
pub(super) const HEARD_NS: u64 = NS_PER_S / 8;

/// The time in ticks of [`SubscriberConn::heard`].
pub(super) const fn ticks(ns: u64) -> u32 {
    (ns / HEARD_NS) as u32
}
