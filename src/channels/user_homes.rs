//! The users whose home this shard is: the authoritative record of who is online, and of who
//! watches.

use std::collections::BTreeMap;

use hashbrown::HashTable;

use crate::id::ShardId;

use super::message::{FromHome, Step, Steps};
use super::{Outbox, UserKey};

/// The users whose home is this shard: a state machine like [`Homes`](super::Homes).
///
/// Every change that a shard reports goes to [`handle`](Self::handle), in the order of arrival. Its
/// effects are in the [`Outbox`] afterwards, which the caller empties before the next call.
#[derive(Debug, Default)]
pub(crate) struct UserHomes {
    /// Users by their key.
    table: HashTable<UserHome>,
}

/// The record of one user at home. It exists while the user is online or watched.
#[derive(Debug)]
struct UserHome {
    key: UserKey,
    /// Shards with a connection of the user. The user is online if there are any.
    here: Vec<ShardId>,
    /// Shards that watch the user.
    watchers: Vec<ShardId>,
}

impl UserHomes {
    /// Takes over the changes on a shard, oldest first, and tells each watching shard what is new
    /// to it.
    pub(crate) fn handle(&mut self, from: ShardId, steps: Steps, out: &mut Outbox) {
        let mut told: BTreeMap<ShardId, Vec<(UserKey, bool)>> = BTreeMap::new();
        for (key, step) in steps {
            let home = self.home_of(&key);
            let earlier = home.is_online();
            match step {
                Step::Arrived => add(&mut home.here, from),
                Step::Left => remove(&mut home.here, from),
                Step::Watch => {
                    add(&mut home.watchers, from);
                    told.entry(from).or_default().push((key.clone(), earlier));
                }
                Step::Unwatch => remove(&mut home.watchers, from),
            }
            let online = home.is_online();
            if online != earlier {
                for &watcher in &home.watchers {
                    told.entry(watcher).or_default().push((key.clone(), online));
                }
            }
            self.drop_if_unused(&key);
        }
        told.into_iter().for_each(|(shard, told)| out.send(shard, FromHome::Online(told)));
    }

    /// The number of users that are online or watched.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    fn home_of(&mut self, key: &UserKey) -> &mut UserHome {
        let entry = self.table.entry(key.hash(), |home| home.key == *key, |home| home.key.hash());
        let new = || UserHome { key: key.clone(), here: Vec::new(), watchers: Vec::new() };
        entry.or_insert_with(new).into_mut()
    }

    fn drop_if_unused(&mut self, key: &UserKey) {
        if let Ok(found) = self.table.find_entry(key.hash(), |home| home.key == *key)
            && found.get().here.is_empty()
            && found.get().watchers.is_empty()
        {
            found.remove();
        }
    }
}

impl UserHome {
    const fn is_online(&self) -> bool {
        !self.here.is_empty()
    }
}

pub(super) fn add(list: &mut Vec<ShardId>, shard: ShardId) {
    if !list.contains(&shard) {
        // Most users are on one shard.
        list.reserve_exact(1);
        list.push(shard);
    }
}

pub(super) fn remove(list: &mut Vec<ShardId>, shard: ShardId) {
    if let Some(at) = list.iter().position(|&listed| listed == shard) {
        list.swap_remove(at);
    }
}
