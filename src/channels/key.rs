//! How a channel or a user is told from all others, and which shard is its home.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use crate::id::{AppIndex, ShardId};
use crate::protocol::names::ChannelName;

/// The keyed hash of channels and users: one key for all shards of a process, since they must agree
/// on homes, and a random one, since names come from the network.
#[derive(Clone, Debug, Default)]
pub struct KeyHash(RandomState);

impl KeyHash {
    /// The key of a channel.
    #[must_use]
    pub fn key(&self, app: AppIndex, name: ChannelName) -> ChannelKey {
        let hash = self.0.hash_one((app, name.as_str()));
        ChannelKey { app, name, hash }
    }

    /// The key of a user.
    #[must_use]
    pub fn user(&self, app: AppIndex, id: Arc<str>) -> UserKey {
        let hash = self.0.hash_one((app, "user", &*id));
        UserKey { app, id, hash }
    }
}

/// One channel of one app, with its hash.
#[derive(Clone, Debug)]
pub struct ChannelKey {
    app: AppIndex,
    name: ChannelName,
    hash: u64,
}

impl ChannelKey {
    /// The app that the channel belongs to.
    #[must_use]
    pub(crate) const fn app(&self) -> AppIndex {
        self.app
    }

    /// The channel's name.
    #[must_use]
    pub(crate) const fn name(&self) -> &ChannelName {
        &self.name
    }

    /// The keyed hash of both.
    #[must_use]
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    /// The home of this channel among `shards` shards.
    #[must_use]
    pub const fn home(&self, shards: usize) -> ShardId {
        home(self.hash, shards)
    }
}

/// The upper half of the hash, scaled, so that any number of shards divides evenly and the lower
/// half stays free for tables.
#[allow(clippy::cast_possible_truncation, reason = "below `shards`, which is a u16")]
const fn home(hash: u64, shards: usize) -> ShardId {
    ShardId((((hash >> 32) * shards as u64) >> 32) as u16)
}

impl PartialEq for ChannelKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.app == other.app && self.name == other.name
    }
}

impl Eq for ChannelKey {}

impl Hash for ChannelKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// One user of one app, with its hash.
#[derive(Clone, Debug)]
pub struct UserKey {
    app: AppIndex,
    id: Arc<str>,
    hash: u64,
}

impl UserKey {
    /// The user's id, as text.
    #[must_use]
    pub(crate) const fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The keyed hash of app and id.
    #[must_use]
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    /// The home of this user among `shards` shards.
    #[must_use]
    pub const fn home(&self, shards: usize) -> ShardId {
        home(self.hash, shards)
    }
}

impl PartialEq for UserKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.app == other.app && self.id == other.id
    }
}

impl Eq for UserKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_two_apps_are_two_users() {
        let hash = KeyHash::default();
        let [first, other] = [0, 1].map(|app| hash.user(AppIndex(app), "ann".into()));
        assert_ne!(first, other);
        assert_ne!(first, hash.user(AppIndex(0), "ben".into()));
        assert_eq!(first, hash.user(AppIndex(0), "ann".into()));
    }

    #[test]
    fn homes_are_spread_over_any_number_of_shards() {
        let hash = KeyHash::default();
        for shards in [1_usize, 2, 5, 64, 65, 1000] {
            let mut homes = vec![0_usize; shards];
            for n in 0..shards * 200 {
                let name = ChannelName::parse(&format!("channel-{n}"), 200, true).unwrap();
                homes[hash.key(AppIndex(0), name).home(shards).index()] += 1;
            }
            assert!(homes.iter().all(|&n| (100..320).contains(&n)), "{shards} shards: {homes:?}");
        }
    }

    #[test]
    fn apps_do_not_share_channels() {
        let hash = KeyHash::default();
        let name = ChannelName::parse("news", 200, true).unwrap();
        let first = hash.key(AppIndex(0), name.clone());
        assert_ne!(first, hash.key(AppIndex(1), name.clone()));
        assert_eq!(first, hash.key(AppIndex(0), name));
    }
}
