//! The record of one channel on a node of a cluster.

use std::sync::Arc;

use crate::id::ShardId;
use crate::memory::{Keyed, number};
use crate::protocol::auth::Member;

use super::super::shard_counts::ShardCounts;
use super::super::table::ChannelRecord;
use super::super::{ChannelKey, ToHome};
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

impl ChannelRecord for Replica {
    fn new(key: ChannelKey) -> Self {
        Self {
            key,
            standing: Standing::Out,
            interest: ShardCounts::default(),
            attendance: None,
            waiting: Vec::new(),
            inexact: false,
        }
    }

    fn key(&self) -> &ChannelKey {
        &self.key
    }

    fn interest(&self) -> &ShardCounts {
        &self.interest
    }

    fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.attendance.iter().flat_map(|attendance| attendance.all())
    }

    fn users(&self) -> u32 {
        number(self.attendance.as_ref().map_or(0, |attendance| attendance.members()))
    }
}

impl Replica {
    /// Whether nothing on this node needs the channel any more.
    pub(super) fn is_unused(&self) -> bool {
        let entering = || self.attendance.as_ref().is_some_and(|of| of.is_entering());
        self.interest.is_empty() && self.waiting.is_empty() && !entering()
    }
}
