//! The kernel's side of a ring of buffers, as `io_uring_register_buf_ring(3)` has it: it reads the
//! tail, takes the entries below it, and writes into the buffers that they name.

use std::collections::VecDeque;
use std::ptr::with_exposed_provenance_mut;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::buffers::{Buffer, BufferRing};

struct Kernel {
    entries: *mut BufRingEntry,
    mask: u16,
    head: u16,
}

impl Kernel {
    /// The arguments of `IORING_REGISTER_PBUF_RING`. An address loses its provenance on the way.
    fn of(ring: &BufferRing) -> Self {
        let entries = with_exposed_provenance_mut(usize::try_from(ring.address()).unwrap());
        Self { entries, mask: ring.entries() - 1, head: 0 }
    }

    fn tail(&self) -> u16 {
        // SAFETY: the tail is in the first entry; it is only ever accessed as an atomic.
        unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) }
            .load(Ordering::Acquire)
    }

    /// Takes the next buffer and receives these bytes into it. Returns `None` if there is none
    /// (ENOBUFS).
    fn receive(&mut self, bytes: &[u8]) -> Option<u16> {
        if self.head == self.tail() {
            return None;
        }
        // SAFETY: the entry is below the tail, so the ring has written it and does not touch it
        // before the buffer is published again.
        let entry = unsafe { &*self.entries.add(usize::from(self.head & self.mask)) };
        assert!(bytes.len() <= entry.len() as usize);
        let start = with_exposed_provenance_mut::<u8>(usize::try_from(entry.addr()).unwrap());
        // SAFETY: a published buffer is the kernel's, `entry.len()` bytes of it.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.head = self.head.wrapping_add(1);
        Some(entry.bid())
    }
}

/// Bytes that differ for each receive.
fn message(number: usize) -> Vec<u8> {
    (0..1 + number % 16).map(|at| (number + at) as u8).collect()
}

fn text(buffer: &mut Buffer) -> Vec<u8> {
    buffer.as_mut().to_vec()
}

#[test]
fn received_buffers_are_lent_and_come_back_in_any_order() {
    let mut ring = BufferRing::new(4, 16);
    let mut kernel = Kernel::of(&ring);
    let mut leases = VecDeque::new();
    // The tail goes round once: free running, it is 16 bits wide.
    let rounds = if cfg!(miri) { 300 } else { 70_000 };
    for number in 0..rounds {
        let sent = message(number);
        let id = kernel.receive(&sent).expect("a buffer is free");
        assert!(leases.iter().all(|&(lent, _, _)| lent != id), "buffer {id} is lent already");
        leases.push_back((id, ring.lease(id, sent.len()).unwrap(), sent));
        assert!(ring.lease(id, 1).is_none());
        if leases.len() == 3 {
            let (_, mut lease, sent) = leases.remove(number % 3).unwrap();
            assert_eq!(text(&mut lease), sent);
            // The plane does the same: it unmasks in place.
            lease.as_mut().iter_mut().for_each(|byte| *byte ^= 0xFF);
            ring.publish(lease);
        }
    }
}

#[test]
fn a_ring_without_free_buffers_gives_the_kernel_none() {
    let mut ring = BufferRing::new(2, 8);
    let mut kernel = Kernel::of(&ring);
    let ids: Vec<_> = std::iter::from_fn(|| kernel.receive(b"12345678")).collect();
    assert_eq!(ids, [0, 1]);
    let leases: Vec<_> = ids.into_iter().map(|id| ring.lease(id, 8).unwrap()).collect();
    assert_eq!(kernel.receive(b"x"), None);
    leases.into_iter().rev().for_each(|lease| ring.publish(lease));
    assert_eq!([kernel.receive(b"x"), kernel.receive(b"y")], [Some(1), Some(0)]);
}

#[test]
fn two_leases_are_written_at_a_time_and_outlive_the_ring() {
    let mut ring = BufferRing::new(2, 8);
    let mut kernel = Kernel::of(&ring);
    let ids = [kernel.receive(b"first").unwrap(), kernel.receive(b"second").unwrap()];
    let [mut first, mut second] = ids.map(|id| ring.lease(id, 8).unwrap());
    drop(ring);
    let (one, two) = (first.as_mut(), second.as_mut());
    one.swap_with_slice(two);
    assert_eq!((&one[..6], &two[..5]), (&b"second"[..], &b"first"[..]));
}

#[test]
fn a_length_past_the_end_lends_no_more_than_the_buffer() {
    let mut ring = BufferRing::new(2, 8);
    assert_eq!(ring.lease(1, usize::MAX).unwrap().as_mut(), [0; 8]);
}
