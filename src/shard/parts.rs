//! Work that is counted in subscriptions and channels, of which there may be hundreds of thousands:
//! the end of a connection that has many, and the list of all channels. A turn does a part of it,
//! so that no other connection waits for all of it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::message::{Answer, Told};
use super::{Core, Message};
use crate::id::{AppIndex, ConnKey, ShardId};
use crate::plane::Plane;
use crate::ring::Ring;

/// Subscriptions of ended connections that a turn ends, each with a message to a home: some
/// hundreds of microseconds.
const LEAVES_PER_TURN: usize = 512;

/// Subscriptions of an ended connection that end at once, whatever else ends in the turn: usual
/// connections have no more, and need no place in the queue.
const LEAVES_AT_ONCE: usize = 16;

/// Channels that a turn looks at for lists: some hundreds of microseconds.
const LOOKS_PER_TURN: usize = 1024;

/// The parts that are still to be done.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Slots of ended connections that have subscriptions. The plane keeps them from the next
    /// connection.
    leaving: VecDeque<u32>,
    /// The number of subscriptions that have been ended in this turn.
    left: usize,
    /// Lists that were asked for, the next one to continue first.
    lists: VecDeque<List>,
}

/// The occupied channels of an app at home here, on their way to the shard that asked.
#[derive(Debug)]
struct List {
    asker: ShardId,
    question: u32,
    app: AppIndex,
    prefix: Arc<str>,
    /// The place at which the next part begins.
    from: u32,
}

impl Parts {
    /// Whether work is left for the next turn.
    pub(super) fn left_over(&self) -> bool {
        !self.leaving.is_empty() || !self.lists.is_empty()
    }
}

impl Core {
    /// Ends the subscriptions of a connection that has ended, now or in parts.
    pub(super) fn leave_all<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        let most = LEAVES_PER_TURN.saturating_sub(self.parts.left).max(LEAVES_AT_ONCE);
        if self.leave_part(key.slot, most) {
            plane.keep(key.slot);
            self.parts.leaving.push_back(key.slot);
        }
    }

    /// Does a turn's part of everything. Called once per turn, before connections end in it.
    pub(super) fn do_parts<R: Ring>(&mut self, plane: &mut Plane<R>) {
        self.parts.left = 0;
        if !self.parts.left_over() || self.port.congested() {
            return;
        }
        while self.parts.left < LEAVES_PER_TURN
            && let Some(slot) = self.parts.leaving.pop_front()
        {
            if self.leave_part(slot, LEAVES_PER_TURN - self.parts.left) {
                self.parts.leaving.push_back(slot);
            } else {
                plane.let_go(slot);
            }
        }
        if let Some(list) = self.parts.lists.pop_front() {
            self.list_part(list);
        }
    }

    /// A shard asks for the occupied channels of an app whose names begin with this.
    pub(super) fn list(&mut self, asker: ShardId, question: u32, app: AppIndex, prefix: Arc<str>) {
        self.list_part(List { asker, question, app, prefix, from: 0 });
    }

    fn list_part(&mut self, list: List) {
        let List { asker, question, app, ref prefix, from } = list;
        let (channels, next) = self.homes.occupied(app, prefix, from, LOOKS_PER_TURN, self.now);
        let what = Told::Occupied { channels, last: next.is_none() };
        self.port.send(asker, Message::Answer(Box::new(Answer { question, what })));
        if let Some(from) = next {
            self.parts.lists.push_back(List { from, ..list });
        }
    }

    /// Ends some subscriptions. Returns whether there may be more.
    fn leave_part(&mut self, slot: u32, most: usize) -> bool {
        let Self { local, port, id, parts, .. } = self;
        let left = local.disconnect(slot, most, |channel, left| {
            let home = channel.home(port.shards());
            port.send(home, Message::leave(channel, *id, left));
        });
        parts.left += left;
        local.count(slot) > 0
    }
}
