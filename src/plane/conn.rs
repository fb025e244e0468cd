//! The record of one connection. One per slot, and most of a shard's memory: keep it small.

use crate::memory::Chunked;
use crate::time::{Millis, Tick};
use crate::websocket::Reader;

use super::backlog::Backlog;
use super::throttle::FREE_PAIRS;

/// Where a connection is in its life. `Open -> Closing -> Dead -> Free`, or `Open -> Dead -> Free`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The slot is not in use.
    #[default]
    Free,
    /// Takes part.
    Open,
    /// A Close frame is owed or sent; the peer may still answer it.
    Closing,
    /// Waits for the last completions of its operations.
    Dead,
}

/// The kind of bytes that the peer can still send. Only a closing connection has any other kind
/// than frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Incoming {
    /// The peer sends frames.
    #[default]
    Frames,
    /// The peer's Close frame is in, so the connection ends as soon as all is sent.
    Closed,
    /// The peer's bytes are no longer frames. They are discarded, and as soon as all is sent, the
    /// sending direction ends.
    Discarded,
    /// As `Discarded`, and the end of the sending direction was asked for.
    DiscardedToTheEnd,
}

/// How a dead connection leaves its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// In order, if the kernel, which is asked first, holds little for the peer.
    #[default]
    InOrder,
    /// The kernel holds more. The peer has until the deadline of its close to read it.
    Waits,
    /// By a reset, which drops what the kernel holds.
    Reset,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    /// Counts the users of the slot; written when the slot is released.
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// A receive is queued or armed.
    pub(super) receiving: bool,
    /// A waiting send is queued or on its way.
    pub(super) sending: bool,
    /// The end of the sending direction is queued or on its way.
    pub(super) half_closing: bool,
    /// The meaning of incoming bytes.
    pub(super) incoming: Incoming,
    /// The way in which the connection leaves its slot once it is dead.
    pub(super) end: End,
    /// When bytes came last, in units of [`Tick::MS`].
    seen: u32,
    /// The turn in which it used `spent`, by a number that recurs: a mix-up of two turns with the
    /// same number does no harm.
    turn: u8,
    /// Pairs of units of work that it has used in that turn.
    spent: u8,
    /// The frames that it is owed in this turn: first and last node in the outbox. If the slot is
    /// free, `owed_first` is the slot that follows it in the list of free slots.
    pub(super) owed_first: u32,
    pub(super) owed_last: u32,
    /// A frame or message that is not complete yet.
    pub(super) reader: Reader,
    /// The bytes that the socket could not take.
    pub(super) backlog: Option<Box<Backlog>>,
}

/// The end of the list of what is owed.
pub(super) const NOTHING: u32 = u32::MAX;

impl Default for Conn {
    fn default() -> Self {
        Self {
            generation: 0,
            phase: Phase::Free,
            receiving: false,
            sending: false,
            half_closing: false,
            incoming: Incoming::Frames,
            end: End::InOrder,
            seen: 0,
            turn: 0,
            spent: 0,
            owed_first: NOTHING,
            owed_last: NOTHING,
            reader: Reader::default(),
            backlog: None,
        }
    }
}

impl Conn {
    /// A new connection in this slot; the generation stays.
    pub(super) fn start(&mut self, now: Millis) {
        *self = Self { generation: self.generation, phase: Phase::Open, ..Self::default() };
        self.touch(now);
    }

    /// The slot is free for the next one, whom earlier completions must not reach.
    pub(super) fn end(&mut self) {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::default() };
    }

    /// Whether an operation has not ended.
    pub(super) const fn is_pending(&self) -> bool {
        self.receiving || self.sending || self.half_closing
    }

    pub(super) fn touch(&mut self, now: Millis) {
        self.seen = u32::try_from(now.0 / Tick::MS).unwrap_or(u32::MAX);
    }

    /// Uses units of the share that it has in this turn, in pairs. Returns those beyond the share:
    /// a debt.
    pub(super) fn spend(&mut self, turn: u8, units: u32) -> u32 {
        if self.turn != turn {
            (self.turn, self.spent) = (turn, 0);
        }
        let spent = u32::from(self.spent) + units.div_ceil(2);
        self.spent = u8::try_from(spent).unwrap_or(FREE_PAIRS).min(FREE_PAIRS);
        (spent - u32::from(self.spent)) * 2
    }

    pub(super) fn last_seen(&self) -> Millis {
        Millis(u64::from(self.seen) * Tick::MS)
    }
}

/// Slots that are free, the one that was used last first: a list through their records.
#[derive(Debug)]
pub(super) struct FreeSlots {
    first: u32,
    len: usize,
}

impl Default for FreeSlots {
    fn default() -> Self {
        Self { first: NOTHING, len: 0 }
    }
}

impl FreeSlots {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// `conn` is the record of the slot.
    pub(super) const fn push(&mut self, slot: u32, conn: &mut Conn) {
        conn.owed_first = self.first;
        self.first = slot;
        self.len += 1;
    }

    pub(super) fn pop(&mut self, conns: &Chunked<Conn>) -> Option<u32> {
        let slot = self.first;
        self.first = conns.get(slot as usize)?.owed_first;
        self.len -= 1;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_a_small_record() {
        assert!(size_of::<Conn>() <= 40, "{} bytes", size_of::<Conn>());
    }
}
