//! The messages between shards.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::drain::Drain;
use super::trace::Traced;
use crate::channels::{self, ChannelKey, ChannelState, Leave, Left, UserMessage};
use crate::front;
use crate::front::gateway::Headroom;
use crate::id::{AppIndex, ShardId};
use crate::plane::BacklogLimits;
use crate::protocol::app::Apps;
use crate::protocol::names::ChannelName;

/// A message of the bus.
#[derive(Debug)]
pub enum Message {
    /// About one channel.
    Channel(channels::Message),
    /// About users who sign in.
    Users(UserMessage),
    /// A question of one shard to another.
    Ask(Box<Ask>),
    /// The answer.
    Answer(Box<Answer>),
    /// With `--debug`: tell an event from which a connection of this shard is excepted.
    Traced(Box<Traced>),
    /// From the control thread: close all connections.
    Drain(Drain),
    /// From the control thread: the drain is over, accept nothing more.
    CloseListeners,
    /// From the control thread: this is in force from now on. Answered when it is.
    InForce(Arc<InForce>, oneshot::Sender<()>),
    /// From the control thread: so much memory is left.
    Memory(Headroom),
    /// From the control thread: answer at the end of the turn, when everything that came before has
    /// had its effect. A shard that is stuck cannot answer.
    RollCall(oneshot::Sender<()>),
    /// From the control thread: how much is there?
    Count(oneshot::Sender<Counts>),
    /// From the control thread: end the shard. All shards have drained.
    Stop,
}

/// Everything of the configuration that a shard works by and that a reload may change, in one
/// piece: a shard never has the apps of one configuration and the bounds of another.
#[derive(Clone, Debug)]
pub struct InForce {
    /// All apps, those that were removed included.
    pub apps: Arc<Apps>,
    /// Bounds on what slow readers are owed, while there is enough memory.
    pub backlog: BacklogLimits,
    /// The settings of the shard's front.
    pub front: Arc<front::Settings>,
}

/// The connections and channels of a shard at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Its open WebSockets.
    pub(crate) connections: usize,
    /// By index of the app: the occupied channels whose home is this shard.
    pub(crate) channels: Vec<u32>,
}

/// A question that came in over one shard's API.
#[derive(Debug)]
pub struct Ask {
    /// The shard that asks.
    pub(crate) shard: ShardId,
    /// The asker's number for it.
    pub(crate) question: u32,
    /// The question.
    pub(crate) what: Question,
}

/// A question that one shard can ask another.
#[derive(Debug)]
pub(crate) enum Question {
    /// The state of a channel at home there.
    Channel(ChannelKey),
    /// The members of a presence channel at home there.
    Users(ChannelKey),
    /// The occupied channels at home there whose names begin with this.
    Occupied(AppIndex, Arc<str>),
    /// Close the connections of a user there.
    Terminate(AppIndex, String),
}

/// The answer to a [`Question`], in the same order of variants, or a part of the answer if it is a
/// list.
#[derive(Debug)]
pub struct Answer {
    /// The asker's number for the question.
    pub(crate) question: u32,
    /// The answer.
    pub(crate) what: Told,
}

/// The content of an [`Answer`].
#[derive(Debug)]
pub(crate) enum Told {
    /// The state of the channel.
    Channel(ChannelState),
    /// The user ids, once each.
    Users(Vec<Box<str>>),
    /// Some of the occupied channels. One that is vacated and occupied again meanwhile may be among
    /// several parts.
    Occupied {
        /// The channels.
        channels: Vec<(ChannelName, ChannelState)>,
        /// Whether this is the last part.
        last: bool,
    },
    /// It is done.
    Terminated,
}

impl Message {
    /// A subscription of this shard ended.
    pub(super) fn leave(key: ChannelKey, shard: ShardId, left: Left) -> Self {
        let Left { member, ticket } = left;
        Self::Channel(channels::Message::Leave(Leave { key, shard, member, ticket }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_entry_stays_small() {
        assert!(size_of::<Message>() <= 112, "{} bytes", size_of::<Message>());
    }
}
