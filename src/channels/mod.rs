//! Floor 3. Channels: who is subscribed on this shard, and, for the channels whose home this shard
//! is, what must be one truth. Pure data: knows no sockets, no clock, no plane.
//!
//! - [`Local`]: per channel the subscribers of this shard.
//! - [`Homes`]: per channel whose home is here, the interest set, occupancy, presence members, the
//!   cached last event, and the order of its messages.
//!
//! How they work together. Every subscribe goes to the home as a [`Join`] and takes effect on the
//! shard when the home's [`Joined`] arrives; every publish goes to the home, which hands a
//! [`Deliver`] to each interested shard. Messages between two shards keep their order, so what the
//! home orders behind a join reaches the new subscriber, and nothing that it ordered before. A
//! membership event is published by the home in the same way.

mod home;
mod key;
mod local;
mod message;

pub use home::{CacheBounds, Homes};
pub use key::{ChannelKey, KeyHash};
pub use local::{Batch, Joining, Left, Local, Subscribe, Subscriber, TopicBatch};
pub use message::{
    Answered, CachedEvent, ChannelState, Deliver, Join, Joined, Leave, Message, Outcome,
    Publication, Publish,
};
