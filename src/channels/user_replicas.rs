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
#[derive(Debug, Default)]
pub(crate) struct UserReplicas {
    /// Users that are on this node or watched from it. A watched user of whom the cluster has said
    /// nothing is taken as offline.
    users: UserTable,
}

impl UserReplicas {
    /// Takes over the changes on a shard, oldest first.
    pub(crate) fn handle(&mut self, from: ShardId, steps: Steps, out: &mut Outbox) {
        let mut told = Told::default();
        let mut changes = Steps::new();
        for (key, step) in steps {
            let user = self.users.find_or_insert(&key);
            let before = (user.here.is_empty(), user.watchers.is_empty());
            user.step(from, step);
            if step == Step::Watch && user.online {
                told.tell(from, user);
            }
            if before != (user.here.is_empty(), user.watchers.is_empty()) {
                changes.push((key.clone(), step));
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

    /// Asks the cluster once more whether a user is online, if anybody still watches the user.
    pub(crate) fn ask_again(&self, key: &UserKey, out: &mut Outbox) {
        let user = self.users.find(key);
        if user.is_some_and(|user| !user.watchers.is_empty()) {
            out.tell_cluster(ToCluster::Users(vec![(key.clone(), Step::Watch)]));
        }
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
