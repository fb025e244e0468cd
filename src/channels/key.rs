//! The identity of a channel and of a user, with the hash that finds both in every table.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::id::AppIndex;
use crate::protocol::names::ChannelName;

/// The keyed hash of channels and users. All shards of a process share its key, because they have
/// to agree on homes. The key is random, because names come from the network.
#[derive(Clone)]
pub struct KeyHash(SipHasher13);

impl KeyHash {
    /// A hash with a random key, which no client can guess.
    #[must_use]
    pub fn random() -> Self {
        let random = RandomState::new();
        Self(SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)))
    }

    /// A hash with a known key, for simulations: channels have the same homes in every run.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(SipHasher13::new_with_keys(seed, 0))
    }

    /// The key of a channel.
    #[must_use]
    pub fn channel(&self, app: AppIndex, name: ChannelName) -> ChannelKey {
        let hash = self.hash_of((app, name.as_str()));
        ChannelKey { app, name, hash }
    }

    /// The key of a user.
    #[must_use]
    pub fn user(&self, app: AppIndex, id: Arc<str>) -> UserKey {
        let hash = self.hash_of((app, "user", &*id));
        UserKey { app, id, hash }
    }

    fn hash_of(&self, value: impl Hash) -> u64 {
        let mut hasher = self.0;
        value.hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Debug for KeyHash {
    /// Withholds the key: with it, a client could choose names that collide.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash([withheld])")
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
    pub const fn app(&self) -> AppIndex {
        self.app
    }

    /// The channel's name.
    #[must_use]
    pub const fn name(&self) -> &ChannelName {
        &self.name
    }

    /// The keyed hash of app and name.
    #[must_use]
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }
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
    /// The app that the user belongs to.
    #[must_use]
    pub(crate) const fn app(&self) -> AppIndex {
        self.app
    }

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
        let hash = KeyHash::random();
        let [first, other] = [0, 1].map(|app| hash.user(AppIndex(app), "ann".into()));
        assert_ne!(first, other);
        assert_ne!(first, hash.user(AppIndex(0), "ben".into()));
        assert_eq!(first, hash.user(AppIndex(0), "ann".into()));
    }

    #[test]
    fn apps_do_not_share_channels() {
        let hash = KeyHash::random();
        let name = ChannelName::parse("news", 200, true).unwrap();
        let first = hash.channel(AppIndex(0), name.clone());
        assert_ne!(first, hash.channel(AppIndex(1), name.clone()));
        assert_eq!(first, hash.channel(AppIndex(0), name));
    }

    #[test]
    fn the_same_seed_makes_the_same_keys_and_others_make_others() {
        let name = ChannelName::parse("news", 200, true).unwrap();
        let hash = |hash: KeyHash| hash.channel(AppIndex(0), name.clone()).hash();
        assert_eq!(hash(KeyHash::seeded(7)), hash(KeyHash::seeded(7)));
        assert_ne!(hash(KeyHash::seeded(7)), hash(KeyHash::seeded(8)));
        assert_ne!(hash(KeyHash::random()), hash(KeyHash::random()));
    }
}
