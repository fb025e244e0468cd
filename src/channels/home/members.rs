//! The users who are present in one channel, by user id.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::protocol::auth::Member;

/// The members of a channel.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// By the user id of the member itself: a key of its own would double an entry.
    table: HashTable<Presence>,
    /// Ids come from the network.
    hash: RandomState,
}

/// A user who is present.
#[derive(Debug)]
pub(super) struct Presence {
    pub(crate) member: Arc<Member>,
    /// How many subscriptions the user has; the last one that ends takes the user along.
    pub(crate) subscriptions: u32,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Presence> {
        self.table.find_mut(self.hash.hash_one(id), |of| *of.member.user_id == *id)
    }

    /// Adds a user who is not there.
    pub(super) fn insert(&mut self, presence: Presence) {
        let Self { table, hash } = self;
        let hash_of = |of: &Presence| hash.hash_one(&*of.member.user_id);
        table.insert_unique(hash_of(&presence), presence, hash_of);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Presence> {
        let found = self.table.find_entry(self.hash.hash_one(id), |of| *of.member.user_id == *id);
        Some(found.ok()?.remove().0)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.table.iter().map(|of| &of.member)
    }

    /// The user ids, once each.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.all().map(|member| &*member.user_id)
    }
}
