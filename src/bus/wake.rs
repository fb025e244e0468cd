//! Waking a shard that sleeps, and writing nothing to one that runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd with a flag that says whether its owner sleeps.
///
/// The owner sets the flag and then looks at its mailbox once more; a sender puts its message into
/// the mailbox and then looks at the flag. With a full fence between the two steps on both sides,
/// at least one of them sees the other: no message is slept over.
#[derive(Debug)]
pub struct Wake {
    eventfd: OwnedFd,
    sleeping: AtomicBool,
}

impl Wake {
    /// A wake-up for an owner that runs.
    ///
    /// # Errors
    /// File descriptors ran out (`eventfd(2)`).
    pub fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { eventfd, sleeping: AtomicBool::new(false) })
    }

    /// Owner: from here on a sender writes. Look at the mailbox again before you sleep.
    pub fn sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Owner: runs again.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Sender: a message is in the mailbox. One of several senders writes.
    pub fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.write();
        }
    }

    /// Makes the eventfd readable.
    pub fn write(&self) {
        // It can only fail when the counter is full, and then it is readable already.
        let _full = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }

    /// Owner: takes what was written.
    pub fn drain(&self) {
        // Fails when nothing was written: the owner woke for another reason.
        let _empty = rustix::io::read(&self.eventfd, &mut [0; 8]);
    }

    /// Readable when a sender wrote.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    #[cfg(test)]
    pub(super) fn written(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.eventfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }
}
