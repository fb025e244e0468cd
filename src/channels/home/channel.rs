//! The record of one channel at its home.

use std::sync::Arc;
use std::time::Duration;

use crate::frame::Frame;
use crate::id::{ShardId, SocketId};
use crate::memory::{Keyed, number};
use crate::protocol::auth::Member;
use crate::protocol::outbound;
use crate::time::Millis;

use super::super::{CachedEvent, ChannelKey, ChannelState, Event, FromHome, Outbox};
use super::cache::Expiry;
use super::members::{Entered, Members};
use super::shard_counts::ShardCounts;

/// One channel at its home. It exists while the channel is occupied or has a cached event.
#[derive(Debug)]
pub(super) struct Channel {
    /// The app and the name of the channel.
    pub(super) key: ChannelKey,
    /// The interest set: the shards with subscribers, and the number of these.
    interest: ShardCounts,
    /// The members of a presence channel. Boxed, because most channels have none.
    pub(super) members: Option<Box<Members>>,
    /// The last event of a cache channel. `None` if none is kept.
    pub(super) cached: Option<Box<Cached>>,
}

/// A cached last event.
#[derive(Debug)]
pub(super) struct Cached {
    /// The event as subscribers get it.
    pub(super) frame: Frame,
    /// The event's `data`, for the API.
    pub(super) data: Arc<str>,
    /// The key of the event in the [`Cache`](super::cache::Cache).
    pub(super) expiry: Expiry,
}

impl Cached {
    /// The bytes that count against the bound on cached events.
    pub(super) fn bytes(&self) -> usize {
        self.frame.len() + self.data.len()
    }

    const fn expires(&self) -> Millis {
        self.expiry.0
    }
}

impl Keyed for Channel {
    fn key_hash(&self) -> u64 {
        self.key.hash()
    }
}

impl Channel {
    pub(super) fn new(key: ChannelKey) -> Self {
        Self { key, interest: ShardCounts::default(), members: None, cached: None }
    }

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

    /// Hands an event to every shard with subscribers.
    pub(super) fn deliver(&self, frame: &Frame, except: Option<SocketId>, out: &mut Outbox) {
        for shard in self.interest.shards() {
            let (key, frame) = (self.key.clone(), frame.clone());
            out.send(shard, FromHome::Event(Event { key, frame, except, retain: None }));
        }
    }

    /// The message that a new subscriber of a cache channel gets after the answer. `None` for other
    /// channels.
    pub(super) fn last_event(&self, now: Millis) -> Option<Frame> {
        let name = self.key.name();
        name.kind().is_cache().then(|| {
            self.cached_at(now).map_or_else(|| outbound::cache_miss(name), |of| of.frame.clone())
        })
    }

    /// The cached event, if it has not expired.
    pub(super) fn cached_at(&self, now: Millis) -> Option<&Cached> {
        self.cached.as_deref().filter(|cached| cached.expires() > now)
    }

    pub(super) const fn is_occupied(&self) -> bool {
        !self.interest.is_empty()
    }

    pub(super) fn subscribers(&self) -> u32 {
        self.interest.total()
    }

    pub(super) fn state(&self, now: Millis) -> ChannelState {
        let users = self.members.as_ref().map_or(0, |members| members.len());
        ChannelState {
            subscription_count: self.subscribers(),
            user_count: number(users),
            cached: self.cached_at(now).map(|cached| CachedEvent {
                data: Arc::clone(&cached.data),
                ttl_s: whole_seconds(cached.expires().since(now)),
            }),
        }
    }
}

/// The duration in seconds, rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
