//! The messages between shards.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::drain::Drain;
use super::figures::Figures;
use super::trace::Traced;
use crate::apps::Apps;
use crate::channels::{FromCluster, FromHome, ReplyTo, Steps, ToCluster, ToHome};
use crate::front;
use crate::id::{AppIndex, ShardId};
use crate::memory::Headroom;
use crate::plane::BacklogLimits;

/// A message of the bus.
#[derive(Debug)]
pub enum ShardMessage {
    /// From this shard to a channel's home.
    ToHome(ShardId, ToHome),
    /// From the home of a channel or of users.
    FromHome(FromHome),
    /// From this shard to the home of these users.
    ToUserHome(ShardId, Steps),
    /// To the cluster, from a home or a shard.
    ToCluster(ToCluster),
    /// From the cluster.
    FromCluster(FromCluster),
    /// A shard asks to close the connections of a user. Answered by [`ShardMessage::Terminated`].
    Terminate(ReplyTo, AppIndex, Arc<str>),
    /// The connections of the user are closed.
    Terminated(ReplyTo),
    /// With `--debug`: log an event from which a connection of this shard is excepted.
    Traced(Box<Traced>),
    /// From the control thread: close all connections.
    Drain(Drain),
    /// From the control thread: the drain is over, accept nothing more.
    CloseListeners,
    /// From the control thread: this configuration is in force. The shard answers when it has taken
    /// it over.
    InForce(Arc<InForce>, oneshot::Sender<()>),
    /// From the control thread: the memory that is left.
    Memory(Headroom),
    /// From the control thread: answer at the end of the turn, when every earlier message has had
    /// its effect. A shard that hangs does not answer.
    RollCall(oneshot::Sender<()>),
    /// From the control thread: report the numbers of connections and channels.
    Count(oneshot::Sender<Totals>),
    /// From the control thread: report all counters at the end of the turn.
    Measure(oneshot::Sender<Box<Figures>>),
    /// From the control thread: end the shard. All shards have drained.
    Stop,
}

/// The parts of the configuration that a shard uses and that a reload may change. They are replaced
/// together, so that a shard never has the apps of one configuration and the bounds of another.
#[derive(Clone, Debug)]
pub struct InForce {
    /// All apps, including those that were removed.
    pub apps: Arc<Apps>,
    /// Bounds on the backlogs of slow readers, while there is enough memory.
    pub backlog: BacklogLimits,
    /// The settings of the shard's front.
    pub front: Arc<front::Settings>,
    /// The time over which closes are spread whose clients return at once; `None`: chosen by their
    /// number.
    pub shutdown_window: Option<Duration>,
}

/// The numbers of connections and channels of a shard at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The number of open WebSockets.
    pub(crate) connections: usize,
    /// The number of occupied channels whose home is this shard, by index of the app.
    pub(crate) channels: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_entry_stays_small() {
        assert!(size_of::<ShardMessage>() <= 112, "{} bytes", size_of::<ShardMessage>());
    }
}
