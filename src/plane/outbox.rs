//! The frames that connections are owed in one turn: per connection a list of staged frames, all
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
#[derive(Debug, Default)]
pub(super) struct Outbox {
    nodes: Vec<Node>,
    /// Connections that are owed something, in the order in which it began.
    slots: Vec<u32>,
    /// How many of `slots` have had their send queued.
    queued: usize,
    /// A flush could not be finished: the lists stay as they are until it is.
    stalled: bool,
}

impl Outbox {
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

    /// The next connection whose send is to be queued.
    pub(super) fn next(&self) -> Option<u32> {
        self.slots.get(self.queued).copied()
    }

    /// The send of the connection that [`next`](Self::next) named is queued, or not needed.
    pub(super) const fn advance(&mut self) {
        self.queued += 1;
    }

    pub(super) const fn stalled(&self) -> bool {
        self.stalled
    }

    pub(super) const fn stall(&mut self) {
        self.stalled = true;
    }

    /// Everything was sent: empties the lists and hands over whom they were for.
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

    /// Bytes that it holds.
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
