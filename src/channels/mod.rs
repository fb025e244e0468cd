//! Floor 3. Channels: the subscribers of this shard, and, for the channels whose home this shard
//! is, their authoritative state. The same for users who sign in. Pure data: it knows no sockets,
//! no clock and no plane.
//!
//! - [`Local`]: the subscribers of this shard, by channel.
//! - [`Homes`]: for each channel whose home is here, the interest set, occupancy, presence members,
//!   the cached last event, and the order of its messages. [`ToHome`] goes in, [`FromHome`] and
//!   [`Notice`]s come out by the [`Outbox`].
//! - [`Replicas`]: the same on a node of a cluster, which has the truth about channels.
//! - [`Channels`]: the channels of either, for everything but messages.
//! - [`Topology`]: the shards, and which of them is the home of a channel or a user.
//! - [`CountThrottle`]: the rate at which the subscriber count of a channel is published.
//! - [`Users`]: the users who are signed in on this shard, and those whom they watch.
//! - [`UserHomes`]: for each user whose home is here, the shards that have the user, and those that
//!   watch. [`UserReplicas`] on a node of a cluster.
//!
//! They work together as follows. Every subscribe goes to the home as a [`Join`] and takes effect
//! on the shard when the home's [`Joined`] arrives; every publish goes to the home, which hands the
//! [`Event`] to each interested shard. Messages between two shards keep their order, so what the
//! home orders behind a join reaches the new subscriber, and nothing that it ordered before. A
//! membership event is published by the home in the same way.
//!
//! Later messages of a connection do not wait for the answer to a subscribe: a client event or the
//! end of the subscription follows the [`Join`] to the home, and names it by its ticket. The home
//! alone knows whether it has counted or refused that join. It remembers a refusal until the shard
//! acknowledges it with a [`Leave`]; until then it refuses everything that names the join.
//!
//! A sign-in takes effect on the shard at once. The user's home is told of the first connection on
//! a shard, and of the end of the last one. Watchers see a change a little later, in no fixed order
//! with the messages of channels, and in the end they see the true state.

mod cache;
mod cluster;
mod count_throttle;
mod event;
mod home;
mod key;
mod listing;
mod local;
mod member_lists;
mod message;
mod notice;
mod outbox;
mod path;
mod replicas;
mod shard_counts;
mod table;
mod topology;
mod user_homes;
mod user_replicas;
mod user_table;
mod users;
mod wanted;

use crate::memory::{Holder, Per};
use crate::protocol::auth::Member;

pub use cache::CacheBounds;
pub use cluster::{
    ClusterJoined, Enter, EnterOutcome, FromCluster, PartitionId, Registered, ToCluster,
};
pub(crate) use count_throttle::CountThrottle;
pub use event::{CachedEvent, ChannelState, Event, Publication, Retain};
pub use home::Homes;
pub(crate) use key::UserKey;
pub use key::{ChannelKey, KeyHash};
pub(crate) use local::{Batch, Left, Settled, TopicBatch};
pub use local::{Found, Local};
pub(crate) use message::{
    Answer, FromHome, Joined, Joining, Leave, Outcome, Question, Repeat, Repeated, ReplyTo, Step,
    Steps, Whisper,
};
pub use message::{Join, ToHome};
pub(crate) use notice::ClientEventNotice;
pub use notice::{ChannelEvent, Notice};
pub use outbox::Outbox;
pub(crate) use path::{AppPath, ChannelPath, UserPath};
pub(crate) use replicas::Replicas;
pub(crate) use table::Channels;
pub use topology::Topology;
pub(crate) use user_homes::UserHomes;
pub(crate) use user_replicas::UserReplicas;
pub(crate) use users::Users;
pub(crate) use wanted::Wanted;

/// The holders whose size depends on the length of their text, sized for a typical app.
const TYPICAL: [Holder; 2] = [
    Holder { name: "name of a channel, if of 32 B", bytes: ARC_COUNTS + 32, per: Per::Channel },
    Holder {
        name: "member with an id of 8 B and user_info of 100 B",
        bytes: 2 * ARC_COUNTS + size_of::<Member>() + 8 + 10 + 100,
        per: Per::Member,
    },
];

/// The two counts of an [`Arc`](std::sync::Arc).
const ARC_COUNTS: usize = 2 * size_of::<usize>();

/// The most bytes that a subscription holds if its channel has no other subscriber, on its shard
/// and at the channel's home, with lists that have just doubled and the allocator's rounding.
/// Measured with names of 200 bytes: 300 bytes and the name (`tests/hostile`).
#[must_use]
pub(crate) fn subscription_bytes(name: usize, member: Option<&Member>) -> usize {
    SUBSCRIPTION_BYTES + name + member.map_or(0, |member| MEMBER_BYTES + member.text_bytes())
}

/// The records of a subscription and of its channel, without the name.
const SUBSCRIPTION_BYTES: usize = 320;

/// The records of a member and its place at the home.
const MEMBER_BYTES: usize = 160;

/// The memory that a connection's subscriptions, a channel and a member cost.
#[must_use]
pub(crate) fn budget() -> Vec<Holder> {
    [&local::BUDGET[..], &home::BUDGET[..], &TYPICAL[..]].concat()
}
