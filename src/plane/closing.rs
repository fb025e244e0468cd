//! The end of the TCP stream below a connection that closes (RFC 6455 section 7.1.1).
//!
//! The server ends it first, and at once if both Close frames have been sent and nothing followed
//! the peer's. Otherwise the peer may be in the middle of sending, and a socket that is closed with
//! bytes unread, or gets some afterwards, resets the connection (RFC 2525 section 2.17): the reset
//! can destroy our Close frame in the peer's socket before it was read. So only the sending
//! direction ends behind the Close frame, and the bytes that still come are discarded until the
//! peer ends its own direction. The close timeout and [`DISCARDED_KIB_MAX`] bound that.

use crate::id::ConnKey;
use crate::ring::{Completion, Ring};

use super::conn::{Incoming, NOTHING, Phase};
use super::{Ended, Plane};

/// The most KiB that are discarded of one connection. A client that sends a message over the limit
/// reads our Close frame only after it has written all of that message: 4 MiB are 400 times the
/// usual limit, and take milliseconds to discard.
const DISCARDED_KIB_MAX: u16 = 4 * 1024;

impl<R: Ring> Plane<R> {
    /// Ends a closing connection once it has got everything that it was owed: both directions if
    /// the peer's Close frame has come, or only the sending direction if the peer's bytes are
    /// discarded.
    pub(super) fn end_when_sent(&mut self, key: ConnKey) {
        let Some(conn) = self.conn_mut(key).filter(|conn| conn.phase == Phase::Closing) else {
            return;
        };
        if conn.owed_first != NOTHING || conn.backlog.is_some() {
            return;
        }
        match conn.incoming {
            Incoming::Closed => self.kill(key, Ended::PeerClosed),
            Incoming::Discarded => {
                conn.incoming = Incoming::DiscardedToTheEnd;
                self.to_half_close.push_back(key);
            }
            Incoming::Frames | Incoming::DiscardedToTheEnd => {}
        }
    }

    /// Discards all further bytes of a closing connection, because they are no longer valid frames.
    pub(super) fn discard_from_now_on(&mut self, key: ConnKey) {
        let Some(conn) = self.conn_mut(key).filter(|conn| conn.phase == Phase::Closing) else {
            return;
        };
        if matches!(conn.incoming, Incoming::Frames | Incoming::Closed) {
            conn.incoming = Incoming::Discarded;
            let unfinished = std::mem::take(&mut conn.reader).held();
            self.unfinished_bytes -= unfinished;
            self.end_when_sent(key);
        }
    }

    /// Returns whether these incoming bytes are discarded. They are counted, and the connection
    /// ends when there are too many of them.
    pub(super) fn discards(&mut self, key: ConnKey, len: usize) -> bool {
        let Some(conn) = self.conn(key).filter(|conn| conn.phase == Phase::Closing) else {
            return false;
        };
        if conn.incoming == Incoming::Frames {
            return false;
        }
        // Nothing may follow the peer's Close frame either. If something does, more of it may come.
        self.discard_from_now_on(key);
        let kib = u16::try_from(len.div_ceil(1024)).unwrap_or(u16::MAX);
        // The connection may have ended already, because it got what it was owed.
        if self.conn(key).is_some_and(|conn| conn.phase == Phase::Closing) {
            let discarded = self.discarded_kib.entry(key.slot).or_default();
            *discarded = discarded.saturating_add(kib);
            if *discarded > DISCARDED_KIB_MAX {
                self.kill(key, Ended::Ours);
            }
        }
        true
    }

    /// Queues the half-closes. Returns `false` if the kernel took nothing.
    pub(super) fn start_half_closes(&mut self) -> bool {
        while let Some(&key) = self.to_half_close.front() {
            if !self.conn(key).is_some_and(|conn| conn.phase == Phase::Closing) {
                self.to_half_close.pop_front();
            } else if self.ring.half_close(key).is_ok() {
                self.conns[key.slot as usize].half_closing = true;
                self.to_half_close.pop_front();
            } else if !self.submit() {
                return false;
            }
        }
        true
    }

    /// Handles the end of a half-close. If it failed, the connection is broken, which the receive
    /// reports.
    pub(super) fn half_closed(&mut self, completion: &Completion) {
        let key = completion.key;
        let Some(conn) = self.conn_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        conn.half_closing = false;
        self.operation_ended(key.slot);
    }
}
