//! The channels whose home this shard is: the one truth about each, and the order of its messages.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use hashbrown::HashTable;

use crate::frame::Frame;
use crate::id::{AppIndex, ShardId, SocketId};
use crate::protocol::auth::Member;
use crate::protocol::names::ChannelName;
use crate::protocol::outbound;
use crate::time::Millis;

use super::ChannelKey;
use super::message::{
    Answered, CachedEvent, ChannelState, Deliver, Join, Joined, Leave, Message, Outcome, Publish,
};

/// Bounds on the cached last events of one home shard. Past them those go first whose time is over
/// first: with one time to live for all, the oldest.
#[derive(Clone, Copy, Debug)]
pub struct CacheBounds {
    /// Events.
    pub events: usize,
    /// Bytes of frames and `data`.
    pub bytes: usize,
}

/// The channels whose home is this shard.
#[derive(Debug)]
pub struct Homes {
    table: HashTable<Home>,
    /// Channels with a cached event, in the order in which they expire.
    expiring: BTreeMap<Expiry, ChannelKey>,
    /// Cached events so far: tells those apart that expire in the same millisecond.
    cachings: u64,
    /// Bytes of all cached events.
    cached_bytes: usize,
    bounds: CacheBounds,
}

/// One channel at home. Exists while it is occupied or has a cached event.
#[derive(Debug)]
struct Home {
    key: ChannelKey,
    /// Shards with subscribers, and how many.
    interest: Vec<(ShardId, u32)>,
    /// Presence channels: who is there, by user id. Boxed, because most channels have none.
    #[expect(clippy::box_collection, reason = "a pointer per channel, not a table's 48 bytes")]
    members: Option<Box<HashMap<Arc<str>, Presence>>>,
    /// Cache channels: the last event.
    cached: Option<Box<Cached>>,
}

/// A user who is present.
#[derive(Debug)]
struct Presence {
    member: Arc<Member>,
    /// How many subscriptions the user has; the last one that ends takes the user along.
    subscriptions: u32,
}

#[derive(Debug)]
struct Cached {
    frame: Frame,
    data: Arc<str>,
    expiry: Expiry,
}

/// When a cached event expires, and its number: the older of two goes first.
type Expiry = (Millis, u64);

impl Cached {
    fn bytes(&self) -> usize {
        self.frame.len() + self.data.len()
    }

    const fn expires(&self) -> Millis {
        self.expiry.0
    }
}

impl Homes {
    /// No channels.
    #[must_use]
    pub const fn new(bounds: CacheBounds) -> Self {
        Self {
            table: HashTable::new(),
            expiring: BTreeMap::new(),
            cachings: 0,
            cached_bytes: 0,
            bounds,
        }
    }

    /// Channels that are occupied or have a cached event.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Counts a subscriber and answers its shard. A new member is made known to the others first.
    pub fn join(&mut self, join: Join, now: Millis, post: &mut impl FnMut(ShardId, Message)) {
        let home = self.home_of(&join.key);
        let shard = join.shard;
        let outcome = home.admit(&join, now, post);
        if join.again || matches!(outcome, Outcome::Full) {
            self.drop_if_unused(&join.key);
        }
        let Join { key, conn, ticket, member, again, .. } = join;
        let joined = Joined { key, conn, ticket, member, again, outcome };
        post(shard, Message::Joined(Box::new(joined)));
    }

    /// A subscription ended. A member that is gone is made known to those who stay.
    pub fn leave(&mut self, leave: &Leave, post: &mut impl FnMut(ShardId, Message)) {
        let Some(home) = self.find_mut(&leave.key) else { return };
        if let Some(at) = home.interest.iter().position(|&(shard, _)| shard == leave.shard) {
            home.interest[at].1 -= 1;
            if home.interest[at].1 == 0 {
                home.interest.swap_remove(at);
            }
        }
        if let Some(member) = &leave.member {
            home.part(member, post);
        }
        self.drop_if_unused(&leave.key);
    }

    /// Orders an event behind all earlier ones and hands it to the shards with subscribers.
    pub fn publish(
        &mut self,
        publish: Publish,
        now: Millis,
        post: &mut impl FnMut(ShardId, Message),
    ) {
        let Publish { key, frame, cached, except, answer_to } = publish;
        if let Some((data, ttl)) = cached {
            self.cache(&key, frame.clone(), data, now + ttl);
        }
        if let Some(home) = self.find_mut(&key) {
            home.deliver(&frame, except, post);
        }
        if let Some((shard, question, index)) = answer_to {
            let state = self.state(&key, now);
            post(shard, Message::Published(Box::new(Answered { question, index, state })));
        }
    }

    /// What is known of a channel; all zeros when it is nowhere.
    #[must_use]
    pub fn state(&self, key: &ChannelKey, now: Millis) -> ChannelState {
        self.find(key).map_or_else(ChannelState::default, |home| home.state(now))
    }

    /// Who is present, once each.
    #[must_use]
    pub fn users(&self, key: &ChannelKey) -> Vec<Box<str>> {
        let members = self.find(key).and_then(|home| home.members.as_ref());
        members.map_or_else(Vec::new, |members| members.keys().map(|id| Box::from(&**id)).collect())
    }

    /// The occupied channels of an app.
    #[must_use]
    pub fn occupied(&self, app: AppIndex, now: Millis) -> Vec<(ChannelName, ChannelState)> {
        let homes = self.table.iter().filter(|home| home.key.app() == app);
        let states = homes.map(|home| (home.key.name().clone(), home.state(now)));
        states.filter(|(_, state)| state.occupied()).collect()
    }

    /// Drops cached events whose time is over. Costs nothing for those that stay.
    pub fn expire(&mut self, now: Millis) {
        while let Some(first) = self.expiring.first_entry()
            && first.key().0 <= now
        {
            let key = first.remove();
            self.uncache(&key);
        }
    }

    fn cache(&mut self, key: &ChannelKey, frame: Frame, data: Arc<str>, expires: Millis) {
        self.cachings += 1;
        let expiry = (expires, self.cachings);
        let cached = Box::new(Cached { frame, data, expiry });
        let added = cached.bytes();
        let earlier = self.home_of(key).cached.replace(cached);
        self.cached_bytes += added;
        if let Some(earlier) = earlier {
            self.cached_bytes -= earlier.bytes();
            self.expiring.remove(&earlier.expiry);
        }
        self.expiring.insert(expiry, key.clone());
        while self.cached_bytes > self.bounds.bytes || self.expiring.len() > self.bounds.events {
            let Some((_, first)) = self.expiring.pop_first() else { break };
            self.uncache(&first);
        }
    }

    /// Forgets the event of a channel that is not in `expiring` any more.
    fn uncache(&mut self, key: &ChannelKey) {
        if let Some(cached) = self.find_mut(key).and_then(|home| home.cached.take()) {
            self.cached_bytes -= cached.bytes();
        }
        self.drop_if_unused(key);
    }

    fn find(&self, key: &ChannelKey) -> Option<&Home> {
        self.table.find(key.hash(), |home| home.key == *key)
    }

    fn find_mut(&mut self, key: &ChannelKey) -> Option<&mut Home> {
        self.table.find_mut(key.hash(), |home| home.key == *key)
    }

    fn home_of(&mut self, key: &ChannelKey) -> &mut Home {
        let entry = self.table.entry(key.hash(), |home| home.key == *key, |home| home.key.hash());
        let new = || Home { key: key.clone(), interest: Vec::new(), members: None, cached: None };
        entry.or_insert_with(new).into_mut()
    }

    fn drop_if_unused(&mut self, key: &ChannelKey) {
        let unused = |home: &Home| home.interest.is_empty() && home.cached.is_none();
        if self.find(key).is_some_and(unused)
            && let Ok(found) = self.table.find_entry(key.hash(), |home| home.key == *key)
        {
            found.remove();
        }
    }
}

impl Home {
    fn admit(
        &mut self,
        join: &Join,
        now: Millis,
        post: &mut impl FnMut(ShardId, Message),
    ) -> Outcome {
        if !join.again {
            if let Some(member) = &join.member
                && !self.enter(member, join.max_members, post)
            {
                return Outcome::Full;
            }
            match self.interest.iter_mut().find(|(shard, _)| *shard == join.shard) {
                Some((_, count)) => *count += 1,
                None => {
                    // Most channels have one shard, and none has many.
                    self.interest.reserve_exact(1);
                    self.interest.push((join.shard, 1));
                }
            }
        }
        Outcome::Subscribed { first: self.first_frames(now) }
    }

    /// A member joins. `false`: the channel is full.
    fn enter(
        &mut self,
        member: &Arc<Member>,
        most: Option<usize>,
        post: &mut impl FnMut(ShardId, Message),
    ) -> bool {
        let members = self.members.get_or_insert_default();
        if let Some(presence) = members.get_mut(&member.user_id) {
            presence.subscriptions += 1;
            return true;
        }
        if most.is_some_and(|most| members.len() >= most) {
            return false;
        }
        let presence = Presence { member: Arc::clone(member), subscriptions: 1 };
        members.insert(Arc::clone(&member.user_id), presence);
        let added = outbound::member_added(self.key.name(), member);
        self.deliver(&added, None, post);
        true
    }

    /// A member's subscription ended.
    fn part(&mut self, member: &Member, post: &mut impl FnMut(ShardId, Message)) {
        let Some(members) = &mut self.members else { return };
        let Some(presence) = members.get_mut(&member.user_id) else { return };
        presence.subscriptions -= 1;
        if presence.subscriptions > 0 {
            return;
        }
        // As it was made known: a later subscription of the user may have spelt the id differently.
        let gone = members.remove(&member.user_id);
        if let Some(gone) = gone {
            let removed = outbound::member_removed(self.key.name(), &gone.member.id_json);
            self.deliver(&removed, None, post);
        }
    }

    fn deliver(
        &self,
        frame: &Frame,
        except: Option<SocketId>,
        post: &mut impl FnMut(ShardId, Message),
    ) {
        for &(shard, _) in &self.interest {
            let (key, frame) = (self.key.clone(), frame.clone());
            post(shard, Message::Deliver(Deliver { key, frame, except }));
        }
    }

    /// What a new subscriber gets first.
    fn first_frames(&self, now: Millis) -> Frame {
        let name = self.key.name();
        let kind = name.kind();
        let succeeded = if kind.is_presence() {
            let members = self.members.iter().flat_map(|members| members.values());
            let shown = members.map(|Presence { member, .. }| {
                (&*member.user_id, &*member.id_json, member.user_info.as_deref())
            });
            outbound::presence_succeeded(name, shown)
        } else {
            outbound::subscription_succeeded(name)
        };
        if !kind.is_cache() {
            return succeeded;
        }
        let cached = self.cached.as_ref().filter(|cached| cached.expires() > now);
        let second = cached.map_or_else(|| outbound::cache_miss(name), |of| of.frame.clone());
        let mut both = BytesMut::with_capacity(succeeded.len() + second.len());
        both.extend_from_slice(succeeded.bytes());
        both.extend_from_slice(second.bytes());
        Frame::from_encoded(both.freeze())
    }

    fn state(&self, now: Millis) -> ChannelState {
        let users = self.members.as_ref().map_or(0, |members| members.len());
        let cached = self.cached.as_ref().filter(|cached| cached.expires() > now);
        ChannelState {
            subscription_count: self.interest.iter().map(|&(_, count)| count).sum(),
            user_count: u32::try_from(users).unwrap_or(u32::MAX),
            cached: cached.map(|cached| CachedEvent {
                data: Arc::clone(&cached.data),
                ttl_s: seconds(cached.expires().since(now)),
            }),
        }
    }
}

/// Whole seconds, the one that has begun included.
fn seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
