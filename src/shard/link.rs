//! The way from a shard to the homes of channels and users, and to the other shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message::ShardMessage;
use crate::bus::Port;
use crate::channels::{
    ChannelKey, Event, KeyHash, Leave, Left, ReplyTo, Steps, ToCluster, ToHome, Topology, UserKey,
};
use crate::id::{AppIndex, ShardId};
use crate::invariant::broken;
use crate::protocol::names::ChannelName;

/// A shard's end of the bus, with the topology that says which shard is the home of a channel or a
/// user. Messages keep their order per receiver. Sending neither blocks nor fails: a message that
/// finds a mailbox full waits in the port.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) port: Port<ShardMessage>,
    pub(super) topology: Topology,
    hash: KeyHash,
    /// The id of the cluster's port, behind those of the shards. `None` if the node is alone.
    cluster: Option<ShardId>,
}

impl Link {
    pub(super) fn new(port: Port<ShardMessage>, hash: KeyHash, clustered: bool) -> Self {
        let shards = port.shards();
        let cluster = clustered.then_some(ShardId(shards));
        Self { topology: Topology::new(shards), port, hash, cluster }
    }

    /// Whether the node is one of a cluster.
    pub(super) const fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// Sends a message to the cluster.
    pub(super) fn tell_cluster(&mut self, message: ToCluster) {
        match self.cluster {
            Some(cluster) => self.port.send(cluster, ShardMessage::ToCluster(message)),
            None => broken("a node that is alone speaks to a cluster"),
        }
    }

    /// The id of this shard.
    pub(super) const fn id(&self) -> ShardId {
        self.port.id()
    }

    /// The key of a channel.
    pub(super) fn channel(&self, app: AppIndex, name: ChannelName) -> ChannelKey {
        self.hash.channel(app, name)
    }

    /// The key of a user.
    pub(super) fn user(&self, app: AppIndex, id: Arc<str>) -> UserKey {
        self.hash.user(app, id)
    }

    pub(super) fn send(&mut self, to: ShardId, message: ShardMessage) {
        self.port.send(to, message);
    }

    /// Sends a message about a channel to the channel's home.
    pub(super) fn send_home(&mut self, home: ShardId, message: ToHome) {
        self.port.send(home, ShardMessage::ToHome(self.id(), message));
    }

    /// Sends an event to its home. Returns `false` if the event has to wait for room in the
    /// mailbox.
    pub(super) fn publish(&mut self, home: ShardId, event: Event) -> bool {
        let message = ShardMessage::ToHome(self.id(), ToHome::Publish(event));
        let sent = self.port.try_send(home, message);
        sent.map_err(|message| self.port.send(home, message)).is_ok()
    }

    /// Tells the home of a channel that a subscription has ended.
    pub(super) fn leave(&mut self, key: ChannelKey, left: Left) {
        let Left { member, ticket } = left;
        let home = self.topology.home_of(&key);
        self.send_home(home, ToHome::Leave(Leave { key, member, ticket }));
    }

    /// Tells the homes of users what has changed on this shard, by one message to each.
    pub(super) fn tell_user_homes(&mut self, steps: Steps) {
        let mut by_home: BTreeMap<ShardId, Steps> = BTreeMap::new();
        for (key, step) in steps {
            by_home.entry(self.topology.home_of_user(&key)).or_default().push((key, step));
        }
        for (home, steps) in by_home {
            self.port.send(home, ShardMessage::ToUserHome(self.id(), steps));
        }
    }

    /// The address for the answers to a request of this shard.
    pub(super) const fn reply_to(&self, request: u32, index: u32) -> ReplyTo {
        ReplyTo { shard: self.id(), request, index }
    }
}
