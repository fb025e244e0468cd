//! The messages between a shard and the homes of channels and users. They are kept below 100 bytes,
//! because a mailbox holds thousands of them.

use std::sync::Arc;

use crate::frame::Frame;
use crate::id::{AppIndex, ConnKey, ShardId};
use crate::protocol::auth::{Authorised, Member};
use crate::protocol::names::ChannelName;

use super::notice::ClientEventNotice;
use super::{ChannelKey, ChannelState, Event, UserKey};

/// A message to the home of a channel. The id of the sending shard travels with it.
#[derive(Debug)]
pub enum ToHome {
    /// A connection subscribes. Answered by [`FromHome::Joined`].
    Join(Box<Join>),
    /// A connection that has subscribed already wants the answer once more. Nothing is counted.
    /// Answered by [`FromHome::Repeated`].
    Repeat(Box<Repeat>),
    /// A subscription ended.
    Leave(Leave),
    /// An event for all subscribers.
    Publish(Event),
    /// An event for all subscribers, behind which the publisher wants the state of the channel.
    /// Answered by [`Answer::State`].
    PublishAndReport(Box<Event>, ReplyTo),
    /// A client event for all other subscribers.
    Whisper(Box<Whisper>),
    /// A question of the API. Answered by one or more [`FromHome::Answer`]s.
    Ask(ReplyTo, Question),
}

/// A message from the home of a channel or of a user to a shard.
#[derive(Debug)]
pub enum FromHome {
    /// The answer to a [`Join`].
    Joined(Box<Joined>),
    /// The answer to a [`Repeat`].
    Repeated(Box<Repeated>),
    /// An event for the subscribers on this shard.
    Event(Event),
    /// The connection sent a client event behind a join that was refused.
    NotMember(ConnKey, ChannelName),
    /// The answer to a [`Question`], or a part of it.
    Answer(ReplyTo, Box<Answer>),
    /// Users that the shard watches, each with whether it is online.
    Online(Vec<(UserKey, bool)>),
}

/// A subscribe on its way to the channel's home. It carries the proof that the connection may join:
/// without an [`Authorised`] there is no join.
#[derive(Debug)]
pub struct Join {
    /// The channel that is named in the proof.
    pub key: ChannelKey,
    /// The proof, with the member that joins a presence channel.
    pub authorised: Authorised,
    /// The connection.
    pub conn: ConnKey,
    /// The number that distinguishes this join from all others of its shard that are pending.
    pub ticket: u32,
    /// The most members that the channel may have; `None` if there is no limit.
    pub max_members: Option<usize>,
}

/// A subscribe of a connection that has a subscription to the channel, pending or not.
#[derive(Debug)]
pub struct Repeat {
    /// The channel that is named in the proof.
    pub(crate) key: ChannelKey,
    /// The proof that the connection may have the answer.
    pub(crate) authorised: Authorised,
    /// The connection.
    pub(crate) conn: ConnKey,
    /// The ticket of the connection's [`Join`], if that has not been answered.
    pub(crate) ticket: Option<u32>,
}

/// The home's answer to a [`Join`].
#[derive(Debug)]
pub struct Joined {
    /// The channel of the [`Join`].
    pub(crate) key: ChannelKey,
    /// The connection of the [`Join`].
    pub(crate) conn: ConnKey,
    /// The ticket of the [`Join`].
    pub(crate) ticket: u32,
    /// The outcome. The home remembers a refused join until the [`Leave`] with its ticket arrives.
    pub(crate) outcome: Outcome,
    /// The number of subscribers that were told of a new member.
    pub(crate) told: u32,
}

/// The home's answer to a [`Repeat`].
#[derive(Debug)]
pub struct Repeated {
    /// The channel of the [`Repeat`].
    pub(crate) key: ChannelKey,
    /// The connection of the [`Repeat`].
    pub(crate) conn: ConnKey,
    /// The outcome of the join that is repeated.
    pub(crate) outcome: Outcome,
}

/// The outcome of a join.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The subscriber is counted from now on. No byte of its answer is copied for it alone.
    Subscribed {
        /// The encoded `subscription_succeeded`.
        answer: Frame,
        /// The last event of a cache channel, or a cache miss. `None` for other channels.
        last: Option<Frame>,
    },
    /// The presence channel has as many members as it may have. The subscriber is not counted.
    Full,
}

/// A subscription ended. Each [`Join`] is followed by exactly one of these.
#[derive(Debug)]
pub struct Leave {
    /// The channel.
    pub(crate) key: ChannelKey,
    /// The member that left a presence channel. `None` on other channels.
    pub(crate) member: Option<Arc<Member>>,
    /// The ticket of the join, unless the shard knows that the home has counted it. If the home has
    /// refused that join, there is nothing to count down.
    pub(crate) ticket: Option<u32>,
}

/// A client event on its way to the channel's home.
#[derive(Debug)]
pub struct Whisper {
    /// The event; its sender is excepted.
    pub(crate) event: Event,
    /// The sender, if it has to be a member of the channel and the home's answer to its join is not
    /// known yet. The home relays the event only if it has counted that join.
    pub(crate) joining: Option<Joining>,
    /// The notice for webhooks, if any of them wants client events.
    pub(crate) notice: Option<Box<ClientEventNotice>>,
}

/// A connection between its subscribe and the home's answer to that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joining {
    /// The connection.
    pub(crate) conn: ConnKey,
    /// The ticket of the connection's [`Join`].
    pub(crate) ticket: u32,
}

/// Changes on a shard that concern users, for the users' home, oldest first.
pub(crate) type Steps = Vec<(UserKey, Step)>;

/// A change on a shard that concerns a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The shard has a connection of the user now.
    Arrived,
    /// The shard has no connection of the user any more.
    Left,
    /// The shard wants to be told whether the user is online, and of every change.
    Watch,
    /// The shard does not want to be told of the user any more.
    Unwatch,
}

/// The address for the answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The shard that asks.
    pub(crate) shard: ShardId,
    /// The shard's number for the request that the question is a part of.
    pub(crate) request: u32,
    /// The index of the question within the request.
    pub(crate) index: u32,
}

/// A question to a home.
#[derive(Clone, Debug)]
pub enum Question {
    /// Nothing: the answer says that the home has handled everything that was sent to it before.
    Barrier,
    /// The state of a channel.
    State(ChannelKey),
    /// The users who are members of a presence channel.
    Users(ChannelKey),
    /// The occupied channels of an app whose names begin with this prefix.
    Occupied(AppIndex, Arc<str>),
    /// The number of open connections of an app. Only the cluster is asked, because a node counts
    /// its own.
    Connections(AppIndex),
}

/// The answer to a [`Question`], in the same order of variants, or a part of it if it is a list.
#[derive(Debug)]
pub enum Answer {
    /// Everything before has been handled.
    Barrier,
    /// Not all nodes of the cluster answer now.
    Unavailable,
    /// Redis is away, and the cluster with it.
    Away,
    /// To a request for a place: the cluster has none.
    Full,
    /// The state of the channel.
    State(ChannelState),
    /// The user ids, once each.
    Users(Vec<Box<str>>),
    /// Some of the occupied channels. One that is vacated and occupied again meanwhile may be among
    /// several parts.
    Occupied {
        /// The channels.
        channels: Vec<(ChannelName, ChannelState)>,
        /// Whether this is the home's last part.
        last: bool,
    },
    /// The number of open connections.
    Connections(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_fits_into_two_cache_lines() {
        let sizes = (size_of::<ToHome>(), size_of::<FromHome>());
        assert!(sizes.0.max(sizes.1) <= 104, "{sizes:?} bytes");
    }
}
