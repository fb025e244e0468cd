//! The frames that connections are owed in one turn: a list of staged frames per connection, all
//! lists in one vector. Owing a frame to a thousand subscribers touches no reference count and
//! allocates nothing.

use crate::memory::Trim;
use crate::ring::Staged;

use super::conn::{Conn, NOTHING};

#[derive(Clone, Copy, Debug)]
struct Node {
    frame: Staged,
    next: u32,
}

/// The lists of one turn.
///
/// [`owe`](Self::owe) adds frames. A flush queues the send of each connection that
/// [`next`](Self::next) returns and calls [`advance`](Self::advance), then empties the lists by
/// [`finish`](Self::finish). If the kernel takes nothing, it calls [`stall`](Self::stall), and the
/// next flush goes on.
#[derive(Debug, Default)]
pub(super) struct OwedFrames {
    /// The frames of all lists, in the order in which they were owed.
    nodes: Vec<Node>,
    /// Slots of connections that are owed anything, in the order of their first frames.
    slots: Vec<u32>,
    /// The number of `slots` whose send has been queued.
    queued: usize,
    /// Whether a flush could not be finished. The lists stay as they are until it is.
    stalled: bool,
}

impl OwedFrames {
    pub(super) fn owe(&mut self, conn: &mut Conn, slot: u32, frame: Staged) {
        let node = u32::try_from(self.nodes.len()).unwrap_or(NOTHING);
        self.nodes.push(Node { frame, next: NOTHING });
        if conn.owed_first == NOTHING {
            conn.owed_first = node;
            self.slots.push(slot);
        } else {
            self.nodes[conn.owed_last as usize].next = node;
        }
        conn.owed_last = node;
    }

    /// The frames that a connection is owed, oldest first.
    pub(super) fn owed(&self, conn: &Conn) -> impl Iterator<Item = Staged> {
        let mut at = conn.owed_first;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            Some(node.frame)
        })
    }

    /// Replaces a connection's list by one frame that holds it all.
    pub(super) fn join(&mut self, conn: &mut Conn, joined: Staged) {
        if let Some(node) = self.nodes.get_mut(conn.owed_first as usize) {
            *node = Node { frame: joined, next: NOTHING };
            conn.owed_last = conn.owed_first;
        }
    }

    /// The slot of the next connection whose send has to be queued.
    pub(super) fn next(&self) -> Option<u32> {
        self.slots.get(self.queued).copied()
    }

    /// Records that the send of the connection that [`next`](Self::next) returned is queued, or not
    /// needed.
    pub(super) const fn advance(&mut self) {
        self.queued += 1;
    }

    /// The slots of all connections that are owed anything.
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    pub(super) const fn stalled(&self) -> bool {
        self.stalled
    }

    pub(super) const fn stall(&mut self) {
        self.stalled = true;
    }

    /// Empties the lists, because everything was sent, and returns the slots of their connections.
    pub(super) fn finish(&mut self) -> Vec<u32> {
        self.nodes.clear();
        self.queued = 0;
        self.stalled = false;
        std::mem::take(&mut self.slots)
    }

    /// Gives memory back that a burst has left.
    pub(super) fn trim(&mut self) {
        self.nodes.trim();
        self.slots.trim();
    }

    /// The bytes that its lists hold, in use or not.
    #[cfg(feature = "testing")]
    pub(super) fn room(&self) -> usize {
        self.nodes.room() + self.slots.room()
    }

    /// Keeps the allocation of a list that `finish` handed over.
    pub(super) fn reuse(&mut self, mut slots: Vec<u32>) {
        slots.clear();
        if self.slots.capacity() == 0 {
            self.slots = slots;
        }
    }
}
