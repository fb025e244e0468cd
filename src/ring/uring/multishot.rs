//! Receives that go on from message to message. They save a program that is always busy the
//! operations of a wait, and cost 600 bytes of kernel memory more for each socket while it is idle,
//! which is why the plane does without them.

use super::Uring;
use crate::ring::{ConnKey, Op, QueueFull};

/// `IORING_RECVSEND_POLL_FIRST` of `<linux/io_uring.h>`. Without it, a receive on an idle socket
/// fails for want of a buffer that it does not need yet (axboe/liburing#1275).
const POLL_FIRST: u16 = 1 << 0;
/// `IORING_RECV_MULTISHOT` of `<linux/io_uring.h>`.
const MULTISHOT: u16 = 1 << 1;

impl Uring {
    /// Receives until further notice, with a completion for each filled buffer. Only a completion
    /// without `more` ends it, whatever a result says: under a full completion queue it ends with
    /// bytes and without an error.
    ///
    /// # Errors
    /// The queue is full.
    #[inline]
    pub fn keep_receiving(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.receive_with(key, 0, POLL_FIRST | MULTISHOT)
    }

    /// Ends the receive of [`keep_receiving`](Self::keep_receiving). Its last completion follows
    /// those that are on their way. Does nothing if it has ended meanwhile.
    ///
    /// # Errors
    /// The queue is full.
    pub fn stop_receiving(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.cancel(Op::Receive, key)
    }
}
