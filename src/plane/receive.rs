//! The receiving side: from bytes in a buffer of the ring to messages for the host.

use std::ops::ControlFlow;

use crate::frame::Frame;
use crate::id::ConnKey;
use crate::ring::{Completion, Ring};
use crate::websocket::{Message, Reader, Stop};

use super::conn::{Conn, Incoming, Phase, Receiving};
use super::throttle::Due;
use super::{COMPLETIONS_PER_TURN, ENDS_PER_TURN, Ended, Host, Plane, UNITS_PER_TURN};

/// Units of work that every message costs, whatever its content.
const UNITS_PER_MESSAGE: u32 = 2;

/// The bytes that cost a unit of work. Fragments of one byte are the most expensive: some twenty of
/// them cost a unit.
const BYTES_PER_UNIT: usize = 128;

/// Receives that one submission carries: few enough for the ring to have a buffer for each, and for
/// the turn to stay within its bounds. The system call then costs each receive some 10 ns.
const RECEIVES_AT_ONCE: usize = 32;

/// Submissions of receives in a turn. Bytes that are discarded cost no units of work, so something
/// else has to bound their number.
const SUBMISSIONS_PER_TURN: usize = COMPLETIONS_PER_TURN / RECEIVES_AT_ONCE;

impl<R: Ring> Plane<R> {
    /// Handles the end of a wait. Its result does not matter: whatever the socket has, the receive
    /// tells, and if it finds nothing, the connection waits again.
    pub(super) fn became_readable(&mut self, completion: &Completion) {
        let key = completion.key;
        let Some(conn) = self.conn_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        conn.receiving = Receiving::Not;
        if !self.operation_ended(key.slot) {
            self.is_readable(key);
        }
    }

    /// Puts a WebSocket behind those that are received from.
    fn is_readable(&mut self, key: ConnKey) {
        let Some(conn) = self.conn_mut(key) else { return };
        conn.receiving = Receiving::Readable;
        self.to_receive.push_back(key);
    }

    /// Receives from the connections whose sockets are readable, one after the other, until none is
    /// left or the turn has done its share, and reads the bytes: from streams always, because a
    /// request has to be answered, if only with a refusal, and from `websockets` if they are read.
    pub(super) fn receive(&mut self, websockets: bool, host: &mut impl Host<R>) {
        for _ in 0..SUBMISSIONS_PER_TURN {
            while websockets && let Some(completion) = self.received.pop_front() {
                self.received(completion, host);
            }
            // Each receive may end a connection.
            let ends = ENDS_PER_TURN.saturating_sub(self.closed.len());
            let spent = !websockets || self.worked >= UNITS_PER_TURN;
            let most = if spent { 0 } else { RECEIVES_AT_ONCE.min(ends) };
            let reads = self.queue_reads(RECEIVES_AT_ONCE);
            if !(self.queue_receives(most) || reads) || !self.submit() {
                return;
            }
            self.reap();
        }
    }

    /// Queues receives, `most` of them at most. Returns whether there is anything to submit.
    fn queue_receives(&mut self, most: usize) -> bool {
        let mut queued = 0;
        while queued < most
            && let Some(&key) = self.to_receive.front()
        {
            if self.conn(key).is_some_and(Conn::is_to_be_received_from) {
                if self.ring.receive(key).is_err() {
                    return true;
                }
                self.conns[key.slot as usize].receiving = Receiving::Receives;
                queued += 1;
            }
            self.to_receive.pop_front();
        }
        queued > 0
    }

    /// Handles a receive. The buffer goes back to the kernel before the next one is handled.
    fn received(&mut self, completion: Completion, host: &mut impl Host<R>) {
        let key = completion.key;
        if let Some(mut buffer) = self.ring.take_buffer(&completion) {
            self.take(key, buffer.as_mut(), host);
            self.ring.give_back(buffer);
        }
        self.receive_ended(&completion);
    }

    /// Handles a receive whose bytes nobody reads.
    pub(super) fn receive_unread(&mut self, completion: &Completion) {
        if let Some(buffer) = self.ring.take_buffer(completion) {
            self.ring.give_back(buffer);
        }
        self.receive_ended(completion);
    }

    /// Handles the end of a receive, whose bytes have been taken.
    pub(super) fn receive_ended(&mut self, completion: &Completion) {
        let key = completion.key;
        let Some(conn) = self.conn_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        conn.receiving = Receiving::Not;
        if self.operation_ended(key.slot) {
            return;
        }
        match -completion.result {
            // No bytes and no error: the peer ended the stream.
            0 => self.kill(key, Ended::PeerLeft),
            // A positive result is a number of bytes.
            ..0 if completion.left && !self.throttle.holds(key) => self.is_readable(key),
            // If there is more after all, the wait ends at once.
            ..0 => self.to_wait.push_back(key),
            // There was nothing: another receive was first, or the wait ended without a reason.
            libc::EAGAIN | libc::EINTR
            // No buffer was free, or no memory. The buffers of this turn are back in the next one.
            | libc::ENOBUFS | libc::ENOMEM => {
                self.counters.fruitless += 1;
                self.to_wait.push_back(key);
            }
            errno => self.kill(key, Ended::Failed(errno)),
        }
    }

    /// Takes bytes that have come from a connection, and reads as much of them as its share of the
    /// turn allows. The rest is held.
    pub(super) fn take(&mut self, key: ConnKey, bytes: &mut [u8], host: &mut impl Host<R>) {
        if self.discards(key, bytes.len()) {
            return;
        }
        let now = self.now;
        let Some(conn) = self.conn_mut(key).filter(|conn| conn.phase != Phase::Dead) else {
            return;
        };
        conn.touch(now);
        let taken = if self.throttle.has(key) { 0 } else { self.read(key, bytes, host) };
        if taken < bytes.len() {
            self.throttle.hold(key, &bytes[taken..]);
        }
    }

    /// Reads on from connections that cause more work than their share, within the units that all
    /// of them share.
    pub(super) fn read_throttled(&mut self, host: &mut impl Host<R>) {
        if !self.throttle.begin(self.now) {
            return;
        }
        let mut idle = 0;
        while idle < self.throttle.circle()
            && let Some(key) = self.throttle.next()
        {
            let blocked = self.throttle.awaits_most(key)
                || self.conn(key).is_some_and(|conn| conn.backlog.is_some());
            match self.throttle.due(key, blocked, self.now) {
                Due::Read(mut held) => {
                    let taken = self.read(key, &mut held, host);
                    self.throttle.put_back(key, held, taken);
                    idle = 0;
                }
                Due::Paid => idle = 0,
                Due::Nothing => idle += 1,
                Due::Receive => {
                    self.go_on_receiving(key);
                    idle += 1;
                }
                // The round has one connection less.
                Due::Free => self.go_on_receiving(key),
            }
        }
    }

    /// Closes connections that do not read what they are owed, while more input is held than the
    /// bound allows. Nothing is read from such a connection until it reads, and all others would
    /// wait for that.
    pub(super) fn end_blocked_floods(&mut self) {
        while self.throttle.is_full() {
            let blocked = |key| self.conn(key).is_some_and(|conn| conn.backlog.is_some());
            let Some(key) = self.throttle.fullest(blocked) else { return };
            self.too_slow(key);
            self.throttle.remove(key);
            self.discard_from_now_on(key);
            self.go_on_receiving(key);
        }
    }

    /// Has a connection wait for more to receive, after bytes of it were held.
    fn go_on_receiving(&mut self, key: ConnKey) {
        if self.conn(key).is_some_and(|conn| conn.receiving == Receiving::Not) {
            self.to_wait.push_back(key);
        }
    }

    /// Reads messages from bytes that belong to one connection. Returns how many bytes it took: all
    /// of them, unless the connection is throttled.
    fn read(&mut self, key: ConnKey, bytes: &mut [u8], host: &mut impl Host<R>) -> usize {
        let came = bytes.len();
        let limits = host.read_limits(key);
        let Some(conn) = self.conn_mut(key).filter(|conn| conn.phase != Phase::Dead) else {
            return came;
        };
        let mut reader = std::mem::take(&mut conn.reader);
        let before = reader.held();
        self.unfinished_bytes -= before;
        let read = reader.read(bytes, &limits, |message| {
            self.arrived(key, message, host);
            self.charge(key, UNITS_PER_MESSAGE);
            let conn = self.conn(key);
            if conn.is_none_or(|of| of.phase == Phase::Dead || of.incoming != Incoming::Frames) {
                ControlFlow::Break(Stop::End)
            } else if self.throttle.pauses(key) {
                ControlFlow::Break(Stop::Pause)
            } else {
                ControlFlow::Continue(())
            }
        });
        let overrun = reader.overrun();
        let after = reader.held();
        let too_much = after > before && self.unfinished_bytes + after > self.unfinished_max;
        if too_much {
            reader = Reader::closed();
        }
        if let Some(conn) = self.conn_mut(key).filter(|conn| conn.phase != Phase::Dead) {
            conn.reader = reader;
            self.unfinished_bytes += if too_much { 0 } else { after };
            if too_much {
                host.unfinished(self, key);
                // The rest of the message is still coming.
                self.discard_from_now_on(key);
            }
        }
        let taken = read.unwrap_or(came);
        self.charge(key, u32::try_from(taken / BYTES_PER_UNIT).unwrap_or(u32::MAX));
        if overrun {
            self.discard_from_now_on(key);
        }
        if let Err(violation) = read {
            let close = Frame::close(violation.code, violation.reason);
            // A connection that was closing already has sent its Close frame.
            self.close(key, &close, Ended::Violation(violation.code));
            self.discard_from_now_on(key);
        }
        taken
    }

    fn arrived(&mut self, key: ConnKey, message: Message<'_>, host: &mut impl Host<R>) {
        match message {
            Message::Text(_) | Message::Binary(_) => {
                if self.is_open(key) {
                    host.message(self, key, message);
                }
            }
            Message::Ping(payload) => self.owe(key, &Frame::pong(payload)),
            // A pong answers our ping. It needs no handling, because any bytes count as an answer.
            Message::Pong(_) => {}
            Message::Close(close) => {
                let answer: Frame =
                    close.map_or_else(Frame::close_empty, |close| Frame::close(close.code, ""));
                self.peer_closed(key, &answer);
            }
        }
    }

    /// Handles the peer's Close frame, which answers ours, or is answered if it came first.
    fn peer_closed(&mut self, key: ConnKey, answer: &Frame) {
        self.close(key, answer, Ended::PeerClosed);
        if let Some(conn) = self.conn_mut(key) {
            conn.incoming = Incoming::Closed;
        }
        self.end_when_sent(key);
    }
}
