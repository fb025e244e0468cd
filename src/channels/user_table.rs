//! The table of the users whose home is a shard, with the shards that have each user or watch it.

use std::collections::BTreeMap;

use hashbrown::HashTable;

use crate::id::ShardId;

use super::message::{FromHome, Step};
use super::{Outbox, UserKey};

/// The users whose home is a shard, by their key.
#[derive(Debug, Default)]
pub(super) struct UserTable(HashTable<User>);

/// The record of one user. It exists while a shard has or watches the user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) key: UserKey,
    /// Shards with a connection of the user.
    pub(super) here: Vec<ShardId>,
    /// Shards that watch the user.
    pub(super) watchers: Vec<ShardId>,
    /// Whether the user is online, as the watching shards know it.
    pub(super) online: bool,
}

/// The users that each shard is told of, with whether they are online.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<ShardId, Vec<(UserKey, bool)>>);

impl UserTable {
    pub(super) fn find(&self, key: &UserKey) -> Option<&User> {
        self.0.find(key.hash(), |user| user.key == *key)
    }

    pub(super) fn find_mut(&mut self, key: &UserKey) -> Option<&mut User> {
        self.0.find_mut(key.hash(), |user| user.key == *key)
    }

    pub(super) fn find_or_insert(&mut self, key: &UserKey) -> &mut User {
        let entry = self.0.entry(key.hash(), |user| user.key == *key, |user| user.key.hash());
        entry.or_insert_with(|| User::new(key.clone())).into_mut()
    }

    /// Drops the record of a user whom no shard has or watches.
    pub(super) fn drop_if_unused(&mut self, key: &UserKey) {
        let unused =
            |user: &User| user.key == *key && user.here.is_empty() && user.watchers.is_empty();
        if let Ok(found) = self.0.find_entry(key.hash(), unused) {
            found.remove();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &User> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut User> {
        self.0.iter_mut()
    }

    /// The number of users that shards have or watch.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl User {
    const fn new(key: UserKey) -> Self {
        Self { key, here: Vec::new(), watchers: Vec::new(), online: false }
    }

    /// Takes over a change on a shard.
    pub(super) fn step(&mut self, from: ShardId, step: Step) {
        match step {
            Step::Arrived => add(&mut self.here, from),
            Step::Left => remove(&mut self.here, from),
            Step::Watch => add(&mut self.watchers, from),
            Step::Unwatch => remove(&mut self.watchers, from),
        }
    }
}

impl Told {
    /// Tells a shard whether a user is online, as of now.
    pub(super) fn tell(&mut self, shard: ShardId, user: &User) {
        self.0.entry(shard).or_default().push((user.key.clone(), user.online));
    }

    /// Sends each shard what it is told, in one message.
    pub(super) fn send(self, out: &mut Outbox) {
        self.0.into_iter().for_each(|(shard, told)| out.send(shard, FromHome::Online(told)));
    }
}

fn add(list: &mut Vec<ShardId>, shard: ShardId) {
    if !list.contains(&shard) {
        // Most users are on one shard.
        list.reserve_exact(1);
        list.push(shard);
    }
}

fn remove(list: &mut Vec<ShardId>, shard: ShardId) {
    if let Some(at) = list.iter().position(|&listed| listed == shard) {
        list.swap_remove(at);
    }
}
