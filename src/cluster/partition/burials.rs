//! The other nodes whose lease is over.

use std::collections::VecDeque;

use crate::cluster::wire::NodeId;

/// The nodes to bury. A burial is long, so calls of other kinds take turns with it.
#[derive(Debug, Default)]
pub(super) struct Burials {
    due: VecDeque<NodeId>,
    /// Whether the last call was a burial.
    was_last: bool,
}

impl Burials {
    /// Takes a node that is to be buried, step by step.
    pub(super) fn push(&mut self, node: NodeId) {
        if !self.due.contains(&node) {
            self.due.push_back(node);
        }
    }

    /// The node to bury now; `None` if there is none, or if it is the turn of something else.
    pub(super) fn next(&mut self) -> Option<NodeId> {
        let next = if self.was_last { None } else { self.due.pop_front() };
        self.was_last = next.is_some();
        next
    }
}
