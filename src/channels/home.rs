//! The channels whose home this shard is: the one truth about each, and the order of its messages.

mod cache;
mod lists;
mod members;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::frame::Frame;
use crate::id::{AppIndex, ShardId, SocketId};
use crate::memory::{Chunked, Holder, Per};
use crate::protocol::auth::Member;
use crate::protocol::names::ChannelName;
use crate::protocol::outbound;
use crate::time::Millis;

use super::message::{
    Answered, CachedEvent, ChannelState, Deliver, Join, Joined, JoiningSender, Leave, Message,
    Outcome, Publish,
};
use super::{ChannelKey, Counts};
pub use cache::CacheBounds;
use cache::{Cache, Expiry};
use lists::Lists;
use members::{Members, Presence};

/// The changes that a join or a leave has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Another number of subscribers.
    pub(crate) subscribers: bool,
    /// The join was the channel's first, or the leave its last.
    pub(crate) occupancy: bool,
    /// The member's user was not there before, or is not any more.
    pub(crate) membership: bool,
}

/// The memory that a channel and its members cost at home.
pub(super) const BUDGET: [Holder; 3] = [
    Holder {
        name: "home, with its interest set of two shards",
        bytes: size_of::<Option<Home>>(),
        per: Per::Channel,
    },
    Holder {
        name: "place in the table of homes",
        bytes: 2 * (size_of::<u32>() + 1),
        per: Per::Channel,
    },
    Holder {
        name: "place in the table of members",
        bytes: 2 * (size_of::<Presence>() + 1),
        per: Per::Member,
    },
];

/// The channels whose home is this shard.
#[derive(Debug)]
pub struct Homes {
    /// By number; none where `free` says so.
    homes: Chunked<Option<Home>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    /// The index of the channels with a cached event.
    cache: Cache,
    /// The lists of members of the presence channels that were joined last.
    lists: Lists,
    /// The channels whose number of subscribers is told to their subscribers, and no others.
    counts: Counts<ChannelKey>,
    /// Refused joins, by shard and ticket. Each stays until its shard has heard of the refusal and
    /// says so with a [`Leave`]: what it sent before that, it sent without knowing. So there are no
    /// more of them than refusals on their way.
    refused: HashSet<(ShardId, u32)>,
    /// By index of the app: its occupied channels. As long as the highest index that ever had one.
    occupied: Vec<u32>,
}

/// One channel at home. Exists while it is occupied or has a cached event.
#[derive(Debug)]
struct Home {
    key: ChannelKey,
    /// Shards with subscribers, and how many.
    interest: SmallVec<[(ShardId, u32); 2]>,
    /// Presence channels: who is there. Boxed, because most channels have none.
    members: Option<Box<Members>>,
    /// Cache channels: the last event.
    cached: Option<Box<Cached>>,
}

#[derive(Debug)]
struct Cached {
    frame: Frame,
    data: Arc<str>,
    expiry: Expiry,
}

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
    pub fn new(bounds: CacheBounds) -> Self {
        Self {
            homes: Chunked::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            cache: Cache::new(bounds),
            lists: Lists::default(),
            counts: Counts::default(),
            refused: HashSet::new(),
            occupied: Vec::new(),
        }
    }

    /// Channels that are occupied or have a cached event.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Counts a subscriber and answers its shard. A new member is made known to the others first.
    pub fn join(
        &mut self,
        join: Join,
        now: Millis,
        post: &mut impl FnMut(ShardId, Message),
    ) -> Change {
        let mut change = Change::default();
        let outcome = if join.again && self.refused.contains(&(join.shard, join.ticket)) {
            Outcome::Full
        } else {
            self.admit(&join, now, &mut change, post)
        };
        let full = matches!(outcome, Outcome::Full);
        if join.again || full {
            self.drop_if_unused(&join.key);
        }
        let Join { key, shard, conn, ticket, again, .. } = join;
        if full {
            self.refused.insert((shard, ticket));
        }
        if change.occupancy {
            let index = usize::from(key.app().0);
            self.occupied.resize(self.occupied.len().max(index + 1), 0);
            self.occupied[index] += 1;
        }
        let joined = Joined { key, conn, ticket, again, outcome };
        post(shard, Message::Joined(Box::new(joined)));
        change
    }

    /// A subscription ended. A member that is gone is made known to those who stay.
    pub(crate) fn leave(
        &mut self,
        leave: &Leave,
        post: &mut impl FnMut(ShardId, Message),
    ) -> Change {
        let mut change = Change::default();
        let refused = |ticket| self.refused.remove(&(leave.shard, ticket));
        if leave.ticket.is_some_and(refused) {
            return change;
        }
        let Some(number) = self.number(&leave.key) else { return change };
        let Some(home) = self.homes[number as usize].as_mut() else { return change };
        if let Some(at) = home.interest.iter().position(|&(shard, _)| shard == leave.shard) {
            home.interest[at].1 -= 1;
            if home.interest[at].1 == 0 {
                home.interest.swap_remove(at);
            }
            change.subscribers = true;
            change.occupancy = home.interest.is_empty();
        }
        if let Some(member) = &leave.member {
            change.membership = home.part(member, post);
        }
        if change.membership {
            self.lists.forget(number);
        }
        if change.occupancy
            && let Some(occupied) = self.occupied.get_mut(usize::from(leave.key.app().0))
        {
            *occupied = occupied.saturating_sub(1);
        }
        self.drop_if_unused(&leave.key);
        change
    }

    /// Tells the subscribers of a channel how many they are, now or at the end of a pause. To be
    /// called behind a join or a leave that changed it; presence channels have members instead.
    pub(crate) fn tell_count(
        &mut self,
        key: &ChannelKey,
        now: Millis,
        post: &mut impl FnMut(ShardId, Message),
    ) {
        let Some(count) = self.find(key).map(Home::subscribers) else { return };
        if !key.name().kind().is_presence() && self.counts.take(key, count, now) {
            self.deliver_count(key, count, post);
        }
    }

    /// Tells the numbers of subscribers whose pause is over.
    pub(crate) fn tell_counts(&mut self, now: Millis, post: &mut impl FnMut(ShardId, Message)) {
        while let Some((key, count)) = self.counts.due(now) {
            self.deliver_count(&key, count, post);
        }
    }

    /// Orders an event behind all earlier ones and hands it to the shards with subscribers. Whether
    /// it does: it refuses a client event whose sender's join was refused.
    pub fn publish(
        &mut self,
        publish: Publish,
        now: Millis,
        post: &mut impl FnMut(ShardId, Message),
    ) -> bool {
        let Publish { key, frame, cached, except, answer_to, joining, .. } = publish;
        if let Some(JoiningSender { shard, conn, ticket }) = joining
            && self.refused.contains(&(shard, ticket))
        {
            post(shard, Message::NotMember(conn, key.name().clone()));
            return false;
        }
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
        true
    }

    /// The state of a channel; all zeros if no shard has a subscriber and no event is cached.
    #[must_use]
    pub(crate) fn state(&self, key: &ChannelKey, now: Millis) -> ChannelState {
        self.find(key).map_or_else(ChannelState::default, |home| home.state(now))
    }

    /// The ids of the users who are present, each of them once.
    #[must_use]
    pub(crate) fn users(&self, key: &ChannelKey) -> Vec<Box<str>> {
        let members = self.find(key).and_then(|home| home.members.as_ref());
        members.map_or_else(Vec::new, |members| members.ids().map(Box::from).collect())
    }

    /// The occupied channels of an app whose names begin with `prefix`, as far as they are found
    /// among `most` channels, `from` the first one or from where the last part has ended. Returns
    /// them, and where the next part begins.
    #[must_use]
    pub(crate) fn occupied(
        &self,
        app: AppIndex,
        prefix: &str,
        from: u32,
        most: usize,
        now: Millis,
    ) -> (Vec<(ChannelName, ChannelState)>, Option<u32>) {
        let to = (from as usize).saturating_add(most).min(self.homes.len());
        let numbers = from as usize..to;
        let homes = numbers.filter_map(|number| self.homes.get(number)?.as_ref());
        let asked = homes.filter(|home| home.key.app() == app && home.is_named(prefix));
        let states = asked.map(|home| (home.key.name().clone(), home.state(now)));
        let next = u32::try_from(to).ok().filter(|_| to < self.homes.len());
        (states.filter(|(_, state)| state.occupied()).collect(), next)
    }

    /// How many channels are occupied, by index of their app; apps behind the last have none.
    #[must_use]
    pub(crate) fn occupied_counts(&self) -> &[u32] {
        &self.occupied
    }

    /// Drops cached events whose time is over. Costs nothing for those that stay.
    pub(crate) fn expire(&mut self, now: Millis) {
        while let Some(key) = self.cache.expired(now).cloned() {
            self.uncache(&key);
        }
    }

    /// Drops the cached events of those apps for which `gone` says so, `most` of them at a time.
    /// Returns whether there may be more.
    pub(crate) fn forget_apps(&mut self, gone: impl Fn(AppIndex) -> bool, most: usize) -> bool {
        let apps: Vec<_> = self.cache.apps().filter(|&app| gone(app)).collect();
        let mut left = most;
        for app in apps {
            while let Some(key) = self.cache.first_of(app).cloned() {
                if left == 0 {
                    return true;
                }
                left -= 1;
                self.uncache(&key);
            }
        }
        false
    }

    fn deliver_count(&self, key: &ChannelKey, count: u32, post: &mut impl FnMut(ShardId, Message)) {
        if let Some(home) = self.find(key) {
            home.deliver(&outbound::subscription_count(key.name(), count), None, post);
        }
    }

    fn cache(&mut self, key: &ChannelKey, frame: Frame, data: Arc<str>, expires: Millis) {
        self.forget(key);
        let bytes = frame.len() + data.len();
        if !self.cache.takes(bytes) {
            return self.drop_if_unused(key);
        }
        let expiry = self.cache.add(key, bytes, expires);
        self.home_of(key).cached = Some(Box::new(Cached { frame, data, expiry }));
        // The excess may be more than one event makes room for: smaller bounds are reached step by
        // step.
        self.shrink_cache(EVICTED_PER_EVENT);
    }

    /// Sets other bounds on cached events. Events that exceed them are dropped by
    /// [`shrink_cache`](Self::shrink_cache), and by each event that is cached.
    pub(crate) const fn bound_cache(&mut self, bounds: CacheBounds) {
        self.cache.bound(bounds);
    }

    /// Drops at most so many cached events that exceed the bounds.
    pub(crate) fn shrink_cache(&mut self, most: usize) {
        for _ in 0..most {
            let Some(key) = self.cache.excess().cloned() else { return };
            self.uncache(&key);
        }
    }

    fn uncache(&mut self, key: &ChannelKey) {
        self.forget(key);
        self.drop_if_unused(key);
    }

    /// Forgets the cached event of a channel, if it has one.
    fn forget(&mut self, key: &ChannelKey) {
        if let Some(cached) = self.find_mut(key).and_then(|home| home.cached.take()) {
            self.cache.remove(key.app(), cached.bytes(), cached.expiry);
        }
    }

    fn find(&self, key: &ChannelKey) -> Option<&Home> {
        self.homes.get(self.number(key)? as usize)?.as_ref()
    }

    fn find_mut(&mut self, key: &ChannelKey) -> Option<&mut Home> {
        let number = self.number(key)?;
        self.homes.get_mut(number as usize)?.as_mut()
    }

    fn number(&self, key: &ChannelKey) -> Option<u32> {
        let same = |&number: &u32| {
            self.homes[number as usize].as_ref().is_some_and(|home| home.key == *key)
        };
        self.by_key.find(key.hash(), same).copied()
    }

    fn home_of(&mut self, key: &ChannelKey) -> &mut Home {
        let number = self.number(key).unwrap_or_else(|| self.add(key.hash()));
        self.home_at(number, key)
    }

    fn home_at(&mut self, number: u32, key: &ChannelKey) -> &mut Home {
        let new =
            || Home { key: key.clone(), interest: SmallVec::new(), members: None, cached: None };
        self.homes[number as usize].get_or_insert_with(new)
    }

    fn admit(
        &mut self,
        join: &Join,
        now: Millis,
        change: &mut Change,
        post: &mut impl FnMut(ShardId, Message),
    ) -> Outcome {
        let key = &join.key;
        let number = self.number(key).unwrap_or_else(|| self.add(key.hash()));
        let home = self.home_at(number, key);
        let before = home.subscribers();
        if !join.again && !home.admit(join, change, post) {
            return Outcome::Full;
        }
        let last = home.last_event(now);
        let told = if change.membership { before } else { 0 };
        let answer = if key.name().kind().is_presence() {
            if let Some(member) = join.member.as_ref().filter(|_| change.membership) {
                self.lists.added(number, member);
            }
            let Self { homes, lists, .. } = self;
            let home = homes[number as usize].as_mut();
            let members = home.map(|home| home.members.get_or_insert_default());
            members.map(|members| lists.succeeded(number, key.name(), members))
        } else {
            None
        };
        let answer = answer.unwrap_or_else(|| outbound::subscription_succeeded(key.name()));
        Outcome::Subscribed { answer, last, told }
    }

    /// A place for the home of a channel with this hash.
    fn add(&mut self, hash: u64) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.homes.push(None);
            u32::try_from(self.homes.len() - 1).unwrap_or(u32::MAX)
        });
        let homes = &self.homes;
        self.by_key.insert_unique(hash, number, |&number| hash_of(homes, number));
        number
    }

    fn drop_if_unused(&mut self, key: &ChannelKey) {
        let unused = |home: &Home| home.interest.is_empty() && home.cached.is_none();
        let Some(number) = self.number(key).filter(|_| self.find(key).is_some_and(unused)) else {
            return;
        };
        if let Ok(found) = self.by_key.find_entry(key.hash(), |&found| found == number) {
            found.remove();
        }
        self.homes[number as usize] = None;
        self.lists.forget(number);
        self.free.push(number);
    }

    /// Gives memory back that a burst has left.
    pub(crate) fn trim(&mut self) {
        if self.by_key.is_empty() {
            self.homes.clear();
            self.free = Vec::new();
        }
        if self.free.len() > self.homes.len() / 2 {
            self.homes.trim_end(Option::is_none);
            let len = u32::try_from(self.homes.len()).unwrap_or(u32::MAX);
            self.free.retain(|&number| number < len);
            self.free.shrink_to_fit();
        }
        if self.by_key.len() < self.by_key.capacity() / SPARSE {
            let Self { by_key, homes, .. } = self;
            by_key.shrink_to(2 * by_key.len(), |&number| hash_of(homes, number));
        }
        self.counts.trim();
        self.lists.trim();
        if self.refused.is_empty() {
            self.refused = HashSet::new();
        }
    }

    /// Bytes that its lists and tables hold, in use or not, cached events not counted.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        use crate::memory::Trim as _;

        let tables = self.homes.room() + self.free.room() + self.by_key.allocation_size();
        let refused = self.refused.capacity() * size_of::<(ShardId, u32)>();
        tables + self.counts.room() + refused
    }
}

fn hash_of(homes: &Chunked<Option<Home>>, number: u32) -> u64 {
    homes[number as usize].as_ref().map_or(0, |home| home.key.hash())
}

/// Cached events that may go for a new one. A large event can take the room of many small ones, and
/// some ten microseconds are as much as one publish may cost.
const EVICTED_PER_EVENT: usize = 1024;

/// A table that is filled to less than one part of this many gives the rest back.
const SPARSE: usize = 4;

impl Home {
    /// Counts a subscriber. `false`: the channel is full.
    fn admit(
        &mut self,
        join: &Join,
        change: &mut Change,
        post: &mut impl FnMut(ShardId, Message),
    ) -> bool {
        if let Some(member) = &join.member {
            match self.enter(member, join.max_members, post) {
                Some(new) => change.membership = new,
                None => return false,
            }
        }
        change.subscribers = true;
        change.occupancy = self.interest.is_empty();
        match self.interest.iter_mut().find(|(shard, _)| *shard == join.shard) {
            Some((_, count)) => *count += 1,
            None => self.interest.push((join.shard, 1)),
        }
        true
    }

    /// A member joins. Whether the user is new there; `None`: the channel is full.
    fn enter(
        &mut self,
        member: &Arc<Member>,
        most: Option<usize>,
        post: &mut impl FnMut(ShardId, Message),
    ) -> Option<bool> {
        let members = self.members.get_or_insert_default();
        if let Some(presence) = members.get_mut(&member.user_id) {
            presence.subscriptions += 1;
            return Some(false);
        }
        if most.is_some_and(|most| members.len() >= most) {
            return None;
        }
        members.insert(Presence { member: Arc::clone(member), subscriptions: 1 });
        let added = outbound::member_added(self.key.name(), member);
        self.deliver(&added, None, post);
        Some(true)
    }

    /// A member's subscription ended. Whether it was the user's last.
    fn part(&mut self, member: &Member, post: &mut impl FnMut(ShardId, Message)) -> bool {
        let Some(members) = &mut self.members else { return false };
        let Some(presence) = members.get_mut(&member.user_id) else { return false };
        presence.subscriptions -= 1;
        if presence.subscriptions > 0 {
            return false;
        }
        // As it was made known: a later subscription of the user may have spelt the id differently.
        let gone = members.remove(&member.user_id);
        if let Some(gone) = gone {
            let removed = outbound::member_removed(self.key.name(), &gone.member.id_json);
            self.deliver(&removed, None, post);
        }
        true
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

    /// The message that a new subscriber of a cache channel gets behind the answer.
    fn last_event(&self, now: Millis) -> Option<Frame> {
        let name = self.key.name();
        name.kind().is_cache().then(|| {
            let cached = self.cached.as_ref().filter(|cached| cached.expires() > now);
            cached.map_or_else(|| outbound::cache_miss(name), |of| of.frame.clone())
        })
    }

    fn is_named(&self, prefix: &str) -> bool {
        self.key.name().as_str().starts_with(prefix)
    }

    fn subscribers(&self) -> u32 {
        self.interest.iter().map(|&(_, count)| count).sum()
    }

    fn state(&self, now: Millis) -> ChannelState {
        let users = self.members.as_ref().map_or(0, |members| members.len());
        let cached = self.cached.as_ref().filter(|cached| cached.expires() > now);
        ChannelState {
            subscription_count: self.subscribers(),
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
