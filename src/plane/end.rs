//! The ways in which connections leave their slots: in order, or by a reset.
//!
//! When a TCP socket is closed in order, the kernel goes on sending what its queue holds, and keeps
//! it for minutes while the peer takes nothing. So a queue that the peer will not read is dropped
//! by a reset: the queue of a connection that has not answered its Close frame in time (slow,
//! unresponsive or anything else), and the queue of a peer that has left, if it is more than the
//! kernel may keep. After Close frames of both sides the peer has until the deadline of the close
//! to read the rest.
//!
//! A dead connection whose operations have ended passes through `to_end`, where the kernel is asked
//! how much it holds, to `to_release`.

use crate::id::ConnKey;
use crate::ring::{Completion, Op, Ring};

use super::conn::{End, Incoming, Phase};
use super::{Ended, Plane};

/// Bytes that the kernel may keep for a peer after the end of its connection: the last messages
/// with a Close frame behind them, on their way. 16,384 closed sockets, the most that a kernel
/// keeps by default (`net.ipv4.tcp_max_orphans`), hold 256 MiB of it.
pub(super) const LEFT_TO_KERNEL: usize = 16 << 10;

/// The most turns of the ring that [`Plane::end_all`] takes. A hang-up, a question and a reset take
/// three, because each waits for the completions of the one before it.
const LAST_TURNS: usize = 64;

impl End {
    /// The way in which a connection leaves its slot if it ended for this reason.
    pub(super) const fn of(why: Ended) -> Self {
        match why {
            Ended::PeerClosed | Ended::PeerLeft => Self::InOrder,
            Ended::Ours | Ended::TooSlow | Ended::Violation(_) | Ended::Failed(_) => Self::Reset,
        }
    }
}

impl<R: Ring> Plane<R> {
    /// Queues the question or the reset of each connection that is about to leave. Returns `false`
    /// if the kernel took nothing.
    pub(super) fn start_ends(&mut self) -> bool {
        while let Some(&key) = self.to_end.front() {
            let resets = self.conn(key).is_some_and(|conn| conn.end == End::Reset);
            let queued = if resets { self.ring.reset(key) } else { self.ring.ask_unsent(key) };
            if queued.is_ok() {
                self.to_end.pop_front();
                if resets {
                    self.to_release.push(key.slot);
                }
            } else if !self.submit() {
                return false;
            }
        }
        true
    }

    /// Handles the kernel's answer to how much it holds for the peer of a dead connection.
    pub(super) fn handle_unsent(&mut self, completion: Completion) {
        let key = completion.key;
        let Some(conn) = self.conn_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        // If the kernel cannot answer, the connection leaves in order.
        let unsent = usize::try_from(completion.result).unwrap_or(0);
        if unsent <= LEFT_TO_KERNEL {
            self.to_release.push(key.slot);
        } else if conn.incoming == Incoming::Closed {
            conn.end = End::Waits;
        } else {
            conn.end = End::Reset;
            self.to_end.push_back(key);
        }
    }

    /// Handles a close whose deadline has passed.
    pub(super) fn close_timed_out(&mut self, key: ConnKey) {
        let Some(conn) = self.conn_mut(key) else { return };
        if conn.phase != Phase::Dead {
            return self.kill(key, Ended::Ours);
        }
        conn.incoming = Incoming::Frames;
        // The peer may have read everything by now.
        if conn.end == End::Waits {
            conn.end = End::InOrder;
            self.to_end.push_back(key);
        }
    }

    /// Ends all connections at once, because the process is about to end: those for which the
    /// kernel holds little in order, the others by a reset. Called instead of any further turn.
    pub(crate) fn end_all(&mut self) {
        self.retained_slots.clear();
        for slot in 0..self.slots_used() {
            let Some(conn) = self.conns.get(slot as usize) else { continue };
            let key = ConnKey { slot, generation: conn.generation };
            match conn.phase {
                Phase::Free => {}
                Phase::Accepting => self.to_stop_accepting.push_back(key),
                Phase::Stream => self.abort(key),
                Phase::Dead => self.close_timed_out(key),
                Phase::Open | Phase::Closing if conn.backlog.is_some() => {
                    self.kill(key, Ended::Ours);
                }
                Phase::Open | Phase::Closing => self.kill(key, Ended::PeerLeft),
            }
        }
        for _ in 0..LAST_TURNS {
            self.closed.clear();
            self.drop_stream_events();
            self.flush();
            if self.is_empty() {
                // The last closes are queued.
                self.submit();
                return;
            }
            self.reap();
            while let Some(completion) = self.received.pop_front() {
                self.receive_unread(&completion);
            }
            while let Some(completion) = self.completed.pop_front() {
                self.ended_last(completion);
            }
        }
    }

    /// Handles a completion at a time when the host takes no more messages.
    fn ended_last(&mut self, completion: Completion) {
        match completion.op {
            Op::Readable => self.became_readable(&completion),
            Op::Send => self.sent(completion),
            Op::HalfClose => self.half_closed(&completion),
            Op::AskUnsent => self.handle_unsent(completion),
            Op::Accept => {
                self.accepted(&completion);
                self.abort(completion.key);
            }
            Op::Receive | Op::SendNow | Op::HangUp | Op::Reset | Op::AcceptAll => {}
        }
    }
}
