//! Bytes that arrived: from a buffer of the ring to messages for the host.

use std::ops::ControlFlow;

use crate::frame::Frame;
use crate::id::ConnKey;
use crate::ring::{Completion, Ring};
use crate::websocket::{Message, encode};

use super::conn::Phase;
use super::{Ended, Host, Plane};

impl<R: Ring> Plane<R> {
    /// One step of a receive. The buffer goes back to the kernel before the next one is handled.
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
        if let Some(mut buffer) = buffer {
            self.read(key, buffer.as_mut(), host);
            self.ring.give_back(buffer);
        }
        self.receive_ended(&completion);
    }

    /// The result of a receive apart from its bytes. Only the absence of `more` ends it: it can end
    /// under a full completion queue with bytes and without an error.
    pub(super) fn receive_ended(&mut self, completion: &Completion) {
        let key = completion.key;
        if completion.more {
            return;
        }
        if let Some(conn) = self.conn_mut(key) {
            conn.receiving = false;
        }
        if self.operation_ended(key.slot) {
            return;
        }
        match -completion.result {
            // No bytes and no error: the peer ended the stream.
            0 => self.kill(key, Ended::PeerLeft),
            // A positive result: bytes.
            ..0 => self.receive_again(key),
            // No buffer was free; all of this turn's are back when it is armed again.
            libc::ENOBUFS
            // Transient, under memory pressure or a starved CPU (axboe/liburing#1601).
            | libc::EAGAIN | libc::EINTR | libc::ENOMEM
            // Our own hang-up; of a live connection it can only be a late one of its predecessor.
            | libc::ECANCELED => self.receive_again(key),
            errno => self.kill(key, Ended::Failed(errno)),
        }
    }

    fn receive_again(&mut self, key: ConnKey) {
        if self.conn(key).is_some_and(|conn| matches!(conn.phase, Phase::Open | Phase::Closing)) {
            self.counters.rearmed += 1;
            self.to_receive.push_back(key);
        }
    }

    /// Reads messages from bytes that belong to one connection.
    pub(super) fn read(&mut self, key: ConnKey, bytes: &mut [u8], host: &mut impl Host<R>) {
        let now = self.now;
        let limits = host.read_limits(key);
        let Some(conn) = self.conn_mut(key) else { return };
        if conn.phase == Phase::Dead {
            return;
        }
        conn.touch(now);
        let mut reader = std::mem::take(&mut conn.reader);
        let read = reader.read(bytes, &limits, |message| {
            self.arrived(key, message, host);
            let conn = self.conn(key);
            let goes_on = conn.is_some_and(|conn| conn.phase != Phase::Dead && !conn.peer_closed);
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if let Some(conn) = self.conn_mut(key).filter(|conn| conn.phase != Phase::Dead) {
            conn.reader = reader;
        }
        if let Err(violation) = read {
            let close = encode::close(violation.code, violation.reason);
            // One that was closing already is heard no more: it has its Close frame, and time to
            // read what it is owed before that.
            self.close(key, &close, Ended::Violation(violation.code));
        }
    }

    fn arrived(&mut self, key: ConnKey, message: Message<'_>, host: &mut impl Host<R>) {
        match message {
            Message::Text(_) | Message::Binary(_) => {
                if self.is_open(key) {
                    host.message(self, key, message);
                }
            }
            Message::Ping(payload) => self.owe(key, &encode::pong(payload)),
            // An answer to our ping: that bytes came is all that counts.
            Message::Pong(_) => {}
            Message::Close(close) => {
                let answer: Frame =
                    close.map_or_else(encode::close_empty, |close| encode::close(close.code, ""));
                self.peer_closed(key, &answer);
            }
        }
    }

    /// The peer's Close frame: the answer to ours, or the first, which is answered.
    fn peer_closed(&mut self, key: ConnKey, answer: &Frame) {
        self.close(key, answer, Ended::PeerClosed);
        if let Some(conn) = self.conn_mut(key) {
            conn.peer_closed = true;
        }
        self.end_when_sent(key);
    }
}
