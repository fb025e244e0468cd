//! The receiving side: from bytes in a buffer of the ring to messages for the host.

use std::ops::ControlFlow;

use crate::frame::Frame;
use crate::id::ConnKey;
use crate::ring::{Completion, Ring};
use crate::websocket::{Message, Reader, Stop};

use super::conn::{Incoming, Phase};
use super::throttle::Due;
use super::{Ended, Host, Plane};

/// Units of work that every message costs, whatever its content.
const UNITS_PER_MESSAGE: u32 = 2;

/// The bytes that cost a unit of work. Fragments of one byte are the most expensive: some twenty of
/// them cost a unit.
const BYTES_PER_UNIT: usize = 128;

impl<R: Ring> Plane<R> {
    /// Handles one completion of a receive. The buffer goes back to the kernel before the next one
    /// is handled.
    pub(super) fn received(&mut self, completion: Completion, host: &mut impl Host<R>) {
        let buffer = self.ring.take_buffer(&completion);
        let key = completion.key;
        if self.conn(key).is_none() {
            self.counters.stale += 1;
            if let Some(buffer) = buffer {
                self.ring.give_back(buffer);
            }
            return;
        }
        if self.conn(key).is_some_and(|conn| conn.phase == Phase::Stream) {
            return self.stream_received(&completion, buffer);
        }
        if let Some(mut buffer) = buffer {
            self.take(key, buffer.as_mut(), host);
            self.ring.give_back(buffer);
        }
        if completion.more {
            if self.throttle.holds(key) && self.throttle.has_to_stop(key) {
                self.to_stop.push_back(key);
            }
        } else {
            self.receive_ended(&completion);
        }
    }

    /// Handles the end of a receive, whose bytes have been taken. Only a completion without `more`
    /// ends a receive. Under a full completion queue it may end with bytes and without an error.
    pub(super) fn receive_ended(&mut self, completion: &Completion) {
        let key = completion.key;
        if let Some(conn) = self.conn_mut(key) {
            conn.receiving = false;
        }
        if self.operation_ended(key.slot) || self.throttle.defer_end(key, completion.result) {
            return;
        }
        self.receive_result(key, completion.result);
    }

    /// Handles the end of a receive, when all that it brought has been read.
    pub(super) fn receive_result(&mut self, key: ConnKey, result: i32) {
        match -result {
            // No bytes and no error: the peer ended the stream.
            0 => self.kill(key, Ended::PeerLeft),
            // A positive result is a number of bytes.
            ..0 => self.receive_again(key),
            // No buffer was free. All buffers of this turn are back when the receive is armed
            // again.
            libc::ENOBUFS
            // Transient, under memory pressure or a starved CPU (axboe/liburing#1601).
            | libc::EAGAIN | libc::EINTR | libc::ENOMEM
            // Our own hang-up. On a live connection, it is a late one of an earlier connection in
            // the slot.
            | libc::ECANCELED => self.receive_again(key),
            errno => self.kill(key, Ended::Failed(errno)),
        }
    }

    fn receive_again(&mut self, key: ConnKey) {
        match self.conn(key).map(|conn| conn.phase) {
            Some(Phase::Open | Phase::Closing) => self.to_receive.push_back(key),
            Some(Phase::Stream) => self.to_read.push_back(key),
            Some(Phase::Free | Phase::Accepting | Phase::Dead) | None => return,
        }
        self.counters.rearmed += 1;
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
                Due::End(result) => {
                    self.receive_result(key, result);
                    idle = 0;
                }
                Due::Paid => idle = 0,
                Due::Nothing => idle += 1,
                Due::Receive => {
                    self.receive_unless_receiving(key);
                    idle += 1;
                }
                // The round has one connection less.
                Due::Free => self.receive_unless_receiving(key),
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
            self.receive_unless_receiving(key);
        }
    }

    fn receive_unless_receiving(&mut self, key: ConnKey) {
        if self.conn(key).is_some_and(|conn| !conn.receiving) {
            self.to_receive.push_back(key);
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
