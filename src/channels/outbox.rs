//! The effects of homes.

use crate::id::ShardId;
use crate::memory::Trim;

use super::{FromHome, Notice, ToCluster};

/// Collects the effects of homes: messages to shards, messages to the cluster, and notices for
/// webhooks, each in the order in which they have to take effect. The owner of the homes empties it
/// after every call to them.
#[derive(Debug, Default)]
pub struct Outbox {
    messages: Vec<(ShardId, FromHome)>,
    to_cluster: Vec<ToCluster>,
    notices: Vec<Notice>,
}

impl Outbox {
    /// Takes out the messages, oldest first.
    pub fn messages(&mut self) -> impl Iterator<Item = (ShardId, FromHome)> {
        self.messages.drain(..)
    }

    /// Takes out the messages to the cluster, oldest first.
    pub(crate) fn cluster_messages(&mut self) -> impl Iterator<Item = ToCluster> {
        self.to_cluster.drain(..)
    }

    /// Takes out the notices, oldest first.
    pub(crate) fn notices(&mut self) -> impl Iterator<Item = Notice> {
        self.notices.drain(..)
    }

    /// Gives memory back that a burst has left.
    pub(crate) fn trim(&mut self) {
        self.messages.trim();
        self.to_cluster.trim();
        self.notices.trim();
    }

    /// Bytes that its lists hold, in use or not.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        self.messages.room() + self.to_cluster.room() + self.notices.room()
    }

    pub(super) fn send(&mut self, to: ShardId, message: FromHome) {
        self.messages.push((to, message));
    }

    pub(crate) fn tell_cluster(&mut self, message: ToCluster) {
        self.to_cluster.push(message);
    }

    pub(super) fn notify(&mut self, notice: Notice) {
        self.notices.push(notice);
    }
}
