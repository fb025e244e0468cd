//! The record of one channel on a node of a cluster.

use crate::frame::Frame;
use crate::id::{ShardId, SocketId};
use crate::memory::Keyed;

use super::super::cluster::Enter;
use super::super::shard_counts::ShardCounts;
use super::super::{ChannelKey, Event, FromHome, Outbox, ToCluster, ToHome};
use super::attendance::Attendance;

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

/// The standing of a node in a channel, or of a node's user in a presence channel. It changes by
/// the cluster's answer, and no other question is under way meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not in it.
    #[default]
    Out,
    /// The cluster has been asked to let it in.
    Entering,
    /// In it.
    In,
    /// The cluster has been told that it leaves.
    Leaving,
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

    /// The questions to the cluster that it has not answered, in the order of the answers.
    pub(super) fn unanswered(&self) -> Vec<ToCluster> {
        let key = || self.key.clone();
        let mut questions = Vec::new();
        if self.standing == Standing::Entering {
            // The first subscriber waits, and is counted when the answer has come.
            questions.push(ToCluster::Join(key(), self.interest.total().max(1)));
        }
        if let Some(attendance) = &self.attendance {
            let entering = attendance.standing(Standing::Entering);
            questions.extend(entering.filter_map(|attendee| {
                let (member, max_members) = attendee.next_join()?;
                let enter = Enter { key: key(), member, max_members };
                Some(ToCluster::Enter(Box::new(enter)))
            }));
            let leaving = attendance.standing(Standing::Leaving);
            questions.extend(leaving.map(|of| ToCluster::Part(key(), of.member.user_id.clone())));
        }
        if self.standing == Standing::Leaving {
            questions.push(ToCluster::Leave(key()));
        }
        questions
    }

    /// The number of members, on all nodes.
    pub(super) fn members(&self) -> usize {
        self.attendance.as_ref().map_or(0, |of| of.members())
    }
}
