//! Messages between shards about channels. They are kept below 100 bytes, because a mailbox holds
//! thousands of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::frame::Frame;
use crate::id::{ConnKey, ShardId, SocketId};
use crate::protocol::auth::Member;
use crate::protocol::names::ChannelName;

use super::ChannelKey;

/// A message about one channel.
#[derive(Debug)]
pub enum Message {
    /// To the home: a connection subscribes.
    Join(Box<Join>),
    /// From the home: it is subscribed, or refused.
    Joined(Box<Joined>),
    /// To the home: a subscription ended.
    Leave(Leave),
    /// To the home: an event for all subscribers.
    Publish(Box<Publish>),
    /// From the home: an event for the subscribers on this shard.
    Deliver(Deliver),
    /// From the home: the answer to a publish that asked for one.
    Published(Box<Answered>),
    /// From the home: this connection sent a client event behind a join that was refused.
    NotMember(ConnKey, ChannelName),
}

/// A subscribe on its way to the channel's home. Only made of an `Authorised`.
#[derive(Debug)]
pub struct Join {
    /// The channel.
    pub key: ChannelKey,
    /// The shard that the connection is on.
    pub shard: ShardId,
    /// The connection.
    pub conn: ConnKey,
    /// Tells this subscribe from all others of its shard that are on their way. Of one that asks
    /// once more it is the ticket of the first, or 0 if that has been answered.
    pub ticket: u32,
    /// The member that joins a presence channel.
    pub member: Option<Arc<Member>>,
    /// The connection has asked already and wants the answer once more; nothing is counted.
    pub again: bool,
    /// Most members that the channel may have.
    pub max_members: Option<usize>,
}

/// The home's answer to a [`Join`].
#[derive(Debug)]
pub struct Joined {
    /// As in the [`Join`].
    pub(crate) key: ChannelKey,
    /// As in the [`Join`].
    pub(crate) conn: ConnKey,
    /// As in the [`Join`].
    pub(crate) ticket: u32,
    /// As in the [`Join`].
    pub(crate) again: bool,
    /// The outcome of the join.
    pub(crate) outcome: Outcome,
}

/// The outcome of a [`Join`].
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The subscriber is counted from now on. Nothing of the answer is copied for this subscriber
    /// alone.
    Subscribed {
        /// The encoded `subscription_succeeded`.
        answer: Frame,
        /// The last event of a cache channel, or a cache miss. `None` for other channels.
        last: Option<Frame>,
        /// The number of subscribers that were told of a new member.
        told: u32,
    },
    /// The presence channel has as many members as it may have. Not counted, and remembered until
    /// the [`Leave`] with this ticket arrives.
    Full,
}

/// A subscription ended. Each [`Join`] that is to be counted is followed by exactly one of these.
#[derive(Debug)]
pub struct Leave {
    /// The channel.
    pub(crate) key: ChannelKey,
    /// The shard that the connection was on.
    pub(crate) shard: ShardId,
    /// The member that left a presence channel.
    pub(crate) member: Option<Arc<Member>>,
    /// The ticket of the join, unless the shard knows that the home has counted it. If the home has
    /// refused that join, there is nothing to count down.
    pub(crate) ticket: Option<u32>,
}

/// An event on its way to the channel's home.
#[derive(Debug)]
pub struct Publish {
    /// The channel.
    pub key: ChannelKey,
    /// The event as subscribers get it.
    pub frame: Frame,
    /// Kept as the channel's last event, with its time to live. Server events only.
    pub cached: Option<(Arc<str>, Duration)>,
    /// The connection that must not get it.
    pub except: Option<SocketId>,
    /// The client event as a webhook is told of it, if one is to be told.
    pub whisper: Option<Box<Whisper>>,
    /// The sender of a client event, if the home's answer to its join is not known yet: the
    /// home relays it only if it has counted that join. The sender has to be a member.
    pub joining: Option<JoiningSender>,
    /// A client has sent it: a client event.
    pub by_client: bool,
    /// The shard that asked for the channel's state, the number of its question, and the index of
    /// this event within the question.
    pub answer_to: Option<(ShardId, u32, u32)>,
}

/// The sender of a client event between its subscribe and the home's answer to that.
#[derive(Clone, Copy, Debug)]
pub struct JoiningSender {
    /// The shard that the connection is on.
    pub(crate) shard: ShardId,
    /// The connection.
    pub(crate) conn: ConnKey,
    /// As in its [`Join`].
    pub(crate) ticket: u32,
}

/// A client event as a webhook is told of it. It travels with the event, so that the home tells
/// what happens on its channel in the order in which it happens.
#[derive(Clone, Debug)]
pub struct Whisper {
    /// Its name.
    pub(crate) event: Box<str>,
    /// Its data as sent.
    pub(crate) data: Option<Box<RawValue>>,
    /// The socket id of its sender.
    pub(crate) socket_id: SocketId,
    /// The user id of its sender, on presence channels.
    pub(crate) user_id: Option<Arc<str>>,
}

/// An event on its way to the subscribers of one shard.
#[derive(Debug)]
pub struct Deliver {
    /// The channel.
    pub(crate) key: ChannelKey,
    /// The event as subscribers get it.
    pub(crate) frame: Frame,
    /// The connection that must not get it.
    pub(crate) except: Option<SocketId>,
}

/// The state of a channel right behind a publish that asked for it.
#[derive(Debug)]
pub struct Answered {
    /// The question's number.
    pub(crate) question: u32,
    /// The publication within the question.
    pub(crate) index: u32,
    /// The state.
    pub(crate) state: ChannelState,
}

/// One event on one channel, as the front hands it over.
#[derive(Debug)]
pub struct Publication {
    /// Where it goes.
    pub channel: ChannelName,
    /// The event as subscribers receive it, encoded once for all of them.
    pub frame: Frame,
    /// The event's `data`, to be kept as the channel's last event. Only for cache channels.
    pub cached: Option<Arc<str>>,
    /// The connection that caused the event and does not want it back (`socket_id`).
    pub except: Option<SocketId>,
    /// Whether the answer's [`ChannelState`] is looked at (`info` was asked for).
    pub wants_state: bool,
}

/// The state of a channel as its home knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelState {
    /// Subscribed connections on all shards; the channel is occupied when there are any.
    pub subscription_count: u32,
    /// Distinct users on all shards; 0 for channels without presence.
    pub user_count: u32,
    /// The last event of a cache channel while it is kept.
    pub cached: Option<CachedEvent>,
}

impl ChannelState {
    /// Whether anyone is subscribed.
    #[must_use]
    pub(crate) const fn occupied(&self) -> bool {
        self.subscription_count > 0
    }
}

/// The last event of a cache channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedEvent {
    /// Its `data`, as it was published.
    pub data: Arc<str>,
    /// Seconds that it will still be kept.
    pub ttl_s: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_fits_into_two_cache_lines() {
        assert!(size_of::<Message>() <= 104, "{} bytes", size_of::<Message>());
    }
}
