//! The messages between shards.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::drain::Drain;
use super::trace::Traced;
use crate::apps::Apps;
use crate::channels::{FromHome, ReplyTo, Steps, ToHome};
use crate::front;
use crate::id::{AppIndex, ShardId};
use crate::memory::Headroom;
use crate::plane::BacklogLimits;

/// A message of the bus.
#[derive(Debug)]
pub enum Message {
    /// From this shard to a channel's home.
    ToHome(ShardId, ToHome),
    /// From the home of a channel or of users.
    FromHome(FromHome),
    /// From this shard to the home of these users.
    ToUserHome(ShardId, Steps),
    /// A shard asks to close the connections of a user. Answered by [`Message::Terminated`].
    Terminate(ReplyTo, AppIndex, Arc<str>),
    /// The connections of the user are closed.
    Terminated(ReplyTo),
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
    /// From the control thread: how many connections and channels are there?
    Count(oneshot::Sender<Totals>),
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
pub struct Totals {
    /// Its open WebSockets.
    pub(crate) connections: usize,
    /// By index of the app: the occupied channels whose home is this shard.
    pub(crate) channels: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_entry_stays_small() {
        assert!(size_of::<Message>() <= 112, "{} bytes", size_of::<Message>());
    }
}
