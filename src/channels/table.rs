//! The table of the channels whose home is a shard, with everything that is the same for [`Homes`],
//! which have the truth about their channels, and for [`Replicas`], which have it from the cluster.
//!
//! [`Homes`]: super::Homes
//! [`Replicas`]: super::Replicas

use std::collections::{HashSet, VecDeque};
use std::ops::{Index, IndexMut};
use std::sync::Arc;

#[cfg(test)]
use crate::counters::APPS_MAX;
use crate::counters::{ChannelCounters, PerApp};
use crate::frame::Frame;
use crate::id::{AppIndex, ConnKey, ShardId, SocketId};
use crate::invariant::broken;
use crate::memory::{Keyed, KeyedSlab, Trim};
use crate::protocol::auth::Member;
use crate::protocol::outbound;
use crate::time::Millis;

use super::cache::Cache;
use super::listing::Listing;
use super::member_lists::MemberLists;
use super::message::{Answer, FromHome, Joined, Outcome, Question, ReplyTo, Whisper};
use super::shard_counts::ShardCounts;
use super::wanted::WantedByApp;
use super::{
    CacheBounds, ChannelEvent, ChannelKey, ChannelState, CountThrottle, Event, Notice, Outbox,
    Wanted,
};

/// The record of a channel in a [`ChannelTable`].
pub(super) trait ChannelRecord: Keyed {
    /// The record of a channel that has nothing yet.
    fn new(key: ChannelKey) -> Self;

    /// The app and the name of the channel.
    fn key(&self) -> &ChannelKey;

    /// The interest set: the shards with subscribers, and the number of these.
    fn interest(&self) -> &ShardCounts;

    /// The members of a presence channel.
    fn members(&self) -> impl Iterator<Item = &Arc<Member>>;

    /// The number of distinct users; 0 for channels without presence.
    fn users(&self) -> u32;

    /// Hands an event to every shard with subscribers.
    fn deliver(&self, frame: &Frame, except: Option<SocketId>, out: &mut Outbox) {
        for shard in self.interest().shards() {
            let (key, frame) = (self.key().clone(), frame.clone());
            out.send(shard, FromHome::Event(Event { key, frame, except, retain: None }));
        }
    }
}

/// The channels whose home is a shard, with what is remembered of them.
#[derive(Debug)]
pub(super) struct ChannelTable<C> {
    channels: KeyedSlab<C>,
    /// The last events of cache channels.
    pub(super) cache: Cache,
    /// The lists of members of the presence channels that were joined last.
    pub(super) lists: MemberLists,
    /// The channels whose subscriber count is sent to their subscribers, while they pause.
    pub(super) counts: CountThrottle<ChannelKey>,
    /// Refused joins, by shard and ticket. Each stays until its shard acknowledges the refusal with
    /// a [`Leave`](super::Leave), because the shard sent everything before that without knowing of
    /// the refusal. So there are no more of them than refusals on their way.
    pub(super) refused: HashSet<(ShardId, u32)>,
    /// The number of occupied channels by index of the app, as far as the highest index that ever
    /// had one.
    occupied: Vec<u32>,
    /// The occupied channels by kind, and their members, by app.
    counters: PerApp<ChannelCounters>,
    /// The notices and counts that each app wants. Written by [`adopt`](Channels::adopt).
    pub(super) wanted: WantedByApp,
    /// Requested lists that are not finished, the next one to continue first.
    listings: VecDeque<Listing>,
}

/// The channels whose home is a shard, whatever their records are.
pub(crate) trait Channels {
    /// Takes over the notices and counts that apps want, by their index. Apps past the end want
    /// none.
    fn adopt(&mut self, wanted: Vec<Wanted>);

    /// Drops cached events that have expired, and sends subscriber counts whose pause is over. It
    /// costs nothing for all others.
    fn tick(&mut self, now: Millis, out: &mut Outbox);

    /// Whether a list is unfinished, of which [`work`](Self::work) sends the next part.
    fn has_work(&self) -> bool;

    /// Sends a turn's part of the list that has waited longest.
    fn work(&mut self, now: Millis, out: &mut Outbox);

    /// The number of channels and of cached events.
    fn len(&self) -> usize;

    /// The number of subscribers of a channel, on all shards.
    fn subscribers(&self, key: &ChannelKey) -> u32;

    /// Whether a client event of a shard is refused, because its sender's join was.
    fn refuses(&self, from: ShardId, whisper: &Whisper) -> bool;

    /// The number of occupied channels by index of their app. Apps past the end have none.
    fn occupied_counts(&self) -> &[u32];

    /// The occupied channels by kind, and their members, by app.
    fn counters(&self) -> &PerApp<ChannelCounters>;

    /// The number of cached events.
    fn cached(&self) -> usize;

    /// The last events of cache channels, for their bounds.
    fn cache_mut(&mut self) -> &mut Cache;

    /// Gives memory back that a burst has left.
    fn trim(&mut self);

    /// Bytes that its lists and tables hold, in use or not, cached events not counted.
    #[cfg(feature = "testing")]
    fn room(&self) -> usize;
}

impl<C: ChannelRecord> Channels for ChannelTable<C> {
    fn adopt(&mut self, wanted: Vec<Wanted>) {
        self.wanted = WantedByApp::new(wanted);
    }

    fn tick(&mut self, now: Millis, out: &mut Outbox) {
        self.cache.expire(now);
        while let Some((key, count)) = self.counts.due(now) {
            if let Some(number) = self.find(&key) {
                self.deliver_count(number, count, out);
            }
        }
    }

    fn has_work(&self) -> bool {
        !self.listings.is_empty()
    }

    fn work(&mut self, now: Millis, out: &mut Outbox) {
        if let Some(listing) = self.listings.pop_front() {
            self.list(listing, now, out);
        }
    }

    fn len(&self) -> usize {
        self.channels.len() + self.cache.len()
    }

    fn subscribers(&self, key: &ChannelKey) -> u32 {
        self.find(key).map_or(0, |number| self[number].interest().total())
    }

    fn refuses(&self, from: ShardId, whisper: &Whisper) -> bool {
        self.is_refused(from, whisper.joining.map(|joining| joining.ticket))
    }

    fn occupied_counts(&self) -> &[u32] {
        &self.occupied
    }

    fn counters(&self) -> &PerApp<ChannelCounters> {
        &self.counters
    }

    fn cached(&self) -> usize {
        self.cache.len()
    }

    fn cache_mut(&mut self) -> &mut Cache {
        &mut self.cache
    }

    fn trim(&mut self) {
        self.channels.trim();
        self.cache.trim();
        self.counts.trim();
        self.lists.trim();
        self.listings.trim();
        if self.refused.is_empty() {
            self.refused = HashSet::new();
        }
    }

    #[cfg(feature = "testing")]
    fn room(&self) -> usize {
        let refused = self.refused.capacity() * size_of::<(ShardId, u32)>();
        self.channels.room() + self.counts.room() + self.listings.room() + refused
    }
}

/// The records, by number.
impl<C: ChannelRecord> ChannelTable<C> {
    pub(super) fn new(bounds: CacheBounds) -> Self {
        Self {
            channels: KeyedSlab::new(),
            cache: Cache::new(bounds),
            lists: MemberLists::default(),
            counts: CountThrottle::default(),
            refused: HashSet::new(),
            occupied: Vec::new(),
            counters: PerApp::default(),
            wanted: WantedByApp::default(),
            listings: VecDeque::new(),
        }
    }

    pub(super) fn find(&self, key: &ChannelKey) -> Option<u32> {
        self.channels.find(key.hash(), |channel| channel.key() == key)
    }

    pub(super) fn find_or_insert(&mut self, key: &ChannelKey) -> u32 {
        let same = |channel: &C| channel.key() == key;
        self.channels.find_or_insert(key.hash(), same, || C::new(key.clone()))
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.channels.remove(number);
        self.lists.forget(number);
    }

    pub(super) fn get(&self, number: u32) -> Option<&C> {
        self.channels.get(number)
    }

    /// All numbers are below this one.
    pub(super) fn end(&self) -> u32 {
        self.channels.end()
    }

    /// Asserts that the counters are what a walk over all channels finds.
    #[cfg(test)]
    pub(super) fn assert_counted(&self) {
        let mut walked: PerApp<ChannelCounters> = PerApp::default();
        for channel in (0..self.end()).filter_map(|number| self.get(number)) {
            let (app, kind) = (channel.key().app(), channel.key().name().kind());
            walked.of(app).members += u64::from(channel.users());
            walked.of(app).occupied[kind as usize] += u64::from(!channel.interest().is_empty());
        }
        for app in 0..APPS_MAX {
            let count = |of: &PerApp<ChannelCounters>| of.get(app).copied().unwrap_or_default();
            assert_eq!(count(&self.counters), count(&walked));
        }
    }

    /// Counts a channel that has its first subscriber.
    pub(super) fn occupy(&mut self, key: &ChannelKey) {
        let index = usize::from(key.app().0);
        self.occupied.resize(self.occupied.len().max(index + 1), 0);
        self.occupied[index] += 1;
        self.counters.of(key.app()).occupied[key.name().kind() as usize] += 1;
    }

    /// Counts a channel less, because its last subscriber is gone.
    pub(super) fn vacate(&mut self, key: &ChannelKey) {
        if let Some(count) = self.occupied.get_mut(usize::from(key.app().0)) {
            *count -= 1;
            self.counters.of(key.app()).occupied[key.name().kind() as usize] -= 1;
        }
    }

    /// Counts a user who is present in one more channel.
    pub(super) fn member_added(&mut self, app: AppIndex) {
        self.counters.of(app).members += 1;
    }

    /// Counts users less who were present in a channel.
    pub(super) fn members_removed(&mut self, app: AppIndex, members: u32) {
        self.counters.of(app).members -= u64::from(members);
    }
}

/// Joins that are refused, and client events.
impl<C: ChannelRecord> ChannelTable<C> {
    /// Refuses a join of a channel that is full.
    pub(super) fn refuse(
        &mut self,
        from: ShardId,
        key: ChannelKey,
        conn: ConnKey,
        ticket: u32,
        out: &mut Outbox,
    ) {
        self.refused.insert((from, ticket));
        let joined = Joined { key, conn, ticket, outcome: Outcome::Full, told: 0 };
        out.send(from, FromHome::Joined(Box::new(joined)));
    }

    /// Whether a message names a join that was refused.
    pub(super) fn is_refused(&self, from: ShardId, ticket: Option<u32>) -> bool {
        ticket.is_some_and(|ticket| self.refused.contains(&(from, ticket)))
    }

    /// Forgets a refusal that a shard acknowledges. Returns whether there was one.
    pub(super) fn acknowledge(&mut self, from: ShardId, ticket: Option<u32>) -> bool {
        ticket.is_some_and(|ticket| self.refused.remove(&(from, ticket)))
    }

    /// Notifies webhooks of a client event, and returns it for the subscribers. If the join of its
    /// sender was refused, tells the sender instead.
    pub(super) fn accept(
        &self,
        from: ShardId,
        whisper: Whisper,
        out: &mut Outbox,
    ) -> Option<Event> {
        if self.refuses(from, &whisper) {
            refuse_whisper(from, whisper, out);
            return None;
        }
        let Whisper { event, notice, .. } = whisper;
        if let Some(notice) = notice {
            let (app, channel) = (event.key.app(), event.key.name().clone());
            out.notify(Notice { app, channel, event: ChannelEvent::ClientEvent(notice) });
        }
        Some(event)
    }
}

/// The state of channels, and its announcement.
impl<C: ChannelRecord> ChannelTable<C> {
    /// The answer to a join that was counted.
    pub(super) fn subscribed(&mut self, number: u32, now: Millis) -> Outcome {
        let channel = &self.channels[number];
        let last = self.cache.get(channel.key(), now);
        self.lists.subscribed(number, channel.key(), channel.members(), last)
    }

    /// Answers a question of the API.
    pub(super) fn answer(
        &mut self,
        reply_to: ReplyTo,
        question: Question,
        now: Millis,
        out: &mut Outbox,
    ) {
        let answer = match question {
            Question::Barrier => Answer::Barrier,
            Question::State(key) => Answer::State(self.state(&key, now)),
            Question::Users(key) => Answer::Users(self.users(&key)),
            Question::Connections(_) => {
                broken("a home is asked for the connections of an app");
                Answer::Unavailable
            }
            Question::Occupied(app, prefix) => {
                return self.list(Listing { reply_to, app, prefix, from: 0 }, now, out);
            }
        };
        out.send(reply_to.shard, FromHome::Answer(reply_to, Box::new(answer)));
    }

    /// The state of a channel; all zeros if no shard has a subscriber and no event is cached.
    pub(super) fn state(&self, key: &ChannelKey, now: Millis) -> ChannelState {
        let channel = self.find(key).map(|number| &self[number]);
        ChannelState {
            subscription_count: channel.map_or(0, |channel| channel.interest().total()),
            user_count: channel.map_or(0, C::users),
            cached: self.cache.get(key, now).map(|last| last.reported(now)),
        }
    }

    /// Whether a channel would keep its last event, and has none.
    pub(super) fn misses(&self, number: u32, now: Millis) -> bool {
        let key = self[number].key();
        key.name().kind().is_cache() && self.cache.get(key, now).is_none()
    }

    /// Sends the subscribers of a channel their number, now or at the end of a pause, if their app
    /// wants that. Presence channels announce members instead.
    pub(super) fn announce_count(
        &mut self,
        number: u32,
        count: u32,
        now: Millis,
        out: &mut Outbox,
    ) {
        let key = self.channels[number].key();
        if self.wanted.of(key.app()).counts
            && !key.name().kind().is_presence()
            && self.counts.take(key, count, now)
        {
            self.deliver_count(number, count, out);
        }
    }

    fn deliver_count(&self, number: u32, count: u32, out: &mut Outbox) {
        let channel = &self[number];
        channel.deliver(&outbound::subscription_count(channel.key().name(), count), None, out);
    }

    /// The ids of the users who are members, once each.
    pub(super) fn users(&self, key: &ChannelKey) -> Vec<Box<str>> {
        let members = self.find(key).into_iter().flat_map(|number| self[number].members());
        members.map(|member| Box::from(&*member.user_id)).collect()
    }

    /// Sends the next part of a list, and keeps the rest for later.
    fn list(&mut self, listing: Listing, now: Millis, out: &mut Outbox) {
        let occupied = |number| {
            let channel = self.get(number).filter(|channel| !channel.interest().is_empty());
            channel.map(C::key)
        };
        let state = |key: &ChannelKey| self.state(key, now);
        let rest = listing.send_part(self.end(), occupied, state, out);
        self.listings.extend(rest);
    }
}

impl<C: ChannelRecord> Index<u32> for ChannelTable<C> {
    type Output = C;

    fn index(&self, number: u32) -> &C {
        &self.channels[number]
    }
}

impl<C: ChannelRecord> IndexMut<u32> for ChannelTable<C> {
    fn index_mut(&mut self, number: u32) -> &mut C {
        &mut self.channels[number]
    }
}

/// Tells the sender of a client event that its join was refused.
pub(super) fn refuse_whisper(from: ShardId, whisper: Whisper, out: &mut Outbox) {
    if let Some(joining) = whisper.joining {
        let name = whisper.event.key.name().clone();
        out.send(from, FromHome::NotMember(joining.conn, name));
    }
}
