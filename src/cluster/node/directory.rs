//! The names of channels, users and apps: those of this process, and those that all nodes share.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::apps::webhook::EventKind;
use crate::apps::{App, Apps};
use crate::channels::{ChannelKey, ChannelPath, KeyHash, Topology, UserKey, UserPath};
use crate::cluster::wire::JoinFlags;
use crate::id::{AppIndex, ShardId};
use crate::protocol::names::ChannelName;

/// Translates between keys and paths by the apps in force.
///
/// Names that come out of Redis are checked for what no app allows. The limits of an app are no
/// measure, because a channel stays when they become stricter.
#[derive(Debug)]
pub(super) struct Directory {
    apps: Arc<Apps>,
    /// The ids of all apps that there ever were, by index: a channel of an app that was removed
    /// still has to be left.
    ids: Vec<Box<str>>,
    /// The newest index of each id.
    by_id: HashMap<Box<str>, AppIndex>,
    hash: KeyHash,
    topology: Topology,
    partitions: u16,
}

impl Directory {
    pub(super) fn new(apps: Arc<Apps>, hash: KeyHash, topology: Topology, partitions: u16) -> Self {
        let (ids, by_id) = (Vec::new(), HashMap::new());
        let mut directory =
            Self { apps: Arc::clone(&apps), ids, by_id, hash, topology, partitions };
        directory.adopt(apps);
        directory
    }

    /// Takes other apps. Those that were removed keep their ids.
    pub(super) fn adopt(&mut self, apps: Arc<Apps>) {
        for app in apps.iter() {
            let index = usize::from(app.index.0);
            self.ids.resize(self.ids.len().max(index + 1), Box::default());
            if let Some(id) = self.ids.get_mut(index) {
                *id = app.id.as_str().into();
            }
            self.by_id.insert(app.id.as_str().into(), app.index);
        }
        self.apps = apps;
    }

    /// The apps in force.
    pub(super) const fn apps(&self) -> &Arc<Apps> {
        &self.apps
    }

    /// The shards of this node.
    pub(super) const fn topology(&self) -> Topology {
        self.topology
    }

    /// The app with this index, as it is configured now.
    pub(super) fn app(&self, index: AppIndex) -> Option<&Arc<App>> {
        self.apps.get(index).filter(|app| app.index == index)
    }

    /// The index of the app with this id.
    pub(super) fn app_by_id(&self, id: &str) -> Option<AppIndex> {
        self.by_id.get(id).copied()
    }

    /// The id of an app that is or was configured.
    pub(super) fn id(&self, index: AppIndex) -> Option<&str> {
        self.ids.get(usize::from(index.0)).map(|id| &**id).filter(|id| !id.is_empty())
    }

    /// The id of an app as it is in paths, and the partition of what belongs to the app alone.
    pub(super) fn app_text(&self, index: AppIndex) -> Option<(Box<str>, u16)> {
        let path = ChannelPath::new(self.id(index)?, "");
        Some((path.as_str().strip_suffix(':')?.into(), path.partition(self.partitions)))
    }

    /// The app whose id is this in paths.
    pub(super) fn app_of_text(&self, text: &str) -> Option<AppIndex> {
        let path = ChannelPath::from_text(&format!("{text}:"));
        self.app_by_id(&path.parts()?.0)
    }

    /// The path of a channel, with its partition.
    pub(super) fn channel_path(&self, key: &ChannelKey) -> Option<(ChannelPath, u16)> {
        let path = ChannelPath::new(self.id(key.app())?, key.name());
        let partition = path.partition(self.partitions);
        Some((path, partition))
    }

    /// The path of a user, with its partition.
    pub(super) fn user_path(&self, key: &UserKey) -> Option<(UserPath, u16)> {
        let path = UserPath::new(self.id(key.app())?, key.id());
        let partition = path.partition(self.partitions);
        Some((path, partition))
    }

    /// A channel with its home; `None` if it cannot be one of this node's apps.
    pub(super) fn channel(&self, path: &ChannelPath) -> Option<(ShardId, ChannelKey)> {
        let (id, name) = path.parts()?;
        let index = self.app_by_id(&id)?;
        let key = self.hash.channel(index, self.channel_name(index, name)?);
        Some((self.topology.home_of(&key), key))
    }

    /// The name of a channel of an app, if it may have that name.
    pub(super) fn channel_name(&self, index: AppIndex, name: &str) -> Option<ChannelName> {
        self.app(index)?;
        ChannelName::parse(name, NAME_BYTES_MAX, false).ok()
    }

    /// A user with its home; `None` if it cannot be one of this node's apps.
    pub(super) fn user(&self, path: &UserPath) -> Option<(ShardId, UserKey)> {
        let (id, user_id) = path.parts()?;
        let index = self.app_by_id(&id)?;
        let key = self.takes_user(index, user_id).then(|| self.hash.user(index, user_id.into()))?;
        Some((self.topology.home_of_user(&key), key))
    }

    /// Whether a user of an app may have this id.
    pub(super) fn takes_user(&self, index: AppIndex, user_id: &str) -> bool {
        self.app(index).is_some() && user_id.len() <= NAME_BYTES_MAX
    }

    /// The flags of a command about a channel, of which webhooks may be told a departure.
    pub(super) fn flags(&self, key: &ChannelKey, departure: EventKind) -> JoinFlags {
        let presence = key.name().kind().is_presence();
        let Some(app) = self.app(key.app()) else {
            return JoinFlags { presence, ..JoinFlags::default() };
        };
        let watched = app.webhooks.watched();
        JoinFlags {
            presence,
            // The members of presence channels are told instead, as at Pusher.
            counted: !presence
                && (app.subscription_counts || watched.contains(EventKind::SubscriptionCount)),
            told: watched.contains(departure),
            anew: false,
        }
    }

    /// A short hash of the parts of the apps that all nodes should have alike. It does not tell a
    /// secret, because each secret only signs.
    pub(super) fn fingerprint(&self) -> Box<str> {
        let mut apps: Vec<_> = self.apps.iter().collect();
        apps.sort_by(|a, b| a.id.cmp(&b.id));
        let mut hash = Sha256::new();
        for app in apps {
            let keys: Vec<&str> = app.rules.keys().collect();
            let signature = app.rules.secret.sign(&[b"ringwave cluster", app.id.as_bytes()]);
            let App { max_connections, subscription_counts, cache_ttl, .. } = &**app;
            let settings = (&app.id, keys, signature, max_connections, subscription_counts);
            hash.update(format!("{settings:?} {cache_ttl:?}\n"));
        }
        hex::encode(hash.finalize().get(..FINGERPRINT_BYTES).unwrap_or_default()).into()
    }
}

/// The most bytes of the name of a channel or a user that the settings of an app can allow.
const NAME_BYTES_MAX: usize = 4 << 10;

/// The bytes of a fingerprint: enough to tell configurations apart.
const FINGERPRINT_BYTES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{test_app, test_app_named};

    fn directory(apps: Vec<App>) -> Directory {
        Directory::new(Arc::new(Apps::new(apps)), KeyHash::random(), Topology::new(3), 4)
    }

    #[test]
    fn channels_and_users_come_back_from_their_paths() {
        let directory = directory(vec![test_app(), test_app_named(1, "a:%b", "key")]);
        for app in [AppIndex(0), AppIndex(1)] {
            let name = directory.channel_name(app, "private-x:y").unwrap();
            let key = directory.hash.channel(app, name);
            let (path, _) = directory.channel_path(&key).unwrap();
            assert_eq!(directory.channel(&path).unwrap().1, key);
            let user = directory.hash.user(app, "ann:1".into());
            let (path, _) = directory.user_path(&user).unwrap();
            assert_eq!(directory.user(&path).unwrap().1, user);
            let (text, partition) = directory.app_text(app).unwrap();
            assert_eq!(directory.app_of_text(&text), Some(app));
            assert!(partition < 4);
        }
    }

    #[test]
    fn names_from_outside_are_checked_for_what_no_app_allows() {
        let directory = directory(vec![test_app()]);
        let long = "x".repeat(10_000);
        for name in ["", "a\nb", &long] {
            assert!(directory.channel(&ChannelPath::new("app-id", name)).is_none(), "{name:?}");
        }
        assert!(directory.channel(&ChannelPath::new("other", "news")).is_none());
        assert!(directory.channel(&ChannelPath::from_text("news")).is_none());
        assert!(directory.user(&UserPath::new("app-id", &long)).is_none());
        assert!(directory.channel(&ChannelPath::new("app-id", "news")).is_some());
    }

    #[test]
    fn channels_keep_their_homes_when_the_limits_of_names_become_stricter() {
        let mut app = test_app();
        (app.rules.limits.max_channel_name, app.rules.limits.max_user_id) = (3, 3);
        app.rules.strict_names = true;
        let directory = directory(vec![app]);
        assert!(directory.channel(&ChannelPath::new("app-id", "orders/17")).is_some());
        assert!(directory.user(&UserPath::new("app-id", "ann-17")).is_some());
    }

    #[test]
    fn a_channel_of_a_removed_app_keeps_its_path() {
        let mut directory = directory(vec![test_app(), test_app_named(1, "gone", "key")]);
        let name = directory.channel_name(AppIndex(1), "news").unwrap();
        let key = directory.hash.channel(AppIndex(1), name);
        let before = directory.channel_path(&key);
        let apps = directory.apps.followed_by(&Apps::new(vec![test_app()])).unwrap();
        directory.adopt(Arc::new(apps));
        assert!(before.is_some());
        assert_eq!(directory.channel_path(&key), before);
        assert!(!directory.flags(&key, EventKind::ChannelVacated).told);
    }

    #[test]
    fn the_members_of_a_presence_channel_are_told_and_not_its_subscriptions() {
        let directory = directory(vec![App { subscription_counts: true, ..test_app() }]);
        let counted = ["news", "presence-room"].map(|name| {
            let name = directory.channel_name(AppIndex(0), name).unwrap();
            let key = directory.hash.channel(AppIndex(0), name);
            directory.flags(&key, EventKind::ChannelVacated).counted
        });
        assert_eq!(counted, [true, false]);
    }

    #[test]
    fn the_fingerprint_tells_apps_apart_and_not_their_order() {
        let [a, b] = [("a", "x"), ("b", "y")];
        let of = |apps: [(&str, &str); 2]| {
            let apps = (0..).zip(apps).map(|(n, (id, key))| test_app_named(n, id, key));
            directory(apps.collect()).fingerprint()
        };
        assert_eq!(of([a, b]), of([b, a]));
        assert_ne!(of([a, b]), of([a, ("b", "z")]));
    }
}
