//! The effects of homes.

use crate::id::ShardId;
use crate::memory::Trim;

use super::{FromHome, Notice};

/// Collects the effects of homes: messages to shards and notices for webhooks, each in the order in
/// which they have to take effect. The owner of the homes empties it after every call to them.
#[derive(Debug, Default)]
pub struct Outbox {
    messages: Vec<(ShardId, FromHome)>,
    notices: Vec<Notice>,
}

impl Outbox {
    /// Takes out the messages, oldest first.
    pub fn messages(&mut self) -> impl Iterator<Item = (ShardId, FromHome)> {
        self.messages.drain(..)
    }

    /// Takes out the notices, oldest first.
    pub(crate) fn notices(&mut self) -> impl Iterator<Item = Notice> {
        self.notices.drain(..)
    }

    /// Gives memory back that a burst has left.
    pub(crate) fn trim(&mut self) {
        self.messages.trim();
        self.notices.trim();
    }

    /// Bytes that its lists hold, in use or not.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        self.messages.room() + self.notices.room()
    }

    pub(super) fn send(&mut self, to: ShardId, message: FromHome) {
        self.messages.push((to, message));
    }

    pub(super) fn notify(&mut self, notice: Notice) {
        self.notices.push(notice);
    }
}
