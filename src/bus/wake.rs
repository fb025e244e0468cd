//! The wake-up of a shard that sleeps. Nothing is written to wake one that runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::sync::{AtomicBool, Ordering, fence};

/// An eventfd with a flag that says whether its owner sleeps.
///
/// The owner's ring polls the eventfd, or an `epoll` edge-triggered: each write is an edge to both,
/// so it is never read. Its counter would take centuries to fill, and would stay readable then.
///
/// The owner sets the flag and then looks at its mailbox once more; a sender puts its message into
/// the mailbox and then looks at the flag. With a full fence between the two steps on both sides,
/// at least one of them sees the other, so no message is missed.
#[derive(Debug)]
pub(crate) struct Wake {
    eventfd: OwnedFd,
    sleeping: AtomicBool,
}

impl Wake {
    /// A wake-up for an owner that runs.
    ///
    /// # Errors
    /// File descriptors ran out (`eventfd(2)`).
    pub(crate) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { eventfd, sleeping: AtomicBool::new(false) })
    }

    /// Called by the owner: from here on a sender writes the eventfd. The owner has to look at the
    /// mailbox once more before it sleeps.
    pub(crate) fn sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the owner when it runs again.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Called by a sender when its message is in the mailbox. If several senders call it, one of
    /// them writes.
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.write();
        }
    }

    fn write(&self) {
        // The write fails only when the counter is full, and then the eventfd is readable already.
        let _full = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }

    /// The eventfd, which is readable when a sender has written it.
    #[must_use]
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Returns whether the eventfd was written since the last call.
    #[cfg(test)]
    pub(super) fn take_written(&self) -> bool {
        rustix::io::read(&self.eventfd, &mut [0; 8]).is_ok()
    }
}
