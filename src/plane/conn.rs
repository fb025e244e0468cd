//! The record of one connection. One per slot, and most of a shard's memory: keep it small.

use crate::memory::Chunked;
use crate::time::{Millis, Tick};
use crate::websocket::Reader;

use super::backlog::Backlog;

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

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    /// Counts the users of the slot; written when the slot is released.
    pub generation: u32,
    pub phase: Phase,
    /// A receive is queued or armed.
    pub receiving: bool,
    /// A waiting send is queued or on its way.
    pub sending: bool,
    /// The peer's Close frame is in: nothing more is to be waited for.
    pub peer_closed: bool,
    /// When bytes came last, in units of [`Tick::MS`].
    seen: u32,
    /// The turn in which it used `spent`, by a number that recurs: to be taken for another turn's
    /// does no harm.
    turn: u16,
    /// Units of work that it has used in that turn.
    spent: u16,
    /// What this turn owes: first and last node in the outbox. Of a free slot, `owed_first` is the
    /// slot that is used behind it.
    pub owed_first: u32,
    pub owed_last: u32,
    /// A frame or message that is not complete yet.
    pub reader: Reader,
    /// What the socket could not take.
    pub backlog: Option<Box<Backlog>>,
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
            peer_closed: false,
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

    pub(super) fn touch(&mut self, now: Millis) {
        self.seen = u32::try_from(now.0 / Tick::MS).unwrap_or(u32::MAX);
    }

    /// Uses units of the share that it has in this turn. Returns those beyond the share: a debt.
    pub(super) fn spend(&mut self, turn: u16, units: u32, share: u16) -> u32 {
        if self.turn != turn {
            (self.turn, self.spent) = (turn, 0);
        }
        let spent = u32::from(self.spent) + units;
        self.spent = u16::try_from(spent).unwrap_or(share).min(share);
        spent - u32::from(self.spent)
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
