//! The sleep of a thread in its ring, and the eventfd by which other threads end it.
//!
//! The call that hands over the queue also sleeps. On the eventfd the ring keeps a multishot poll:
//! each write to an eventfd wakes its pollers, whatever its counter shows (`eventfd_write` of
//! Linux), so that the eventfd need not be read. Writes that come together may share a completion.
//!
//! No write is lost:
//! - A write that comes before the poll begins leaves the counter above zero. The kernel looks at
//!   the counter when it begins the poll, which it does in the call that sleeps, before the sleep.
//! - A write that comes later posts a completion, or defers the work of posting it. The kernel
//!   looks at both before it sleeps, and while it sleeps either ends the sleep. If it is posting
//!   the completion of another write at that moment, it looks at the eventfd once more
//!   (`io_poll_check_events` counts the writes).
//! - The poll ends when the completion queue is full. Its last completion says so, and the next
//!   sleep begins another poll, which finds the counter above zero: that sleep ends without reason.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{cqueue, opcode};

use super::user_data::WAKE_UP;
use super::{Uring, may_go_on};

/// The eventfd that ends a sleep.
#[derive(Debug, Default)]
pub(super) struct WakeUp {
    /// The eventfd. `None` if nothing but completions and the time end a sleep.
    eventfd: Option<OwnedFd>,
    /// Whether a poll on it is queued or pending.
    pub(super) polled: bool,
}

impl WakeUp {
    /// Takes note of a completion of the poll.
    pub(super) fn completed(&mut self, entry: &cqueue::Entry) {
        self.polled = cqueue::more(entry.flags());
    }
}

impl Uring {
    /// Has each write to this eventfd end a sleep, the next one if there is none at the time.
    /// Called at most once.
    ///
    /// # Errors
    /// File descriptors ran out.
    pub fn wake_by(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.wake_up.eventfd = Some(eventfd.try_clone_to_owned()?);
        Ok(())
    }

    /// Submits and sleeps. Returns whether the kernel took the whole queue.
    pub(super) fn sleep(&mut self, timeout: Duration) -> bool {
        let timespec = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timespec);
        may_go_on(self.io.submitter().submit_with_args(1, &arguments)) && self.unsubmitted() == 0
    }

    /// Queues the poll on the eventfd, if it is not pending. Returns `false` if there is no room
    /// for it.
    pub(super) fn poll_wake_up(&mut self) -> bool {
        let Some(eventfd) = self.wake_up.eventfd.as_ref().filter(|_| !self.wake_up.polled) else {
            return true;
        };
        let poll = opcode::PollAdd::new(Fd(eventfd.as_raw_fd()), libc::POLLIN as u32).multi(true);
        self.wake_up.polled = self.push(&poll.build().user_data(WAKE_UP)).is_ok();
        self.wake_up.polled
    }
}
