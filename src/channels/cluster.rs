//! The messages between the homes of this node and the cluster, which is the home of homes. They
//! are kept small, because a mailbox holds thousands of them.

use std::sync::Arc;

use crate::frame::Frame;
use crate::id::{AppIndex, ShardId};
use crate::protocol::auth::Member;

use super::message::{Question, ReplyTo, Steps};
use super::{ChannelKey, Event, Retain, UserKey};

/// A message to the cluster. Those about one channel keep their order.
#[derive(Debug)]
pub enum ToCluster {
    /// From a home: the node has its first subscriber of a channel, and so many by now. Answered by
    /// [`FromCluster::Joined`].
    Join(ChannelKey, u32),
    /// From a home: the last subscriber of the node is gone. Answered by [`FromCluster::Left`].
    Leave(ChannelKey),
    /// From a home: the node has so many subscribers of a channel whose number somebody wants.
    Count(ChannelKey, u32),
    /// From a home: a user has a first connection in a presence channel on this node, and is a
    /// member unless the channel has so many others. Answered by [`FromCluster::Entered`].
    Enter(Box<Enter>),
    /// From a home: the last connection of a user in a channel on this node is gone. Answered by
    /// [`FromCluster::Parted`].
    Part(ChannelKey, Arc<str>),
    /// From a home: an event that no publisher waits for.
    Publish(Event),
    /// From a shard: an event of the API. Answered by [`Answer::Barrier`](super::Answer) once every
    /// interested node is certain to get it, or by [`Answer::Away`](super::Answer).
    PublishAndConfirm(Box<Event>, ReplyTo),
    /// From a home: changes of users on this node.
    Users(Steps),
    /// From a shard: a question about all nodes. Answered as a home answers it.
    Ask(ReplyTo, Question),
    /// From a shard: close the connections of a user on all nodes. Answered by
    /// [`Answer::Barrier`](super::Answer) when all have done it.
    Terminate(ReplyTo, AppIndex, Arc<str>),
    /// From a shard: an app has no place left for a connection on this node. Answered by
    /// [`Answer::Barrier`](super::Answer) when there are places, by
    /// [`Answer::Full`](super::Answer) when the cluster has none, or by
    /// [`Answer::Away`](super::Answer) when nobody can tell.
    MorePlaces(ReplyTo, AppIndex),
    /// From a home: a part of the answer to [`FromCluster::Register`].
    Registered(Box<Registered>),
    /// From a home, which answers itself from here on: the answer to [`FromCluster::Alone`].
    Alone(ShardId),
}

/// A user enters a presence channel on this node.
#[derive(Debug)]
pub struct Enter {
    /// The channel.
    pub(crate) key: ChannelKey,
    /// The user.
    pub(crate) member: Arc<Member>,
    /// The most members; `None` if there is no limit.
    pub(crate) max_members: Option<usize>,
}

/// Everything that a home has registered with a partition, in parts.
#[derive(Debug)]
pub struct Registered {
    /// The number of the partition that asked. Users of other partitions may be among the users.
    pub(crate) partition: u16,
    /// Channels with their numbers of subscribers, and the members that this node has in them.
    pub(crate) channels: Vec<(ChannelKey, u32, Vec<Arc<Member>>)>,
    /// The last events of cache channels, of which an emptied Redis has no copy.
    pub(crate) events: Vec<Event>,
    /// Users who are online on this node, or watched from it.
    pub(crate) users: Steps,
    /// Whether this is the shard's last part.
    pub(crate) last: bool,
}

/// A message of the cluster to the home of a channel or user on this node. Those of one partition
/// keep their order.
#[derive(Debug)]
pub enum FromCluster {
    /// The answer to [`ToCluster::Join`]. From here on the home gets everything about the channel.
    Joined(Box<ClusterJoined>),
    /// The answer to [`ToCluster::Leave`].
    Left(ChannelKey),
    /// The number of subscribers on all nodes, and whether it was this node that changed it.
    Count(ChannelKey, u32, bool),
    /// A user is a member now.
    Added(ChannelKey, Arc<Member>),
    /// A user is no member any more.
    Removed(ChannelKey, Arc<str>),
    /// The answer to [`ToCluster::Enter`].
    Entered(ChannelKey, Arc<str>, EnterOutcome),
    /// The answer to [`ToCluster::Part`].
    Parted(ChannelKey, Arc<str>),
    /// An event.
    Event(Event),
    /// Whether a watched user is online.
    Online(UserKey, bool),
    /// The cluster knows for certain now whether a user is online, of whom it was asked when it did
    /// not: a home that watches the user asks once more.
    Certain(UserKey),
    /// To all shards: the partition has forgotten this node. Answered by [`ToCluster::Registered`],
    /// and behind it by the questions whose answers may be lost.
    Register(PartitionId),
    /// To all shards: all nodes have registered with the partition. Homes whose members may not be
    /// all join their channels once more.
    Settled(PartitionId),
    /// To all shards: messages of the partition's channels may be lost. Connections that subscribe
    /// to any of them are closed, and return.
    CutOff(PartitionId),
    /// To all shards: whether the node serves its clients alone, because the cluster is away. The
    /// beginning is answered by [`ToCluster::Alone`].
    Alone(bool),
}

/// A partition of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionId {
    /// Its number.
    pub(crate) number: u16,
    /// The number of all partitions.
    pub(crate) of: u16,
}

/// The state of a channel over all nodes, as of the join of this node.
#[derive(Debug)]
pub struct ClusterJoined {
    /// The channel.
    pub(crate) key: ChannelKey,
    /// Whether webhooks are to be told that the channel is occupied.
    pub(crate) occupied: bool,
    /// Whether the members are all; otherwise there may be more.
    pub(crate) exact: bool,
    /// The last event of a cache channel.
    pub(crate) last: Option<(Frame, Box<Retain>)>,
    /// The members of a presence channel.
    pub(crate) members: Vec<Arc<Member>>,
}

/// The outcome of an [`Enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnterOutcome {
    /// The user is a member. Webhooks are told if it is a new one.
    Entered {
        /// Whether webhooks are told.
        told: bool,
    },
    /// The channel has as many members as it may have.
    Full,
}
