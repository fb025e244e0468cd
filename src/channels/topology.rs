//! The shards of a process, and which of them is the home of a channel or a user.

use crate::id::ShardId;

use super::{ChannelKey, UserKey};

/// The shards of the process. All of them have the same topology, for as long as they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    shards: u16,
}

impl Topology {
    /// A process with this number of shards.
    #[must_use]
    pub const fn new(shards: u16) -> Self {
        Self { shards }
    }

    /// The home of a channel.
    #[must_use]
    pub const fn home_of(self, channel: &ChannelKey) -> ShardId {
        self.home(channel.hash())
    }

    /// The home of a user.
    #[must_use]
    pub const fn home_of_user(self, user: &UserKey) -> ShardId {
        self.home(user.hash())
    }

    /// All shards, for questions about all channels or users.
    pub(crate) fn shards(self) -> impl ExactSizeIterator<Item = ShardId> {
        (0..self.shards).map(ShardId)
    }

    /// Whether the process has this shard. A socket id that another server made may name any shard.
    #[must_use]
    pub(crate) const fn contains(self, shard: ShardId) -> bool {
        shard.0 < self.shards
    }

    /// Scales the upper half of the hash to the number of shards, so that any number of shards
    /// divides evenly and the lower half stays free for tables.
    #[allow(clippy::cast_possible_truncation, reason = "the result is less than `shards`, a u16")]
    const fn home(self, hash: u64) -> ShardId {
        ShardId((((hash >> 32) * self.shards as u64) >> 32) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::KeyHash;
    use crate::id::AppIndex;
    use crate::protocol::names::ChannelName;

    #[test]
    fn homes_are_spread_over_any_number_of_shards() {
        let hash = KeyHash::random();
        for shards in [1, 2, 5, 64, 65, 1000] {
            let topology = Topology::new(shards);
            let mut homes = vec![0_usize; shards.into()];
            for n in 0..usize::from(shards) * 200 {
                let name = ChannelName::parse(&format!("channel-{n}"), 200, true).unwrap();
                homes[topology.home_of(&hash.channel(AppIndex(0), name)).index()] += 1;
            }
            assert!(homes.iter().all(|&n| (100..320).contains(&n)), "{shards} shards: {homes:?}");
        }
    }
}
