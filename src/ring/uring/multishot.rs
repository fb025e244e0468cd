//! Receives that go on from message to message. They save a program that is always busy the
//! operations of a wait, and cost 600 bytes of kernel memory more for each socket while it is idle,
//! which is why the plane does without them.

use super::{POLL_FIRST, Uring};
use crate::ring::{ConnKey, QueueFull};

/// `IORING_RECV_MULTISHOT` of `<linux/io_uring.h>`.
const MULTISHOT: u16 = 1 << 1;

impl Uring {
    /// Receives until further notice, with a completion for each filled buffer. Only a completion
    /// without `more` ends it, whatever a result says: under a full completion queue it ends with
    /// bytes and without an error. [`Ring::stop_receiving`](crate::Ring::stop_receiving) ends it,
    /// too.
    ///
    /// # Errors
    /// The queue is full.
    #[inline]
    pub fn keep_receiving(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.receive_with(key, 0, POLL_FIRST | MULTISHOT)
    }
}
