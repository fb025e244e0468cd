//! A shard as the senders see it.

use std::collections::VecDeque;

use crossbeam_channel::{Sender, TrySendError};

use super::wake::Wake;

/// The sending half of a shard's mailbox, and the way to wake the shard.
#[derive(Debug)]
pub(super) struct Peer<M> {
    pub(super) mailbox: Sender<M>,
    pub(super) wake: Wake,
}

impl<M> Peer<M> {
    /// Moves messages from the queue into the mailbox, oldest first, as far as they fit. Returns
    /// whether the queue is empty.
    pub(super) fn take_from(&self, queue: &mut VecDeque<M>) -> bool {
        while let Some(message) = queue.pop_front() {
            match self.mailbox.try_send(message) {
                Ok(()) => self.wake.notify(),
                // A shard that has ended needs no messages.
                Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(message)) => {
                    queue.push_front(message);
                    return false;
                }
            }
        }
        true
    }
}
