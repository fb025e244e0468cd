//! The bytes that a slow reader has not taken yet: shared slices without copies, whose owner bounds
//! them.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Slices are joined up to this size for one send, so that a thousand small frames do not take a
/// thousand system calls.
const JOIN_BYTES: usize = 32 * 1024;

/// The backlog of one connection.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Slices that no send has taken, oldest first.
    queue: VecDeque<Bytes>,
    /// The slice of the pending send. `None` if no send is pending.
    in_flight: Option<Bytes>,
    /// Bytes in `queue` and `in_flight`.
    bytes: usize,
    /// The slice that is larger than its owner's bound, while it waits. `None` if there is none.
    large: Option<Large>,
    /// Whether a Close frame is in the backlog, so that nothing may follow.
    sealed: bool,
}

/// The slice that is larger than its owner's bound: how many bytes of it wait, and how many before
/// it.
#[derive(Clone, Copy, Debug)]
struct Large {
    before: usize,
    bytes: usize,
}

impl Backlog {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    /// Adds bytes at the end. Returns `false`, and adds nothing, if the backlog is sealed. `bound`
    /// is that of [`is_over`](Self::is_over).
    pub(super) fn push(&mut self, bytes: Bytes, bound: usize) -> bool {
        if self.sealed {
            return false;
        }
        if bytes.len() > bound && self.large.is_none() {
            self.large = Some(Large { before: self.bytes, bytes: bytes.len() });
        }
        self.bytes += bytes.len();
        self.queue.push_back(bytes);
        true
    }

    /// Whether more bytes wait than the bound allows. One slice that alone is larger does not count
    /// (a presence channel may have that many members), because its reader has had no time to read
    /// it, and would not get it after reconnecting either.
    pub(super) fn is_over(&self, bound: usize) -> bool {
        self.bytes - self.large.map_or(0, |large| large.bytes) > bound
    }

    /// Takes the bytes of the next send. [`sent`](Self::sent) must follow.
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

    /// Records that the send took this many bytes. The rest of its slice comes first again.
    pub(super) fn sent(&mut self, sent: usize) {
        let Some(slice) = self.in_flight.take() else { return };
        let sent = sent.min(slice.len());
        self.bytes -= sent;
        self.large = self.large.and_then(|large| large.after(sent));
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
        self.large = None;
        let queued: usize = self.queue.iter().map(Bytes::len).sum();
        self.bytes = queued + self.in_flight.as_ref().map_or(0, Bytes::len);
    }
}

impl Large {
    /// The rest of the slice after this many more bytes were sent, if there is any.
    fn after(self, sent: usize) -> Option<Self> {
        let of_it = sent.saturating_sub(self.before);
        let bytes = self.bytes.saturating_sub(of_it);
        (bytes > 0).then(|| Self { before: self.before.saturating_sub(sent), bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: usize = 1 << 20;

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
                backlog.push(Bytes::from(vec![byte; len]), BOUND);
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
        (0..10).for_each(|_| assert!(backlog.push(Bytes::from_static(b"frame"), BOUND)));
        let large = Bytes::from(vec![0; JOIN_BYTES]);
        backlog.push(large.clone(), BOUND);
        assert_eq!(backlog.start().map(|slice| slice.len()), Some(50));
        backlog.sent(50);
        assert_eq!(backlog.start().map(|slice| slice.as_ptr()), Some(large.as_ptr()));
    }

    #[test]
    fn a_sealed_backlog_keeps_what_is_partly_on_the_wire_and_takes_nothing_more() {
        let mut backlog = Backlog::default();
        (0..3).for_each(|_| assert!(backlog.push(Bytes::from(vec![0; JOIN_BYTES]), BOUND)));
        backlog.start();
        backlog.sent(10);
        backlog.seal(Bytes::from_static(b"close"));
        assert!(!backlog.push(Bytes::from_static(b"late"), BOUND));
        assert_eq!(backlog.bytes(), JOIN_BYTES - 10 + 5);
        let rest = drain(&mut backlog, 1000);
        assert_eq!((rest.len(), &rest[JOIN_BYTES - 10..]), (JOIN_BYTES - 5, &b"close"[..]));
    }

    #[test]
    fn one_slice_larger_than_the_bound_does_not_count_and_a_second_one_does() {
        for step in [1, 7, 100, 1000] {
            let mut backlog = Backlog::default();
            for len in [30, 500, 60] {
                assert!(backlog.push(Bytes::from(vec![0; len]), 100));
                assert!(!backlog.is_over(100));
            }
            // Beside the large slice 90 bytes wait, then 60, however much of it is sent.
            while backlog.bytes() > 60 {
                let slice = backlog.start().unwrap();
                backlog.sent(step.min(slice.len()));
                assert!(!backlog.is_over(100), "{} bytes, step {step}", backlog.bytes());
            }
            assert!(backlog.push(Bytes::from(vec![0; 41]), 100));
            assert_eq!(backlog.is_over(100), backlog.bytes() > 100, "the large one is gone");
            assert!(backlog.push(Bytes::from(vec![0; 101]), 100));
            assert!(backlog.push(Bytes::from(vec![0; 101]), 100) && backlog.is_over(100));
        }
    }
}
