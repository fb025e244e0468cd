//! Provided receive buffers, from which the kernel picks one when bytes arrive
//! (`io_uring_register_buf_ring(3)`). One of the few files with unsafe code.
//!
//! A buffer either belongs to the kernel, which finds it in the ring of entries, or is leased as a
//! [`Buffer`], never both. Its id goes out with one completion and comes back with one
//! [`BufferRing::publish`].

#![allow(unsafe_code, reason = "memory that is shared with the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// The kernel demands that the ring of entries begins on a page.
const PAGE: usize = 4096;

/// The ring of entries and the memory of the buffers behind it.
#[derive(Debug)]
pub(super) struct BufferRing {
    memory: Rc<Allocation>,
    /// The number of buffers, a power of two.
    entries: u16,
    /// The size of each buffer in bytes.
    size: u16,
    /// The next entry to publish, free running.
    tail: u16,
    /// Whether each buffer is leased, so that no completion leases a buffer twice.
    leased: Vec<bool>,
}

/// The memory of the entries, followed by that of the buffers.
#[derive(Debug)]
struct Allocation {
    start: NonNull<u8>,
    layout: Layout,
}

/// A buffer with received bytes, which the kernel does not touch until it is given back.
#[derive(Debug)]
pub struct Buffer {
    start: NonNull<u8>,
    len: usize,
    id: u16,
    /// The memory of the buffer, which may outlive the ring.
    memory: Rc<Allocation>,
}

impl BufferRing {
    /// Makes `entries` buffers of `size` bytes, all published. `entries` is a power of two up to
    /// 32,768.
    pub(super) fn new(entries: u16, size: u16) -> Self {
        let head = (usize::from(entries) * size_of::<BufRingEntry>()).next_multiple_of(PAGE);
        let memory = Rc::new(Allocation::new(head + usize::from(entries) * usize::from(size)));
        let leased = vec![false; usize::from(entries)];
        let mut ring = Self { memory, entries, size, tail: 0, leased };
        for id in 0..entries {
            ring.publish_id(id);
        }
        ring
    }

    pub(super) const fn entries(&self) -> u16 {
        self.entries
    }

    /// The address for `IORING_REGISTER_PBUF_RING`.
    pub(super) fn address(&self) -> u64 {
        self.memory.start.as_ptr() as u64
    }

    /// Leases the first `len` bytes of a buffer that a completion names. `None` if there is no such
    /// buffer, or it is leased already.
    #[inline]
    pub(super) fn lease(&mut self, id: u16, len: usize) -> Option<Buffer> {
        let leased = self.leased.get_mut(usize::from(id))?;
        if std::mem::replace(leased, true) {
            return None;
        }
        let start = self.buffer(id);
        let len = len.min(usize::from(self.size));
        Some(Buffer { start, len, id, memory: Rc::clone(&self.memory) })
    }

    /// Ends a lease and hands the buffer back to the kernel. A buffer of another ring is dropped,
    /// because its id names a buffer of that ring.
    #[inline]
    #[allow(clippy::needless_pass_by_value, reason = "the lease ends here")]
    pub(super) fn publish(&mut self, buffer: Buffer) {
        let is_own = Rc::ptr_eq(&buffer.memory, &self.memory);
        debug_assert!(is_own, "a buffer is given back to a ring that it is not from");
        if let Some(leased) = self.leased.get_mut(usize::from(buffer.id)).filter(|_| is_own) {
            *leased = false;
            self.publish_id(buffer.id);
        }
    }

    fn publish_id(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.entries - 1));
        let address = self.buffer(id).as_ptr() as u64;
        // SAFETY: `index` is below `entries`, so the entry lies in `memory`, aligned to a page. The
        // kernel reads entries below the published tail only, and this one is above it.
        unsafe {
            let entry = &mut *self.memory.start.as_ptr().cast::<BufRingEntry>().add(index);
            entry.set_addr(address);
            entry.set_len(u32::from(self.size));
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        let entries = self.memory.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the tail lies in the first entry, aligned to two bytes. The kernel reads it while
        // this thread writes, so it is an atomic. The release orders the entry's fields before it.
        unsafe {
            let tail = BufRingEntry::tail(entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        let size = usize::from(self.size);
        let buffers = usize::from(self.entries) * size;
        let offset = self.memory.layout.size() - buffers + usize::from(id) * size;
        // SAFETY: `id` is below `entries` (ids come from `new`, or were checked by `lease`), so the
        // offset lies in the allocation.
        unsafe { self.memory.start.add(offset) }
    }
}

impl Allocation {
    fn new(len: usize) -> Self {
        // The sizes are constants, so a layout that does not fit is a mistake in them.
        let layout = Layout::from_size_align(len, PAGE).unwrap_or(Layout::new::<[u8; PAGE]>());
        assert!(layout.size() >= len, "the receive buffers do not fit into the address space");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        NonNull::new(start)
            .map_or_else(|| handle_alloc_error(layout), |start| Self { start, layout })
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout. The last owner is gone: no lease is out, and
        // the ring has been unregistered or this memory has been leaked (see `Uring::drop`).
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl AsMut<[u8]> for Buffer {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: `start..start + len` lies in the allocation that `memory` keeps alive. It was
        // zeroed at first and written by the kernel since. The kernel does not touch a buffer
        // between its completion and its next publication, and `leased` admits one lease at a time.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_leased_once_until_it_is_published() {
        let mut ring = BufferRing::new(4, 64);
        let mut buffer = ring.lease(2, 10).unwrap();
        assert!(ring.lease(2, 10).is_none());
        assert!(ring.lease(4, 10).is_none(), "no such buffer");
        buffer.as_mut().fill(7);
        ring.publish(buffer);
        assert_eq!(ring.lease(2, 64).unwrap().as_mut()[..11], [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
    }

    #[test]
    fn buffers_do_not_overlap_each_other_or_the_entries() {
        let mut ring = BufferRing::new(8, 32);
        let mut leases: Vec<_> = (0..8).map(|id| ring.lease(id, 32).unwrap()).collect();
        for (lease, pattern) in leases.iter_mut().zip(1..) {
            lease.as_mut().fill(pattern);
        }
        for (lease, pattern) in leases.iter_mut().zip(1..) {
            assert!(lease.as_mut().iter().all(|&byte| byte == pattern));
        }
        let end_of_entries = ring.address() + 8 * size_of::<BufRingEntry>() as u64;
        assert!(leases.iter().all(|lease| lease.start.as_ptr() as u64 >= end_of_entries));
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "a ring that it is not from"))]
    fn a_buffer_of_another_ring_is_not_published() {
        let mut ring = BufferRing::new(2, 16);
        let lease = ring.lease(1, 16).unwrap();
        ring.publish(BufferRing::new(2, 16).lease(1, 16).unwrap());
        assert!(ring.lease(1, 16).is_none(), "it is leased still");
        ring.publish(lease);
    }

    #[test]
    fn a_lease_outlives_its_ring() {
        let mut ring = BufferRing::new(2, 16);
        let mut lease = ring.lease(0, 16).unwrap();
        drop(ring);
        lease.as_mut().fill(1);
    }
}
