//! The ends of connections that have many subscriptions, of which there may be hundreds of
//! thousands. A turn ends a part of them, so that no other connection waits for all of it.

use std::collections::VecDeque;

use super::subscriber_side::SubscriberSide;
use crate::channels::{Leave, Left, ToHome};
use crate::id::ConnKey;
use crate::plane::Plane;
use crate::ring::Ring;

/// Subscriptions of ended connections that a turn ends, each with a message to a home: some
/// hundreds of microseconds.
const LEAVES_PER_TURN: usize = 512;

/// Subscriptions of an ended connection that end at once, whatever else ends in the turn: usual
/// connections have no more, and need no place in the queue.
const LEAVES_AT_ONCE: usize = 16;

/// The connections whose subscriptions are still being ended.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Slots of ended connections that have subscriptions. The plane keeps them from the next
    /// connection.
    slots: VecDeque<u32>,
    /// The number of subscriptions that have been ended in this turn.
    ended: usize,
}

impl Leaving {
    /// Whether work is left for the next turn.
    pub(super) fn has_work(&self) -> bool {
        !self.slots.is_empty()
    }
}

impl SubscriberSide {
    /// Ends the subscriptions of a connection that has ended, now or in parts.
    pub(super) fn leave_all<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        let most = LEAVES_PER_TURN.saturating_sub(self.leaving.ended).max(LEAVES_AT_ONCE);
        if self.leave_part(key.slot, most) {
            plane.keep(key.slot);
            self.leaving.slots.push_back(key.slot);
        }
    }

    /// Does a turn's part. To be called once per turn, before connections end in it; `congested`
    /// tells that homes are behind with their messages.
    pub(super) fn work<R: Ring>(&mut self, plane: &mut Plane<R>, congested: bool) {
        self.leaving.ended = 0;
        while !congested
            && self.leaving.ended < LEAVES_PER_TURN
            && let Some(slot) = self.leaving.slots.pop_front()
        {
            if self.leave_part(slot, LEAVES_PER_TURN - self.leaving.ended) {
                self.leaving.slots.push_back(slot);
            } else {
                plane.let_go(slot);
            }
        }
    }

    /// Ends some subscriptions. Returns whether there may be more.
    fn leave_part(&mut self, slot: u32, most: usize) -> bool {
        let Self { local, link, leaving, .. } = self;
        leaving.ended += local.disconnect(slot, most, |key, left| {
            let Left { member, ticket } = left;
            let home = link.topology.home_of(&key);
            link.send_home(home, ToHome::Leave(Leave { key, member, ticket }));
        });
        local.count(slot) > 0
    }
}
