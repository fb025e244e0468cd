//! The record of one channel at its home.

use std::sync::Arc;

use crate::id::ShardId;
use crate::memory::{Keyed, number};
use crate::protocol::auth::Member;
use crate::protocol::outbound;

use super::super::shard_counts::ShardCounts;
use super::super::table::ChannelRecord;
use super::super::{ChannelKey, Outbox};
use super::members::{Entered, Members};

/// One channel at its home. It exists while the channel is occupied.
#[derive(Debug)]
pub(super) struct Channel {
    /// The app and the name of the channel.
    pub(super) key: ChannelKey,
    /// The interest set: the shards with subscribers, and the number of these.
    interest: ShardCounts,
    /// The members of a presence channel. Boxed, because most channels have none.
    members: Option<Box<Members>>,
}

impl Keyed for Channel {
    fn key_hash(&self) -> u64 {
        self.key.hash()
    }
}

impl ChannelRecord for Channel {
    fn new(key: ChannelKey) -> Self {
        Self { key, interest: ShardCounts::default(), members: None }
    }

    fn key(&self) -> &ChannelKey {
        &self.key
    }

    fn interest(&self) -> &ShardCounts {
        &self.interest
    }

    fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().flat_map(|members| members.all())
    }

    fn users(&self) -> u32 {
        number(self.members.as_ref().map_or(0, |members| members.len()))
    }
}

impl Channel {
    /// Counts a subscriber of a shard. The other subscribers are told of a new member. If the
    /// channel is full, nothing is counted.
    pub(super) fn admit(
        &mut self,
        from: ShardId,
        member: Option<&Arc<Member>>,
        max_members: Option<usize>,
        out: &mut Outbox,
    ) -> Entered {
        let entered = member.map_or(Entered::Again, |member| {
            self.members.get_or_insert_default().enter(from, member, max_members)
        });
        if let (Entered::New, Some(member)) = (entered, member) {
            self.deliver(&outbound::member_added(self.key.name(), member), None, out);
        }
        if entered != Entered::Full {
            self.interest.add(from);
        }
        entered
    }

    /// Ends a subscription of a shard. Returns whether the shard had one, and whether it was the
    /// last one of the member's user; then the subscribers that stay are told.
    pub(super) fn dismiss(
        &mut self,
        from: ShardId,
        member: Option<&Member>,
        out: &mut Outbox,
    ) -> (bool, bool) {
        if !self.interest.remove(from) {
            return (false, false);
        }
        let members = self.members.as_mut();
        let gone = member.and_then(|member| members?.part(from, &member.user_id));
        if let Some(gone) = &gone {
            let removed = outbound::member_removed(self.key.name(), &gone.id_json);
            self.deliver(&removed, None, out);
        }
        (true, gone.is_some())
    }

    pub(super) const fn is_occupied(&self) -> bool {
        !self.interest.is_empty()
    }

    pub(super) fn subscribers(&self) -> u32 {
        self.interest.total()
    }
}
