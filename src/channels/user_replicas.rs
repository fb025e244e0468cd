//! The users whose home on this node is this shard, if the node is one of a cluster: the shards
//! that have the user or watch it, and what the cluster says of it.

use crate::id::ShardId;

use super::cluster::ToCluster;
use super::message::{FromHome, Step, Steps};
use super::user_table::{Told, User, UserTable};
use super::{Outbox, UserKey};

/// The users of a node of a cluster whose home is this shard. Driven as
/// [`UserHomes`](super::UserHomes) are, and by [`learn`](Self::learn) besides.
///
/// The cluster is told of the node's first connection of a user and of the end of the last one, and
/// likewise of watchers. It tells whether a watched user is online on any node.
///
/// While the node is [alone](super::FromCluster::Alone), its own connections are all that is known
/// of changes. A user whom the cluster last called online is taken to be so until the last
/// connection on this node ends. When the cluster is back, the registration asks for all users
/// anew.
#[derive(Debug, Default)]
pub(crate) struct UserReplicas {
    /// Users that are on this node or watched from it: online as the cluster last said, or as
    /// changes on this node have it while the node is alone. A watched user of whom it has said
    /// nothing is taken as offline.
    users: UserTable,
    /// Whether the node is alone.
    alone: bool,
}

impl UserReplicas {
    /// Takes over the changes on a shard, oldest first.
    pub(crate) fn handle(&mut self, from: ShardId, steps: Steps, out: &mut Outbox) {
        let mut told = Told::default();
        let (mut changes, alone) = (Steps::new(), self.alone);
        for (key, step) in steps {
            let user = self.users.find_or_insert(&key);
            let before = (user.here.is_empty(), user.watchers.is_empty());
            if alone && step == Step::Watch && !user.here.is_empty() {
                user.online = true;
            }
            user.step(from, step);
            if step == Step::Watch && user.online {
                told.tell(from, user);
            }
            if before != (user.here.is_empty(), user.watchers.is_empty()) {
                changes.push((key.clone(), step));
            }
            if alone && before.0 != user.here.is_empty() {
                user.online = !user.here.is_empty();
                user.watchers.iter().for_each(|&watcher| told.tell(watcher, user));
            }
            if user.watchers.is_empty() {
                user.online = false;
            }
            self.users.drop_if_unused(&key);
        }
        if !changes.is_empty() {
            out.tell_cluster(ToCluster::Users(changes));
        }
        told.send(out);
    }

    /// Takes the cluster's word of whether a user is online. The watching shards are told.
    pub(crate) fn learn(&mut self, key: &UserKey, online: bool, out: &mut Outbox) {
        let user = self.users.find_mut(key);
        let Some(user) = user.filter(|user| !user.watchers.is_empty()) else { return };
        user.online = online;
        for &watcher in &user.watchers {
            out.send(watcher, FromHome::Online(vec![(key.clone(), online)]));
        }
    }

    /// Begins to answer in the place of the cluster, or ends it. What the cluster was asked before
    /// and has not answered is answered now.
    pub(crate) fn set_alone(&mut self, alone: bool, out: &mut Outbox) {
        self.alone = alone;
        let unknown = |user: &&mut User| {
            alone && !user.online && !user.here.is_empty() && !user.watchers.is_empty()
        };
        for user in self.users.iter_mut().filter(unknown) {
            user.online = true;
            for &watcher in &user.watchers {
                out.send(watcher, FromHome::Online(vec![(user.key.clone(), true)]));
            }
        }
    }

    /// Asks the cluster once more whether a user is online, if anybody still watches the user.
    pub(crate) fn ask_again(&self, key: &UserKey, out: &mut Outbox) {
        let user = self.users.find(key);
        if user.is_some_and(|user| !user.watchers.is_empty()) {
            out.tell_cluster(ToCluster::Users(vec![(key.clone(), Step::Watch)]));
        }
    }

    /// Whether the node is alone.
    #[must_use]
    pub(crate) const fn is_alone(&self) -> bool {
        self.alone
    }

    /// The changes that bring a cluster up to date which has forgotten this node.
    pub(crate) fn registration(&self) -> Steps {
        let of_user = |user: &User| {
            let here = (!user.here.is_empty()).then(|| (user.key.clone(), Step::Arrived));
            let watched = (!user.watchers.is_empty()).then(|| (user.key.clone(), Step::Watch));
            here.into_iter().chain(watched)
        };
        self.users.iter().flat_map(of_user).collect()
    }

    /// The number of users on this node or watched from it.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }
}
