//! The verbs about nodes: questions, leases, burials.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Call, Letters, Mark};
use crate::cluster::wire::{NodeId, NodeInfo, Record, Retained};
use crate::frame::Frame;

/// The most departures that one call tells.
const DEPARTURES: usize = 1000;

impl Call<'_> {
    pub(super) fn ask(&mut self, request: u32, payload: &Bytes) {
        let nodes: Vec<_> = self.model.leases.keys().copied().collect();
        self.tell_asked(request, 0, None, &nodes);
        self.question(nodes, request, payload);
    }

    pub(super) fn tell_asked(
        &mut self,
        request: u32,
        members: u32,
        last: Option<(Retained, Frame)>,
        asked: &[NodeId],
    ) {
        let answers = |&node: &NodeId| !self.lease_is_over(node) && !self.is_buried(node);
        let nodes = asked.iter().copied().filter(answers).collect();
        self.tell_own(&Record::Asked { request, members, last, nodes });
    }

    pub(super) fn question(&mut self, nodes: Vec<NodeId>, request: u32, payload: &Bytes) {
        self.tell_all(nodes, &Record::Question(self.head.node, request, payload.clone()));
    }

    pub(super) fn answer(&mut self, node: NodeId, request: u32, payload: Bytes) {
        if !self.model.leases.contains_key(&node) {
            return;
        }
        let unread = self.model.nodes.get(&node).map_or(0, |node| node.unread);
        let answers = self.answers.entry(node).or_default();
        let with_this = *answers + payload.len() as u64;
        if unread + with_this <= self.head.inbox_bytes / 2 {
            *answers = with_this;
            self.tell(node, &Record::Answer(self.head.node, request, payload));
        }
    }

    pub(super) fn tend(
        &mut self,
        read_id: &str,
        read_bytes: u64,
        departures: bool,
        apps: Box<str>,
    ) {
        self.renew_leases();
        self.model.node(self.head.node).apps = apps;
        self.model.note_read(self.head.node, read_id, read_bytes);
        let mut leases: Vec<_> = self.model.leases.iter().map(|(&id, &end)| (end, id)).collect();
        leases.sort_unstable();
        let nodes = leases.iter().map(|&(_, id)| self.introduction(id)).collect();
        self.tell_own(&Record::Tended(self.now_ms, nodes));
        if departures {
            self.tell_departures();
        }
        for (_, node) in leases {
            if self.lease_is_over(node) && self.is_due(node) {
                self.tell_own(&Record::Dead(node));
            }
        }
    }

    fn renew_leases(&mut self) {
        let lease_end = self.now_ms + self.head.lease_ms;
        if self.model.stood_still(self.now_ms) {
            self.model.leases.values_mut().for_each(|end| *end = lease_end);
        }
        self.model.leases.insert(self.head.node, lease_end);
        self.model.tended_ms = Some(self.now_ms);
    }

    fn introduction(&self, id: NodeId) -> NodeInfo {
        let node = self.model.nodes.get(&id).cloned().unwrap_or_default();
        NodeInfo { id, address: node.address, apps: node.apps, batched: node.batched }
    }

    fn tell_departures(&mut self) {
        let mut due: Vec<_> = self.model.gone.iter().map(|(gone, &due)| (due, gone)).collect();
        due.retain(|(due, _)| *due <= self.now_ms);
        due.sort_unstable();
        let due = due.into_iter().take(DEPARTURES).map(|(_, gone)| gone.clone());
        for departure in due.collect::<Vec<_>>() {
            self.model.gone.remove(&departure);
            self.tell_own(&Record::Gone(departure.0, departure.1));
        }
    }

    pub(super) fn bury(&mut self, node: NodeId) {
        if !self.model.leases.contains_key(&node) || !self.lease_is_over(node) {
            return;
        }
        self.bury_marks(node);
        if !self.has_marks(node) && self.retention_is_over(node) {
            self.bury_interest(node);
        }
        if self.model.leases.contains_key(&node) && self.is_due(node) {
            self.tell_own(&Record::Dead(node));
        }
    }

    pub(super) fn quit(&mut self) {
        let node = self.head.node;
        let over = self.now_ms.saturating_sub(self.head.retention_ms);
        self.model.leases.insert(node, over);
        self.bury(node);
    }

    fn bury_marks(&mut self, node: NodeId) {
        self.model.node(node).dead = true;
        if self.leave_stale(node) {
            self.model.cut(node);
        }
        let marks = self.model.marks.get_mut(&node);
        for mark in take(&mut self.burials, marks) {
            self.forget_mark(node, &mark);
        }
    }

    fn forget_mark(&mut self, node: NodeId, mark: &Mark) {
        match mark {
            Mark::Member(channel, user_id) => self.remove_member(channel, user_id, true),
            Mark::Counted(channel) => {
                let nodes = self.model.channels.get_mut(channel);
                if let Some(count) = nodes.and_then(|nodes| nodes.get_mut(&node)) {
                    *count = 0;
                    self.tell_count(channel);
                }
            }
            Mark::User(user) => self.sign_out(node, user),
            Mark::Watch(user) => self.stop_watching(node, user),
            Mark::Quota(app) => {
                if let Some(quota) = self.model.quotas.get_mut(app) {
                    quota.remove(&node);
                }
            }
        }
    }

    fn bury_interest(&mut self, node: NodeId) {
        self.model.cut(node);
        let interests = self.model.interests.get_mut(&node);
        for channel in take(&mut self.burials, interests) {
            let (_, vacated) = self.unregister(node, &channel);
            if vacated {
                self.depart(&channel, "");
            }
        }
        if self.model.interests.get(&node).is_none_or(BTreeSet::is_empty) {
            self.model.nodes.remove(&node);
            self.model.leases.remove(&node);
            self.records.remove(&node);
        }
    }

    pub(super) fn ready(&mut self) {
        self.model.node(self.head.node).owed = Letters::default();
        if !self.leave_stale(self.head.node) && self.model.stale.is_empty() {
            self.tell_own(&Record::Settled);
        }
    }

    /// A node is not stale any more. Returns whether it was.
    pub(super) fn leave_stale(&mut self, node: NodeId) -> bool {
        let was_stale = self.model.stale.remove(&node);
        if was_stale && self.model.stale.is_empty() {
            let all: Vec<_> = self.model.leases.keys().copied().collect();
            self.tell_all(all, &Record::Settled);
        }
        was_stale
    }

    fn lease_end(&self, node: NodeId) -> u64 {
        self.model.leases.get(&node).copied().unwrap_or_default()
    }

    fn lease_is_over(&self, node: NodeId) -> bool {
        self.lease_end(node) <= self.now_ms && !self.model.stood_still(self.now_ms)
    }

    fn retention_is_over(&self, node: NodeId) -> bool {
        self.lease_end(node) + self.head.retention_ms <= self.now_ms
    }

    fn is_buried(&self, node: NodeId) -> bool {
        self.model.nodes.get(&node).is_some_and(|node| node.dead)
    }

    fn has_marks(&self, node: NodeId) -> bool {
        self.model.marks.get(&node).is_some_and(|marks| !marks.is_empty())
    }

    /// Whether there is something to bury now of a node whose lease is over.
    fn is_due(&self, node: NodeId) -> bool {
        !self.is_buried(node) || self.has_marks(node) || self.retention_is_over(node)
    }
}

/// Takes as much out of a set as the call may.
fn take<T: Ord>(burials: &mut usize, set: Option<&mut BTreeSet<T>>) -> Vec<T> {
    let taken = set.map_or_else(Vec::new, |set| {
        std::iter::from_fn(|| set.pop_first()).take(*burials).collect()
    });
    *burials -= taken.len();
    taken
}
