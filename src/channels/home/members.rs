//! The users who are present in one channel, by user id.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::id::ShardId;
use crate::protocol::auth::Member;

use super::super::shard_counts::ShardCounts;

/// The members of a channel.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Members by the user id that the member itself has: a separate key would double an entry.
    table: HashTable<Presence>,
    /// The hash is keyed, because ids come from the network.
    hash: RandomState,
}

/// A user who is present.
#[derive(Debug)]
pub(super) struct Presence {
    /// The member as the user's first subscription gave it, which is how the other subscribers know
    /// it.
    member: Arc<Member>,
    /// The user's subscriptions by shard. The user is a member until the last one ends.
    subscriptions: ShardCounts,
}

/// The effect of a subscription on the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// The user is a new member.
    New,
    /// The user was a member already.
    Again,
    /// The user is not a member, because the channel has as many members as it may have.
    Full,
}

impl Members {
    /// Counts a subscription of a user. The user becomes a member only if there are fewer than
    /// `most`.
    pub(super) fn enter(
        &mut self,
        from: ShardId,
        member: &Arc<Member>,
        most: Option<usize>,
    ) -> Entered {
        if let Some(presence) = self.get_mut(&member.user_id) {
            presence.subscriptions.add(from);
            return Entered::Again;
        }
        if most.is_some_and(|most| self.len() >= most) {
            return Entered::Full;
        }
        let mut subscriptions = ShardCounts::default();
        subscriptions.add(from);
        let presence = Presence { member: Arc::clone(member), subscriptions };
        let Self { table, hash } = self;
        let hash_of = |of: &Presence| hash.hash_one(&*of.member.user_id);
        table.insert_unique(hash_of(&presence), presence, hash_of);
        Entered::New
    }

    /// Ends a subscription of a user on a shard. If it was the last one, returns the member as the
    /// other subscribers know it, because a later subscription may have spelt the id differently.
    pub(super) fn part(&mut self, from: ShardId, user_id: &str) -> Option<Arc<Member>> {
        let presence = self.get_mut(user_id)?;
        if !presence.subscriptions.remove(from) || !presence.subscriptions.is_empty() {
            return None;
        }
        let hash = self.hash.hash_one(user_id);
        let gone = self.table.find_entry(hash, |of| *of.member.user_id == *user_id).ok()?;
        Some(gone.remove().0.member)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.table.iter().map(|of| &of.member)
    }

    fn get_mut(&mut self, id: &str) -> Option<&mut Presence> {
        self.table.find_mut(self.hash.hash_one(id), |of| *of.member.user_id == *id)
    }
}
