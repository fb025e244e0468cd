//! The ends of the subscriptions of connections that have ended. There may be hundreds of
//! thousands, so a turn ends only a part of them, and no other connection waits for all.

use std::collections::VecDeque;

use super::link::Link;
use crate::channels::Local;
use crate::id::ConnKey;
use crate::plane::Plane;
use crate::ring::Ring;

/// The subscriptions of ended connections that one turn ends, each with a message to a home: some
/// hundreds of microseconds of work.
const LEAVES_PER_TURN: usize = 512;

/// The subscriptions of an ended connection that end at once, whatever else ends in the turn. Most
/// connections have no more than these, and need no place in the queue.
const LEAVES_AT_ONCE: usize = 16;

/// The connections whose subscriptions are still being ended.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Slots of ended connections that still have subscriptions. The plane retains the slots.
    slots: VecDeque<u32>,
    /// The number of subscriptions that this turn has ended.
    ended: usize,
}

impl Leaving {
    /// Whether work is left for the next turn.
    pub(super) fn has_work(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Ends the subscriptions of a connection that has ended, now or in parts.
    pub(super) fn begin<R: Ring>(
        &mut self,
        conn: ConnKey,
        local: &mut Local,
        link: &mut Link,
        plane: &mut Plane<R>,
    ) {
        let most = LEAVES_PER_TURN.saturating_sub(self.ended).max(LEAVES_AT_ONCE);
        if self.end_some(conn.slot, most, local, link) {
            plane.retain_slot(conn.slot);
            self.slots.push_back(conn.slot);
        }
    }

    /// Does a turn's part, unless homes are `congested` with messages. Called once per turn, before
    /// any connection ends in it.
    pub(super) fn work<R: Ring>(
        &mut self,
        congested: bool,
        local: &mut Local,
        link: &mut Link,
        plane: &mut Plane<R>,
    ) {
        self.ended = 0;
        while !congested
            && self.ended < LEAVES_PER_TURN
            && let Some(slot) = self.slots.pop_front()
        {
            if self.end_some(slot, LEAVES_PER_TURN - self.ended, local, link) {
                self.slots.push_back(slot);
            } else {
                plane.release_slot(slot);
            }
        }
    }

    /// Ends some subscriptions. Returns whether there may be more.
    fn end_some(&mut self, slot: u32, most: usize, local: &mut Local, link: &mut Link) -> bool {
        self.ended += local.disconnect(slot, most, |key, left| link.leave(key, left));
        local.count(slot) > 0
    }
}
