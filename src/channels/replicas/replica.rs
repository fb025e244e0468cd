//! The record of one channel on a node of a cluster.

use crate::frame::Frame;
use crate::id::{ShardId, SocketId};
use crate::memory::Keyed;

use super::super::shard_counts::ShardCounts;
use super::super::{ChannelKey, Event, FromHome, Outbox, ToHome};
use super::attendance::Attendance;
use super::standing::Standing;

/// A channel with subscribers on this node. It exists from the first subscribe to the cluster's
/// answer to the last leave.
#[derive(Debug)]
pub(super) struct Replica {
    /// The app and the name of the channel.
    pub(super) key: ChannelKey,
    /// The standing of this node in the channel.
    pub(super) standing: Standing,
    /// The shards of this node with subscribers, and the number of these.
    pub(super) interest: ShardCounts,
    /// The users of a presence channel.
    pub(super) attendance: Option<Box<Attendance>>,
    /// The messages that wait for the cluster's answer about the node, oldest first.
    pub(super) waiting: Vec<(ShardId, ToHome)>,
    /// Whether the members may be too many, because other nodes had not registered anew yet.
    pub(super) inexact: bool,
}

impl Keyed for Replica {
    fn key_hash(&self) -> u64 {
        self.key.hash()
    }
}

impl Replica {
    pub(super) fn new(key: ChannelKey) -> Self {
        Self {
            key,
            standing: Standing::Out,
            interest: ShardCounts::default(),
            attendance: None,
            waiting: Vec::new(),
            inexact: false,
        }
    }

    /// Whether nothing on this node needs the channel any more.
    pub(super) fn is_unused(&self) -> bool {
        let entering = || self.attendance.as_ref().is_some_and(|of| of.is_entering());
        self.interest.is_empty() && self.waiting.is_empty() && !entering()
    }

    /// Hands an event to every shard with subscribers.
    pub(super) fn deliver(&self, frame: &Frame, except: Option<SocketId>, out: &mut Outbox) {
        for shard in self.interest.shards() {
            let (key, frame) = (self.key.clone(), frame.clone());
            out.send(shard, FromHome::Event(Event { key, frame, except, retain: None }));
        }
    }

    /// The number of members, on all nodes.
    pub(super) fn members(&self) -> usize {
        self.attendance.as_ref().map_or(0, |of| of.members())
    }
}
