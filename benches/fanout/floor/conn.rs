//! The record of one connection of the floor.

use std::collections::VecDeque;

use bytes::Bytes;
use ringwave::testing::id::ConnKey;

#[derive(Default)]
pub(super) struct Conn {
    pub(super) generation: u32,
    /// Whether it speaks WebSocket.
    pub(super) upgraded: bool,
    /// Whether a send that waits for room is under way.
    pub(super) sending: bool,
    /// Whether the receiving direction has ended.
    pub(super) over: bool,
    /// The number of its channel, and its index among the subscribers.
    pub(super) channel: Option<(u32, usize)>,
    /// The beginning of a request or a frame that was cut.
    pub(super) partial: Vec<u8>,
    /// The bytes that wait because the socket was full.
    pub(super) behind: Option<Box<Behind>>,
}

/// The bytes that are queued behind a send that waits for room in the socket.
#[derive(Default)]
pub(super) struct Behind {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

impl Conn {
    /// Prepares the record for the next user of the slot.
    pub(super) fn begin(&mut self) {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::default() };
    }

    pub(super) const fn key(&self, slot: u32) -> ConnKey {
        ConnKey { slot, generation: self.generation }
    }
}

impl Behind {
    /// Queues these bytes. Returns the number of bytes that wait.
    pub(super) fn push(&mut self, bytes: &Bytes) -> usize {
        self.bytes += bytes.len();
        self.queue.push_back(bytes.clone());
        self.bytes
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let next = self.queue.pop_front()?;
        self.bytes -= next.len();
        Some(next)
    }
}
