//! The questions of other nodes, and of this one, that the shards of this node are answering.

use std::collections::HashMap;

use super::questions::ANSWER_TIMEOUT;
use crate::cluster::wire::NodeId;
use crate::time::Millis;

/// The most questions under way at a time. Whoever asks beyond has no answer in time.
const OPEN_MAX: usize = 4096;

/// Questions by number.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    /// The number of the last question.
    last: u32,
    open: HashMap<u32, Inquiry>,
}

/// A question that shards of this node are answering.
#[derive(Debug)]
struct Inquiry {
    asker: Asker,
    /// The shards that have not answered.
    missing: usize,
    deadline: Millis,
}

/// The node that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    /// The partition by which it asks.
    pub(super) partition: u16,
    /// Its id.
    pub(super) node: NodeId,
    /// Its number of the question.
    pub(super) request: u32,
}

impl Inquiries {
    /// Takes a question for so many shards, and returns its number; `None` if too many are open.
    pub(super) fn open(&mut self, asker: Asker, shards: usize, now: Millis) -> Option<u32> {
        if self.open.len() >= OPEN_MAX {
            return None;
        }
        self.last = self.last.wrapping_add(1);
        let inquiry = Inquiry { asker, missing: shards, deadline: now + ANSWER_TIMEOUT };
        self.open.insert(self.last, inquiry);
        Some(self.last)
    }

    /// Notes an answer of a shard, or a part of it if it is not `complete`. Returns the asker, and
    /// whether this was the last answer.
    pub(super) fn answered(&mut self, number: u32, complete: bool) -> Option<(Asker, bool)> {
        let inquiry = self.open.get_mut(&number)?;
        inquiry.missing -= usize::from(complete && inquiry.missing > 0);
        let (asker, last) = (inquiry.asker, inquiry.missing == 0);
        if last {
            self.open.remove(&number);
        }
        Some((asker, last))
    }

    /// Drops the questions that nobody waits for any more.
    pub(super) fn expire(&mut self, now: Millis) {
        self.open.retain(|_, inquiry| inquiry.deadline > now);
    }

    /// Whether none is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
