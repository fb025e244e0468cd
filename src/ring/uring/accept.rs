//! Accepts that go on from connection to connection. The feature `accept` adds this, for a server
//! all of whose sockets are the ring's.

use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::opcode;
use io_uring::types::Fd;

use super::{Uring, user_data};
use crate::ring::{ConnKey, Op, QueueFull};

impl Uring {
    /// Accepts until further notice, into free slots of the kernel's choice. Each completion has
    /// the slot (or a negative errno) as its result; without `more` the accept is over. The ring
    /// must have been made with direct descriptors.
    ///
    /// # Errors
    /// The queue is full.
    pub fn accept_all(&mut self, listener: BorrowedFd<'_>) -> Result<(), QueueFull> {
        let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
        let key = ConnKey { slot: 0, generation: 0 };
        self.push(&accept.build().user_data(user_data(Op::AcceptAll, key)))
    }
}
