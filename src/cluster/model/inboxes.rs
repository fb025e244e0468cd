//! Inboxes: streams with bounds.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::Model;
use crate::cluster::store::CallHead;
use crate::cluster::wire::{Entry, NodeId};

/// The unread bytes of a cut inbox: more than any bound.
const CUT: u64 = 1 << 52;

/// The stream of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbox {
    last: EntryId,
    pub(super) entries: VecDeque<(EntryId, Bytes)>,
}

/// The id of a stream's entry: milliseconds and a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId(u64, u64);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for EntryId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ms, number) = text.split_once('-').unwrap_or((text, "0"));
        Ok(Self(ms.parse()?, number.parse()?))
    }
}

impl Inbox {
    fn push(&mut self, now_ms: u64, field: Bytes) {
        self.last = match self.last {
            EntryId(ms, number) if ms >= now_ms => EntryId(ms, number + 1),
            _ => EntryId(now_ms, 0),
        };
        self.entries.push_back((self.last, field));
    }

    fn trim(&mut self, below: EntryId) {
        while self.entries.front().is_some_and(|(id, _)| *id < below) {
            self.entries.pop_front();
        }
    }
}

impl Model {
    /// The entries of a node's inbox behind an id, with theirs; `0` is before all of them.
    pub(crate) fn read(&self, node: NodeId, after: &str) -> Vec<(Box<str>, Bytes)> {
        let after = after.parse().unwrap_or_default();
        let entries = self.inboxes.get(&node).into_iter().flat_map(|inbox| &inbox.entries);
        let entries = entries.filter(|(id, _)| *id > after);
        entries.map(|(id, field)| (id.to_string().into(), field.clone())).collect()
    }

    /// Redis evicts the inbox of a node.
    pub(crate) fn evict_inbox(&mut self, node: NodeId) {
        self.inboxes.remove(&node);
    }

    /// Appends what a call has for a node to its inbox.
    pub(super) fn append(&mut self, now_ms: u64, head: &CallHead, node: NodeId, records: Bytes) {
        let CallHead { node: origin, kind, number, .. } = *head;
        let entry = Entry { origin, kind, number, records }.encode();
        let len = entry.len() as u64;
        let unread = &mut self.node(node).unread;
        *unread += len;
        let was_read = *unread == len;
        let evicted = !was_read && !self.inboxes.contains_key(&node);
        if self.node(node).unread > head.inbox_bytes || evicted {
            self.cut(node);
        } else {
            self.inboxes.entry(node).or_default().push(now_ms, entry);
        }
    }

    /// Deletes an inbox that cannot be completed any more.
    pub(super) fn cut(&mut self, node: NodeId) {
        self.inboxes.remove(&node);
        let node = self.node(node);
        node.cut = true;
        node.unread = CUT;
    }

    /// Notes how far a node has read its inbox, and drops what it has read.
    pub(super) fn note_read(&mut self, id: NodeId, read_id: &str, read_bytes: u64) {
        let node = self.node(id);
        node.unread = node.unread.saturating_sub(read_bytes.saturating_sub(node.read));
        node.read = read_bytes;
        let unread = node.unread;
        let inbox = self.inboxes.get_mut(&id);
        if inbox.is_none() && unread > 0 {
            self.cut(id);
        } else if let (Some(inbox), Ok(below)) = (inbox, read_id.parse()) {
            inbox.trim(below);
        }
    }
}
