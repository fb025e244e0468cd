//! What a slow reader has not taken yet: shared slices, no copies, bounded by its owner.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Slices below this size are joined for one send: a thousand small frames are not a thousand
/// system calls.
const JOIN_BYTES: usize = 32 * 1024;

/// The backlog of one connection.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queue: VecDeque<Bytes>,
    /// The slice that is on its way.
    in_flight: Option<Bytes>,
    /// Bytes in `queue` and `in_flight`.
    bytes: usize,
    /// Holds a Close frame already: nothing may follow it.
    sealed: bool,
}

impl Backlog {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    /// Adds bytes at the end, unless it is sealed.
    pub(super) fn push(&mut self, bytes: Bytes) -> bool {
        if !self.sealed {
            self.bytes += bytes.len();
            self.queue.push_back(bytes);
        }
        !self.sealed
    }

    /// The bytes of the next send. [`sent`](Self::sent) must follow.
    pub(super) fn start(&mut self) -> Option<Bytes> {
        let first = self.queue.pop_front()?;
        let joined = match self.queue.front() {
            Some(second) if first.len() + second.len() <= JOIN_BYTES => self.join(&first),
            _ => first,
        };
        self.in_flight = Some(joined.clone());
        Some(joined)
    }

    fn join(&mut self, first: &Bytes) -> Bytes {
        let mut joined = BytesMut::with_capacity(JOIN_BYTES.min(self.bytes));
        joined.extend_from_slice(first);
        while let Some(next) = self.queue.front() {
            if joined.len() + next.len() > JOIN_BYTES {
                break;
            }
            joined.extend_from_slice(next);
            self.queue.pop_front();
        }
        joined.freeze()
    }

    /// The send took this many bytes; what it left comes first again.
    pub(super) fn sent(&mut self, sent: usize) {
        let Some(slice) = self.in_flight.take() else { return };
        let sent = sent.min(slice.len());
        self.bytes -= sent;
        if sent < slice.len() {
            self.queue.push_front(slice.slice(sent..));
        }
    }

    /// Drops all that can be dropped without tearing a frame (all but the slice that is partly on
    /// the wire) and ends with `last`.
    pub(super) fn seal(&mut self, last: Bytes) {
        let keep = usize::from(self.in_flight.is_none());
        self.queue.truncate(keep);
        self.queue.push_back(last);
        self.sealed = true;
        let queued: usize = self.queue.iter().map(Bytes::len).sum();
        self.bytes = queued + self.in_flight.as_ref().map_or(0, Bytes::len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(backlog: &mut Backlog, step: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while let Some(slice) = backlog.start() {
            let sent = step.min(slice.len());
            taken.extend_from_slice(&slice[..sent]);
            backlog.sent(sent);
        }
        taken
    }

    #[test]
    fn bytes_leave_in_order_whatever_each_send_takes() {
        for step in [1, 2, 3, 7, 100, 100_000] {
            let mut backlog = Backlog::default();
            let mut expected = Vec::new();
            for (len, byte) in [3, 50_000, 1, 1, 40_000, 9].into_iter().zip(b'a'..) {
                backlog.push(Bytes::from(vec![byte; len]));
                expected.extend(vec![byte; len]);
            }
            assert_eq!(backlog.bytes(), expected.len());
            assert_eq!(drain(&mut backlog, step), expected, "step {step}");
            assert!(backlog.is_empty());
            assert_eq!(backlog.bytes(), 0);
        }
    }

    #[test]
    fn small_slices_share_a_send_and_large_ones_are_not_copied() {
        let mut backlog = Backlog::default();
        (0..10).for_each(|_| assert!(backlog.push(Bytes::from_static(b"frame"))));
        let large = Bytes::from(vec![0; JOIN_BYTES]);
        backlog.push(large.clone());
        assert_eq!(backlog.start().map(|slice| slice.len()), Some(50));
        backlog.sent(50);
        assert_eq!(backlog.start().map(|slice| slice.as_ptr()), Some(large.as_ptr()));
    }

    #[test]
    fn a_sealed_backlog_keeps_what_is_partly_on_the_wire_and_takes_nothing_more() {
        let mut backlog = Backlog::default();
        (0..3).for_each(|_| assert!(backlog.push(Bytes::from(vec![0; JOIN_BYTES]))));
        backlog.start();
        backlog.sent(10);
        backlog.seal(Bytes::from_static(b"close"));
        assert!(!backlog.push(Bytes::from_static(b"late")));
        assert_eq!(backlog.bytes(), JOIN_BYTES - 10 + 5);
        let rest = drain(&mut backlog, 1000);
        assert_eq!((rest.len(), &rest[JOIN_BYTES - 10..]), (JOIN_BYTES - 5, &b"close"[..]));
    }
}
