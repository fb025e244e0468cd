//! The verbs about users and quotas.

use super::{Call, Mark};
use crate::channels::UserPath;
use crate::cluster::wire::{CallKind, NodeId, Record};

impl Call<'_> {
    pub(super) fn online(&mut self, user: &UserPath) {
        let nodes = self.model.users.entry(user.clone()).or_default();
        if !nodes.insert(self.head.node) {
            return;
        }
        let first = nodes.len() == 1;
        self.marks().insert(Mark::User(user.clone()));
        if first {
            self.tell_watchers(user, true);
        }
    }

    pub(super) fn offline(&mut self, user: &UserPath) {
        self.marks().remove(&Mark::User(user.clone()));
        self.sign_out(self.head.node, user);
    }

    pub(super) fn watch(&mut self, user: &UserPath) {
        self.model.watchers.entry(user.clone()).or_default().insert(self.head.node);
        self.marks().insert(Mark::Watch(user.clone()));
        let online = self.model.users.contains_key(user);
        self.tell_own(&Record::Online(user.clone(), online));
    }

    pub(super) fn unwatch(&mut self, user: &UserPath) {
        self.marks().remove(&Mark::Watch(user.clone()));
        self.stop_watching(self.head.node, user);
    }

    /// Takes a node's part of a user out.
    pub(super) fn sign_out(&mut self, node: NodeId, user: &UserPath) {
        let Some(nodes) = self.model.users.get_mut(user) else { return };
        nodes.remove(&node);
        if nodes.is_empty() {
            self.model.users.remove(user);
            self.tell_watchers(user, false);
        }
    }

    pub(super) fn stop_watching(&mut self, node: NodeId, user: &UserPath) {
        if let Some(watchers) = self.model.watchers.get_mut(user) {
            watchers.remove(&node);
        }
    }

    fn tell_watchers(&mut self, user: &UserPath, online: bool) {
        let watchers = self.model.watchers.get(user).cloned().unwrap_or_default();
        self.tell_all(watchers, &Record::Online(user.clone(), online));
    }

    pub(super) fn permits(&mut self, app: &str, wanted: u32, total: u32) {
        let quota = self.model.quotas.entry(app.into()).or_default();
        let lent: u32 = quota.values().sum();
        let own = quota.get(&self.head.node).copied().unwrap_or_default();
        if self.head.kind == CallKind::Registration {
            self.hold(app, wanted);
        } else if !self.model.stale.is_empty() {
            self.hold(app, own);
        } else if lent < total {
            self.hold(app, own + wanted.min(((total - lent) / 2).max(1)));
        } else {
            let others = quota.keys().copied().filter(|&node| node != self.head.node);
            let others: Vec<_> = others.collect();
            self.hold(app, own);
            self.tell_all(others, &Record::Recall(app.into()));
        }
    }

    pub(super) fn give_back(&mut self, app: &str, count: u32) {
        let held = self.model.quotas.get(app).and_then(|quota| quota.get(&self.head.node));
        self.hold(app, held.copied().unwrap_or_default().saturating_sub(count));
    }

    fn hold(&mut self, app: &str, held: u32) {
        let node = self.head.node;
        let quota = self.model.quotas.entry(app.into()).or_default();
        if held > 0 {
            quota.insert(node, held);
            self.marks().insert(Mark::Quota(app.into()));
        } else {
            quota.remove(&node);
            self.marks().remove(&Mark::Quota(app.into()));
        }
        self.tell_own(&Record::Permits(app.into(), held));
    }
}
