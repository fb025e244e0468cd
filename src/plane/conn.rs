//! The record of one connection. There is one per slot, and they are most of a shard's memory: keep
//! it small.

use crate::memory::Chunked;
use crate::time::{Millis, Tick};
use crate::websocket::Reader;

use super::backlog::Backlog;
use super::throttle::FREE_PAIRS;

/// The phase of a connection's life: `Accepting -> Stream -> Open -> Closing -> Dead -> Free`,
/// where each but the last two can be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The slot is not in use.
    #[default]
    Free,
    /// An accept into the slot is queued or pending.
    Accepting,
    /// The connection sends and receives bytes, which are its owner's business.
    Stream,
    /// The connection sends and receives messages.
    Open,
    /// A Close frame is owed or sent; the peer may still answer it.
    Closing,
    /// The connection is over, and waits for the last completions of its operations.
    Dead,
}

/// The step in which a connection receives. The steps follow one another in a circle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Receiving {
    /// Nothing is under way: the connection is new, or has received. It waits next, unless bytes of
    /// it are held, which come first, or it is a stream whose owner has not asked for more.
    #[default]
    Not,
    /// A wait until the socket is readable is queued or pending. Streams leave it out.
    Waits,
    /// The socket is readable, and the connection is in the list of those that are received from.
    Readable,
    /// A receive is queued or pending, and its result has not been handled.
    Receives,
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
    /// The peer's bytes are discarded, and the sending direction has ended or is about to.
    DiscardedToTheEnd,
}

/// The way in which a dead connection leaves its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// It leaves in order, if the kernel, which is asked first, holds little for the peer.
    #[default]
    InOrder,
    /// It waits, because the kernel holds more. The peer has until the deadline of its close to
    /// read that.
    Waits,
    /// It leaves by a reset, which drops the bytes that the kernel holds.
    Reset,
}

/// The state of one connection, or of a free slot.
#[derive(Debug)]
pub(super) struct Conn {
    /// Counts the connections that have had the slot. Written when the slot is released.
    pub(super) generation: u32,
    /// The phase of the connection's life.
    pub(super) phase: Phase,
    /// The step in which the connection receives.
    pub(super) receiving: Receiving,
    /// Whether a send of the backlog is queued or pending.
    pub(super) sending: bool,
    /// Whether the end of the sending direction is queued or pending.
    pub(super) half_closing: bool,
    /// The meaning of incoming bytes.
    pub(super) incoming: Incoming,
    /// The way in which the connection leaves its slot once it is dead.
    pub(super) end: End,
    /// The time at which bytes came last, in units of [`Tick::MS`].
    seen: u32,
    /// The number of the turn in which `spent` was used. It wraps around, and no harm is done if
    /// two turns with the same number are confused.
    turn: u8,
    /// The pairs of units of work that the connection has used in that turn.
    spent: u8,
    /// The first node of the frames that the connection is owed in this turn, in the owed, or
    /// [`NOTHING`]. In a free slot, the next slot in the list of free ones.
    pub(super) owed_first: u32,
    /// The last node of these frames, or [`NOTHING`].
    pub(super) owed_last: u32,
    /// The reader of frames, with a frame or message that is not complete yet.
    pub(super) reader: Reader,
    /// The bytes that the socket could not take. `None` if there are none.
    pub(super) backlog: Option<Box<Backlog>>,
}

/// The end of a list: of owed frames, or of free slots.
pub(super) const NOTHING: u32 = u32::MAX;

impl Default for Conn {
    fn default() -> Self {
        Self {
            generation: 0,
            phase: Phase::Free,
            receiving: Receiving::Not,
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
    /// Starts a new connection in this slot, as a stream or a WebSocket. The generation stays.
    pub(super) fn start(&mut self, now: Millis, phase: Phase) {
        *self = Self { generation: self.generation, phase, ..Self::default() };
        self.touch(now);
    }

    /// Frees the slot, with a new generation so that no earlier completion reaches the next
    /// connection.
    pub(super) fn end(&mut self) {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::default() };
    }

    /// Whether an operation is still pending.
    pub(super) const fn is_pending(&self) -> bool {
        let receives = matches!(self.receiving, Receiving::Waits | Receiving::Receives);
        receives || self.sending || self.half_closing
    }

    /// Whether bytes can come and go, so that its socket is still of use.
    pub(super) const fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Stream | Phase::Open | Phase::Closing)
    }

    /// Whether its socket is readable, and nothing of it is being received.
    pub(super) fn is_to_be_received_from(&self) -> bool {
        self.is_alive() && self.receiving == Receiving::Readable
    }

    pub(super) fn touch(&mut self, now: Millis) {
        self.seen = u32::try_from(now.0 / Tick::MS).unwrap_or(u32::MAX);
    }

    /// Uses units of the share that the connection has in this turn, counted in pairs. Returns the
    /// units beyond the share as a debt.
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

/// The free slots as a list through their records. The one that was used last comes first.
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

    /// Adds a slot, whose record is `conn`.
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
